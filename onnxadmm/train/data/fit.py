"""Data that fit the model: layout, dtype, labels and their ranges, or a refusal with numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import DataError, OptionError
from onnxadmm.graph.fed import fixed_values
from onnxadmm.train.data.batches import ArrayDataset
from onnxadmm.train.data.gallery import Column, Pictures
from onnxadmm.train.data.images import Augmentation, Transform, make_transform, parse_augmentation
from onnxadmm.train.data.labels import check_finite, fit_labels, match_classes
from onnxadmm.train.data.names import Split, input_name
from onnxadmm.train.data.pictures import Framing
from onnxadmm.train.data.raw import MAX_BAD, MEMORY_LIMIT, Raw, Reading
from onnxadmm.train.data.sources import read_source
from onnxadmm.train.data.storage import is_mapped, transposed_copy
from onnxadmm.train.data.weights import take_sample_weights, weigh
from onnxadmm.train.losses import Loss
from onnxadmm.train.prepare.signature import CHANNELS, ModelInput, Signature

Array = NDArray[Any]


def load_data(
    source: object,
    *,
    signature: Signature,
    loss: Loss,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scale: float | None = None,
    augment: str = "",
    inputs: Mapping[str, object] | None = None,
    class_axis: int | None = None,
    ignore_index: int | None = None,
    unlabelled: str | None = None,
    class_weights: str | Sequence[float] | None = None,
    sample_weights: str | None = None,
    classes: Sequence[str] | None = None,
    split: Split = "train",
    resize: int | None = None,
    crop: int | None = None,
    max_bad: float = MAX_BAD,
    cache: str | Path | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> ArrayDataset:
    """Read data and fit them to a model.

    Args:
        source: a path, arrays or an iterable of batches, see ``read_source``.
        signature: what the model reads and puts out.
        loss: decides dtype, shape and range of the labels, and whether any are needed.
        mean: one number or one per channel, subtracted after scaling.
        std: one number or one per channel, divided by after that.
        scale: factor on stored values; 1/255 for uint8 and 1 for others when omitted.
        augment: ``"flip,crop4"``, ``"rrc224,flip"`` and the like, for image inputs.
        inputs: values of inputs by name, the same for every sample and as the model reads them; an input without a
            batch has one from here or from the data.
        class_axis, ignore_index: as for ``fit_labels``.
        unlabelled: why labels are left alone, in words; None: they are not.
        class_weights: what the classes count: ``"balanced"``, numbers or a file of them; None: all alike.
        sample_weights: name of the array among the data that says what samples count, or a file; None: all alike.
        classes: names of classes in the order of their numbers, as other data had them: those of these data are
            numbered like them. None: by themselves.
        split: which part of an archive is read that holds both, see ``read_source``.
        resize: length that the shorter side of pictures is brought to; as short as ``crop`` allows when omitted.
        crop: height and width of the middle that is cut out of them; that of the model's input when omitted.
        max_bad: share of the pictures that may be damaged, 0 to 1; they are left out.
        cache: folder of decoded pictures; none when omitted.
        memory_limit: most bytes of samples kept in memory, see ``Reading``.

    Raises:
        DataError: the data are missing, unreadable, empty, not finite, or do not fit the model.
        OptionError: ``mean``, ``std``, ``scale``, ``augment``, ``inputs``, ``class_axis``, ``ignore_index``,
            ``resize``, ``crop`` or ``max_bad`` cannot be used with this model.
    """
    images = [spec for spec in signature.inputs if spec.is_image and spec.name not in (inputs or {})]
    changes = _augmentations(augment, signature, images)
    reading = Reading(
        framing=_framing(images, resize, crop),
        draws_parts=any(change.part for change in changes.values()),
        max_bad=_share(max_bad),
        cache=None if cache is None else Path(cache),
        memory_limit=memory_limit,
        apart=frozenset({spec.name for spec in signature.inputs} | {sample_weights or ""}),
    )
    raw = read_source(source, reading=reading, split=split)
    if raw.labels is not None and raw.label_name in {spec.name for spec in signature.inputs}:
        raw = replace(raw, inputs={**raw.inputs, str(raw.label_name): raw.labels}, labels=None)
    if raw.labels is not None and raw.classes is not None and classes is not None:
        numbers, names = match_classes(raw.labels, raw.classes, classes, name=raw.name)
        raw = replace(raw, labels=numbers, classes=names)
    counts = None
    if sample_weights is not None:
        raw, counts = take_sample_weights(raw, sample_weights, [spec.name for spec in signature.inputs])
    given = fixed_values(signature.inputs, inputs or {})
    matched = _matched(raw, signature, given, split)
    held = {spec.name: given[spec.name] for spec in signature.inputs if not spec.batched and spec.name in given}
    held |= {spec.name: _value_of(raw.name, spec, array) for spec, array in matched if not spec.batched}
    stored = {
        spec.name: _fit(raw.name, spec, array, limit=memory_limit) for spec, array in matched if spec.name not in held
    }
    count = _count(raw, stored)
    for spec in signature.inputs:
        if spec.batched and spec.name in given:
            stored[spec.name] = np.broadcast_to(given[spec.name], (count, *given[spec.name].shape))
    labels = fit_labels(
        raw.labels if unlabelled is None else None,
        name=raw.name,
        signature=signature,
        loss=loss,
        classes=raw.classes,
        class_axis=class_axis,
        ignore_index=ignore_index,
    )
    left = () if unlabelled is None or raw.labels is None else (f"Labels were left alone: {unlabelled}.",)
    transforms: dict[str, Transform] = {}
    for spec in signature.inputs:
        if spec.name in held:
            continue
        array = stored[spec.name]
        pixels = spec.dtype.kind == "f" and spec.name not in given
        axis = spec.channel_axis
        # Beside the input that is standardised there may be others, of integers or given as they are read.
        several = not pixels and (len(signature.inputs) > 1 or spec.name in given)
        transforms[spec.name] = make_transform(
            stored=array.dtype,
            dtype=spec.dtype,
            channel_axis=axis,
            channels=array.shape[axis] if axis is not None else 1,
            rank=array.ndim,
            mean=None if several or mean is None else tuple(mean),
            std=None if several or std is None else tuple(std),
            scale=None if several else scale,
        )
    _refuse_parts(changes, stored)
    return ArrayDataset(
        inputs=stored,
        labels=labels.labels,
        transforms=transforms,
        augmentation=changes,
        order=np.arange(count, dtype=np.int64) if raw.order is None else raw.order,
        held=held,
        class_axis=labels.class_axis,
        classes=raw.classes,
        notes=(*raw.notes, *labels.notes, *left),
        weighing=weigh(
            classes=class_weights,
            samples=counts,
            labels=labels.labels,
            count=_class_count(signature, labels.class_axis),
            loss=loss,
        ),
        contents=raw.contents,
    )


def _augmentations(text: str, signature: Signature, images: Sequence[ModelInput]) -> dict[str, Augmentation]:
    """What is done to each image input at random."""
    found: dict[str, Augmentation] = {}
    for spec in images:
        change = parse_augmentation(text, channels_last=spec.channels_last)
        if change is not None:
            found[spec.name] = change
    if text and not found:
        raise OptionError(
            "--augment",
            expected="a model with an image input of rank 4",
            found=", ".join(f"{spec.name} of rank {len(spec.shape)}" for spec in signature.inputs),
            way_out="leave it out",
        )
    return found


def _refuse_parts(changes: Mapping[str, Augmentation], stored: Mapping[str, Column]) -> None:
    """Random parts are those of pictures in bytes, and as large as the model wants them."""
    for name, change in changes.items():
        column = stored[name]
        height, width = column.shape[1:3] if change.channels_last else column.shape[2:4]
        pictures = column.dtype == np.uint8 and column.shape[3 if change.channels_last else 1] in (1, 3)
        if change.part and not (pictures and height == width == change.part):
            raise OptionError(
                f"--augment rrc{change.part}",
                expected=f"images of {change.part}x{change.part} pixels, grey or RGB in bytes",
                found=f"{column.dtype} of shape {list(column.shape[1:])} for the input {name}",
                way_out=f"write rrc{height}" if pictures and height == width else "use flip and crop4",
            )


def _share(max_bad: float) -> float:
    if not 0 <= max_bad < 1:
        raise OptionError(
            "--max-bad", expected="a share from 0 to below 1", found=f"{max_bad:g}", way_out="0.001 is usual"
        )
    return max_bad


def _framing(images: Sequence[ModelInput], resize: int | None, crop: int | None) -> Framing:
    """How pictures become what the model reads."""
    grey = any(spec.shape[spec.channel_axis or 1] == 1 for spec in images)
    fixed = _image_size(images)
    if not images and (resize is not None or crop is not None):
        raise OptionError(
            "--resize and --crop", expected="a model with an image input", found="none", way_out="leave them out"
        )
    side = crop if crop is not None else resize
    size = fixed if side is None or (fixed is not None and crop is None) else (side, side)
    if fixed is not None and size != fixed:
        raise OptionError(
            "--crop",
            expected=f"{fixed[1]}x{fixed[0]} pixels, as the model reads",
            found=f"{side}x{side}",
            way_out="leave it out, and give --resize alone",
        )
    if size is not None and resize is not None and resize < max(size):
        raise OptionError(
            "--resize",
            expected=f"at least {max(size)} pixels, which are cut out of what it leaves",
            found=str(resize),
            way_out=f"write --resize {round(max(size) * 8 / 7)}",
        )
    if side is not None and side < 1:
        raise OptionError("--crop", expected="at least 1 pixel", found=str(side), way_out="write --crop 224")
    return Framing(grey, size, resize)


def _class_count(signature: Signature, axis: int | None) -> int | None:
    return None if axis is None or signature.logits is None else signature.logits[axis]


def _count(raw: Raw, stored: Mapping[str, Column]) -> int:
    lengths = {name: len(array) for name, array in stored.items()}
    if raw.labels is not None:
        lengths["labels"] = len(raw.labels) if raw.labels.ndim else 0
    if len(set(lengths.values())) != 1:
        found = ", ".join(f"{count} of {name}" for name, count in lengths.items()) or "no input with a batch"
        raise DataError(raw.name, expected="as many of each", found=found, way_out="give matching files")
    count = next(iter(lengths.values()))
    if count == 0:
        raise DataError(raw.name, expected="at least one sample", found="none", way_out="give data")
    return count


def _image_size(images: Sequence[ModelInput]) -> tuple[int, int] | None:
    """Height and width of the only image input; None where they are open, or there are several."""
    if len(images) != 1:
        return None
    height, width = images[0].shape[1:3] if images[0].channels_last else images[0].shape[2:4]
    return None if height is None or width is None else (height, width)


def _matched(
    raw: Raw, signature: Signature, given: Mapping[str, Array], split: Split
) -> list[tuple[ModelInput, Column]]:
    """Pair inputs with their arrays: by name, by a usual name when there is one, or by position.

    Inputs whose value is given need none.

    Raises:
        OptionError: a value is given for what each sample has one of.
        DataError: there is none for an input.
    """
    for spec in signature.inputs:
        if spec.batched and spec.name in given and spec.name in raw.inputs:
            raise OptionError(
                f"--input {spec.name}",
                expected="an input that the data say nothing of",
                found=f"values of {spec.name} for every sample in {raw.name}",
                way_out="leave it out, or take the array out of the data",
            )
    wanted = [spec for spec in signature.inputs if spec.name not in given]
    by_name = [(spec, raw.inputs[spec.name]) for spec in wanted if spec.name in raw.inputs]
    if len(by_name) == len(wanted):
        return by_name
    missing = [spec for spec in wanted if spec.name not in raw.inputs]
    if len(missing) == 1 and missing[0].batched:
        usual = input_name(raw.inputs, split)
        if usual is not None and (usual != "0" or len(wanted) == 1):
            return [*by_name, (missing[0], raw.inputs[usual])]
    if all(str(index) in raw.inputs for index in range(len(wanted))):
        return [(spec, raw.inputs[str(index)]) for index, spec in enumerate(wanted)]
    held = [spec.name for spec in missing if not spec.batched]
    raise DataError(
        raw.name,
        expected=f"arrays for the inputs {', '.join(spec.name for spec in wanted)}",
        found=", ".join(raw.inputs),
        way_out=f"name the arrays like the model's inputs{_hint(held)}",
    )


def _hint(held: Sequence[str]) -> str:
    return f", or give the value that {held[0]} has for every sample with --input {held[0]}=VALUE" if held else ""


def _value_of(name: str, spec: ModelInput, array: Column) -> Array:
    """The one value of an input without a batch: the array itself, or what all its rows are.

    Raises:
        DataError: the array does not have its shape, or samples differ in it.
    """
    want = tuple(size if size is not None else -1 for size in spec.shape)
    rows = None
    if isinstance(array, Pictures):
        pass  # which differ
    elif _fits(array.shape, spec.shape):
        rows = array[None]
    elif -1 not in want and array.size and array.size % max(1, int(np.prod(want, dtype=np.int64))) == 0:
        rows = array.reshape(-1, *want)
    elif _fits(array.shape[1:], spec.shape):
        rows = array
    if rows is None or not len(rows) or not (rows == rows[:1]).all():
        raise DataError(
            f"{name}, input {spec.name}",
            expected=f"one value of shape {_shown(spec.shape)}, as this input has no batch",
            found=f"shape {list(array.shape)}" + ("" if rows is None else " with values that differ"),
            way_out=f"give one value for all samples, or --input {spec.name}=VALUE",
        )
    _check_range(f"{name}, input {spec.name}", rows[:1], spec.dtype)
    return np.array(rows[0], spec.dtype)


def _fit(name: str, spec: ModelInput, array: Column, *, limit: int) -> Column:
    """Bring samples to the layout of an input, dtype left as stored, and check that they are finite."""
    if isinstance(array, Pictures):
        return _laid_out(name, spec, array)
    sample = tuple(array.shape[1:])
    want = spec.shape[1:]
    layouts = [sample]
    if len(want) == 3 and len(sample) == 2:
        layouts = [(*sample, 1), (1, *sample)] if spec.channels_last else [(1, *sample), (*sample, 1)]
    fitted: Array | None = None
    for layout in layouts:
        if _fits(layout, want):
            fitted = array.reshape(len(array), *layout)
            break
    if fitted is None and len(want) == 3 and len(sample) == 3:
        if _fits((sample[2], *sample[:2]), want) and sample[2] in CHANNELS:
            fitted = _transposed(name, array, (0, 3, 1, 2), limit)  # [N, H, W, C] -> [N, C, H, W]
        elif _fits((*sample[1:], sample[0]), want) and sample[0] in CHANNELS:
            fitted = _transposed(name, array, (0, 2, 3, 1), limit)  # [N, C, H, W] -> [N, H, W, C]
    if fitted is None and None not in want and len(want) == 1 and int(np.prod(sample)) == want[0]:
        fitted = array.reshape(len(array), -1)
    if fitted is None or array.ndim == 0:
        raise DataError(
            f"{name}, input {spec.name}",
            expected=f"samples of shape {['?' if size is None else size for size in want]}",
            found=f"{list(sample)}",
            way_out="resize or reshape the data to the model's input",
        )
    if spec.dtype.kind in "iu" and fitted.dtype.kind == "f":
        raise DataError(
            f"{name}, input {spec.name}", expected=str(spec.dtype), found=str(fitted.dtype), way_out="give integers"
        )
    _check_range(f"{name}, input {spec.name}", fitted, spec.dtype)
    check_finite(f"{name}, input {spec.name}", fitted, np.dtype(np.float32) if spec.dtype == np.float32 else None)
    if fitted.dtype == np.float64 and spec.dtype == np.float32 and not is_mapped(fitted):
        return fitted.astype(np.float32)
    return fitted


def _transposed(name: str, array: Array, axes: tuple[int, ...], limit: int) -> Array:
    """Samples with their axes in another order: a copy, or as they lie where they stay in their file."""
    return array.transpose(axes) if is_mapped(array) else transposed_copy(name, array, axes, limit=limit)


def _laid_out(name: str, spec: ModelInput, pictures: Pictures) -> Pictures:
    """Pictures in the layout of an input."""
    for layout in (pictures, pictures.with_channels_first()):
        if _fits(layout.shape[1:], spec.shape[1:]) and spec.dtype.kind in "fu":
            return layout
    raise DataError(
        f"{name}, input {spec.name}",
        expected=f"samples of shape {_shown(spec.shape[1:])} and dtype {spec.dtype}",
        found=f"images of shape {list(pictures.shape[1:])}",
        way_out="choose another source, or another --crop",
    )


def _check_range(name: str, array: Array, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "iu" or array.size == 0 or np.can_cast(array.dtype, dtype):
        return
    limits = np.iinfo(dtype)
    low, high = int(array.min()), int(array.max())
    if low < limits.min or high > limits.max:
        raise DataError(
            name,
            expected=f"{dtype} from {limits.min} to {limits.max}",
            found=f"{low} to {high}",
            way_out="give values the model's input can hold",
        )


def _fits(shape: tuple[int, ...], want: tuple[int | None, ...]) -> bool:
    return len(shape) == len(want) and all(w is None or s == w for s, w in zip(shape, want, strict=True))


def _shown(shape: Sequence[int | None]) -> str:
    return str(["?" if size is None else size for size in shape]).replace("'?'", "?")
