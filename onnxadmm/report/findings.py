"""What the figures of a report say that a reader could miss: one plain sentence each."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from onnxadmm.report.report import (
    THE_ORIGINAL,
    BudgetLine,
    Column,
    GroupLine,
    LatencyLine,
    Option,
    Score,
    VariantLine,
    VerificationLine,
)
from onnxadmm.report.words import amount, percent, plural

#: A drop that is worth a sentence: more than one point of accuracy.
NOTABLE_DROP: Final = 0.01
_MOST_NAMES: Final = 8
#: The option of a report that says how far a calibrated network's outputs are from the original's: the square of the
#: difference over that of how far these are from their mean, summed over held-out samples.
OUTPUT_ERROR: Final = "output_error"


def find_warnings(
    *,
    before: Column,
    after: Column,
    budgets: Sequence[BudgetLine],
    latency: Sequence[LatencyLine],
    verification: VerificationLine | None,
    groups: Sequence[GroupLine],
    simd_floats: int,
    cuts_bytes_off: bool,
) -> tuple[str, ...]:
    """Compare the two columns and say what is worse than one would expect.

    Args:
        simd_floats: float32 values per vector register of the machine the latency was measured on.
        cuts_bytes_off: the model is quantised, and this processor does not add up its products exactly.

    Returns:
        Sentences, most important first; empty when there is nothing to say.
    """
    return (
        *_about_proof(verification),
        *_about_quality("held-out", before.heldout, after.heldout),
        *_about_quality("test", before.test, after.test),
        *_about_bytes(cuts_bytes_off),
        *_about_budgets(budgets),
        *_about_size(before, after),
        *_about_speed(before, after, latency, simd_floats),
        *_about_nothing(groups),
    )


def find_notes(
    groups: Sequence[GroupLine],
    *,
    options: Mapping[str, Option] = MappingProxyType({}),
    held_out: Score | None = None,
    variants: Sequence[VariantLine] = (),
) -> tuple[str, ...]:
    """Say what is as it should be, and may still surprise.

    Args:
        options: of the run; ``"output_error"`` among them is told.
        held_out: what the result reaches on the samples that it was measured with.
        variants: the result in other forms; what is told of them is among the notes.

    Returns:
        Sentences; empty when there is nothing to say.
    """
    told = (sentence for variant in variants for sentence in variant.told)
    return (*_about_error(options.get(OUTPUT_ERROR), held_out), *_about_whole(groups), *told)


def _about_proof(verification: VerificationLine | None) -> Iterator[str]:
    if verification is None:
        yield "The result was not verified against the masked original."
    elif not verification.passed:
        yield (
            f"Verification failed: the result agrees with the masked original to {verification.snr_db:.1f} dB, "
            f"{verification.threshold_db:.0f} dB were asked."
        )


def _about_quality(data: str, before: Score | None, after: Score | None) -> Iterator[str]:
    if before is None or after is None or before.metric != after.metric:
        return
    if before.metric == "agreement":
        other = 1 - after.value
        if other > NOTABLE_DROP:
            yield f"Without labels: on {data} data {percent(other)} of the answers are not those of the original."
    elif before.is_share:
        drop = before.value - after.value
        if drop > NOTABLE_DROP:
            was, now = percent(before.value), percent(after.value)
            yield f"The {data} {before.metric} fell by {100 * drop:.2f} points, from {was} to {now}."
    elif before.value == 0 < after.value and before.metric == f"mse against {THE_ORIGINAL}":
        yield (
            f"Without labels: on {data} data the mean square difference of the outputs from the original's is "
            f"{after.value:.4g}."
        )
    elif after.more_is_better:
        if after.value < before.value - NOTABLE_DROP * abs(before.value):
            yield f"The {data} {after.metric} fell from {before.value:.4g} to {after.value:.4g}."
    elif after.value > before.value * (1 + NOTABLE_DROP):
        yield f"The {data} {after.metric} rose from {before.value:.4g} to {after.value:.4g}."


def _about_bytes(cut_off: bool) -> Iterator[str]:
    if cut_off:
        yield (
            "On this processor, which has no VNNI, onnxruntime cuts off sums of byte products: this quantised model "
            "may score differently on others. The proof was made with exact sums."
        )


def _about_budgets(budgets: Sequence[BudgetLine]) -> Iterator[str]:
    for budget in budgets:
        if not budget.met:
            yield (
                f"The budget --{budget.kind} {budget.asked} was not met: {amount(budget.kind, budget.limit)} allowed, "
                f"{amount(budget.kind, budget.reached)} left."
            )


def _about_size(before: Column, after: Column) -> Iterator[str]:
    if after.file_bytes > before.file_bytes:
        yield f"The file grew from {before.file_bytes:,} to {after.file_bytes:,} bytes."


def _about_speed(before: Column, after: Column, latency: Sequence[LatencyLine], simd_floats: int) -> Iterator[str]:
    smaller = _smaller_by(before, after)
    if smaller is None:
        return
    for line in latency:
        if line.speedup_low > 1:
            continue
        interval = f"95 % interval {line.speedup_low:.2f} to {line.speedup_high:.2f}"
        setting = f"at batch {line.batch} on {plural(line.threads, 'thread')}"
        if line.is_noisy:
            yield f"The result has {smaller}, but {setting} the timing is too noisy to tell what it gains ({interval})."
            continue
        sentence = (
            f"Smaller but not faster: the result has {smaller}, but {setting} it runs at {line.speedup:.2f} times "
            f"the speed of the original ({interval})"
        )
        if simd_floats > 1:
            sentence += (
                f"; numbers of channels that are multiples of {simd_floats} run best on this processor "
                f"(--round-to {simd_floats})"
            )
        yield sentence + "."


def _smaller_by(before: Column, after: Column) -> str | None:
    """In which respect the result does less work, None when it does not."""
    if before.macs and after.macs:
        if after.macs < before.macs:
            return f"{before.macs / after.macs:.1f} times fewer MACs"
        return None
    if 0 < after.parameters < before.parameters:
        return f"{before.parameters / after.parameters:.1f} times fewer parameters"
    return None


def _about_nothing(groups: Sequence[GroupLine]) -> Iterator[str]:
    free, whole = _free_and_whole(groups)
    if groups and not free:
        yield "Every group is locked, so no unit was removed."
    elif free and len(whole) == len(free):
        yield "Nothing shrank: every group kept all its units."


def _about_error(error: Option, held_out: Score | None) -> Iterator[str]:
    if isinstance(error, float) and held_out is not None:
        yield (
            f"On {plural(held_out.samples, 'held-out sample')} the outputs differ from the original's by "
            f"{percent(error)} of what these vary by, in squares."
        )


def _about_whole(groups: Sequence[GroupLine]) -> Iterator[str]:
    free, whole = _free_and_whole(groups)
    if len(whole) == len(free):
        return
    if len(whole) == 1:
        (group,) = whole
        yield f"Nothing shrank in group {group.name}: all its {plural(group.units_before, 'unit')} stayed."
    elif whole:
        names = ", ".join(group.name for group in whole[:_MOST_NAMES])
        more = f" and {len(whole) - _MOST_NAMES} more" if len(whole) > _MOST_NAMES else ""
        yield f"Nothing shrank in {len(whole)} of {len(free)} groups that may shrink: {names}{more}."


def _free_and_whole(groups: Sequence[GroupLine]) -> tuple[list[GroupLine], list[GroupLine]]:
    """The groups that may shrink, and those of them that did not."""
    free = [group for group in groups if group.locked is None]
    return free, [group for group in free if group.units_after == group.units_before]
