"""What is to be said of a result in another form, beside the one that it was made from: one plain sentence each."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

from onnxadmm.report.findings import NOTABLE_DROP
from onnxadmm.report.report import Column, LatencyLine, Score
from onnxadmm.report.rows import fewer, speed_in_words
from onnxadmm.report.words import percent, plural

Form = Literal["int8", "fp16"]

#: How sentences begin.
_IN_THAT_FORM: Final[Mapping[Form, str]] = {"int8": "In bytes", "fp16": "With weights in 16 bits"}
#: Operators or weights that are named.
_NAMED: Final = 8
#: Less than that one cannot feel.
_NO_SLOWER: Final = 0.98


def gain_in_words(form: Form, plain: Column, made: Column, latency: Sequence[LatencyLine]) -> str:
    """What a form changes of the model.

    Args:
        plain, made: both in figures.
        latency: the one in that form (``after``) against the plain one.
    """
    size = fewer(plain.file_bytes, made.file_bytes, "smaller", "larger")
    speed = [f"at batch {line.batch} {speed_in_words(line)}" for line in latency]
    return f"{_IN_THAT_FORM[form]}, compared with floats: {', '.join([f'file {size}', *speed])}."


def floats_in_words(names: Sequence[str], count: int) -> str:
    """Which of so many operators kept their floats in bytes."""
    return f"In bytes {len(names)} of {plural(count, 'operator')} would cost too much, and kept floats: {_some(names)}."


def wide_in_words(names: Sequence[str]) -> str:
    """Which weights kept 32 bits."""
    return f"With values that 16 bits cannot hold, {plural(len(names), 'weight')} kept 32: {_some(names)}."


def find_losses(
    form: Form, plain: Column, made: Column, latency: Sequence[LatencyLine], *, vectors: str
) -> tuple[str, ...]:
    """Say where a model is worse in that form than it is plainly.

    Args:
        plain, made, latency: as for ``gain_in_words``.
        vectors: name of the vector unit that they were timed on, and what it lacks.
    """
    begin = _IN_THAT_FORM[form]
    return (
        *_about_quality(begin, "held-out", plain.heldout, made.heldout),
        *_about_quality(begin, "test", plain.test, made.test),
        *_about_size(begin, plain, made),
        *_about_speed(begin, latency, vectors, smaller=made.file_bytes <= plain.file_bytes),
    )


def _about_quality(begin: str, data: str, was: Score | None, now: Score | None) -> Iterator[str]:
    if was is None or now is None:
        return
    lost = was.value - now.value if now.more_is_better else now.value - was.value
    if now.is_share and lost > NOTABLE_DROP:
        yield f"{begin} the {data} {now.metric} is {percent(now.value)}, {100 * lost:.2f} points lower than in floats."
    elif not now.is_share and lost > NOTABLE_DROP * abs(was.value) > 0:  # any error is more than none
        yield f"{begin} the {data} {now.metric} is {now.value:.4g}, in floats {was.value:.4g}."


def _about_size(begin: str, plain: Column, made: Column) -> Iterator[str]:
    if made.file_bytes > plain.file_bytes:
        yield (
            f"{begin} the file is larger than in floats, {made.file_bytes:,} bytes instead of {plain.file_bytes:,}: "
            "the nodes that convert, and zeros that are not stored sparsely, take more than smaller numbers save."
        )


def _about_speed(begin: str, latency: Sequence[LatencyLine], vectors: str, *, smaller: bool) -> Iterator[str]:
    """What bytes are for does not always come: old processors and small layers are faster with floats."""
    slow = [line for line in latency if line.speedup_high < _NO_SLOWER]
    if not slow:
        return
    each = " and ".join(
        f"{1 / line.speedup:.2f} times at batch {line.batch} (95 % interval {1 / line.speedup_high:.2f} to "
        f"{1 / line.speedup_low:.2f})"
        for line in slow
    )
    why = ": it saves space, not time" if smaller and len(slow) == len(latency) else ""
    yield f"{begin} it is slower than in floats on this processor ({vectors}), {each}{why}."


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
