"""Prune with onnxadmm, train with a loop of one's own in PyTorch: mask, train with the mask held, write back, shrink.

Run: ``python samples/own_training.py [OUT]``. Needs PyTorch, which onnxadmm itself does not. Uses the digits in
samples/digits. Exits with 1 below its bar: at most a fifth of the parameters, at most 1 point of test accuracy lost,
proven at 80 dB; with 2 where there is no PyTorch.
"""

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

import onnxadmm as oa

FOLDER = Path(__file__).resolve().parent / "digits"
PARAMETERS = 0.2
POINTS_LOST = 1.0
DECIBELS = 80.0
EPOCHS = 12
BATCH = 64
LEARNING_RATE = 2e-3

FloatArray = NDArray[np.float32]
Samples = tuple[FloatArray, NDArray[np.int64]]


def samples(name: str) -> Samples:
    """Images float32 ``[N, 1, 8, 8]`` from 0 to 1, as the network reads them, and their classes."""
    with np.load(FOLDER / name) as archive:
        return archive["images"][:, None].astype(np.float32) / np.float32(16), archive["labels"].astype(np.int64)


def logits_of(torch: Any, weights: dict[str, Any], images: Any) -> Any:
    """The network of digits.onnx in PyTorch, its parameters by the names that they have in the file."""
    functional = torch.nn.functional

    def convolved(layer: str, x: Any) -> Any:
        return functional.relu(functional.conv2d(x, weights[f"{layer}_weight"], weights[f"{layer}_bias"], padding=1))

    x = functional.max_pool2d(convolved("conv2", convolved("conv1", images)), 2)
    x = functional.max_pool2d(convolved("conv3", x), 2).flatten(1)
    x = functional.relu(functional.linear(x, weights["dense1_weight"], weights["dense1_bias"]))
    return functional.linear(x, weights["dense2_weight"], weights["dense2_bias"])


def train(
    torch: Any, masked: dict[str, FloatArray], free: dict[str, FloatArray], data: Samples
) -> dict[str, FloatArray]:
    """Train masked weights and hold the mask.

    Args:
        masked: all weights, those that read a removed unit zero.
        free: 1 where a weight may change, 0 where it stays zero; of the shapes of the weights.
        data: to train with.

    Returns:
        The trained weights, zero where the mask is.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so small a network is slower on more
    weights = {name: torch.nn.Parameter(torch.from_numpy(array)) for name, array in masked.items()}
    held = {name: torch.from_numpy(array) for name, array in free.items()}
    images, labels = (torch.from_numpy(array) for array in data)
    optimizer = torch.optim.Adam(weights.values(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(labels)).split(BATCH):
            loss = torch.nn.functional.cross_entropy(logits_of(torch, weights, images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for name, weight in weights.items():
                    weight *= held[name]
        schedule.step()
    return {name: weight.detach().numpy() for name, weight in weights.items()}


def accuracy(model: Path, data: Samples) -> float:
    """Share of right classes, through onnxruntime alone."""
    session = onnxruntime.InferenceSession(model.read_bytes(), providers=["CPUExecutionProvider"])
    return float((session.run(None, {"image": data[0]})[0].argmax(1) == data[1]).mean())


def run(out: Path) -> int:
    """Write ``small.onnx`` into ``out`` and hold it to the bar."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        print("this sample trains with PyTorch: pip install torch", file=sys.stderr)
        return 2
    model = FOLDER / "digits.onnx"
    plan = oa.rank(model, oa.Budget(params=PARAMETERS))
    original, masked = oa.weights(model), oa.weights(oa.mask(model, plan))
    free = {name: ((masked[name] != 0) | (original[name] == 0)).astype(np.float32) for name in masked}
    trained = oa.with_weights(model, train(torch, masked, free, samples("digits-train.npz")))
    small = oa.shrink(trained, plan)
    proof = oa.verify(trained, small, plan)

    out.mkdir(parents=True, exist_ok=True)
    oa.save(small, out / "small.onnx", force=True)
    test = samples("digits-test.npz")
    before, after = accuracy(model, test), accuracy(out / "small.onnx", test)
    left = sum(array.size for array in oa.weights(small).values()) / sum(array.size for array in original.values())
    print(f"{left:.1%} of the parameters, test accuracy {before:.4f} -> {after:.4f}, {proof.snr_db:.0f} dB")
    met = left <= PARAMETERS and 100 * (before - after) <= POINTS_LOST + 1e-9 and proof.snr_db >= DECIBELS
    return 0 if met else 1


def main() -> int:
    """Run in the folder given, or in a temporary one."""
    if len(sys.argv) > 1:
        return run(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder))


if __name__ == "__main__":
    sys.exit(main())
