"""What a run trains on and for: the outputs the loss is taken of, the data that fit them, and the teacher."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Final

from onnxadmm.errors import DataError, NotTrainableError, OptionError
from onnxadmm.graph.fed import hold_inputs
from onnxadmm.graph.model import Model
from onnxadmm.report.report import THE_ORIGINAL, THE_TEACHER
from onnxadmm.run.journal import Journal
from onnxadmm.run.recipe import Preprocessing, Recipe
from onnxadmm.run.teaching import about_teacher, lesson_of, refuse_other_answers
from onnxadmm.run.trainings import Training
from onnxadmm.runtime.cores import usable_cores
from onnxadmm.train.data.answers import AnswersOnDisk
from onnxadmm.train.data.batches import ArrayDataset, Weighing, hold_out
from onnxadmm.train.data.fit import load_data
from onnxadmm.train.data.names import Split
from onnxadmm.train.data.raw import MEMORY_LIMIT, PICTURES_LIMIT
from onnxadmm.train.data.sources import is_divided
from onnxadmm.train.evaluate import Predictor, Teacher
from onnxadmm.train.figures import Figure, figure_of
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.prepare.head import Head, all_outputs, order_of
from onnxadmm.train.prepare.nodes import as_proto
from onnxadmm.train.prepare.signature import Signature, inputs_of, signature_of
from onnxadmm.train.prepare.tail import logits_of

#: Class weights that are shown.
_SHOWN: Final = 10


def read_training(
    model: Model,
    data: object,
    test: object | None,
    *,
    recipe: Recipe,
    preprocessing: Preprocessing,
    inputs: Mapping[str, object],
    seed: int,
    journal: Journal,
    trains: bool = True,
    made: bool = False,
    count: int | None = None,
    teacher: Model | None = None,
) -> Training:
    """Read the data, divide them, and take the model, or another one, as the teacher where one is needed.

    Args:
        inputs: values of inputs by name, the same for every sample.
        trains: whether something trains before the cut; if not, a loss that the recipe leaves open is what the outputs
            look like.
        made: whether the data are as the model reads them already, and only the test data have to be prepared.
        count: samples that those of the data stand for: pictures are decoded when so many would be; None: themselves.
        teacher: another network that teaches in place of the model.

    Raises:
        DataError: they cannot be read, do not fit the model, or are too few.
        NotTrainableError: several outputs, and nothing says which one the loss is taken of.
        OptionError: an option does not fit the model or the data, or the teacher does not fit the model.
    """
    who = THE_ORIGINAL if teacher is None else THE_TEACHER
    loss, signature, head = _aim(
        model, recipe if trains else _with_loss(recipe, model, journal), journal, trains=trains, who=who
    )
    lesson = None if teacher is None else lesson_of(model, teacher, head)
    unlabelled = f"the loss over several outputs is that against {who}" if head.joined else None
    if recipe.loss is None and not trains and loss.task is Task.MSE and not head.joined:
        unlabelled = "--loss says what they mean"

    def load(
        source: object,
        *,
        split: Split,
        augment: str,
        class_axis: int | None,
        class_weights: str | Sequence[float] | None,
        sample_weights: str | None,
        classes: Sequence[str] | None = None,
    ) -> ArrayDataset:
        prepared = Preprocessing() if made and split == "train" else preprocessing
        begin = time.perf_counter()
        found = load_data(
            source,
            signature=signature,
            loss=loss,
            mean=prepared.mean,
            std=prepared.std,
            scale=prepared.scale,
            augment=augment,
            inputs=inputs,
            class_axis=class_axis,
            ignore_index=recipe.ignore_index,
            unlabelled=unlabelled,
            class_weights=class_weights,
            sample_weights=sample_weights,
            classes=classes,
            split=split,
            resize=preprocessing.resize,
            crop=preprocessing.crop,
            max_bad=preprocessing.max_bad,
            cache=preprocessing.cache,
            memory_limit=0 if count is not None and _is_much(signature, count) else MEMORY_LIMIT,
        )
        journal.loaded += time.perf_counter() - begin
        return found

    whole = load(
        data,
        split="train",
        augment=preprocessing.augment,
        class_axis=recipe.class_axis,
        class_weights=recipe.class_weights,
        sample_weights=recipe.sample_weights,
    )
    weighing = whole.weighing
    samples, held_out = hold_out(whole, share=recipe.held_out, seed=seed)
    tested = None
    if test is not None:
        if _is_same(data, test):
            journal.warn("The test data are the training data, so the test figures say nothing about others.")
        # A file of weights is one of the training data's.
        of_file = recipe.sample_weights is not None and Path(recipe.sample_weights).is_file()
        tested = load(
            test,
            split="test",
            augment="",
            class_axis=whole.class_axis,
            class_weights=None if weighing is None or weighing.classes is None else weighing.classes.tolist(),
            sample_weights=None if of_file else recipe.sample_weights,
            classes=whole.classes,
        )
        _refuse_other_values(whole, tested)
    for sentence in dict.fromkeys((*whole.notes, *(tested.notes if tested is not None else ()))):
        journal.say(sentence)
    if whole.class_axis is not None and signature.logits is not None and not head.joined:
        orders = {name: order_of(len(signature.logits), signature.batch_axis, whole.class_axis) for name in head.orders}
        head = replace(head, orders=orders)

    def predictor() -> Predictor:
        return Predictor(head.shown(hold_inputs(model, whole.held)), task=loss.task, threads=recipe.threads)

    if whole.has_labels and (signature.logits is None or None in _sizes(signature)):
        answers = predictor()
        for thing, samples_of in (("the labels", whole), ("the labels of the test data", tested)):
            if samples_of is not None and samples_of.has_labels:
                _refuse_other_sizes(thing, samples_of, answers, loss.task)
    figure = figure_of(recipe.metric, loss.task)
    if figure is not None and figure.needs_labels and not whole.has_labels:
        raise OptionError(
            f"--metric {figure.name}",
            expected="labelled data for a metric of one's own",
            found="data without labels",
            way_out="give labels, or leave it out",
        )
    loss = replace(loss, gaps=whole.gaps or (tested is not None and tested.gaps), weighted=weighing is not None)
    if weighing is not None:
        journal.say(_about(weighing, figure))
    asked = None
    if loss.needs_teacher or not held_out.has_labels:
        taught, others = (model, head) if lesson is None or teacher is None else (teacher, lesson.head(head))
        shown = others.shown(hold_inputs(taught, whole.held))
        asked = _teacher(shown, whole, loss, recipe, preprocessing, names={} if lesson is None else lesson.inputs)
    if asked is not None and teacher is not None:
        refuse_other_answers(asked, predictor(), whole)
        journal.say(about_teacher(teacher))
    return Training(
        recipe=recipe,
        preprocessing=preprocessing,
        loss=loss,
        head=head,
        samples=samples,
        held_out=held_out,
        test=tested,
        teacher=asked,
        seed=seed,
        journal=journal,
        figure=figure,
        taught_by=teacher,
    )


def _teacher(
    model: Model,
    data: ArrayDataset,
    loss: Loss,
    recipe: Recipe,
    preprocessing: Preprocessing,
    *,
    names: Mapping[str, str],
) -> Teacher:
    """A network as teacher, its answers in the folder of the cache where there is one.

    Args:
        names: of its inputs, by those of the samples.
    """
    found = Teacher(model, loss=loss, threads=recipe.threads, beside=recipe.beside(usable_cores()), names=names)
    # What is drawn at random comes once.
    if preprocessing.cache is not None and not (preprocessing.augment and data.has_labels):
        which = hashlib.sha256(f"{loss.task} {found.tail.logits}\0".encode())
        which.update(as_proto(model).SerializeToString(deterministic=True))
        found.keep(data, AnswersOnDisk(data, Path(preprocessing.cache), teacher=which.digest()))
    return found


def _is_much(signature: Signature, count: int) -> bool:
    """Whether so many decoded pictures are more than are kept in memory."""
    sizes = [[size or 1 for size in spec.shape[1:]] for spec in signature.inputs if spec.is_image]
    return bool(sizes) and count * sum(map(prod, sizes)) > PICTURES_LIMIT


def _about(weighing: Weighing, figure: Figure | None) -> str:
    """A sentence on what counts how much."""
    by = [] if weighing.samples is None else ["by sample"]
    if weighing.classes is not None:
        more = ", ..." if len(weighing.classes) > _SHOWN else ""
        by.append(f"by class ({', '.join(f'{each:.3g}' for each in weighing.classes[:_SHOWN])}{more})")
    alike = "; the metric of your own is not weighted" if figure is not None and figure.needs_labels else ""
    return f"Loss and figures are weighted {' and '.join(by)}: accuracy is the weighted share of right answers{alike}."


def _aim(model: Model, recipe: Recipe, journal: Journal, *, trains: bool, who: str) -> tuple[Loss, Signature, Head]:
    """The loss, what data must fit, and the output or outputs it is taken of.

    Args:
        who: teaches, in words.
    """
    loss = recipe.objective()
    sigmoid = loss.task is Task.MSE
    starts = logits_of(as_proto(model), output=recipe.output, keep_sigmoid=sigmoid)
    if len(starts) == 1:
        signature = signature_of(model, output=recipe.output, keep_sigmoid=sigmoid)
        ((_, walks),) = starts.items()
        output = recipe.output if recipe.output is not None else min(walks, key=lambda name: len(walks[name]))
        rank = 0 if signature.logits is None else len(signature.logits)
        if signature.batch_axis < 0:
            raise NotTrainableError(
                f"output {output}",
                expected="an axis that counts samples",
                found=f"shape {list(signature.logits or ())}, which does not follow the batch",
                way_out="choose another with --output NAME, or export the model with a symbolic batch dimension",
            )
        others = logits_of(as_proto(model), keep_sigmoid=sigmoid).keys() - starts.keys()
        if others:
            journal.warn(
                f"The loss sees the output {output} alone: what it shares with others ({', '.join(sorted(others))}) is "
                "pruned for it, and the others are not trained for that."
            )
        return loss, signature, Head({output: order_of(rank, signature.batch_axis, None)}, keep_sigmoid=sigmoid)
    if loss.needs_labels:
        signature_of(model)  # says that one has to be chosen
    if loss.task is Task.CROSS_ENTROPY:
        loss = replace(loss, task=Task.MSE)
    head, left_out = all_outputs(model, keep_sigmoid=loss.task is Task.MSE, trains=trains)
    way = "mean square difference" if loss.task is Task.MSE else "loss bce"
    journal.say(
        f"The {way} between this network and {who} is taken over all elements of the outputs "
        f"{', '.join(head.orders)}{f', without {_and(left_out)}' if left_out else ''}; --output chooses one."
    )
    return loss, Signature(inputs_of(as_proto(model)), None), head


def _with_loss(recipe: Recipe, model: Model, journal: Journal) -> Recipe:
    """The recipe with the loss that the outputs look like, where it names none."""
    if recipe.loss is not None:
        return recipe
    if recipe.class_axis is not None or recipe.ignore_index is not None or _are_scores(model, recipe.output):
        journal.say(
            "The outputs are taken for scores of classes, and compared by their probabilities; --loss says otherwise."
        )
        return replace(recipe, loss="cross-entropy")
    journal.say(
        "The outputs are taken for numbers, and compared by their mean square difference; --loss says otherwise."
    )
    return replace(recipe, loss="mse")


def _are_scores(model: Model, output: str | None) -> bool:
    """Whether the outputs say one thing, along an axis of at least two classes: behind a Softmax or ArgMax, or rows."""
    starts = logits_of(as_proto(model), output=output)
    if len(starts) != 1:
        return False
    signature = signature_of(model, output=output)
    shape, axis = signature.logits, signature.class_axis
    if shape is None or signature.batch_axis < 0:
        return False
    if axis is None:
        between = {node.op_type for walks in starts.values() for walk in walks.values() for node in walk}
        if not between <= {"Cast", "Identity"}:  # a Sigmoid, or a Reshape that lays all numbers in one column
            return False
        axis = 1 - signature.batch_axis if len(shape) == 2 else signature.batch_axis
    count = shape[axis]
    return axis != signature.batch_axis and (count is None or count > 1)


def _is_same(data: object, test: object) -> bool:
    """Whether the same samples are given twice: one object, or one file or folder that is not divided itself."""
    if data is test and not isinstance(data, str | Path):
        return True
    if not isinstance(data, str | Path) or not isinstance(test, str | Path):
        return False
    if str(data) != str(test) and not (Path(data).exists() and Path(test).exists() and Path(data).samefile(test)):
        return False
    return not is_divided(data)


def _and(names: tuple[str, ...]) -> str:
    return " and ".join(names)


def _sizes(signature: Signature) -> tuple[int | None, ...]:
    """Sizes of an answer to one sample, None where the file leaves them free."""
    shape = signature.logits or ()
    return tuple(size for axis, size in enumerate(shape) if axis != signature.batch_axis)


def _refuse_other_sizes(thing: str, data: ArrayDataset, model: Predictor, task: Task) -> None:
    """Have the model answer to one sample: sizes that its file leaves free are told by nothing else.

    Raises:
        DataError: the label of the sample is of another shape.
    """
    batch = next(iter(data.batches(1)))
    answer = model.logits(dict(batch.inputs)).shape[1:]
    wanted = answer[1:] if task is Task.CROSS_ENTROPY else answer
    assert batch.labels is not None  # the caller has seen to it
    found = batch.labels.shape[1:]
    if found != wanted:
        raise DataError(
            thing,
            expected=f"shape {list(wanted)} for each sample, as the model answers to it",
            found=str(list(found)),
            way_out="check that axes are in the model's order, and labels as large as its outputs",
        )


def _refuse_other_values(whole: ArrayDataset, tested: ArrayDataset) -> None:
    """Inputs without a batch are constants of the run."""
    for name, value in whole.held.items():
        if not (tested.held[name].shape == value.shape and (tested.held[name] == value).all()):
            raise DataError(
                f"test data, input {name}",
                expected="the value of the training data, as this input has no batch",
                found="another one",
                way_out=f"give the same, or --input {name}=VALUE for both",
            )
