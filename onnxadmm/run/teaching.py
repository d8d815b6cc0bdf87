"""Another network as the teacher: whether it reads and answers what the model does, and what it calls that."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from onnxadmm.errors import InputError, OptionError
from onnxadmm.graph.model import Model
from onnxadmm.runtime.session import failures, sentence
from onnxadmm.train.data.batches import ArrayDataset
from onnxadmm.train.evaluate import Predictor, Teacher
from onnxadmm.train.prepare.head import Head, all_outputs
from onnxadmm.train.prepare.nodes import as_proto
from onnxadmm.train.prepare.signature import ModelInput, inputs_of, signature_of
from onnxadmm.train.prepare.tail import logits_of

OPTION: Final = "--teacher"
_WAY_OUT: Final = "give a network that was trained for the same, or leave --teacher out: the original teaches then"


@dataclass(frozen=True)
class Lesson:
    """What a teacher calls the inputs and outputs of the model that it teaches.

    Attributes:
        inputs: names of its inputs, by those of the model.
        outputs: names of its outputs, by those of the model that the loss is taken of.
        narrow: of these outputs, those that are floats of another type than float32.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    narrow: frozenset[str]

    def head(self, head: Head) -> Head:
        """Return the model's head as the teacher has it."""
        orders = {self.outputs[name]: order for name, order in head.orders.items()}
        return replace(head, orders=orders, narrow=self.narrow if head.joined else frozenset())


def lesson_of(model: Model, teacher: Model, head: Head) -> Lesson:
    """Find what of a teacher stands for the inputs and outputs of a model: what is called the same, or the only one.

    Args:
        model: as it is pruned and trained.
        teacher: another network.
        head: what the loss is taken of, of the model.

    Raises:
        OptionError: the teacher reads other inputs, or answers something else.
    """
    proto = as_proto(teacher)
    ours, theirs = inputs_of(as_proto(model)), inputs_of(proto)
    named = {spec.name: spec for spec in theirs}
    alone = len(ours) == len(theirs) == 1
    if not alone and {spec.name for spec in ours} != set(named):
        raise _other("inputs", _names(ours), _names(theirs))
    inputs = {}
    for spec in ours:
        other = theirs[0] if alone else named[spec.name]
        if spec.dtype != other.dtype or spec.batched != other.batched or not _alike(spec, other):
            raise _other(f"input {other.name}", _described(spec), _described(other))
        inputs[spec.name] = other.name
    outputs = dict(_outputs(model, teacher, head))
    kinds = all_outputs(teacher, keep_sigmoid=head.keep_sigmoid, trains=False)[0].narrow if head.joined else ()
    return Lesson(inputs, outputs, frozenset(kinds) & frozenset(outputs.values()))


def refuse_other_answers(teacher: Teacher, student: Predictor, data: ArrayDataset) -> None:
    """Have both answer to one sample, which sizes that files leave free cannot hide from.

    Args:
        teacher: what answers so far is not kept.
        student: the model.

    Raises:
        OptionError: the teacher does not run on it, or its answer has another shape.
    """
    batch, fails = next(iter(data.batches(1))), failures()
    try:
        told = teacher.apart().label(batch).teacher
    except InputError as error:
        raise _other("a sample", "an answer", str(error)[:200]) from error
    except fails as error:
        raise _other("a sample", "an answer", sentence(error)[:200]) from error
    asked = student.logits(dict(batch.inputs))
    if told is None or told.shape[1:] != asked.shape[1:]:
        found = None if told is None else told.shape[1:]
        raise _other("the answer to a sample", f"shape {_shown(asked.shape[1:])}", f"shape {_shown(found)}")


def about_teacher(teacher: Model) -> str:
    """Return a sentence on who teaches."""
    name = "a network in memory" if teacher.path is None else str(teacher.path)
    return f"The teacher is {name} (sha256 {teacher.sha256[:12]}), not the original."


def _outputs(model: Model, teacher: Model, head: Head) -> Iterator[tuple[str, str]]:
    """Pair the outputs that the loss is taken of with those of the teacher."""
    proto, sigmoid = as_proto(teacher), head.keep_sigmoid
    known = [value.name for value in proto.graph.output]
    starts = logits_of(proto, keep_sigmoid=sigmoid)
    for ours in head.orders:
        theirs = ours
        if ours not in known:
            if len(starts) != 1 or head.joined:
                raise _other("outputs", f"one that is called {ours}", ", ".join(known))
            (walks,) = starts.values()
            theirs = min(walks, key=lambda name: len(walks[name]))
        asked, told = (
            signature_of(each, output=output, keep_sigmoid=sigmoid)
            for each, output in ((model, ours), (teacher, theirs))
        )
        if asked.logits is not None and told.logits is not None:
            same_axis = asked.batch_axis == told.batch_axis
            if not same_axis or not _fit(asked.logits, told.logits, but=asked.batch_axis):
                raise _other(f"output {theirs}", f"shape {_shown(asked.logits)}", f"shape {_shown(told.logits)}")
        yield ours, theirs


Shape = tuple[int | None, ...]


def _alike(one: ModelInput, other: ModelInput) -> bool:
    """Whether two inputs may be of one shape; one that states none leaves that to the data."""
    return not one.shape or not other.shape or _fit(one.shape, other.shape, but=0 if one.batched else None)


def _fit(one: Shape, other: Shape, *, but: int | None) -> bool:
    """Whether two shapes may be the same, but for one axis."""
    if len(one) != len(other):
        return False
    pairs = [pair for axis, pair in enumerate(zip(one, other, strict=True)) if axis != but]
    return all(None in pair or pair[0] == pair[1] for pair in pairs)


def _described(spec: ModelInput) -> str:
    batch = "a batch" if spec.batched else "no batch"
    return f"{spec.dtype} of shape {_shown(spec.shape)} with {batch}"


def _names(specs: tuple[ModelInput, ...]) -> str:
    return ", ".join(spec.name for spec in specs) or "none"


def _shown(shape: Shape | None) -> str:
    return "unknown" if shape is None else str(["?" if size is None else size for size in shape]).replace("'", "")


def _other(thing: str, expected: str, found: str) -> OptionError:
    return OptionError(f"{OPTION}, {thing}", expected=f"{expected}, as of the model", found=found, way_out=_WAY_OUT)
