"""Sentences the figures call for, and silence where they don't."""

from dataclasses import replace
from typing import Any

import pytest

from onnxadmm.report.findings import find_notes, find_warnings
from onnxadmm.report.report import BudgetLine, GroupLine, Score
from tests.report.samples import sample_report


def warnings(**changes: Any) -> tuple[str, ...]:
    """Warnings of the sample run with some of its parts replaced."""
    report = sample_report()
    parts: dict[str, Any] = {
        "before": report.before,
        "after": report.after,
        "budgets": report.budgets,
        "latency": report.latency,
        "verification": report.verification,
        "groups": report.groups,
        "simd_floats": 16,
        "cuts_bytes_off": False,
    }
    return find_warnings(**(parts | changes))


def test_a_good_run_has_nothing_to_warn_of() -> None:
    assert warnings() == ()


def test_a_quantised_model_on_a_processor_that_cuts_its_sums_off_is_said() -> None:
    (sentence,) = warnings(cuts_bytes_off=True)
    assert sentence == (
        "On this processor, which has no VNNI, onnxruntime cuts off sums of byte products: this quantised model may "
        "score differently on others. The proof was made with exact sums."
    )


@pytest.mark.parametrize(("speedup", "low", "high"), [(0.8, 0.75, 0.85), (1.02, 0.97, 1.07)], ids=["slower", "unsure"])
def test_smaller_but_not_faster_is_said(speedup: float, low: float, high: float) -> None:
    first, second = sample_report().latency
    slow = replace(first, speedup=speedup, speedup_low=low, speedup_high=high)
    (sentence,) = warnings(latency=(slow, second))
    assert sentence == (
        "Smaller but not faster: the result has 12.6 times fewer MACs, but at batch 1 on 1 thread it runs at "
        f"{speedup:.2f} times the speed of the original (95 % interval {low:.2f} to {high:.2f}); numbers of channels "
        "that are multiples of 16 run best on this processor (--round-to 16)."
    )


def test_without_vectors_no_block_is_recommended() -> None:
    slow = replace(sample_report().latency[0], speedup=0.9, speedup_low=0.8, speedup_high=1.0)
    (sentence,) = warnings(latency=(slow,), simd_floats=1)
    assert "round-to" not in sentence


def test_parameters_speak_where_macs_were_not_counted() -> None:
    report = sample_report()
    slow = replace(report.latency[0], speedup=0.9, speedup_low=0.8, speedup_high=1.0)
    (sentence,) = warnings(
        before=replace(report.before, macs=None), after=replace(report.after, macs=None), latency=(slow,)
    )
    assert "101.4 times fewer parameters" in sentence


def test_not_faster_is_no_news_when_the_work_is_the_same() -> None:
    report = sample_report()
    same = replace(report.after, macs=report.before.macs)
    slow = replace(report.latency[0], speedup=0.9, speedup_low=0.8, speedup_high=1.0)
    assert warnings(after=same, latency=(slow,)) == ()


def test_a_group_where_nothing_shrank_is_named() -> None:
    groups = sample_report().groups
    whole = replace(groups[0], units_after=20)
    assert warnings(groups=(whole, *groups[1:])) == ()
    assert find_notes((whole, *groups[1:])) == ("Nothing shrank in group conv1.weight: all its 20 units stayed.",)


def test_many_groups_where_nothing_shrank_share_a_sentence() -> None:
    groups = [GroupLine(f"g{number}", (), 4, 4, None) for number in range(10)]
    shrunk = GroupLine("shrunk", (), 4, 1, None)
    assert find_notes((*groups, shrunk)) == (
        "Nothing shrank in 10 of 11 groups that may shrink: g0, g1, g2, g3, g4, g5, g6, g7 and 2 more.",
    )


def test_nothing_shrank_at_all() -> None:
    assert warnings(groups=(GroupLine("a", (), 4, 4, None), GroupLine("b", (), 4, 4, None))) == (
        "Nothing shrank: every group kept all its units.",
    )


def test_a_wide_interval_is_no_verdict_and_gives_no_advice() -> None:
    noisy = replace(sample_report().latency[0], speedup=0.9, speedup_low=0.6, speedup_high=1.4)
    (sentence,) = warnings(latency=(noisy,))
    assert "too noisy to tell" in sentence
    assert "round-to" not in sentence
    sure = replace(noisy, speedup_low=0.7, speedup_high=0.95)
    (sentence,) = warnings(latency=(sure,))
    assert "not faster" in sentence


def test_every_group_locked() -> None:
    assert warnings(groups=(GroupLine("a", (), 4, 4, "why"),)) == ("Every group is locked, so no unit was removed.",)


def test_a_drop_of_more_than_a_point_is_said_and_one_below_is_not() -> None:
    after = sample_report().after
    assert warnings(after=replace(after, test=Score("accuracy", 0.9843, 10_000))) == ()
    assert warnings(after=replace(after, test=Score("accuracy", 0.98, 10_000))) == (
        "The test accuracy fell by 1.42 points, from 99.42 % to 98.00 %.",
    )


def test_a_loss_that_rose_is_said() -> None:
    report = sample_report()
    assert warnings(
        before=replace(report.before, heldout=Score("mse", 0.5, 9)),
        after=replace(report.after, heldout=Score("mse", 0.75, 9)),
    ) == ("The held-out mse rose from 0.5 to 0.75.",)


def test_a_budget_that_was_not_met_is_said() -> None:
    assert warnings(budgets=(BudgetLine("macs", "20M", 2e7, 4e7, 2.5e7),)) == (
        "The budget --macs 20M was not met: 20.00 M allowed, 25.00 M left.",
    )


def test_a_file_that_grew_is_said() -> None:
    (sentence,) = warnings(after=replace(sample_report().after, file_bytes=2_000_000))
    assert sentence == "The file grew from 1,726,863 to 2,000,000 bytes."


def test_a_failed_verification_comes_first() -> None:
    report = sample_report()
    assert report.verification is not None
    failed = replace(report.verification, snr_db=31.4, passed=False)
    found = warnings(verification=failed, groups=(GroupLine("a", (), 4, 4, None),))
    assert found[0] == ("Verification failed: the result agrees with the masked original to 31.4 dB, 80 dB were asked.")
    assert len(found) == 2


def test_a_missing_verification_is_said() -> None:
    assert warnings(verification=None) == ("The result was not verified against the masked original.",)


def test_other_answers_than_the_originals_are_no_fall_of_accuracy() -> None:
    report = sample_report()
    before = replace(report.before, heldout=Score("agreement", 1.0, 200))
    assert warnings(before=before, after=replace(report.after, heldout=Score("agreement", 0.995, 200))) == ()
    assert warnings(before=before, after=replace(report.after, heldout=Score("agreement", 0.9, 200))) == (
        "Without labels: on held-out data 10.00 % of the answers are not those of the original.",
    )
    assert warnings(
        before=replace(report.before, heldout=Score("mse against the original", 0.0, 9)),
        after=replace(report.after, heldout=Score("mse against the original", 0.25, 9)),
    ) == ("Without labels: on held-out data the mean square difference of the outputs from the original's is 0.25.",)


def test_the_error_of_the_outputs_is_a_note() -> None:
    told = find_notes((), options={"output_error": 0.0312}, held_out=Score("agreement", 0.97, 51))
    assert told == (
        "On 51 held-out samples the outputs differ from the original's by 3.12 % of what these vary by, in squares.",
    )
    assert find_notes((), options={"output_error": None}, held_out=Score("agreement", 0.97, 51)) == ()
    assert find_notes((), options={"output_error": 0.1}) == ()
