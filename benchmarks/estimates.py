"""What ``onnxadmm estimate`` says beside what the run takes, and the plans of docs/scale.md.

Run from the root of the repository: ``python -m benchmarks.estimates --cifar FOLDER --models FOLDER [--only NAME]``.
``--cifar`` is the folder of ``benchmarks.base_models``, ``--models`` that of ``benchmarks.estimates_models``. A cell is
an estimate, and behind it the command that it printed, both in processes of their own with nothing else on the machine;
what is compared is the whole time of that command by the clock, and the seconds of its trainings. A plan is an estimate
alone, of 192 drawn pictures that stand for the 1,281,167 of ImageNet. Each is a file of benchmarks/results/estimates/
and measured once: what is there is left alone. Writes
benchmarks/estimates.md, and the plans into docs/scale.md. The status is 1 where an estimate is off
by more than 15 %. ``--only memory`` weighs steps of a
ResNet-50.
"""

import argparse
import inspect
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

import onnxadmm as oa
from benchmarks.data_pipeline import MEAN, STD, draw
from benchmarks.estimates_table import PAGE, RESULTS, memory, plans, render, teacher
from onnxadmm.bench.simd import this_machine
from onnxadmm.estimate.answer import answer
from onnxadmm.estimate.measure import seen
from onnxadmm.estimate.question import Question
from onnxadmm.graph.model import load
from onnxadmm.progress import SILENT
from onnxadmm.report.codec import encode
from onnxadmm.runtime.resident import Gauge
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.trainer import OrtTrainer

ROOT: Final = Path(__file__).resolve().parents[1]
SCALE: Final = ROOT / "docs" / "scale.md"
OFF: Final = 0.15
CIFAR: Final = ("--mean", "0.4914,0.4822,0.4465", "--std", "0.247,0.2435,0.2616")
IMAGENET: Final = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--resize", "256")
AUGMENT: Final = ("--augment", "rrc224,flip")
AUGMENTED: Final = ("--augment", "flip,crop4")
SMALL: Final = ("--norm", "keep", "--batch-size", "16", "--learning-rate", "1e-6")
#: Pictures that are drawn, and those of ImageNet that they stand for in a plan.
PICTURES: Final = 192
SAMPLES: Final = 1_281_167


@dataclass(frozen=True)
class Cell:
    """An estimate and its run.

    Attributes:
        model: file in ``benchmarks/models``, or of ``--models``.
        images: of CIFAR-10; 0: drawn pictures.
        options: of both.
    """

    model: str
    images: int
    options: tuple[str, ...]


CELLS: Final = {
    "resnet20": Cell("resnet20.onnx", 4000, (*AUGMENTED, "--epochs", "6", "--retrain-epochs", "12")),
    "mobilenetv2": Cell("mobilenetv2.onnx", 4000, (*AUGMENTED, "--epochs", "3", "--retrain-epochs", "5")),
    "cifarnet": Cell("cifarnet.onnx", 4000, ("--epochs", "3", "--retrain-epochs", "6")),
    "resnet50": Cell(
        "resnet50_dynamo.onnx",
        0,
        (*IMAGENET, *AUGMENT, *SMALL, "--epochs", "2", "--retrain-epochs", "0", "--no-bench"),
    ),
}
#: What the plans train with beside what is usual, and the cores that they shall have; None: those here.
PLANS: Final[Mapping[str, Mapping[str, Any]]] = {
    "resnet50": {"accumulate": 4, "norm": "keep"},
    "mobilenet_v2": {"accumulate": 2, "norm": "keep"},
    "alexnet": {},
    "vit_small_16": {"accumulate": 4},
}
CORES: Final = (None, 8, 32)


#: Of the memory of steps: batches as in the plans, processes, parts of each, and steps.
BATCH: Final = 128
WORKERS: Final = 2
ACCUMULATE: Final = (4, 8)
STEPS: Final = 2


def words(*given: object) -> list[str]:
    """Return a command of this package, in a process of its own."""
    return [sys.executable, "-m", "onnxadmm", *map(str, given)]


def said(command: list[str]) -> Any:
    """Run a command and return the document that it prints."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)


def drawn(folder: Path) -> Path:
    """Draw pictures, all of the first class: the networks know nothing, and their answers do not matter."""
    draw(folder / "pictures", PICTURES)
    table = folder / "pictures.txt"
    files = sorted((folder / "pictures").rglob("*.jpg"))
    table.write_text("".join(f"{path} 0\n" for path in files), encoding="utf-8")
    return table


def chosen(cifar: Path, folder: Path, count: int) -> Path:
    """Choose images of CIFAR-10 at random, with their classes."""
    with np.load(cifar / "train.npz") as arrays:
        places = np.sort(np.random.default_rng(0).permutation(len(arrays["labels"]))[:count])
        np.savez(folder / "images.npz", images=arrays["pixels"][places], labels=arrays["labels"][places])
    return folder / "images.npz"


def compared(cell: Cell, asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Estimate a run, make it, and return both."""
    if cell.images:
        source, model = chosen(asked.cifar, folder, cell.images), ROOT / "benchmarks" / "models" / cell.model
        options: tuple[str, ...] = (*CIFAR, *cell.options)
    else:
        source, model, options = drawn(folder), asked.models / cell.model, cell.options
    common = (model, "--data", source, "--out", folder / "out", "--macs", "0.5", "--expect-accuracy", "0", *options)
    estimate = said(words("estimate", *common, "--quiet", "--json"))
    command = words(*shlex.split(estimate["command"])[1:], "--quiet", "--json")
    begin = time.perf_counter()
    report = said(command)
    took = time.perf_counter() - begin
    stages = {stage["name"]: stage["seconds"] for stage in report["stages"]}
    return {"command": estimate["command"], "estimate": estimate, "took": took, "stages": stages}


def planned(name: str, asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Estimate a run on all of ImageNet, here and on other machines, from one look at it."""
    model = asked.models / f"{name}_dynamo.onnx"
    given = inspect.signature(oa.compress).bind(
        model,
        data=str(drawn(folder)),
        budget={"macs": 0.5},
        out="out",
        expect_accuracy=0,
        recipe=oa.Recipe(method="admm", **PLANS[name]),
        preprocessing=oa.Preprocessing(mean=MEAN, std=STD, resize=256, augment=AUGMENT[1]),
        inexact=name.startswith("vit"),
    )
    given.apply_defaults()
    questions = [Question(cores=cores, samples=SAMPLES) for cores in CORES]
    with seen(given.arguments, questions[-1], folder=folder, tell=SILENT, started=1.0) as found:
        answers = [answer(found, question) for question in questions]
    return {
        "command": answers[0].command,
        "estimate": {**encode(answers[0]), "seconds": answers[0].seconds},
        "elsewhere": [{**encode(each), "seconds": each.seconds} for each in answers[1:]],
    }


def weighed(asked: argparse.Namespace) -> dict[str, Any]:
    """Take steps of a ResNet-50 with several ``--accumulate``, each in a process of its own."""
    steps = []
    for accumulate in ACCUMULATE:
        command = [
            sys.executable,
            "-m",
            "benchmarks.estimates",
            "--models",
            str(asked.models),
            "--weigh",
            str(accumulate),
        ]
        steps.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return {"workers": WORKERS, "steps": steps}


def weigh(model: Path, accumulate: int) -> dict[str, int]:
    """Take three steps of batches of 128, and return the memory of this process and its workers."""
    gauge, generator = Gauge(), np.random.default_rng(0)
    images = generator.standard_normal((BATCH, 3, 224, 224), np.float32)
    labels, teachers = generator.integers(0, 1000, BATCH), np.zeros((BATCH, 1000), np.float32)
    whole = load(model)
    (name,) = (each.name for each in whole.ir.graph.inputs)
    batch = Batch({str(name): images}, labels, teachers, BATCH)
    gauge.reset()
    trained = OrtTrainer(whole, loss=oa.Recipe().objective(), batch_size=BATCH, workers=WORKERS, accumulate=accumulate)
    with trained as trainer:
        for _ in range(STEPS):
            trainer.backward(batch)
            trainer.update(1e-6)
        part = BATCH // (WORKERS * accumulate)
        found = {"accumulate": accumulate, "part": part, "expected_bytes": trainer.expected_bytes}
        return {**found, "peak_bytes": gauge.peak()}


def measured(name: str, measure: Callable[[Path], Mapping[str, Any]], models: Path) -> None:
    """Measure what was not measured before, and write its file, without the folders of this machine."""
    path = RESULTS / f"{name}.json"
    if path.exists():
        return
    with tempfile.TemporaryDirectory() as place:
        text = json.dumps({**measure(Path(place)), "machine": asdict(this_machine())}, indent=1)
    for folder, called in ((place, "FOLDER"), (models, "MODELS"), (ROOT / "benchmarks", "benchmarks")):
        text = text.replace(str(folder), called)
    path.write_text(text + "\n", encoding="utf-8")
    print(f"{name}: measured", flush=True)


def main() -> int:
    """Measure and write; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cifar", type=Path, default=Path("cifar10"))
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--only", help="one cell, plan-NAME or memory")
    parser.add_argument("--weigh", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.weigh is not None:
        print(json.dumps(weigh(asked.models / "resnet50_dynamo.onnx", asked.weigh)))
        return 0
    RESULTS.mkdir(parents=True, exist_ok=True)
    queue: dict[str, Callable[[Path], Mapping[str, Any]]] = {}
    for name, cell in CELLS.items():
        queue[name] = lambda folder, cell=cell: compared(cell, asked, folder)  # type: ignore[misc]
    for name in PLANS:
        queue[f"plan-{name}"] = lambda folder, name=name: planned(name, asked, folder)  # type: ignore[misc]
    queue["memory"] = lambda folder: weighed(asked)
    for name, measure in queue.items():
        if asked.only in (None, name):
            measured(name, measure, asked.models)
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    PAGE.write_text(render(found), encoding="utf-8")
    text = SCALE.read_text(encoding="utf-8")
    for name, written in (("plans", plans(found)), ("memory", memory(found)), ("teacher", teacher(found))):
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        text = f"{before}{begin}{written}\n" + "".join(rest.partition(f"<!-- /{name} -->")[1:])
    SCALE.write_text(text, encoding="utf-8")
    off = {name: cell["estimate"]["seconds"] / cell["took"] - 1 for name, cell in found.items() if "took" in cell}
    print({name: f"{100 * share:+.1f} %" for name, share in off.items()})
    return int(any(abs(share) > OFF for share in off.values()))


if __name__ == "__main__":
    raise SystemExit(main())
