"""What is to be said of a network in bytes, beside the one in floats that it was made from: one plain sentence each."""

from collections.abc import Iterator, Sequence
from typing import Final

from onnxadmm.report.findings import NOTABLE_DROP
from onnxadmm.report.report import Column, LatencyLine, Score
from onnxadmm.report.rows import fewer, speed_in_words
from onnxadmm.report.words import percent, plural

#: Operators that are named.
_NAMED: Final = 8


def gain_in_words(floats: Column, made: Column, latency: Sequence[LatencyLine]) -> str:
    """What bytes change of the network in floats.

    Args:
        floats, made: both in figures.
        latency: the one in bytes (``after``) against the other.
    """
    size = fewer(floats.file_bytes, made.file_bytes, "smaller", "larger")
    speed = [f"at batch {line.batch} {speed_in_words(line)}" for line in latency]
    return f"In bytes, beside {floats.model.name}: {', '.join([f'file {size}', *speed])}."


def kept_in_words(floats: Sequence[str]) -> str:
    """Which operators kept their floats."""
    shown = ", ".join(floats[:_NAMED]) + (f" and {len(floats) - _NAMED} more" if len(floats) > _NAMED else "")
    return f"In bytes {plural(len(floats), 'operator')} would cost too much, and kept floats: {shown}."


def find_losses(floats: Column, made: Column, latency: Sequence[LatencyLine], *, vectors: str) -> tuple[str, ...]:
    """Say where a network in bytes is worse than the one in floats.

    Args:
        floats, made, latency: as for ``gain_in_words``.
        vectors: name of the vector unit that they were timed on, and what it lacks.
    """
    return (
        *_about_quality("held-out", floats.heldout, made.heldout),
        *_about_quality("test", floats.test, made.test),
        *_about_size(floats, made),
        *_about_speed(latency, vectors, smaller=made.file_bytes <= floats.file_bytes),
    )


def _about_quality(data: str, was: Score | None, now: Score | None) -> Iterator[str]:
    if was is not None and now is not None and was.is_share and was.value - now.value > NOTABLE_DROP:
        points = 100 * (was.value - now.value)
        yield f"In bytes the {data} {now.metric} is {percent(now.value)}, {points:.2f} points lower than in floats."


def _about_size(floats: Column, made: Column) -> Iterator[str]:
    if made.file_bytes > floats.file_bytes:
        yield (
            f"In bytes the file is larger than in floats, {made.file_bytes:,} bytes instead of {floats.file_bytes:,}: "
            "what bytes save of the weights, scales and the nodes that round take."
        )


def _about_speed(latency: Sequence[LatencyLine], vectors: str, *, smaller: bool) -> Iterator[str]:
    """What bytes are for does not always come: old processors and small layers are faster with floats."""
    slow = [line for line in latency if line.speedup_high < 1]
    if not slow:
        return
    each = " and ".join(
        f"{1 / line.speedup:.2f} times at batch {line.batch} (95 % interval {1 / line.speedup_high:.2f} to "
        f"{1 / line.speedup_low:.2f})"
        for line in slow
    )
    why = ": it saves space, not time" if smaller and len(slow) == len(latency) else ""
    yield f"In bytes it is slower than in floats on this processor ({vectors}), {each}{why}."
