"""A smoke test of an installed package, without pytest: ``python tests/smoke.py``, from outside the checkout.

``plan``, ``shrink``, ``verify``, ``bench``, a whole ``compress --calibrate``, and its result in bytes; a training step,
and a small ``compress`` that trains, with each engine that is to work here.
"""

import contextlib
import io
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import onnxadmm
from onnxadmm.cli import main
from onnxadmm.demo import demo_files
from onnxadmm.train.engine import Engine, choose_engine, providers


def run(*words: object, status: int = 0) -> tuple[str, str]:
    """Run a command in this process; return what it wrote to stdout and stderr."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        found = main([str(word) for word in words])
    check(found == status, f"{words[0]}: status {found}, expected {status}\n{stdout.getvalue()}{stderr.getvalue()}")
    return stdout.getvalue(), stderr.getvalue()


def check(holds: bool, sentence: str) -> None:
    if not holds:
        sys.exit(f"smoke test failed: {sentence}")


def without_training(folder: Path) -> None:
    """Plan, shrink, verify and bench, which need nothing but an inference runtime."""
    model, plan, small = demo_files().model, folder / "plan.json", folder / "small.onnx"
    groups = json.loads(run("inspect", model, "--json")[0])
    check(bool(groups), "inspect found nothing")
    run("plan", model, "--params", "0.3", "-o", plan)
    run("shrink", model, plan, "-o", small)
    check(small.stat().st_size < 0.35 * model.stat().st_size, "shrink left a large file")
    proof = json.loads(run("verify", model, small, plan, "--json")[0])
    check(proof["passed"], f"verification failed: {proof}")
    table, _ = run("bench", model, small, "--seconds", "0.3", "--json")
    check(bool(json.loads(table)), "bench measured nothing")


def calibrating(folder: Path) -> None:
    """A whole compression from images without labels."""
    files, images, out = demo_files(), folder / "images.npy", folder / "calibrated"
    with np.load(files.training) as archive:
        np.save(images, archive["images"][:512])
    words = ("--calibrate", images, "--scale", 1 / 16, "--test", files.test, "--params", "0.3", "--effort", "quick")
    report, _ = run("compress", files.model, *words, "--out", out, "--json")
    found: dict[str, Any] = json.loads(report)
    check(found["verification"]["passed"], "verification of the calibrated network failed")
    check(found["after"]["parameters"] <= 0.3 * found["before"]["parameters"], "the budget was not met")
    held_out, test = found["after"]["heldout"], found["after"]["test"]
    check((held_out["metric"], test["metric"]) == ("agreement", "accuracy"), f"measured {held_out} and {test}")
    check(held_out["value"] >= 0.9, f"agreement with the original {held_out['value']}")
    check(test["value"] >= found["before"]["test"]["value"] - 0.02, f"test accuracy {test['value']} after calibration")
    check(found["options"]["output_error"] < 0.05, f"error of the outputs {found['options']['output_error']}")
    plan = {group["name"]: len(group["removed"]) for group in json.loads((out / "plan.json").read_text())["groups"]}
    lines = [line for line in found["groups"] if line["locked"] is None]
    gone = {line["name"]: line["units_before"] - line["units_after"] for line in lines}
    check(plan == gone, f"the plan removes {plan}, the report says {gone}")
    small, quantized = out / "model.onnx", folder / "int8.onnx"
    read = ("--calibrate", images, "--scale", 1 / 16, "--test", files.test, "--no-bench", "--json")
    bytes_of: dict[str, Any] = json.loads(run("quantize", small, *read, "-o", quantized)[0])
    check(quantized.stat().st_size < 0.5 * small.stat().st_size, "bytes left a large file")
    lost = bytes_of["before"]["test"]["value"] - bytes_of["after"]["test"]["value"]
    check(lost <= 0.02, f"bytes cost {lost} of the test accuracy")


def training(folder: Path, engine: Engine) -> None:
    """A step of training, and a small compression."""
    diagnosis, _ = run("doctor", "--json")
    check(f"{engine} engine" in diagnosis, f"doctor tried no {engine} engine")
    files = demo_files()
    words = _compress(files.model, files.training, folder / engine)
    report, _ = run(*words, "--test", files.test, "--engine", engine, "--json")
    found: dict[str, Any] = json.loads(report)
    check(found["verification"]["passed"], "verification failed")
    check(found["options"]["engine"] == engine, f"trained by {found['options']['engine']}")
    check(found["after"]["parameters"] <= 0.3 * found["before"]["parameters"], "the budget was not met")
    accuracy = found["after"]["test"]["value"]
    check(accuracy >= 0.9, f"test accuracy {accuracy}")


def _compress(model: Path, data: Path, out: Path) -> tuple[object, ...]:
    budget = ("--params", "0.3", "--epochs", "4", "--retrain-epochs", "4", "--batch-size", "64")
    return ("compress", model, "--data", data, "--scale", 1 / 16, "--out", out, *budget)


def everything() -> None:
    """Run what this interpreter can do, and say what it was."""
    build = sys.version_info < (3, 13) and platform.system() == "Linux" and platform.machine() == "x86_64"
    engines: tuple[Engine, ...] = ("training", "plain") if build else ("plain",)
    check(choose_engine() == engines[0], f"{choose_engine()} is what trains on CPython {platform.python_version()}")
    with tempfile.TemporaryDirectory() as name:
        without_training(Path(name))
        calibrating(Path(name))
        for engine in engines:
            training(Path(name), engine)
    owners = ", ".join(f"{owner} {version}" for owner, version in providers().items())
    print(
        f"onnxadmm {onnxadmm.__version__} on CPython {platform.python_version()}, {owners}, numpy {np.__version__}: "
        f"plan, shrink, verify, bench, a calibration, its bytes, training ({', '.join(engines)}): all work"
    )


if __name__ == "__main__":
    everything()
