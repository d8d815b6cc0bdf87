"""What some tests need and not every machine has: real data, trained models, a training engine, a C++ compiler."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from onnxadmm.train.engine import Engine, unavailable_reason

SHARED = Path(__file__).resolve().parents[2] / "shared"
SCALE2 = Path(__file__).resolve().parents[1] / "samples" / "custom_operator" / "scale2.cc"

#: The only way a test that trains is left out: no onnxruntime works.
needs_training = pytest.mark.skipif(unavailable_reason() is not None, reason="needs an onnxruntime that works")
#: Whether the training build of onnxruntime is installed, which has no wheel for some interpreters and machines.
TRAINS = unavailable_reason(engine="training") is None
#: The engines that work here.
ENGINES: tuple[Engine, ...] = ("training", "plain") if TRAINS else ("plain",)
needs_training_build = pytest.mark.skipif(not TRAINS, reason="needs the training build of onnxruntime")


def need_shared(name: str) -> Path:
    """Return ``../shared/<name>``; skip the test without it, or fail where continuous integration promises it."""
    path = SHARED / name
    if path.exists():
        return path
    if os.environ.get("CI") == "true":
        pytest.fail(f"{path} is missing although CI=true")
    pytest.skip(f"needs {path}, which is not part of the repository")


def compiled(source: str, library: Path) -> Path:
    """Compile C++ that may include the sample's header; skip without a compiler, or fail where CI promises one."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no C++ compiler although CI=true")
        pytest.skip("needs a C++ compiler, g++ or the one that CXX names")
    file = library.with_suffix(".cc")
    file.write_text(source)
    options = ["-std=c++17", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", f"-I{SCALE2.parent}"]
    subprocess.run([compiler, *options, str(file), "-o", str(library)], check=True)
    return library
