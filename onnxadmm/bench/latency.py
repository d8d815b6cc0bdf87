"""CPU latency of several models side by side: interleaved, warmed up, with spread and a range for the ratio.

A clock that drifts, a busy neighbour and a warming processor change every measurement. So models take turns within
each round, the order turns round from one round to the next, and the speed-up is the median of the ratios *within*
rounds: what slows a whole round cancels.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.bench.inputs import batch_is_free, fixed_batch, random_inputs, with_sizes_that_run
from onnxadmm.errors import ModelFileError, OptionError
from onnxadmm.graph.harmless import is_harmless
from onnxadmm.graph.model import Model
from onnxadmm.graph.runtime import Session, open_session
from onnxadmm.graph.shapes import infer
from onnxadmm.graph.stated import leaves_sizes_open
from onnxadmm.progress import SILENT, Progress
from onnxadmm.runtime.apart import CrashError

FloatArray = NDArray[np.float64]

#: The larger batch size, unless another one is asked for.
LARGE: Final = 64
#: For which models are timed at each batch size, unless another time is asked for.
SECONDS: Final = 3.0
# A sample lasts at least this long: short runs are repeated within it, far above the clock's own step.
_SAMPLE_SECONDS: Final = 0.002
_WARM_UP_SHARE: Final = 0.1
_WARM_UP_RUNS: Final = 3
_FEWEST_ROUNDS: Final = 5
_PATIENCE: Final = 10  # times the seconds that are asked for: then fewer rounds have to do
_MOST_ROUNDS: Final = 1000
_BOOTSTRAP_DRAWS: Final = 1000


@dataclass(frozen=True)
class Timing:
    """How long one run of one model takes.

    Attributes:
        name: what the caller calls the model.
        median_ms: median over rounds of the milliseconds per run.
        low_ms: first quartile.
        high_ms: third quartile; ``high_ms - low_ms`` is the interquartile range.
        repeats: runs averaged within one sample.
    """

    name: str
    median_ms: float
    low_ms: float
    high_ms: float
    repeats: int


@dataclass(frozen=True)
class Speedup:
    """How many times faster a model is than the one it is compared with, which is the first one unless told otherwise.

    Attributes:
        name: what the caller calls the model.
        ratio: median over rounds of (milliseconds of that model / milliseconds of this one).
        low: lower end of the 95 % bootstrap interval of that median.
        high: upper end.
    """

    name: str
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Latency:
    """Models timed side by side at one batch size.

    Attributes:
        batch: length of axis 0 of the inputs.
        threads: threads one operator may use.
        rounds: rounds measured; in each, every model has its turn.
        order: index of the models in the order they were timed, all rounds in one row, for whoever doubts the turns.
        timings: one per model.
        speedups: one per model but the first, against the one it is compared with.
    """

    batch: int
    threads: int
    rounds: int
    order: tuple[int, ...]
    timings: tuple[Timing, ...]
    speedups: tuple[Speedup, ...]


@dataclass(frozen=True)
class Latencies:
    """What ``measure_latency`` gives.

    Attributes:
        results: one per batch size that runs.
        skipped: one sentence per batch size that does not, although the input's shape allows it.
        sizes: of one sample, for inputs whose file leaves them free; what was stated, or what runs.
    """

    results: tuple[Latency, ...]
    skipped: tuple[str, ...]
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        told = []
        for result in self.results:
            names = [f"{timing.name!r} {timing.median_ms:.3g} ms" for timing in result.timings]
            ratios = ["", *(f" ({speedup.ratio:.2f}x)" for speedup in result.speedups)]
            told.append(f"batch {result.batch}: {', '.join(map(''.join, zip(names, ratios, strict=True)))}")
        return f"Latencies({'; '.join([*told, *map(repr, self.skipped)])})"


def batch_sizes(models: Sequence[Model], *, large: int = LARGE) -> tuple[int, ...]:
    """Batch sizes at which models can be compared: 1 and ``large``, or the one that any of them fixes.

    Raises:
        ModelFileError: two models fix different batch sizes.
        OptionError: ``large`` is not positive, or there is no model.
    """
    if large < 1:
        raise OptionError("--batch", expected="at least 1", found=str(large), way_out="give a positive batch size")
    if not models:
        raise OptionError("models", expected="at least one", found="none", way_out="name a model")
    fixed = sorted({fixed_batch(model) for model in models if not batch_is_free(model)})
    if len(fixed) > 1:
        raise ModelFileError(
            "models to compare",
            expected="one batch size that fits all",
            found=f"fixed batch sizes {', '.join(map(str, fixed))}",
            way_out="export them with the same batch size, or with a free batch axis",
        )
    return tuple(fixed) if fixed else tuple(sorted({1, large}))


def measure_latency(
    models: Sequence[Model],
    *,
    names: Sequence[str],
    large: int = LARGE,
    batches: Sequence[int] | None = None,
    threads: int = 1,
    seconds: float = SECONDS,
    seed: int = 0,
    inputs: Mapping[str, object] = MappingProxyType({}),
    against: Sequence[int] | None = None,
    progress: Progress = SILENT,
) -> Latencies:
    """Time models side by side at batch 1 and a larger batch, on random inputs (the same for every model).

    Args:
        models: all must accept the same inputs.
        names: one per model.
        large: the larger batch size, where the batch axis is free.
        batches: the batch sizes, where these are known to fit.
        threads: threads one operator may use.
        seconds: time for measuring at each batch size, warm-up included; loading comes on top, and models so slow that
            5 rounds take longer are timed for 5 rounds, or as many as begin within ten times as long. A batch that
            would take longer than that for a single round is not timed.
        seed: seed of the inputs and of the bootstrap.
        inputs: values of some inputs by name, the same for every sample; the others are random.
        against: for each model but the first, the place of the one it is compared with; None: the first.
        progress: told about each batch size.

    Raises:
        ModelFileError: a model does not load, does not run at batch 1 (or at its fixed batch), or the models cannot
            run at the same batch size.
        OptionError: an option is out of range.
    """
    if len(names) != len(models):
        raise OptionError("names", expected=f"{len(models)}", found=f"{len(names)}", way_out="give one name per model")
    if not seconds > 0:
        raise OptionError("--seconds", expected="a positive time", found=f"{seconds:g}", way_out="give seconds above 0")
    sizes = batch_sizes(models, large=large) if batches is None else tuple(batches)
    is_fixed = batches is None and large not in sizes
    first = _sized(models[0], threads=threads, batch=sizes[0], seed=seed, inputs=inputs)
    for model in models:
        feeds_tried = [random_inputs(first, batch=batch, seed=seed, inputs=inputs) for batch in sizes]
        _try_apart(model, feeds_tried, threads=threads)
    sessions = [open_session(model, threads=threads, here=True) for model in models]
    results: list[Latency] = []
    skipped: list[str] = []
    if is_fixed and large != LARGE:  # somebody has asked for it
        skipped.append(f"batch {large} was not timed: the models fix a batch size of {sizes[0]}")
    shortest: float | None = None  # seconds for one sample of one run of each model
    for batch in sizes:
        if shortest is not None and shortest * batch > seconds * _PATIENCE:
            skipped.append(
                f"batch {batch} was not timed: running the models once would take about {shortest * batch:.0f} s"
            )
            continue
        feeds = random_inputs(first, batch=batch, seed=seed, inputs=inputs)
        runs = [_run(session, feeds) for session in sessions]
        try:
            begin = time.perf_counter()
            for run in runs:
                run()
            once = time.perf_counter() - begin
        except ModelFileError as error:
            if batch == sizes[0]:
                raise
            skipped.append(f"batch {batch} was not timed: {error}")
            continue
        progress.stage(f"latency at batch {batch}", total=None)
        samples, order, repeats = time_in_turns(runs, seconds=seconds)
        pairs = against if against is not None else [0] * (len(models) - 1)
        results.append(_summary(samples, order, repeats, names, pairs, batch=batch, threads=threads, seed=seed))
        shortest = min(once, float(samples.min(axis=0).sum()) / 1000) / batch
    return Latencies(tuple(results), tuple(skipped), infer(first).sizes)


def _sized(model: Model, *, threads: int, batch: int, seed: int, inputs: Mapping[str, object]) -> Model:
    """Return the model, with other sizes stated where it does not run at those that its shapes suggest."""
    if leaves_sizes_open(model):
        with open_session(model, threads=threads) as session:
            try:
                session.run(random_inputs(model, batch=batch, seed=seed, inputs=inputs))
            except ModelFileError:
                return with_sizes_that_run(model) or model
    return model


def time_in_turns(
    runs: Sequence[Callable[[], object]], *, seconds: float
) -> tuple[FloatArray, tuple[int, ...], tuple[int, ...]]:
    """Time callables in turns: forwards in even rounds, backwards in odd ones.

    Args:
        runs: what to time.
        seconds: time for everything, warm-up included.

    Returns:
        Milliseconds per run ``[rounds, len(runs)]``; the indices of ``runs`` in the order they were timed; and how many
        runs one sample averages, per callable.
    """
    begin = time.perf_counter()
    repeats = [_warm_up(run, seconds=seconds * _WARM_UP_SHARE / len(runs)) for run in runs]
    rounds: list[list[float]] = []
    order: list[int] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        while len(rounds) < _MOST_ROUNDS:
            spent = time.perf_counter() - begin
            if rounds and spent >= seconds * (1 if len(rounds) >= _FEWEST_ROUNDS else _PATIENCE):
                break
            turns = range(len(runs)) if len(rounds) % 2 == 0 else range(len(runs) - 1, -1, -1)
            row = [0.0] * len(runs)
            for index in turns:
                row[index] = _sample(runs[index], repeats[index])
                order.append(index)
            rounds.append(row)
    finally:
        if collecting:
            gc.enable()
    return np.array(rounds), tuple(order), tuple(repeats)


def median_ratio(first: FloatArray, second: FloatArray, *, seed: int) -> tuple[float, float, float]:
    """Median of the pairwise ratios ``first / second`` and its 95 % percentile bootstrap interval.

    Args:
        first: float64 ``[rounds]``.
        second: float64 ``[rounds]``, measured in the same rounds.
        seed: seed of the bootstrap.

    Returns:
        The median, the lower and the upper end of the interval.
    """
    ratios = first / second
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, len(ratios), size=(_BOOTSTRAP_DRAWS, len(ratios)))
    medians = np.median(ratios[draws], axis=1)  # [draws, rounds] -> [draws]
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def _try_apart(model: Model, batches: Sequence[dict[str, NDArray[np.generic]]], *, threads: int) -> None:
    """Run a model once on every batch in a process of its own, if native code might crash on it.

    Raises:
        ModelFileError: it does not load, refuses the first batch, or crashes on any.
    """
    if is_harmless(model):
        return
    with open_session(model, threads=threads) as session:
        for number, feeds in enumerate(batches):
            try:
                _run(session, feeds)()
            except ModelFileError as error:
                # Whoever times it says of a larger batch that it was not timed.
                if number == 0 or isinstance(error.__cause__, CrashError):
                    raise


def _run(session: Session, feeds: dict[str, NDArray[np.generic]]) -> Callable[[], object]:
    # A model may have lost an input it never used; every other name must be there, or the session says so.
    own = {name: array for name, array in feeds.items() if name in session.inputs}
    return lambda: session.run(own)


def _warm_up(run: Callable[[], object], *, seconds: float) -> int:
    """Run until the time is up, then say how many runs fill one sample."""
    end = time.perf_counter() + seconds
    late = end + seconds * (_PATIENCE - 1)
    fastest = float("inf")
    runs = 0
    while not runs or time.perf_counter() < (late if runs < _WARM_UP_RUNS else end):
        begin = time.perf_counter()
        run()
        fastest = min(fastest, time.perf_counter() - begin)
        runs += 1
    return max(1, round(_SAMPLE_SECONDS / max(fastest, 1e-7)))


def _sample(run: Callable[[], object], repeats: int) -> float:
    """Milliseconds per run, averaged over ``repeats`` runs."""
    begin = time.perf_counter_ns()
    for _ in range(repeats):
        run()
    return (time.perf_counter_ns() - begin) / repeats / 1e6


def _summary(
    samples: FloatArray,  # [rounds, models]
    order: tuple[int, ...],
    repeats: tuple[int, ...],
    names: Sequence[str],
    against: Sequence[int],
    *,
    batch: int,
    threads: int,
    seed: int,
) -> Latency:
    timings = []
    for index, name in enumerate(names):
        low, median, high = np.quantile(samples[:, index], [0.25, 0.5, 0.75])
        timings.append(Timing(name, float(median), float(low), float(high), repeats[index]))
    speedups = tuple(
        Speedup(names[index], *median_ratio(samples[:, other], samples[:, index], seed=seed))
        for index, other in enumerate(against, start=1)
    )
    return Latency(batch, threads, len(samples), order, tuple(timings), speedups)
