"""Train the demo's network, samples/digits/digits.onnx, with onnxadmm's own trainer: no framework needed.

Run: ``python samples/make_digits_model.py [OUTPUT]``. Exits with 1 when the network misses its bar.
"""

import sys
from pathlib import Path

import numpy as np
import onnx

from onnxadmm.admm.schedule import learning_rate_at
from onnxadmm.graph.constants import with_constants
from onnxadmm.graph.model import Model, from_proto, save
from onnxadmm.train.data.batches import ArrayDataset, hold_out
from onnxadmm.train.data.fit import load_data
from onnxadmm.train.evaluate import evaluate
from onnxadmm.train.losses import Loss
from onnxadmm.train.prepare.signature import signature_of
from onnxadmm.train.trainer import OrtTrainer

FOLDER = Path(__file__).resolve().parent / "digits"
SCALE = 1 / 16  # stored values run from 0 to 16
EPOCHS = 60
BATCH = 64
LEARNING_RATE = 2e-3
BAR = 0.975

# 124,778 parameters; 64 positions after the first two convolutions, 16 and then 4 after the poolings.
NETWORK = """
<ir_version: 8, opset_import: ["" : 17], producer_name: "onnxadmm samples",
 doc_string: "Handwritten digits of 8x8 pixels, values 0 to 1, in ten classes">
digits (float[batch, 1, 8, 8] image) => (float[batch, 10] logits)
{
    c1 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (image, conv1_weight, conv1_bias)
    r1 = Relu (c1)
    c2 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (r1, conv2_weight, conv2_bias)
    r2 = Relu (c2)
    p2 = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r2)
    c3 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (p2, conv3_weight, conv3_bias)
    r3 = Relu (c3)
    p3 = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r3)
    flat = Flatten (p3)
    d1 = Gemm <transB = 1> (flat, dense1_weight, dense1_bias)
    r4 = Relu (d1)
    logits = Gemm <transB = 1> (r4, dense2_weight, dense2_bias)
}
"""

SHAPES = {
    "conv1": (32, 1, 3, 3),
    "conv2": (64, 32, 3, 3),
    "conv3": (96, 64, 3, 3),
    "dense1": (128, 384),
    "dense2": (10, 128),
}


def untrained(seed: int) -> onnx.ModelProto:
    """Return the network with normal weights of variance 2 / fan-in and zero biases (He et al., 2015)."""
    generator = np.random.default_rng(seed)
    model = onnx.parser.parse_model(NETWORK)
    for layer, shape in SHAPES.items():
        weight = generator.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        bias = np.zeros(shape[0])
        for name, array in ((f"{layer}_weight", weight), (f"{layer}_bias", bias)):
            model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    onnx.checker.check_model(model, full_check=True)
    return model


def train(model: Model, trainer: OrtTrainer, training: ArrayDataset, held_out: ArrayDataset) -> None:
    """Train, and leave the trainer at the weights that were best on held-out data."""
    steps = len(training) // BATCH
    best, best_accuracy = trainer.snapshot(), 0.0
    for epoch in range(EPOCHS):
        total = 0.0
        for step, batch in enumerate(training.batches(BATCH, seed=epoch, shuffle=True, augment=True, drop_last=True)):
            done = (epoch * steps + step + 0.5) / (EPOCHS * steps)
            total += trainer.backward(batch)
            trainer.update(learning_rate_at(done, peak=LEARNING_RATE, warm_up=0.05))
        accuracy = evaluate(with_constants(model, trainer.weights), held_out, loss=Loss()).accuracy or 0.0
        print(f"epoch {epoch + 1:2}: loss {total / steps:.4f}, held-out accuracy {accuracy:.4f}")
        if accuracy >= best_accuracy:
            best, best_accuracy = trainer.snapshot(), accuracy
    trainer.restore(best)


def main() -> int:
    """Train the network, write it, and say whether it met its bar."""
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "digits.onnx"
    model, loss = from_proto(untrained(seed=0)), Loss()
    signature = signature_of(model)
    data = load_data(FOLDER / "digits-train.npz", signature=signature, loss=loss, scale=SCALE, augment="crop1")
    test = load_data(FOLDER / "digits-test.npz", signature=signature, loss=loss, scale=SCALE)
    training, held_out = hold_out(data, seed=0)
    with OrtTrainer(model, loss=loss, batch_size=BATCH, weight_decay=0.05) as trainer:
        train(model, trainer, training, held_out)
        trained = with_constants(model, trainer.weights)
    save(trained, output, force=True)
    accuracy = evaluate(trained, test, loss=loss).accuracy or 0.0
    print(f"{output}: test accuracy {accuracy:.4f}, at least {BAR} asked")
    return 0 if accuracy >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
