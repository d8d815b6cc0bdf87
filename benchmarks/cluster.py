"""Several machines: how much faster, how good, what a loss costs, what the network takes, and what else was tried.

Run from the root of the repository: ``python -m benchmarks.cluster [speed] [quality] [kills] [momentum] [hosts]``; all
without words. MNIST and the models lie beside the repository (``../shared``) unless ``--data`` and ``--models`` say
otherwise. ``hosts`` needs root and Linux: it makes two network namespaces, see ``benchmarks.cluster_hosts``. Every
cell is a file of benchmarks/results/cluster/ and is measured once: ``--again`` forgets those that are named. Writes
benchmarks/cluster.md from all files there are. The status is 1 when a bar is missed: two machines 1.7 times as fast
as one, and 2 and 4 machines, and those that are killed, within the spread of the seeds.
"""

import argparse
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np

import onnxadmm as oa
from benchmarks.cluster_momentum import tried
from benchmarks.cluster_table import PAGE, RESULTS, missed, page
from onnxadmm.bench.simd import this_machine
from onnxadmm.cluster.actors import RayCrew
from onnxadmm.cluster.rounds import Asked, Heard, Rounds
from onnxadmm.run.together import Answer, Job, Order
from onnxadmm.train.data.sources import read_source

ROOT: Final = Path(__file__).resolve().parents[1]
SEEDS: Final = (0, 1, 2, 3, 4)
IMAGES: Final = 3000
#: Of each seed's run.
KILLS: Final = 7
#: Of LeNet-5: a tenth of its parameters, in few epochs.
LENET: Final = oa.Recipe(epochs=4, retrain_epochs=10, workers=1)
#: Of ResNet-20, on made pictures, for what steps cost; few held-out ones, since they are looked at alone.
RESNET: Final = oa.Recipe(epochs=1, retrain_epochs=1, workers=1, held_out=0.05)
PICTURES: Final = 4200

Result = dict[str, Any]


class Timed(Rounds[Job, Order, Answer]):
    """Rounds that remember what each of them took, how busy its busiest machine was, and who answered."""

    kept: list["Timed"] = []  # noqa: RUF012  # of all runs of this process
    pinned = False  # each machine to a core of its own

    def __post_init__(self) -> None:
        super().__post_init__()
        self.seconds: list[float] = []
        self.busy: list[float] = []
        self.steps: list[int] = []
        self.bytes: list[int] = []
        self.answers: list[int] = []
        Timed.kept.append(self)

    def begin(self, task: Job) -> None:
        super().begin(task)
        if Timed.pinned:
            for machine, (_, process) in self.crew.processes.items():  # type: ignore[attr-defined]
                pin(process, machine)

    def take(self, order: Callable[[Asked], Order]) -> list[Heard[Answer]]:
        begin, busy = time.perf_counter(), self._busy()
        orders: list[Order] = []

        def seen(asked: Asked) -> Order:
            orders.append(order(asked))
            return orders[-1]

        heard = super().take(seen)
        self.steps.append(len(orders[0].rates))
        self.bytes.append(heard[0].answer.weights.nbytes)
        self.seconds.append(time.perf_counter() - begin)
        self.busy.append(max(now - before for now, before in zip(self._busy(), busy, strict=True)))
        self.answers.append(len(heard))
        return heard

    def _busy(self) -> list[float]:
        """Processor seconds of each machine's process so far; 0 where it is on another host, or gone."""
        return [_processor_seconds(process) for _, process in self.crew.processes.values()]  # type: ignore[attr-defined]


def _processor_seconds(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pin(process: int, number: int) -> None:
    """Let all threads of a process, and those that they begin, run on one core: beside a step they make batches."""
    cores = sorted(os.sched_getaffinity(0))
    for thread in os.listdir(f"/proc/{process}/task"):
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread), {cores[number % len(cores)]})


def mnist(data: Path) -> tuple[Any, Any]:
    """Training images and labels, the first of them, and the path of the test data."""
    images, labels = (data / f"mnist-train-{what}-ubyte.gz" for what in ("images-idx3", "labels-idx1"))
    raw = read_source(f"{images},{labels}")
    (pixels,) = raw.inputs.values()
    assert raw.labels is not None
    assert isinstance(pixels, np.ndarray)
    test = ",".join(str(data / f"mnist-t10k-{what}-ubyte.gz") for what in ("images-idx3", "labels-idx1"))
    return (np.asarray(pixels[:IMAGES]), np.asarray(raw.labels[:IMAGES])), test


def compressed(where: str | None, seed: int, *, data: Path, models: Path, **more: Any) -> oa.Compressed:
    """Compress LeNet-5 to a tenth of its parameters."""
    train, test = mnist(data)
    return oa.compress(
        models / "lenet5_mnist.onnx",
        data=train,
        test=test,
        budget={"params": 0.1},
        preprocessing=oa.Preprocessing(mean=[0.1307], std=[0.3081]),
        recipe=replace(LENET, cluster=where),
        seed=seed,
        bench=False,
        **more,
    )


def lenet(where: str | None, seed: int, *, data: Path, models: Path) -> Result:
    """Return the accuracy of a compressed LeNet-5, and what that took."""
    result = compressed(where, seed, data=data, models=models)
    assert result.after.test is not None
    return {"test": result.after.test.value, **cost_of(result)}


def cost_of(result: oa.Compressed) -> Result:
    """Return the seconds of both trainings, and of their rounds."""
    stages = {stage.name: stage.seconds for stage in result.report.stages if stage.name in ("prune", "retrain")}
    notes = [note for note in result.report.simplified if " over " in note and "machine" in note]
    course = Timed.kept[-1] if Timed.kept and notes else None
    rounds, busy = ([], []) if course is None else (course.seconds, course.busy)
    spent = {"in_rounds": sum(rounds), "busy": sum(busy)}
    return {"seconds": stages, "rounds": len(rounds), **spent, "lengths": rounds, "notes": notes}


def resnet(where: str | None, *, models: Path) -> Result:
    """Take an epoch of each training of a ResNet-20 on made pictures; return what that took."""
    draw = np.random.default_rng(0)
    pictures = draw.normal(size=(PICTURES, 3, 32, 32)).astype(np.float32)
    with patch.object(Timed, "pinned", True):
        result = oa.compress(
            models / "resnet20_cifar10.onnx",
            data=(pictures, draw.integers(0, 10, PICTURES)),
            budget={"macs": 0.5},
            recipe=replace(RESNET, cluster=where),
            expect_accuracy=0,
            bench=False,
        )
    return cost_of(result)


def momentum(seed: int, *, data: Path, models: Path) -> Result:
    """Retrain LeNet-5 with outer steps of the driver."""
    return {"tried": tried(partial(compressed, seed=seed, data=data, models=models))}


def killed(seed: int, *, data: Path, models: Path) -> Result:
    """Train on four machines while one of them after the other is killed, at random moments."""
    crews: list[RayCrew] = []
    over = threading.Event()
    done: list[float] = []

    class Seen(RayCrew):
        def __init__(self, where: str) -> None:
            super().__init__(where)
            crews.append(self)

    def kill() -> None:
        chance = random.Random(seed)
        begin = time.perf_counter()
        while len(done) < KILLS and not over.wait(chance.uniform(0.5, 4.0)):
            machines = [crew for crew in crews if len(crew.processes) == crew.count]
            if not machines:
                continue
            _, process = chance.choice(list(machines[0].processes.values()))
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:  # killed a moment ago, and not yet back
                continue
            done.append(time.perf_counter() - begin)

    killer = threading.Thread(target=kill)
    with patch("onnxadmm.compress.RayCrew", Seen):
        killer.start()
        try:
            found = lenet("local:4", seed, data=data, models=models)
        finally:
            over.set()
            killer.join()
    course = Timed.kept[-1]
    return {**found, "kills": len(done), "lost": sum(course.lost.values()), "answers": course.answers}


@contextmanager
def ray_running(cores: int) -> Iterator[None]:
    """One cluster on this machine for all runs, with more cores than it has where need be."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    import ray

    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    with patch("onnxadmm.run.beginning.Rounds", Timed):
        yield
    ray.shutdown()


def cells(data: Path, models: Path) -> Mapping[str, Callable[[], Result]]:
    """Everything that is measured with processes of this machine, by the name of its file."""
    named = {"alone": None, "1": "local:1", "2": "local:2", "4": "local:4"}
    found: dict[str, Callable[[], Result]] = {
        f"speed-{name}": partial(resnet, named[name], models=models) for name in ("alone", "1", "2")
    }
    for seed in SEEDS:
        for name in ("alone", "2", "4"):
            found[f"quality-{name}-{seed}"] = partial(lenet, named[name], seed, data=data, models=models)
        found[f"kills-{seed}"] = partial(killed, seed, data=data, models=models)
    for seed in SEEDS[:3]:
        found[f"momentum-{seed}"] = partial(momentum, seed, data=data, models=models)
    return found


def main() -> int:
    """Measure what is asked for and not yet measured, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="as above; or the beginning of a cell's name")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--models", type=Path, default=ROOT.parent / "shared" / "models")
    parser.add_argument("--again", action="store_true", help="measure anew what is there")
    asked = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    wanted = {
        name: measure
        for name, measure in cells(asked.data, asked.models).items()
        if not asked.what or any(name.startswith(word) for word in asked.what)
    }
    left = {name: each for name, each in wanted.items() if asked.again or not (RESULTS / f"{name}.json").exists()}
    if left:
        with ray_running(8):
            for name, measure in left.items():
                keep(name, measure())
    if not asked.what or "hosts" in asked.what:
        from benchmarks.cluster_hosts import hosts

        if asked.again or not (RESULTS / "hosts.json").exists():
            keep("hosts", hosts(asked.data, asked.models))
    PAGE.write_text(page(), encoding="utf-8")
    for sentence in missed():
        print(f"missed: {sentence}", file=sys.stderr)
    return 1 if missed() else 0


def keep(name: str, result: Result) -> None:
    """Write a cell."""
    result = {**result, "machine": asdict(this_machine())}
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    told = {key: each for key, each in result.items() if key not in ("machine", "answers", "lengths")}
    print(f"{name}: {told}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
