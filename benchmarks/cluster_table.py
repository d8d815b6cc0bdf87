"""The page of ``benchmarks.cluster``, and the bars that its cells have to reach."""

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results" / "cluster"
PAGE: Final = ROOT / "benchmarks" / "cluster.md"
#: How many times as fast two machines have to be.
FASTER: Final = 1.7
#: Points that a mean may lie below that of one machine: twice the standard error of their difference, and at least so
#: many, which is five of the test images.
_LEAST: Final = 0.05
#: Numbers of weights, and seconds of a step of 64 samples: measured here on one core; and 3 x 4.1e9
#: multiply-accumulates of a sample on 16 cores of 6e10 a second, as `--workers auto` reckons.
NETWORKS: Final = {
    "ResNet-20 on CIFAR-10, a core each": (0.27e6, 0.2),
    "ResNet-50 at 224, 16 cores each": (25.6e6, 3 * 4.1e9 * 64 / (16 * 6e10)),
}
LINKS: Final = {
    "100 Mbit/s, 20 ms": (12.5e6, 0.04),
    "1 Gbit/s, 0.2 ms": (125e6, 0.0004),
    "10 Gbit/s, 0.1 ms": (1.25e9, 0.0002),
}
_MACHINES: Final = (2, 4, 16, 64)
#: How often a round goes there and back before all is sent, as measured over the slow link.
_ECHOES: Final = 4
#: Share of a round that may go over the network.
_SHARE: Final = 0.1

Result = dict[str, Any]


def cell(name: str) -> Result | None:
    """Return what was measured; None where nothing was."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def seeds_of(kind: str) -> list[Result]:
    """Return the cells of one kind, one for each seed."""
    found = (cell(path.stem) for path in sorted(RESULTS.glob(f"{kind}-[0-9].json")))
    return [each for each in found if each is not None]


def missed() -> list[str]:
    """Return a sentence for every bar that was missed."""
    return [*_slow(), *_worse()]


def _slow() -> Iterator[str]:
    faster = speed_up()
    if faster is not None and faster < FASTER:
        yield f"two machines are {faster:.2f} times as fast as one, not {FASTER:g}"


def _worse() -> Iterator[str]:
    for kind, against in (("quality-2", "quality-alone"), ("quality-4", "quality-alone"), ("kills", "quality-4")):
        ours, others = (points_of(seeds_of(each)) for each in (kind, against))
        if len(ours) > 1 and len(others) > 1:
            lost = statistics.fmean(others) - statistics.fmean(ours)
            error = (statistics.variance(ours) / len(ours) + statistics.variance(others) / len(others)) ** 0.5
            if lost > max(_LEAST, 2 * error):
                yield f"{kind} is {lost:.2f} points below {against}, twice the standard error being {2 * error:.2f}"


def points_of(cells: Sequence[Result]) -> list[float]:
    """Return test accuracies in per cent."""
    return [100 * each["test"] for each in cells]


def speed_up() -> float | None:
    """Return how many times as fast the rounds of two machines are as those of one; None where not both were timed."""
    one, two = cell("speed-1"), cell("speed-2")
    return None if one is None or two is None else one["in_rounds"] / two["in_rounds"]


def seconds_of_round(steps: int, step: float, numbers: float, machines: int, link: tuple[float, float]) -> float:
    """Return what a round takes by the model: the driver's link carries the weights to and from every other machine.

    Args:
        steps: of a machine in a round.
        step: seconds of one.
        numbers: weights, of which each takes two bytes.
        machines: of which one is the driver's.
        link: bytes a second of each way, and seconds there and back.
    """
    bandwidth, echo = link
    return steps * step + _ECHOES * echo + 2 * 2 * numbers * (machines - 1) / bandwidth


def steps_for(step: float, numbers: float, machines: int, link: tuple[float, float]) -> int:
    """Return the fewest steps of a round of which a tenth goes over the network."""
    over = seconds_of_round(0, step, numbers, machines, link)
    return max(1, -(-int(1e6 * over * (1 - _SHARE) / _SHARE) // int(1e6 * step)))


def page() -> str:
    """Return the page, with what was measured so far."""
    tables = (_speed(), _quality(), _kills(), _momentum(), _hosts(), _model())
    return "\n".join(["# Several machines\n", _about(), *(line for table in tables for line in table), _machine()])


def _about() -> str:
    return (
        '`compress --cluster` on this machine: every "machine" is a process of one core. What it does and how it is\n'
        "chosen is on the page about [more than one machine](../docs/machines.md).\n"
    )


def _speed() -> Iterator[str]:
    found = {name: cell(f"speed-{name}") for name in ("alone", "1", "2")}
    if not all(found.values()):
        return
    yield "## Speed\n"
    yield (
        "ResNet-20 with its normalisations restored, an epoch of pruning and one of retraining on the same pictures, "
        "batches of 128 samples in all; each machine is held on a core of its own, with the batches that it makes "
        "ahead. *Rounds* are the seconds from asking the machines to having the mean, *of processors* what the busiest "
        "machine was given in them, which other work hardly changes; the stages hold what the driver alone does as "
        "well: the training graphs, and looks at held-out pictures.\n"
    )
    yield "| | in rounds, s | of processors, s | both stages, s | times as fast, rounds | of processors | stages |"
    yield "|---|---|---|---|---|---|---|"
    names = {"alone": "no cluster", "1": "`local:1`", "2": "`local:2`"}
    one = found["1"]
    for name, each in found.items():
        assert each is not None
        assert one is not None
        stages, base = sum(each["seconds"].values()), sum(one["seconds"].values())
        spent, times = [""] * 2, [""] * 2
        if each["rounds"]:
            known = [key for key in ("in_rounds", "busy") if one.get(key) and each.get(key)]
            spent[: len(known)] = [f"{each[key]:.1f}" for key in known]
            times[: len(known)] = [f"{one[key] / each[key]:.2f}" for key in known]
        yield f"| {names[name]} | {' | '.join(spent)} | {stages:.1f} | {' | '.join(times)} | {base / stages:.2f} |"
    yield ""


def _quality() -> Iterator[str]:
    rows = [(name, seeds_of(f"quality-{name}")) for name in ("alone", "2", "4")]
    if not all(cells for _, cells in rows):
        return
    yield "## Quality\n"
    yield (
        "LeNet-5 at a tenth of its parameters, 3,000 images of MNIST, 4 epochs of pruning and 10 of retraining; test "
        "accuracy of the 10,000 test images for five seeds. `local:1` is equal to no cluster to the bit, which is a "
        "test. The gates of these short runs were drawn by each step alike, as they were before [the pull of a step "
        "followed the length of a run](../docs/method.md#admm-while-the-network-trains).\n"
    )
    yield from _accuracies([("no cluster" if name == "alone" else f"`local:{name}`", cells) for name, cells in rows])


def _accuracies(rows: Sequence[tuple[str, Sequence[Result]]]) -> Iterator[str]:
    yield "| | mean | of each seed |"
    yield "|---|---|---|"
    for name, cells in rows:
        points = points_of(cells)
        yield f"| {name} | {statistics.fmean(points):.2f} % | {', '.join(f'{each:.2f}' for each in points)} |"
    yield ""


def _kills() -> Iterator[str]:
    killed, spared = seeds_of("kills"), seeds_of("quality-4")
    if not killed or not spared:
        return
    yield "## Kills\n"
    counts = [each["kills"] for each in killed]
    lost = [each["lost"] for each in killed]
    rounds = [(each["rounds"], other["rounds"]) for each, other in zip(killed, spared, strict=False)]
    missing = [sum(each["answers"][place] < 4 for place in range(len(each["answers"]))) for each in killed]
    yield (
        f"Four machines, of which one is killed with SIGKILL at random moments, {', '.join(map(str, counts))} times in "
        f"the runs ({', '.join(map(str, lost))} were noticed as lost: one killed again before it was back is "
        "lost once). Every run took all its rounds "
        f"({', '.join(f'{one} of {other}' for one, other in rounds)}), {', '.join(map(str, missing))} of them with "
        "fewer than four answers, and nothing had to be begun again.\n"
    )
    yield from _accuracies([("four machines", spared), ("four machines, killed", killed)])


def _momentum() -> Iterator[str]:
    cells = seeds_of("momentum")
    if not cells:
        return
    yield "## Ways to retrain\n"
    yield (
        "While the small network is retrained the driver takes the mean of copies that nothing draws together. What it "
        "could do instead: consensus, as in pruning, or a step further than to the mean, with "
        "Nesterov's momentum, as DiLoCo takes it (Douillard et al., 2023). LeNet-5 as above, all ways from the same "
        "network, pruned in rounds of at most 8 steps; those of at most 64 take an epoch. The loss is that of the "
        "copies in the last epoch.\n"
    )
    yield "| machines | most steps of a round | retrained by | mean | of each seed | last loss |"
    yield "|---|---|---|---|---|---|"
    for place, first in enumerate(cells[0]["tried"]):
        each = [cell["tried"][place] for cell in cells]
        points = points_of(each)
        seeds = ", ".join(f"{point:.2f}" for point in points)
        loss = statistics.fmean(one["loss"] for one in each)
        told = f"| {first['machines']} | {first['local_steps']} | {first['way']} "
        yield f"{told}| {statistics.fmean(points):.2f} % | {seeds} | {loss:.4f} |"
    yield ""


def _hosts() -> Iterator[str]:
    found = cell("hosts")
    if found is None:
        return
    kinds = [kind for run in found["runs"] for kind in kinds_of(run)]
    echoes = echoes_of(kinds)
    yield "## Two hosts\n"
    yield (
        "Two Rays in network namespaces with addresses of their own, on folders for temporary files and shared memory "
        "of their own, and a link between them that hands frames on as slowly as is said (`benchmarks.cluster_hosts`; "
        "this kernel has no `netem`). LeNet-5, two epochs of pruning, 431,080 weights, and of retraining at half of "
        "them. The model is what a round of as many steps takes over the fast link, and "
        f"`{echoes:.1f} t_echo + 4 P / bandwidth`: Ray asks for an object before it is sent. How often it goes there "
        "and back is what fits these rounds best; bandwidth and delay are those of the link.\n"
    )
    yield "| link | sent, MB | steps of a round | rounds | median, ms | by the model, ms |"
    yield "|---|---|---|---|---|---|"
    for kind in kinds:
        told = f"{kind['rate'] / 1e6:g} Mbit/s, {1e3 * kind['delay']:g} ms" if kind["rate"] else "as fast as it goes"
        model = f"{1e3 * _modelled(kind, kinds, echoes):.0f}" if kind["rate"] else ""
        size, steps = kind["bytes"] / 1e6, f"{kind['steps']:.1f}"
        yield f"| {told} | {size:.2f} | {steps} | {kind['rounds']} | {1e3 * kind['median']:.0f} | {model} |"
    yield ""
    slow = next(run for run in found["runs"] if run["rate"] is not None)
    carried = sum(sum(run["carried"]) for run in found["runs"])
    weights = sum(2 * sum(run["bytes"]) for run in found["runs"])
    yield (
        f"Measured on the slow link: {1e3 * slow['echo']:.0f} ms there and back, "
        f"{8e-6 * slow['bandwidth']:.0f} Mbit/s for a message of 5 MB. The link carried {carried / 1e6:.0f} MB in all "
        f"runs, {weights / 1e6:.0f} of them what weights have moved; the rest are the model, first weights and "
        "optimizers, the gates, and what Rays tell each other. The samples are read on each host.\n"
    )


def kinds_of(run: Result) -> Iterator[Result]:
    """Return the rounds of a run by what is trained in them: steps, bytes of the weights, and the median length."""
    for size in sorted(set(run["bytes"]), reverse=True):
        places = [place for place, each in enumerate(run["bytes"]) if each == size]
        yield {
            "rate": run["rate"],
            "delay": run["delay"],
            "echo": run["echo"],
            "asked": run["asked"],
            "bytes": size,
            "rounds": len(places),
            "steps": statistics.fmean(run["steps"][place] for place in places),
            "median": statistics.median(run["lengths"][place] for place in places),
        }


def _like(kind: Result, kinds: Sequence[Result]) -> Result:
    """Return the same rounds over the fast link: those of a network as large, or nearly."""
    same = (each for each in kinds if each["rate"] is None and each["asked"] == kind["asked"])
    return min(same, key=lambda each: abs(each["bytes"] - kind["bytes"]))


def _modelled(kind: Result, kinds: Sequence[Result], echoes: float) -> float:
    fast = float(_like(kind, kinds)["median"])
    return fast + echoes * float(kind["echo"]) + 2 * 8 * float(kind["bytes"]) / float(kind["rate"])


def echoes_of(kinds: Sequence[Result]) -> float:
    """Return how often a round goes there and back, by the rounds over the slow link."""
    slow = [kind for kind in kinds if kind["rate"]]
    return statistics.fmean((kind["median"] - _modelled(kind, kinds, 0)) / kind["echo"] for kind in slow)


def _model() -> Iterator[str]:
    yield "## What the model says of more\n"
    yield (
        "Of a round of `n` machines the driver's link carries `2 P (n - 1)` bytes each way, one after the other. In "
        "the table are the fewest steps of a round, for `--local-steps`, of which a tenth of the time goes over the "
        "network, and 4 times there and back; 64 samples for each machine. What grows with the number of machines is "
        "the driver's link.\n"
    )
    yield "| network | link | " + " | ".join(f"{count} machines" for count in _MACHINES) + " |"
    yield "|---|---|" + "---|" * len(_MACHINES)
    for network, (numbers, step) in NETWORKS.items():
        for name, link in LINKS.items():
            steps = (steps_for(step, numbers, count, link) for count in _MACHINES)
            cells = " | ".join(f"{each:,}" for each in steps)
            yield f"| {network}, {step:.2g} s a step | {name} | {cells} |"
    yield ""


def _machine() -> str:
    found = next((each for each in map(cell, ("speed-2", "quality-2-0")) if each is not None), None)
    if found is None:
        return ""
    machine = found["machine"]
    return (
        f"Measured on {machine['cpu']} with {machine['threads']} cores, shared with other work, by\n"
        "`python -m benchmarks.cluster`.\n"
    )
