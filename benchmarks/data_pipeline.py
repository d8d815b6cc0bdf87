"""Images per second of reading alone, beside PyTorch's DataLoader, and memory against the number of images.

Run from the root of the repository: ``python -m benchmarks.data_pipeline [--torch PYTHON] [--images N] [--many N]``.
Draws JPEGs of about 440x440 pixels, as ImageNet has them, and reads them at 224 pixels for training (random parts,
mirrored) and for evaluation (shorter side 256, the middle). ``--torch`` names the Python of an environment with PyTorch
and Pillow, whose DataLoader does the same with Pillow, as torchvision's transforms do, in as many processes as there
are cores. Memory is the largest of a process that reads some batches of ``--many`` images and of 1,000. Writes
benchmarks/results/data_pipeline.json.
"""

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from onnxadmm.runtime.cores import usable_cores
from onnxadmm.train.data.batches import ArrayDataset
from onnxadmm.train.data.fit import load_data
from onnxadmm.train.data.prefetch import prefetch
from onnxadmm.train.losses import Loss
from onnxadmm.train.prepare.signature import signature_of

RESULTS = Path(__file__).resolve().parent / "results" / "data_pipeline.json"
BATCH = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Turns that both take, one after the other; the best of each counts, which other work disturbed least.
ROUNDS = 4
#: Batches that are read of many images, to see what they take of memory.
BATCHES = 50


def draw(folder: Path, count: int) -> None:
    """Write JPEGs of smooth noise, 375 to 500 pixels high and wide, in two classes."""
    draws = np.random.default_rng(0)
    for number in range(count):
        width, height = (int(side) for side in draws.integers(375, 501, 2))
        rough = draws.integers(0, 256, (24, 32, 3), np.uint8)
        path = folder / str(number % 2) / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=92)


def pack(path: Path, count: int) -> None:
    """Write a tar archive of small JPEGs, each with a label."""
    draws = np.random.default_rng(0)
    with tarfile.open(path, "w") as archive:
        for number in range(count):
            file = io.BytesIO()
            Image.fromarray(draws.integers(0, 256, (16, 16, 3), np.uint8)).save(file, "JPEG")
            for suffix, content in (("jpg", file.getvalue()), ("cls", str(number % 2).encode())):
                entry = tarfile.TarInfo(f"{number:08}.{suffix}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


def loaded(source: Path, size: int, *, augment: str, resize: int) -> ArrayDataset:
    """The images as a network of this size reads them, decoded when they are needed."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, size, size])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])
    weight = onnx.numpy_helper.from_array(np.zeros((3, 2), np.float32), "w")
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "reader", [image], [logits], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return load_data(
        source,
        signature=signature_of(model),
        loss=Loss(),
        mean=MEAN,
        std=STD,
        resize=resize,
        augment=augment,
        memory_limit=0,
    )


def rates(folder: Path) -> dict[str, float]:
    """Images per second of this package in one epoch of each kind."""
    found = {}
    for name, augment in (("training", "rrc224,flip"), ("evaluation", "")):
        data = loaded(folder, 224, augment=augment, resize=256)
        begin = time.perf_counter()
        for _ in prefetch(data.batches(BATCH, shuffle=True, augment=bool(augment))):
            pass
        found[name] = len(data) / (time.perf_counter() - begin)
    return found


def peak_megabytes(archive: Path) -> float:
    """Largest memory of a process of its own that lists, looks at and begins to read an archive."""
    words = [sys.executable, "-m", "benchmarks.data_pipeline", "--read", str(archive)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def read_some(archive: Path) -> None:
    """Read some batches, and print the largest memory of this process in MB."""
    data = loaded(archive, 128, augment="rrc128,flip", resize=144)
    for number, _ in enumerate(data.batches(BATCH, shuffle=True, augment=True)):
        if number == BATCHES:
            break
    # Not ``getrusage``, which remembers the process that this one was begun from.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(int(peak) * 1.024e-3)


def main() -> int:
    """Measure and write; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--torch", help="the Python of an environment with PyTorch and Pillow")
    parser.add_argument("--images", type=int, default=400, help="JPEGs that are read for the rates")
    parser.add_argument("--many", type=int, default=100_000, help="images that memory is compared with 1,000 for")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.read:
        read_some(asked.read)
        return 0
    result: dict[str, object] = {"cores": usable_cores(), "load": os.getloadavg()[0], "images": asked.images}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "jpegs"
        draw(folder, asked.images)
        turns: dict[str, list[dict[str, float]]] = {"onnxadmm": [], "torch": []}
        for _ in range(ROUNDS):
            turns["onnxadmm"].append(rates(folder))
            if asked.torch:
                script = Path(__file__).with_name("data_pipeline_torch.py")
                words = [asked.torch, str(script), str(folder), str(usable_cores()), str(BATCH)]
                done = subprocess.run(words, check=True, capture_output=True, text=True)
                turns["torch"].append(json.loads(done.stdout))
        for name, found in turns.items():
            result[name] = {kind: round(max(turn[kind] for turn in found), 1) for kind in found[0]} if found else None
        megabytes = {}
        for count in (1_000, asked.many):
            archive = Path(place) / f"{count}.tar"
            pack(archive, count)
            megabytes[f"{count}"] = round(peak_megabytes(archive), 1)
        result["peak_megabytes"] = megabytes
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
