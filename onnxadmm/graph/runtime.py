"""A loaded model that runs, or one sentence why it does not."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from onnxadmm.errors import InputError, ModelFileError
from onnxadmm.graph.crash import crashing_node
from onnxadmm.graph.exact_integers import with_exact_integers
from onnxadmm.graph.harmless import is_harmless
from onnxadmm.graph.model import Model, clone, save, to_proto
from onnxadmm.graph.weights import give_back_pages
from onnxadmm.runtime.apart import ApartSession, CrashError
from onnxadmm.runtime.session import (
    AS_WRITTEN,
    SessionError,
    SessionOptions,
    Spinning,
    failures,
    no_kernel,
    open_inference,
    sentence,
)

Array = NDArray[Any]

# Larger models go through a file: in a message every weight would be in memory three times while loading.
_MESSAGE_BYTES: Final = 2**26
# The reference evaluator is Python; larger models would take hours.
_REFERENCE_BYTES: Final = 2**27
# Idle threads of one session would spin through the other session's turn.
_IN_TURNS: Final = SessionOptions(spinning=Spinning.WHILE_RUNNING)
_IR_LIMIT: Final = re.compile(r"max supported IR version: (\d+)")
_OPSET_LIMIT: Final = re.compile(
    r"Opset (\d+) is under development.*support for domain (\S+) is till opset (\d+)", re.S
)


class Session:
    """A model loaded for inference on the CPU.

    Attributes:
        name: how messages call the model.
        inputs: names of the inputs that must be fed.
        outputs: names of the outputs, in the model's order.
        threads: threads one operator may use; operators run one after the other.
        refusal: why ONNX's reference evaluator runs the model in onnxruntime's place; None where onnxruntime runs it.
    """

    def __init__(
        self,
        loaded: Any,
        *,
        name: str,
        threads: int,
        files: ExitStack,
        options: SessionOptions,
        model: Model | None,
        refusal: str | None,
    ) -> None:
        self._loaded = loaded
        self._options = options
        self._model = model  # where it runs apart: for saying where it crashes
        self._files = files
        self.name = name
        self.threads = threads
        self.refusal = refusal
        reference = isinstance(loaded, ReferenceEvaluator)
        # ONNX's evaluator raises whatever Python and numpy do.
        self._failures: tuple[type[Exception], ...] = (Exception,) if reference else failures()
        self.inputs: tuple[str, ...] = tuple(loaded.input_names if reference else _names(loaded.get_inputs()))
        self.outputs: tuple[str, ...] = tuple(loaded.output_names if reference else _names(loaded.get_outputs()))

    def run(self, feed: Mapping[str, Array], names: Sequence[str] | None = None) -> dict[str, Any]:
        """Run the model once.

        Args:
            feed: one array per name in ``inputs``.
            names: the outputs wanted; all when None.

        Returns:
            One result per name: an array, or a list or dict where the model puts out sequences or maps.

        Raises:
            ModelFileError: onnxruntime refuses the inputs, fails inside the model, or crashes on it.
        """
        wanted = list(self.outputs if names is None else names)
        if not wanted:
            return {}
        try:
            results = self._loaded.run(wanted, dict(feed))
        except CrashError as error:
            raise _crashed(self.name, self._model, feed, self._options, error) from error
        except self._failures as error:
            shapes = ", ".join(f"{name} {list(np.shape(array))} {_dtype(array)}" for name, array in feed.items())
            raise ModelFileError(
                self.name,
                expected=f"a model that runs with {shapes}",
                found=sentence(error),
                way_out="check the model's input shapes, or try another batch size",
            ) from error
        return dict(zip(wanted, results, strict=True))

    def end_profile(self) -> Path:
        """Stop profiling a session that was opened with ``profile``; return the file that onnxruntime has written."""
        return Path(self._loaded.end_profiling())

    def close(self) -> None:
        """Free the model and the file it was loaded from."""
        if isinstance(self._loaded, ApartSession):
            self._loaded.close()
        self._loaded = None
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_session(
    model: Model,
    *,
    threads: int = 1,
    as_written: bool = False,
    reordered: bool = False,
    here: bool = False,
    profile: Path | None = None,
) -> Session:
    """Load a model for inference on the CPU, in a process of its own unless native code is known to survive it.

    A model stamped with a newer IR version or opset than onnxruntime reads is restamped on the way in: the IR version
    says which features of the format a writer knew, and onnxruntime still refuses those it does not know by itself;
    the opset is lowered only where every node says the same in the older one.

    Args:
        model: the model; it is not changed.
        threads: threads one operator may use, at least 1.
        as_written: run node by node, without graph optimisations, in as little memory as possible, with integer
            products that are exact on every processor (see ``with_exact_integers``), and with ONNX's reference
            evaluator where onnxruntime does not know an operator. For comparing two networks: optimisations fuse by
            pattern and choose layouts by channel count, so equal networks of different widths would round differently
            for reasons that say nothing about them.
        reordered: with ``as_written``, and nevertheless with graph optimisations: the same sums in another order, for
            measuring what that alone changes.
        here: in this process in any case: for timing what has run in another one.
        profile: with ``here``, what the path of a file begins with that is told how long every node takes; None: none.

    Raises:
        ModelFileError: onnxruntime cannot load the model, e.g. because its opset is newer than the runtime, or crashes
            on it.
        InputError: the module onnxruntime is missing or broken, or ``threads`` is not positive.
    """
    name = str(model.path) if model.path is not None else (model.ir.graph.name or "the model")
    if threads < 1:
        raise InputError("threads", expected="at least 1", found=str(threads), way_out="give a positive number")
    options = replace(AS_WRITTEN if as_written else _IN_TURNS, threads=threads, profile=str(profile or ""))
    if reordered:
        options = replace(options, optimised=True)
    current = with_exact_integers(model) if as_written else model
    refusal: str | None = None
    apart = not (here or is_harmless(model))
    while True:
        with ExitStack() as stack:
            try:
                loaded = _load(options, current, stack, apart=apart)
            except CrashError as error:
                raise _crashed(name, current, None, options, error) from error
            except SessionError as error:
                lowered = _lowered(current, error)
                if lowered is not None:
                    current = lowered
                    continue
                if not as_written or model.file_bytes > _REFERENCE_BYTES:
                    raise _refusal(name, error) from error
                loaded, refusal = _reference(model, name, error), sentence(error)
            return Session(
                loaded,
                name=name,
                threads=threads,
                files=stack.pop_all(),
                options=options,
                model=current if apart else None,
                refusal=refusal,
            )


def _load(options: SessionOptions, model: Model, stack: ExitStack, *, apart: bool) -> Any:
    weights = sum(value.const_value.nbytes for value in model.ir.graph.initializers.values() if value.const_value)
    if weights <= _MESSAGE_BYTES:
        return open_inference(to_proto(model), options, apart=apart)
    path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxadmm-"))) / "model.onnx"
    save(replace(model, extras=replace(model.extras, external_data=True)), path)
    give_back_pages()
    return open_inference(path, options, apart=apart)


def _crashed(
    name: str, model: Model | None, feed: Mapping[str, Array] | None, options: SessionOptions, error: CrashError
) -> ModelFileError:
    """Return the refusal of a model on which native code crashes, with the operator where it is found."""

    def attempt(part: Model, inputs: Mapping[str, Array]) -> None:
        with ExitStack() as stack:
            loaded = _load(options, part, stack, apart=True)
            if feed is not None:
                loaded.run(_names(loaded.get_outputs()), inputs)
            loaded.close()

    # After a run without end every part would be waited for as long.
    node = None if error.slow or model is None else crashing_node(model, feed or {}, attempt)
    where = "" if node is None else f" in {node.op_type} ({node.name or node.outputs[0].name})"
    return ModelFileError(
        name,
        expected="a model that onnxruntime runs",
        found=f"{error}{where}",
        way_out="check the attributes and indices there, and export the model again",
    )


def _lowered(model: Model, error: Exception) -> Model | None:
    """Return the model with the stamp lowered that onnxruntime objects to; None where that would not do."""
    limit, opset = _IR_LIMIT.search(str(error)), _OPSET_LIMIT.search(str(error))
    if limit is not None:
        lowered = clone(model)
        lowered.ir.ir_version = int(limit[1])
        return lowered
    if opset is not None and opset[2] == "ai.onnx" and _means_the_same(model, int(opset[3])):
        lowered = clone(model)
        lowered.ir.opset_imports[""] = int(opset[3])
        return lowered
    return None


def _means_the_same(model: Model, version: int) -> bool:
    """Tell whether an older opset has every operator of the model with the attributes and operands that are used.

    Newer versions that only admit more types leave everything else as it was.
    """
    for node in model.ir.graph.all_nodes():
        if node.domain in ("", "ai.onnx"):
            try:
                schema = onnx.defs.get_schema(node.op_type, version)
            except onnx.defs.SchemaError:
                return False
            if not set(node.attributes) <= set(schema.attributes) or len(node.inputs) > schema.max_input:
                return False
    return True


def _reference(model: Model, name: str, error: Exception) -> ReferenceEvaluator:
    """Return ONNX's own evaluator, for operators newer than onnxruntime."""
    try:
        return ReferenceEvaluator(onnx.ModelProto.FromString(to_proto(model).SerializeToString()))
    except Exception as second:  # whatever the evaluator does not know
        raise _refusal(name, error) from second


def _refusal(name: str, error: Exception) -> ModelFileError:
    opset = _OPSET_LIMIT.search(str(error))
    if opset is not None:
        return ModelFileError(
            name,
            expected=f"opset {opset[3]} or older of {opset[2]}, the newest this onnxruntime runs",
            found=f"opset {opset[1]}",
            way_out="export the model with an older opset, or use a newer onnxruntime",
        )
    return no_kernel(name, error) or ModelFileError(
        name,
        expected="a model onnxruntime can load",
        found=sentence(error),
        way_out="check that it loads in onnxruntime by itself",
    )


def _names(arguments: Sequence[Any]) -> list[str]:
    return [argument.name for argument in arguments]


def _dtype(array: object) -> str:
    return str(getattr(array, "dtype", type(array).__name__))
