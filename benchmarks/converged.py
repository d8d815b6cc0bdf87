"""Converged networks and no option: what is lost where a tenth of the multiply-accumulates goes.

Run from the root of the repository: ``python -m benchmarks.converged --cifar FOLDER``, with FOLDER, ``--mnist`` and
``--models`` as for ``benchmarks.calibration``. Six networks are compressed by the command line with ``--macs 0.9`` and
nothing else that could be chosen: how pixels are scaled is told, since files of bytes do not say it. The three of
CIFAR-10 and LeNet-5 learn from all training images, the small BERT and the small ViT (``benchmarks.made_models``) from
the data they were trained on. Every run is a file of benchmarks/results/converged/ and is made once; one that was
interrupted goes on (out/converged/). ``--only`` names some, ``--again`` forgets them. Writes benchmarks/converged.md.
The status is 1 where more than 0.3 points are lost.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.calibration_table import TITLES
from benchmarks.machine import in_words
from benchmarks.made_data import KINDS, TEST, TRAINING
from benchmarks.pictured import ROOT, Images, path_of
from benchmarks.quality import SETTINGS
from onnxadmm.output import CHECKPOINT_NAME, UNFINISHED_NAME

RESULTS: Final = ROOT / "benchmarks" / "results" / "converged"
PAGE: Final = ROOT / "benchmarks" / "converged.md"
#: Where runs that were interrupted are.
UNFINISHED: Final = ROOT / "out" / "converged"
SHARE: Final = 0.9
#: Points that may be lost.
MOST: Final = 0.3

Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A network and its data.

    Attributes:
        title: in the table.
        model: its file.
        arrays: training or test data, given ``"train"`` or ``"test"``.
        pixels: options that say how stored values are read.
    """

    title: str
    model: Path
    arrays: Callable[[str], Arrays]
    pixels: tuple[str, ...] = ()


def cases(given: argparse.Namespace, folder: Path) -> dict[str, Case]:
    """Every network by its name, those that take the least time first."""
    images = Images(given, folder)
    found = {
        name: Case(title, ROOT / "benchmarks" / "models" / f"{name}_made.onnx", partial(made, name))
        for name, title in (("bert", "a BERT of two layers, drawn sentences"), ("vit", "a ViT of two layers, shapes"))
    }
    for name in ("lenet5", "mobilenetv2", "resnet20", "cifarnet"):
        network = SETTINGS[name].pictured
        pixels = (
            *("--mean", ",".join(f"{each:g}" for each in network.mean)),
            *("--std", ",".join(f"{each:g}" for each in network.std)),
        )
        found[name] = Case(
            TITLES[name], path_of(network, given.models), partial(pictured, images, network.data), pixels
        )
    return found


def made(name: str, part: str) -> Arrays:
    """Return drawn data: those that the network was trained on, or others."""
    inputs, labels = KINDS[name](*(TRAINING if part == "train" else TEST))
    return {"x": inputs, "labels": labels}


def pictured(images: Images, data: str, part: str) -> Arrays:
    """Return all images of a part."""
    pictures, labels = images.all(data, part)
    return {"images": pictures, "labels": labels}


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Run the command line as a user does, or go on with such a run, in a folder of its own, and return its report."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        np.savez(folder / f"{part}.npz", **case.arrays(part))
    words = [
        *("compress", str(case.model), "--data", str(folder / "train.npz"), "--test", str(folder / "test.npz")),
        *("--macs", f"{SHARE:g}", *case.pixels, "--out", str(folder / "out"), "--quiet", "--json"),
    ]
    resume = ["--resume"] if (folder / "out" / UNFINISHED_NAME / CHECKPOINT_NAME).exists() else ["--force"]
    done = subprocess.run(
        [sys.executable, "-m", "onnxadmm", *words, *resume], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    report = json.loads(done.stdout)
    result = {
        "command": shlex.join(["onnxadmm", *words]),
        "seconds": sum(stage["seconds"] for stage in report["stages"]),
        "report": report,
    }
    # Not the folders of this machine.
    text = json.dumps(result)
    for path, called in ((str(folder), "FOLDER"), (f"{ROOT}/", ""), (str(case.model.parent), "MODELS")):
        text = text.replace(path, called)
    plain: dict[str, Any] = json.loads(text)
    return plain


def lost(cell: Mapping[str, Any]) -> float:
    """Points of test accuracy that are gone."""
    before, after = (cell["report"][when]["test"]["value"] for when in ("before", "after"))
    return 100 * float(before - after)


def render(cells: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Return the page, in Markdown."""
    lines = [
        "# Converged networks and no option",
        "",
        "`onnxadmm compress --macs 0.9` of networks that were trained to their end, with the usual method, steps and "
        "learning rates, and without augmentation: what finds a rate that they bear is the "
        "[trial of rates](../docs/method.md#learning-rates). Accuracy is that of the whole test set.",
        "",
        "| network | before | after | lost, points | MACs left | parameters left | minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, cell in cells:
        before, after = cell["report"]["before"], cell["report"]["after"]
        figures = [
            *(f"{100 * each['test']['value']:.2f} %" for each in (before, after)),
            f"{lost(cell):.2f}",
            *(f"{100 * after[each] / before[each]:.1f} %" for each in ("macs", "parameters")),
            f"{cell['seconds'] / 60:.0f}",
        ]
        lines.append(f"| {title} | {' | '.join(figures)} |")
    notes = [(title, note) for title, cell in cells for note in cell["report"]["warnings"]]
    lines += ["", *(f"- {title}: {note}" for title, note in notes)]
    machines = sorted({in_words(cell["report"]["machine"]) for _, cell in cells})
    told = f"Measured on {'; '.join(machines)} by `python -m benchmarks.converged --cifar FOLDER`, seed 0:"
    lines += ["", told, "", "```sh", *(cell["command"] for _, cell in cells), "```"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Make the runs that are not there yet, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cifar", type=Path, help="folder with train/CLASS/* and test/CLASS/*, or the two .npz")
    parser.add_argument("--mnist", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--models", type=Path, default=ROOT.parent / "shared" / "models")
    parser.add_argument("--only", nargs="+", help="names of networks")
    parser.add_argument("--again", action="store_true", help="forget what was measured of them")
    given = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        known = cases(given, Path(place))
        for name in given.only or known:
            path = RESULTS / f"{name}.json"
            if path.exists() and not given.again:
                continue
            own = UNFINISHED / name
            if given.again:
                shutil.rmtree(own, ignore_errors=True)
            cell = measure(known[name], own)
            path.write_text(json.dumps(cell, indent=1) + "\n", encoding="utf-8")
            shutil.rmtree(own)
            print(f"{name}: {lost(cell):.2f} points lost in {cell['seconds']:.0f} s", file=sys.stderr, flush=True)
        cells = [
            (case.title, json.loads(path.read_text(encoding="utf-8")))
            for name, case in known.items()
            if (path := RESULTS / f"{name}.json").exists()
        ]
    PAGE.write_text(render(cells), encoding="utf-8")
    return int(any(lost(cell) > MOST for _, cell in cells))


if __name__ == "__main__":
    sys.exit(main())
