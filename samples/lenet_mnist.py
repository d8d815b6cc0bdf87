"""Compress a trained LeNet-5 to 1 % of its parameters on MNIST.

Run: ``python samples/lenet_mnist.py MODEL DATA [--out OUT] [--params SHARE]``. DATA is a folder with the four IDX files
of MNIST, gzipped or not; MODEL reads float32 ``[N, 1, 28, 28]``, pixels from 0 to 1, then mean 0.1307 and standard
deviation 0.3081. Exits with 1 below its bar: the budget kept; at least 99.0 % on the 10,000 test images (99.3 % from a
tenth of the parameters on); at most 40 kB for 1 %; verified to at least 80 dB.
"""

import argparse
import sys
from pathlib import Path

import onnxadmm as oa
from onnxadmm.console import ConsoleProgress, stderr_console, stdout_console
from onnxadmm.report.table import report_view

MEAN, STD = 0.1307, 0.3081
FILES = {
    "training": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def idx_pair(folder: Path, part: str) -> str:
    """Return ``IMAGES,LABELS`` of a part of MNIST, whatever the files' prefix and whether they are gzipped."""
    found = []
    for name in FILES[part]:
        matches = sorted(path for path in folder.glob(f"*{name}*") if path.suffix in (".gz", ""))
        if not matches:
            sys.exit(f"{folder}: expected a file named like {name}, found none; give the folder of MNIST's IDX files.")
        found.append(str(matches[0]))
    return ",".join(found)


def shortfalls(report: oa.Report, share: float) -> list[str]:
    """Return what the result misses, in words; nothing when it meets the bar."""
    least = 0.993 if share >= 0.1 else 0.990
    test, proof, size = report.after.test, report.verification, report.after.file_bytes
    missed = []
    if report.after.parameters > share * report.before.parameters + 1e-6:
        missed.append(f"{report.after.parameters:,} parameters, more than {share:g} of {report.before.parameters:,}")
    if test is None or test.value < least:
        missed.append(f"test accuracy {0.0 if test is None else test.value:.4f}, less than {least}")
    if share <= 0.01 and size > 40_000:
        missed.append(f"{size:,} bytes, more than 40,000")
    if proof is None or not proof.passed or proof.snr_db < 80:
        missed.append("verified to less than 80 dB")
    return missed


def main() -> int:
    """Compress, show the report, hold it to the bar."""
    parser = argparse.ArgumentParser(description="Compress a trained LeNet-5 on MNIST.")
    parser.add_argument("model", type=Path, help="the trained network, .onnx")
    parser.add_argument("data", type=Path, help="folder with the four IDX files of MNIST")
    parser.add_argument("--out", type=Path, default=Path("out/lenet"), help="folder for the results")
    parser.add_argument("--params", type=float, default=0.01, help="share of the parameters that may stay")
    parser.add_argument("--epochs", type=int, help="passes over the data while a training chooses units")
    parser.add_argument("--retrain-epochs", type=int, help="passes while retraining")
    given = parser.parse_args()
    try:
        with ConsoleProgress(stderr_console()) as progress:
            report = oa.compress(
                given.model,
                data=idx_pair(given.data, "training"),
                test=idx_pair(given.data, "test"),
                budget=oa.Budget(params=given.params),
                recipe=oa.Recipe(epochs=given.epochs, retrain_epochs=given.retrain_epochs),
                preprocessing=oa.Preprocessing(mean=[MEAN], std=[STD]),
                out=given.out,
                force=True,
                progress=progress,
            )
    except oa.OnnxAdmmError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_status
    stdout_console().print(report_view(report))
    missed = shortfalls(report, given.params)
    for sentence in missed:
        print(f"Below the bar: {sentence}.", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
