"""Compress a network with an operator of one's own in the middle: com.example::Scale2, which scale2.cc computes.

Run: ``python samples/custom_operator/run.py [OUT]``. Builds the library with the C++ compiler (``CXX``, or g++), makes
a small network and data with numpy, and compresses it. Exits with 1 below its bar: at most 40 % of the parameters, at
most 1 point of test accuracy lost, and a proof of at least 80 dB. Exits with 2 where there is no compiler.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import onnxadmm as oa

FOLDER = Path(__file__).resolve().parent
BUDGET = 0.4
POINTS_LOST = 1.0
DECIBELS = 80.0
RECIPE = oa.Recipe(epochs=10, retrain_epochs=20, batch_size=64)

FEATURES, CLASSES = 16, 4
WIDTHS = (FEATURES, 48, 64, 96, CLASSES)

Array = NDArray[np.float32]


def compiler() -> str | None:
    """The C++ compiler of this machine, None where there is none."""
    return shutil.which(os.environ.get("CXX", "g++"))


def build(folder: Path) -> Path:
    """Build the library of Scale2 in a folder, and return its path."""
    library = folder / ("scale2.dll" if sys.platform == "win32" else "libscale2.so")
    options = ["-std=c++17", "-O2", "-shared", "-fPIC", "-fvisibility=hidden"]
    command = [compiler() or "g++", *options, str(FOLDER / "scale2.cc"), "-o", str(library)]
    subprocess.run(command, check=True)
    return library


def make_data(count: int, *, seed: int) -> tuple[Array, NDArray[np.int64]]:
    """Points around three centres for each class: float32 ``[count, 16]`` and int64 ``[count]``."""
    centres = np.random.default_rng(0).standard_normal((3 * CLASSES, FEATURES)).astype(np.float32)
    generator = np.random.default_rng(seed)
    nearest = generator.integers(0, len(centres), count)
    noise = generator.standard_normal((count, FEATURES)).astype(np.float32)
    return centres[nearest] + np.float32(0.5) * noise, nearest % CLASSES


def make_model() -> onnx.ModelProto:
    """Four layers with Scale2 behind the second; random but for the last, which least squares fit to the data."""
    generator = np.random.default_rng(1)
    weights: dict[str, Array] = {}
    for number, (width, inputs) in enumerate(zip(WIDTHS[1:], WIDTHS[:-1], strict=True), start=1):
        scale = np.float32(np.sqrt(2 / inputs))
        weights[f"layer{number}.weight"] = scale * generator.standard_normal((width, inputs)).astype(np.float32)
        weights[f"layer{number}.bias"] = np.float32(0.1) * generator.standard_normal(width).astype(np.float32)
    points, labels = make_data(4000, seed=2)
    hidden = points
    for number in (1, 2, 3):
        hidden = np.maximum(hidden @ weights[f"layer{number}.weight"].T + weights[f"layer{number}.bias"], 0)
        hidden = 2 * hidden if number == 2 else hidden
    known = np.concatenate([hidden, np.ones((len(hidden), 1), np.float32)], axis=1)
    wanted = np.float32(8) * (np.eye(CLASSES, dtype=np.float32)[labels] - np.float32(0.5))
    # The ridge keeps columns that are nearly the same from getting huge weights of opposite signs.
    fitted = np.linalg.solve(known.T @ known + 10 * np.eye(known.shape[1]), known.T @ wanted).astype(np.float32)
    weights["layer4.weight"], weights["layer4.bias"] = np.ascontiguousarray(fitted[:-1].T), fitted[-1].copy()

    nodes = []
    value = "points"
    for number in (1, 2, 3, 4):
        names = [f"layer{number}.weight", f"layer{number}.bias"]
        nodes.append(helper.make_node("Gemm", [value, *names], [f"sum{number}"], name=f"layer{number}", transB=1))
        value = f"sum{number}"
        if number < 4:
            nodes.append(helper.make_node("Relu", [value], [f"relu{number}"]))
            value = f"relu{number}"
        if number == 2:
            nodes.append(helper.make_node("Scale2", [value], ["scaled"], name="scale", domain="com.example"))
            value = "scaled"
    nodes[-1].output[0] = "logits"
    graph = helper.make_graph(
        nodes,
        "custom_operator",
        [helper.make_tensor_value_info("points", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def show_groups(model: Path, library: Path) -> None:
    """Print what may go and what stays."""
    units = oa.find_groups(model, custom_ops=[library])
    for group in units.groups:
        print(f"  {group.name}: {group.count} units may go")
    for locked in units.locked:
        print(f"  {locked.name}: {locked.count} units stay, {locked.reason}")


def run(out: Path) -> int:
    """Compress into ``out`` and hold the result to the bar."""
    out.mkdir(parents=True, exist_ok=True)
    library, model = build(out), out / "original.onnx"
    onnx.save(make_model(), model)
    print("Without a rule for Scale2, what it touches is locked, and everything else may go:")
    show_groups(model, library)
    import rules  # noqa: F401  (declares the rule)

    print("With rules.py:")
    show_groups(model, library)
    report = oa.compress(
        model,
        data=make_data(4000, seed=2),
        test=make_data(2000, seed=3),
        budget=oa.Budget(params=BUDGET),
        recipe=RECIPE,
        custom_ops=[library],
        out=out / "compressed",
        force=True,
    )
    assert report.before.test is not None  # test data were given
    assert report.after.test is not None
    assert report.verification is not None
    before, after = report.before.test.value, report.after.test.value
    decibels = report.verification.snr_db
    left = report.after.parameters / report.before.parameters
    print(
        f"{100 * left:.1f} % of the parameters left, test accuracy {before:.4f} -> {after:.4f}, "
        f"proven to {decibels:.0f} dB"
    )
    return 0 if left <= BUDGET and 100 * (before - after) <= POINTS_LOST + 1e-9 and decibels >= DECIBELS else 1


def main() -> int:
    """Run in the folder given, or in a temporary one."""
    if compiler() is None:
        print("This sample needs a C++ compiler: install g++, or name one in CXX.", file=sys.stderr)
        return 2
    if len(sys.argv) > 1:
        return run(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder))


if __name__ == "__main__":
    sys.exit(main())
