"""The one place that opens an onnxruntime session, with its options, and the one set of what it raises."""

import importlib
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import onnx

from onnxadmm.errors import InputError, ModelFileError
from onnxadmm.runtime.apart import ApartSession, RefusedError
from onnxadmm.runtime.apart_child import build_options
from onnxadmm.runtime.custom_ops import libraries_in_use

#: onnxruntime's log level: what goes wrong is raised, and need not be on stderr as well.
LOG_ERROR: Final = 3
#: How onnxruntime says that nobody computes an operator: while loading, without a schema, and with one.
_NO_KERNEL: Final = (
    re.compile(r"Fatal error: (?P<domain>[^\s:]*):(?P<operator>\w+)\(-?\d+\) is not a registered function/op"),
    re.compile(r'\("[^"]*", (?P<operator>\w+), "(?P<domain>[^"]*)", -?\d+\).*No Op registered for'),
    re.compile(r"Could not find an implementation for (?P<domain>[^\s:]*?):?(?P<operator>\w+)\(\d+\) node"),
)
#: Domains that onnxruntime brings itself, ONNX's own among them.
OWN_DOMAINS: Final = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")


class SessionError(RuntimeError):
    """onnxruntime does not load or run a model, in its own words on one line; callers say which and what to do."""


class Spinning(Enum):
    """How the threads of a session wait for work: turning in circles is quick, and takes cores from others."""

    ALWAYS = "also between runs"
    WHILE_RUNNING = "within a run"
    NEVER = "never"


@dataclass(frozen=True)
class SessionOptions:
    """What a session is opened with; operators run one after the other, on the CPU.

    Attributes:
        threads: of one operator; 0 leaves the choice to onnxruntime.
        optimised: whether onnxruntime rewrites the graph first; else it runs node by node as written.
        spinning: how the threads wait for work.
        memory_pattern: lay the memory of a run out as one block once its shapes are known, which keeps that block.
        memory_arena: keep freed memory for the next run.
        prepacking: store weights a second time, as the kernels like them best.
        in_order: of the nodes that could run, the one that stands first does; else onnxruntime walks up from the
            outputs, and may put off what would let go of large values.
        bfloat16: let products of float32 matrices be of their bfloat16 parts where onnxruntime and the CPU have such
            kernels: on Linux on ARM, where the processor has BF16. Elsewhere nothing changes.
        profile: what the path of a file begins with that onnxruntime writes its profile to; empty: none is made.
    """

    threads: int = 1
    optimised: bool = True
    spinning: Spinning = Spinning.ALWAYS
    memory_pattern: bool = True
    memory_arena: bool = True
    prepacking: bool = True
    in_order: bool = False
    bfloat16: bool = False
    profile: str = ""


#: Node by node in as little memory as possible: weights are read where the file is mapped, memory is given back.
AS_WRITTEN: Final = SessionOptions(
    optimised=False, spinning=Spinning.WHILE_RUNNING, memory_pattern=False, memory_arena=False, prepacking=False
)


def import_runtime() -> ModuleType:
    """Import onnxruntime late, so that a broken install can still be diagnosed.

    Raises:
        InputError: it is missing or broken.
    """
    try:
        runtime = importlib.import_module("onnxruntime")
        # Two providers that overwrote each other can leave a package that imports and holds nothing.
        runtime.InferenceSession  # noqa: B018
        runtime.set_default_logger_severity(LOG_ERROR)
    except (ImportError, AttributeError, OSError) as error:
        raise InputError(
            "onnxruntime",
            expected="a module that imports",
            found=sentence(error),
            way_out="run `onnxadmm doctor` to see which packages provide it",
        ) from error
    return runtime


def failures() -> tuple[type[Exception], ...]:
    """What onnxruntime raises: classes of its own, which share no parent but Exception, or Python's own."""
    native = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    own = [kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (RuntimeError, ValueError, TypeError, MemoryError, *own)


def _fields(options: SessionOptions) -> dict[str, Any]:
    return {**vars(options), "spinning": options.spinning.name}


def session_options(options: SessionOptions) -> Any:
    """Return options as onnxruntime's own object, the custom-operator libraries in use registered.

    Raises:
        InputError: onnxruntime is missing or broken, or takes a library no longer.
    """
    result = build_options(import_runtime(), _fields(options))
    for library in libraries_in_use():
        try:
            result.register_custom_ops_library(str(library.path))
        except failures() as error:
            raise library.refusal(sentence(error)) from error
    return result


def open_inference(source: onnx.ModelProto | bytes | Path, options: SessionOptions, *, apart: bool = False) -> Any:
    """Open an onnxruntime session on the CPU.

    Args:
        source: a model below 2 GB, serialised or not, or a file.
        options: how it runs; the custom-operator libraries in use are registered as well.
        apart: open and run it in a process of its own, for a model on which native code may crash.

    Returns:
        An ``onnxruntime.InferenceSession``, or an ``ApartSession``. What it raises while running is among
        ``failures()``.

    Raises:
        SessionError: onnxruntime does not load the model.
        CrashError: it crashed on it, with ``apart``.
        InputError: onnxruntime is missing or broken, or takes a custom-operator library no longer.
    """
    runtime = import_runtime()
    if isinstance(source, onnx.ModelProto):
        source = source.SerializeToString()
    if apart:
        try:
            return ApartSession(source, _fields(options), [str(library.path) for library in libraries_in_use()])
        except RefusedError as error:
            raise SessionError(" ".join(str(error).split())) from error
    given = session_options(options)
    try:
        return runtime.InferenceSession(
            str(source) if isinstance(source, Path) else source, given, providers=["CPUExecutionProvider"]
        )
    except failures() as error:
        raise SessionError(" ".join(str(error).split())) from error


def no_kernel(thing: str, error: BaseException) -> ModelFileError | None:
    """Return the refusal of a model with an operator that onnxruntime has no kernel for; None for other errors.

    Args:
        thing: what the sentence is about.
        error: what onnxruntime raised.
    """
    text = str(error)
    match = next((match for match in (pattern.search(text) for pattern in _NO_KERNEL) if match), None)
    if match is None:
        return None
    operator, domain = match["operator"], match["domain"]
    known = domain in OWN_DOMAINS
    return ModelFileError(
        thing,
        expected="operators that onnxruntime has a kernel for",
        found=f"{operator} of domain {domain or 'ai.onnx'}, which has none",
        way_out="use a newer onnxruntime, or give the library of a custom operator with --custom-ops"
        if known
        else "give the library that holds it with --custom-ops",
    )


def sentence(error: BaseException) -> str:
    """The useful part of an onnxruntime message, on one line: without error code, C++ signature and closing advice."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", text)
    text = re.sub(r"/\S+\.(?:cc|h):\d+ [^()]*\([^()]*\)(?: const)? ", "", text)
    text = text.removesuffix("Please fix either the inputs/outputs or the model.")
    return text[:300].rstrip(". ")
