"""What it is worth that branches of sums may go altogether: the same budgets with ``--keep-at-least`` 1 and 0.

Run from the root of the repository: ``python -m benchmarks.branches --cifar FOLDER``, with FOLDER and ``--models`` as
for ``benchmarks.calibration``. Every network is calibrated with 512 training samples, whose labels are not read.
Nothing is retrained, and the test samples judge. Every case is a file of benchmarks/results/branches/ and is measured
once; ``--only`` names some, ``--again`` forgets them. Writes benchmarks/branches.md.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

import onnxadmm as oa
from benchmarks.information import Case, network_of, samples_of
from benchmarks.machine import in_words
from benchmarks.pictured import ROOT, Images
from benchmarks.quality import SETTINGS
from onnxadmm.bench.simd import this_machine

RESULTS: Final = ROOT / "benchmarks" / "results" / "branches"
PAGE: Final = ROOT / "benchmarks" / "branches.md"
SAMPLES: Final = 512
EFFORT: Final = "quick"
#: Fewest units of a group that the runs keep.
LEAST: Final = (1, 0)


CASES: Final = (
    Case("resnet20", "latency", 0.4),
    Case("resnet20", "macs", 0.33),
    Case("resnet20", "macs", 0.2),
    Case("resnet20", "macs", 0.1),
    Case("mobilenetv2", "macs", 0.33),
    Case("vit", "macs", 0.2),
    Case("bert", "macs", 0.2),
)


def result_of(case: Case) -> Path:
    """Return the file of a case; one network has several kinds of budget here."""
    return RESULTS / f"{case.network}-{case.budget}-{case.share:g}.json"


def measure(case: Case, images: Images, models: Path) -> dict[str, Any]:
    """Calibrate a network with each limit; return what each leaves."""
    (inputs, _), test = (samples_of(case, images, part) for part in ("train", "test"))
    path, prepared = network_of(case, models)
    chosen = np.sort(np.random.default_rng(0).permutation(len(inputs))[:SAMPLES])
    found: dict[str, Any] = {}
    for least in LEAST:
        report = oa.compress(
            path,
            calibrate=inputs[chosen],
            test=test,
            budget={case.budget: case.share},
            limits=oa.Limits(keep_at_least=least),
            calibration={"effort": EFFORT},
            preprocessing=prepared,
        ).report
        before, after, (alone, *_) = report.before, report.after, report.latency
        assert before.test is not None
        assert after.test is not None
        assert report.verification is not None
        kept = [group.units_after for group in report.groups if group.locked is None]
        found[str(least)] = {
            "before": before.test.value,
            "after": after.test.value,
            "macs": [before.macs, after.macs],
            "kept": kept,
            "snr_db": report.verification.snr_db,
            "speedup": [alone.speedup_low, alone.speedup, alone.speedup_high],
        }
    return {"case": asdict(case), "found": found, "machine": asdict(this_machine())}


def render(cells: Sequence[tuple[Case, Mapping[str, Any]]]) -> str:
    """Write the page."""
    lines = [
        "# Branches that go altogether",
        "",
        f"`compress --calibrate` with {SAMPLES} training samples, `--effort {EFFORT}`, nothing retrained, "
        "with `--keep-at-least` 1 and 0 (with `--latency` 0 is the default, else 1): groups of which no unit is left, "
        "accuracy on the whole test set, and how many times faster the smaller network is on one sample (interleaved "
        "pairs; 95 % intervals are in the files).",
        "",
        "| | the original | `--keep-at-least` | groups gone | multiply-accumulates | test accuracy | times faster |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, cell in cells:
        for least, found in cell["found"].items():
            figures = (
                f"{case.title} | {100 * found['before']:.1f} %" if least == str(LEAST[0]) else " | ",
                least,
                f"{found['kept'].count(0)} of {len(found['kept'])}",
                f"{100 * found['macs'][1] / found['macs'][0]:.1f} %",
                f"{100 * found['after']:.1f} %",
                f"{found['speedup'][1]:.2f}",
            )
            lines.append(f"| {' | '.join(figures)} |")
    machines = sorted({in_words(cell["machine"]) for _, cell in cells})
    lines += ["", f"Measured on {'; '.join(machines)}, by `python -m benchmarks.branches`.", ""]
    return "\n".join(lines)


def main() -> int:
    """Measure what is not there yet, and write the page."""
    parser = argparse.ArgumentParser(description="Branches of sums that go altogether, and those that keep a unit.")
    parser.add_argument("--cifar", type=Path, help="folder with train/CLASS/* and test/CLASS/*, or the two .npz")
    parser.add_argument("--mnist", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--models", type=Path, default=ROOT.parent / "shared" / "models")
    parser.add_argument("--only", nargs="+", default=[""], help="cases whose names begin so")
    parser.add_argument("--again", action="store_true", help="forget what was measured of them")
    given = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        images = Images(given, Path(folder))
        for case in CASES:
            path = result_of(case)
            if not path.stem.startswith(tuple(given.only)) or (path.exists() and not given.again):
                continue
            if case.network in SETTINGS and given.cifar is None:
                continue
            path.write_text(json.dumps(measure(case, images, given.models), indent=2) + "\n")
            print(f"{path.stem}: measured", file=sys.stderr)
    there = [(case, result_of(case)) for case in CASES]
    PAGE.write_text(render([(case, json.loads(path.read_text())) for case, path in there if path.exists()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
