"""Running a model on data in a plain session: its logits, its metrics, and its logits as a teacher."""

import threading
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxadmm.errors import DataError, ModelFileError, NotTrainableError
from onnxadmm.graph.constants import constant_of_node
from onnxadmm.graph.model import Model
from onnxadmm.runtime.session import SessionError, no_kernel
from onnxadmm.train.data.answers import Answers
from onnxadmm.train.data.batches import ArrayDataset, Batch
from onnxadmm.train.engine import IR_VERSION, OPSET, inference_session
from onnxadmm.train.figures import Figure
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.metrics import Meter, Metrics
from onnxadmm.train.prepare.nodes import as_proto, opset_of
from onnxadmm.train.prepare.opset import convert_opset
from onnxadmm.train.prepare.tail import Tail, cut_tail

FloatArray = NDArray[np.float32]
Array = NDArray[Any]

#: Bytes of samples that are run at a time: some 28 pictures of 224 x 224, more of them are no faster.
_PART_BYTES: Final = 16 << 20
#: Fewer samples than these are no part of their own: kernels work on several at a time.
LEAST_PART: Final = 8


class Predictor:
    """A model's logits, from a plain session, in batches of any size.

    Args:
        model: left as it is.
        task: decides where the tail is cut, as for training.
        threads: intra-op threads; 0 leaves the choice to onnxruntime.
        beside: parts of the samples that run at the same time, each in ``threads`` threads. What keeps cores busy that
            other processes take from as well: parts wait for each other once, threads of an operator at every node.
        output: output the loss uses, needed when several lead to different logits.
        replaceable: names of constants that ``logits`` may be given other values of.

    Raises:
        NotTrainableError, OptionError: as ``cut_tail`` does.
        ModelFileError: the installed onnxruntime does not load the model.
    """

    def __init__(
        self,
        model: onnx.ModelProto | Model,
        *,
        task: Task,
        threads: int = 1,
        beside: int = 1,
        output: str | None = None,
        replaceable: Collection[str] = (),
    ) -> None:
        proto = as_proto(model)
        copy, self.tail = cut_tail(proto, output=output, keep_sigmoid=task is Task.MSE)
        fed = {value.name for value in copy.graph.input} - {tensor.name for tensor in copy.graph.initializer}
        if replaceable:
            make_replaceable(copy, replaceable)
        self._session = _open(copy, threads)
        self._beside = beside
        first = next((value for value in self._session.get_inputs() if value.name in fed), None)
        size = first.shape[0] if first is not None and first.shape else None
        self._fixed = size if isinstance(size, int) and size > 0 else None

    def logits(self, inputs: dict[str, Array], *, constants: Mapping[str, Array] = MappingProxyType({})) -> FloatArray:
        """Logits ``[n, ...]`` of samples; a model of fixed batch size is run as often as it takes, the rest padded.

        Large samples are run some at a time, whose activations are then all that is held.

        Args:
            constants: values of replaceable constants, where they are not those of the model.

        Raises:
            NotTrainableError: there are more or fewer answers than samples.
        """
        count = len(next(iter(inputs.values())))
        size = self._fixed or self._part_size(count, sum(array.nbytes for array in inputs.values()))
        if count == self._fixed or (self._fixed is None and count <= size):
            return self._run({**inputs, **constants}, count)

        def answers(start: int) -> FloatArray:
            part = {name: array[start : start + size] for name, array in inputs.items()}
            there = len(next(iter(part.values())))
            whole = {name: _padded(array, self._fixed or there) for name, array in part.items()}
            return self._run({**whole, **constants}, self._fixed or there)[:there]

        starts = range(0, count, size)
        if self._beside == 1:
            return np.concatenate([answers(start) for start in starts])
        with ThreadPoolExecutor(min(self._beside, len(starts)), "answers") as threads:
            return np.concatenate(list(threads.map(answers, starts)))

    def _part_size(self, count: int, size: int) -> int:
        """Samples that run at a time, of so many with so many bytes: some for each of those beside, all within bounds.

        What runs at the same time is together as large as one part would be.
        """
        most = max(1, _PART_BYTES * count // max(1, size) // self._beside)
        return min(most, max(-(-count // self._beside), LEAST_PART))

    def _run(self, inputs: dict[str, Array], count: int) -> FloatArray:
        (result,) = self._session.run([self.tail.logits], inputs)
        logits = np.asarray(result, np.float32)
        if logits.shape[:1] != (count,):
            raise NotTrainableError(
                f"output {self.tail.logits}",
                expected=f"an answer for each of {count} samples, along one of its axes",
                found=f"shape {list(logits.shape)}",
                way_out="export the model so that inputs and outputs have the samples on axis 0",
            )
        return logits


def make_replaceable(model: onnx.ModelProto, names: Collection[str]) -> None:
    """List constants as graph inputs, which lets a run give them other values; Constant nodes become initializers."""
    model.ir_version = max(model.ir_version, 4)
    wanted = set(names)
    for node in list(model.graph.node):
        array = constant_of_node(node) if wanted.intersection(node.output) else None
        if array is not None:
            model.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
            model.graph.node.remove(node)
    listed = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.name in wanted and tensor.name not in listed:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def _open(copy: onnx.ModelProto, threads: int) -> Any:
    copy.ir_version = min(copy.ir_version, IR_VERSION)
    try:
        try:
            return inference_session(copy, threads=threads)
        except SessionError:
            # Newer onnxruntimes read newer opsets; only one that cannot is given a converted copy.
            if opset_of(copy) <= OPSET:
                raise
            return inference_session(convert_opset(copy), threads=threads)
    except SessionError as error:
        name = copy.graph.name or "model"
        raise no_kernel(name, error) or ModelFileError(
            name,
            expected="a model the installed onnxruntime runs",
            found=str(error)[:300],
            way_out="export it with an older opset",
        ) from error


def _padded(array: Array, size: int) -> Array:
    missing = size - len(array)
    return array if missing == 0 else np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])


def evaluate(
    model: onnx.ModelProto | Model,
    data: ArrayDataset,
    *,
    loss: Loss,
    batch_size: int = 256,
    threads: int = 1,
    beside: int = 1,
    output: str | None = None,
    teacher: "Teacher | None" = None,
    figure: Figure | None = None,
) -> Metrics:
    """Loss and accuracy of a model on data, and what decides in their place.

    Args:
        threads, beside, output: as for ``Predictor``.
        loss: names the task; its teacher term counts only where ``teacher`` is given.
        teacher: stands in for labels the data do not have.
        figure: what decides; None: accuracy, or the loss without one.

    Raises:
        DataError: neither labels nor a teacher.
        ModelFileError, NotTrainableError, OptionError: as ``Predictor`` does.
    """
    _require_answers(data, teacher)
    predictor = Predictor(model, task=loss.task, threads=threads, beside=beside, output=output)
    meter = Meter(loss, figure)
    for batch in data.batches(batch_size):
        whole = batch if teacher is None else teacher.label(batch)
        meter.add(predictor.logits(dict(whole.inputs)), whole.labels, whole.teacher, whole.weights)
    return meter.result()


def _require_answers(data: ArrayDataset, teacher: "Teacher | None") -> None:
    """Refuse to measure on data without samples, or without labels and teacher.

    Raises:
        DataError: so it is.
    """
    if len(data) == 0:
        raise DataError("data", expected="at least one sample", found="none", way_out="give data")
    if not data.has_labels and teacher is None:
        raise DataError(
            "data", expected="labels to measure with", found="none", way_out="give labels, or a teacher in their place"
        )


class Teacher:
    """A network, as a rule the original, whose logits a smaller one learns from.

    Logits of samples that are not augmented are computed once and kept, by data and number of the sample: float32 in
    memory, or in half precision where ``keep`` says.

    Args:
        model: left as it is.
        loss: names the task.
        threads, beside, output: as for ``Predictor``.
        names: of its inputs, by those of the samples; what is not among them is called the same.
    """

    def __init__(
        self,
        model: onnx.ModelProto | Model,
        *,
        loss: Loss,
        threads: int = 1,
        beside: int = 1,
        output: str | None = None,
        names: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._predictor = Predictor(model, task=loss.task, threads=threads, beside=beside, output=output)
        self._names = dict(names)
        self._kept: dict[int, Answers] = {}
        # Batches are labelled in a thread ahead of training while training itself measures.
        self._lock = threading.Lock()

    @property
    def tail(self) -> Tail:
        return self._predictor.tail

    def label(self, batch: Batch) -> Batch:
        """The batch with the teacher's logits."""
        inputs = {self._names.get(name, name): array for name, array in batch.inputs.items()}
        if batch.augmented or batch.indices is None or batch.origin is None:
            return replace(batch, teacher=self._predictor.logits(inputs))
        with self._lock:
            kept = self._kept.setdefault(id(batch.origin), Answers(batch.origin))
            logits = kept.find(batch.indices)
            if logits is None:
                logits = kept.store(batch.indices, self._predictor.logits(inputs))
        return replace(batch, teacher=logits)

    def keep(self, data: ArrayDataset, answers: Answers) -> None:
        """Keep the answers to samples of some data where they are given, and know those that are there."""
        self._kept[id(data.inputs)] = answers

    def apart(self) -> "Teacher":
        """Return the same network with answers of its own, of which there are none so far."""
        other = copy(self)
        other._kept, other._lock = {}, threading.Lock()
        return other

    def close(self) -> None:
        """Forget the logits that were kept."""
        self._kept.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
