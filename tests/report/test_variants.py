"""What is said of a result in another form: what it gains, and honestly where it does not."""

from dataclasses import replace
from typing import Any

from onnxadmm.report.report import Score
from onnxadmm.report.variants import find_losses, floats_in_words, gain_in_words, wide_in_words
from tests.report.samples import sample_in_bytes

REPORT = sample_in_bytes()
FLOATS, (VARIANT,) = REPORT.after, REPORT.variants
FASTER = tuple(replace(line, speedup=1.5, speedup_low=1.4, speedup_high=1.6) for line in VARIANT.latency)
SLOWER = tuple(replace(line, speedup=0.8, speedup_low=0.75, speedup_high=0.85) for line in VARIANT.latency)


def losses(**changes: Any) -> tuple[str, ...]:
    given: dict[str, Any] = {"latency": FASTER, "vectors": "AVX2 without VNNI", "made": VARIANT.figures, **changes}
    return find_losses("int8", FLOATS, given["made"], given["latency"], vectors=given["vectors"])


def test_what_bytes_gain_is_one_sentence() -> None:
    assert gain_in_words("int8", FLOATS, VARIANT.figures, VARIANT.latency) == (
        "In bytes, compared with floats: file 2.51x smaller, at batch 1 1.33x slower (1.25-1.43), "
        "at batch 64 2.00x faster (1.90-2.10)."
    )
    noisy = replace(FASTER[0], speedup_low=0.8, speedup_high=1.6)
    assert "at batch 1 too noisy to tell (0.80-1.60)" in gain_in_words("int8", FLOATS, VARIANT.figures, [noisy])
    assert gain_in_words("int8", FLOATS, VARIANT.figures, ()) == "In bytes, compared with floats: file 2.51x smaller."


def test_a_network_that_gains_is_not_complained_of() -> None:
    assert losses() == ()


def test_slower_is_one_sentence_that_names_the_vector_unit() -> None:
    assert losses(latency=VARIANT.latency) == (
        "In bytes it is slower than in floats on this processor (AVX2 without VNNI), 1.33 times at batch 1 (95 % "
        "interval 1.25 to 1.43).",
    )
    assert losses(latency=SLOWER) == (
        "In bytes it is slower than in floats on this processor (AVX2 without VNNI), 1.25 times at batch 1 (95 % "
        "interval 1.18 to 1.33) and 1.25 times at batch 64 (95 % interval 1.18 to 1.33): it saves space, not time.",
    )


def test_an_interval_that_includes_one_is_not_slower() -> None:
    assert losses(latency=[replace(SLOWER[0], speedup_high=1.0)]) == ()
    hardly = replace(SLOWER[0], speedup=0.995, speedup_low=0.993, speedup_high=0.997)
    assert losses(latency=[hardly]) == (), "that is nothing one could feel"


def test_larger_is_said_and_then_nothing_saves_space() -> None:
    size, speed = losses(made=replace(VARIANT.figures, file_bytes=20_000), latency=SLOWER)
    assert size == (
        "In bytes the file is larger than in floats, 20,000 bytes instead of 19,300: the nodes that convert, and zeros "
        "that are not stored sparsely, take more than smaller numbers save."
    )
    assert "saves space" not in speed


def test_accuracy_that_only_the_test_data_see_fall_is_said() -> None:
    worse = replace(VARIANT.figures, test=Score("accuracy", 0.9767, 10_000))
    assert losses(made=worse) == ("In bytes the test accuracy is 97.67 %, 1.50 points lower than in floats.",)


def test_errors_that_rose_and_figures_that_fell_are_said_and_any_error_is_more_than_none() -> None:
    def said(metric: str, was: float, now: float) -> tuple[str, ...]:
        floats, made = (
            replace(each, test=Score(metric, value, 9)) for each, value in ((FLOATS, was), (VARIANT.figures, now))
        )
        return find_losses("int8", floats, made, (), vectors="AVX2")

    assert said("mse", 0.5, 0.6) == ("In bytes the test mse is 0.6, in floats 0.5.",)
    assert said("mse", 0.5, 0.501) == said("mse", 0.5, 0.4) == said("mse against the original", 0, 0.1) == ()
    assert said("r2", 0.9, 0.8) == ("In bytes the test r2 is 0.8, in floats 0.9.",)


def test_operators_in_floats_are_named_up_to_eight() -> None:
    assert floats_in_words(["a"], 5) == "In bytes 1 of 5 operators would cost too much, and kept floats: a."
    assert floats_in_words([str(number) for number in range(9)], 9).endswith(
        "floats: 0, 1, 2, 3, 4, 5, 6, 7 and 1 more."
    )


def test_halves_are_called_so() -> None:
    assert gain_in_words("fp16", FLOATS, VARIANT.figures, ()).startswith(
        "With weights in 16 bits, compared with floats: "
    )
    assert wide_in_words(["w"]) == "With values that 16 bits cannot hold, 1 weight kept 32: w."
    (sentence,) = find_losses("fp16", FLOATS, VARIANT.figures, SLOWER[:1], vectors="AVX2")
    assert sentence.startswith("With weights in 16 bits it is slower than in floats on this processor (AVX2), 1.25 ")
