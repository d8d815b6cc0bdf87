"""Latency: structure and order of results; never absolute times."""

import sys
import time

import numpy as np
import pytest

from onnxadmm.bench.latency import batch_sizes, measure_latency, median_ratio, time_in_turns
from onnxadmm.errors import ModelFileError, OptionError
from onnxadmm.graph.model import Model
from onnxadmm.progress import Iteration
from tests.bench.models import dense, from_text, relu


class Clock:
    """A stand-in for ``time``: it moves only when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def perf_counter_ns(self) -> int:
        return round(self.now * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    # The public function of the same name hides the room from a dotted path.
    monkeypatch.setattr(sys.modules["onnxadmm.bench.latency"], "time", made)
    return made


def test_models_take_turns_and_the_order_turns_round(clock: Clock) -> None:
    calls: list[str] = []

    def worker(name: str) -> None:
        calls.append(name)
        clock.now += 0.01

    samples, order, repeats = time_in_turns([lambda: worker("a"), lambda: worker("b")], seconds=0.5)
    assert repeats == (1, 1)
    assert order[:8] == (0, 1, 1, 0, 0, 1, 1, 0)
    assert [*map("ab".index, calls[-len(order) :])] == list(order)
    np.testing.assert_allclose(samples, 10.0)


def test_a_machine_that_slows_down_does_not_change_the_ratio(clock: Clock) -> None:
    def worker(work: float) -> None:
        clock.now += work * (1 + clock.now)

    samples, _, _ = time_in_turns([lambda: worker(0.02), lambda: worker(0.01)], seconds=4)
    assert samples[-1, 0] > 3 * samples[0, 0]
    ratio, low, high = median_ratio(samples[:, 0], samples[:, 1], seed=0)
    assert low <= ratio <= high
    assert low > 1.9
    assert high < 2.1


def test_measuring_stops_when_the_time_is_up(clock: Clock) -> None:
    def worker() -> None:
        clock.now += 0.05

    time_in_turns([worker, worker], seconds=2)
    assert 2 <= clock.now < 2.2


def test_slow_models_are_still_timed_five_times(clock: Clock) -> None:
    def worker() -> None:
        clock.now += 0.9

    samples, _, _ = time_in_turns([worker, worker], seconds=1)
    assert samples.shape == (5, 2)


def test_models_that_would_take_minutes_are_timed_once(clock: Clock) -> None:
    """Ten times the seconds that were asked for are the end of it."""
    runs = []

    def worker() -> None:
        runs.append(clock.now)
        clock.now += 100

    samples, _, _ = time_in_turns([worker, worker], seconds=1)
    assert samples.shape == (1, 2)
    assert len(runs) == 4, "one to warm up and one that counts, of each"


def test_short_runs_are_repeated_within_a_sample(clock: Clock) -> None:
    def worker() -> None:
        clock.now += 1e-5

    samples, _, repeats = time_in_turns([worker], seconds=0.1)
    assert repeats == (200,)
    np.testing.assert_allclose(samples, 0.01, rtol=1e-3)


def test_the_interval_of_a_noisy_ratio_is_wide_and_holds_the_truth() -> None:
    generator = np.random.default_rng(3)
    first = 2 * generator.lognormal(0, 0.5, 200)
    second = generator.lognormal(0, 0.5, 200)
    ratio, low, high = median_ratio(first, second, seed=0)
    assert low < 2 < high
    assert low < ratio < high
    assert median_ratio(first, second, seed=0) == (ratio, low, high)


def test_hundreds_of_times_the_work_measures_slower() -> None:
    # 2 x 64 x 64 = 8,192 multiplications, against 2 x 64 x 1536 + 1536 x 1536 = 2,555,904: a busy machine adds less.
    small, large = dense(64), dense(64, inner=1536, layers=3)
    measured = measure_latency([large, small], names=["large", "small"], large=32, seconds=0.4)
    assert measured.skipped == ()
    assert [result.batch for result in measured.results] == [1, 32]
    for result in measured.results:
        slow, fast = result.timings
        assert (slow.name, fast.name) == ("large", "small")
        assert slow.median_ms > fast.median_ms
        for timing in result.timings:
            assert 0 < timing.low_ms <= timing.median_ms <= timing.high_ms
        (speedup,) = result.speedups
        assert speedup.name == "small"
        assert 1 < speedup.low <= speedup.ratio <= speedup.high
        assert len(result.order) == 2 * result.rounds
        assert result.threads == 1


def test_a_model_against_itself_is_about_as_fast() -> None:
    model = dense(128)

    def ratio() -> float:
        (result, *_) = measure_latency([model, model], names=["one", "two"], large=1, seconds=0.5).results
        return result.speedups[0].ratio

    # A busy neighbour may take one model's turns for half a second, but not time and again.
    assert any(0.5 < ratio() < 2 for _ in range(5))


def test_time_is_bounded_for_real() -> None:
    begin = time.perf_counter()
    measure_latency([relu(), relu()], names=["a", "b"], large=4, seconds=0.2)
    assert time.perf_counter() - begin < 3


def test_one_model_alone_has_times_and_no_speedup() -> None:
    (result,) = measure_latency([relu()], names=["a"], large=1, seconds=0.05).results
    assert len(result.timings) == 1
    assert result.speedups == ()


def test_a_fixed_batch_is_the_only_one_measured() -> None:
    assert batch_sizes([relu(batch="8")]) == (8,)
    assert batch_sizes([relu(batch="8"), relu()]) == (8,)
    assert batch_sizes([relu()]) == (1, 64)
    assert batch_sizes([relu()], large=1) == (1,)


def test_a_batch_that_was_asked_for_and_is_not_to_be_had_is_named() -> None:
    measured = measure_latency([relu(batch="8")], names=["a"], large=16, seconds=0.05)
    assert measured.skipped == ("batch 16 was not timed: the models fix a batch size of 8",)
    assert not measure_latency([relu(batch="8")], names=["a"], seconds=0.05).skipped


def test_two_fixed_batches_cannot_be_compared() -> None:
    with pytest.raises(ModelFileError, match="fixed batch sizes 2, 3"):
        batch_sizes([relu(batch="2"), relu(batch="3")])


def frozen_inside() -> Model:
    """Its input says that the batch is free, its Reshape says 1."""
    return from_text(
        '<ir_version: 9, opset_import: ["": 17]> g (float[N, 4] x) => (float[1, 4] y)'
        " <int64[2] shape = {1, 4}> { y = Reshape(x, shape) }"
    )


def test_a_batch_that_does_not_run_is_skipped_with_a_reason() -> None:
    measured = measure_latency([frozen_inside()], names=["a"], seconds=0.05)
    assert [result.batch for result in measured.results] == [1]
    (reason,) = measured.skipped
    assert reason.startswith("batch 64 was not timed: ")
    assert "Reshape" in reason
    assert "onnxruntime_src" not in reason


def test_a_model_that_does_not_run_at_all_is_an_error() -> None:
    model = from_text(
        '<ir_version: 9, opset_import: ["": 17]> g (float[N, 4] x) => (float[1, 5] y)'
        " <int64[2] shape = {1, 5}> { y = Reshape(x, shape) }"
    )
    with pytest.raises(ModelFileError, match=r"x \[1, 4\] float32"):
        measure_latency([model], names=["a"], seconds=0.05)


def test_a_model_that_lost_an_unused_input_is_still_compared() -> None:
    header = '<ir_version: 9, opset_import: ["": 17]>'
    two = from_text(f"{header} g (float[N, 4] x, float[N, 4] z) => (float[N, 4] y) {{ y = Relu(x) }}")
    (result,) = measure_latency([two, relu()], names=["two", "one"], large=1, seconds=0.05).results
    assert len(result.speedups) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0.0}, "seconds: expected a positive time, found 0"),
        ({"seconds": float("nan")}, "seconds: expected a positive time, found nan"),
        ({"large": 0}, "batch: expected at least 1, found 0"),
        ({"names": ["a", "b"]}, "names: expected 1, found 2"),
    ],
    ids=["no time", "nan", "batch 0", "names"],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"names": ["a"], "seconds": 0.1, "large": 1} | options
    with pytest.raises(OptionError, match=message):
        measure_latency([relu()], **given)  # type: ignore[arg-type]


def test_progress_hears_of_every_batch_size() -> None:
    heard: list[str] = []

    class Listener:
        def stage(self, name: str, *, total: int | None = None) -> None:
            heard.append(name)

        def advance(self, steps: int = 1) -> None: ...

        def iteration(self, row: Iteration) -> None: ...

        def note(self, sentence: str) -> None: ...

    measure_latency([relu()], names=["a"], large=2, seconds=0.05, progress=Listener())
    assert heard == ["latency at batch 1", "latency at batch 2"]
