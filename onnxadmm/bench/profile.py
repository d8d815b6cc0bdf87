"""How long every node of some models takes, by onnxruntime's own profile of runs in turns.

onnxruntime fuses nodes and lays memory out anew before it runs them, and profiles what is left under names of its own.
A copy of the model, its nodes and results numbered, tells which of the original's nodes each of these is; what cannot
be told, or was not asked for, is summed up as the rest.
"""

import json
import re
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import onnx_ir

from onnxadmm.bench.inputs import random_inputs
from onnxadmm.graph.model import Model, clone
from onnxadmm.graph.runtime import open_session

#: For which models are timed, unless another time is asked for.
SECONDS: Final = 2.0
_FEWEST_RUNS: Final = 5
_MOST_RUNS: Final = 100
#: The first run lays out memory and starts threads.
_WARM_UP_RUNS: Final = 1
_PATIENCE: Final = 5  # times the seconds that are asked for: then fewer runs have to do
_INNER: Final = "@inner "
#: Nodes that onnxruntime makes are called after the node that they stand for, or after its result.
_NUMBERED: Final = re.compile(r"@(\d+)@")
_TIME: Final = "_kernel_time"


@dataclass(frozen=True)
class NodeTimes:
    """One model.

    Attributes:
        by_node: milliseconds of one run by the name of the node, or of its first result where it has none.
        other_ms: what belongs to no node that was asked for.
    """

    by_node: Mapping[str, float]
    other_ms: float


@dataclass(frozen=True)
class Profile:
    """Some models, profiled in turns.

    Attributes:
        batch: batch size.
        threads: threads one operator may use.
        runs: runs whose median was taken.
        models: one for each model.
    """

    batch: int
    threads: int
    runs: int
    models: tuple[NodeTimes, ...]


def node_name(node: onnx_ir.Node) -> str:
    """The name of a node, or of its first result where it has none."""
    return node.name or next((value.name for value in node.outputs if value.name), "unnamed")


def profile_nodes(
    models: Sequence[Model],
    wanted: Sequence[frozenset[str]],
    *,
    batch: int,
    threads: int,
    seconds: float = SECONDS,
    seed: int = 0,
    inputs: Mapping[str, object] = MappingProxyType({}),
) -> Profile:
    """Profile models that accept the same inputs, and have run at this batch size before.

    Args:
        models: the models.
        wanted: for each of them the names of the nodes to tell of. The time of a node that was fused with others is
            that of the first wanted one among them.
        batch: batch size.
        threads: threads one operator may use.
        seconds: time for all runs together; a hundred of each model at the most, and five at the least or as
            many as begin within five times as long.
        seed: of the inputs.
        inputs: values of some inputs by name, the same for every sample; the others are random.

    Raises:
        ModelFileError: a model does not run.
        OSError, ValueError: the profile cannot be written or read.
    """
    feeds = random_inputs(models[0], batch=batch, seed=seed, inputs=inputs)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxadmm-")))
        sessions = [
            stack.enter_context(
                open_session(_numbered(model), threads=threads, here=True, profile=folder / f"model{number}")
            )
            for number, model in enumerate(models)
        ]
        runs, begin = 0, time.perf_counter()
        while runs < _WARM_UP_RUNS + _MOST_RUNS:
            patience = 1 if runs >= _WARM_UP_RUNS + _FEWEST_RUNS else _PATIENCE
            if runs > _WARM_UP_RUNS and time.perf_counter() - begin >= patience * seconds:
                break
            for session in sessions:
                session.run({name: array for name, array in feeds.items() if name in session.inputs})
            runs += 1
        events = [json.loads(session.end_profile().read_text(encoding="utf-8")) for session in sessions]
    times = [
        _assigned(_medians(found, runs), model, names)
        for found, model, names in zip(events, models, wanted, strict=True)
    ]
    return Profile(batch, threads, runs - _WARM_UP_RUNS, tuple(times))


def _numbered(model: Model) -> Model:
    """Return a copy whose nodes and results are called by their numbers; nodes inside of others, which hold their time,
    by none. No name of the model's own stands in what onnxruntime writes.
    """
    copy = clone(model)
    for number, node in enumerate(copy.ir.graph.all_nodes()):
        node.name = f"{_INNER}{number}@"
    for number, node in enumerate(copy.ir.graph):
        node.name = f"@{number}@"
        for place, value in enumerate(node.outputs):
            if value.name:
                value.name = f"@{number}@{place}"
    return copy


def _medians(events: Sequence[Mapping[str, Any]], runs: int) -> dict[str, float]:
    """Return milliseconds of one run by the name of the profiled node."""
    spent: dict[str, list[float]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_TIME) and _INNER not in name:
            spent.setdefault(name.removesuffix(_TIME), []).append(float(event["dur"]))  # microseconds
    medians: dict[str, float] = {}
    for name, durations in spent.items():
        # Nodes that were given the same name run several times a run.
        times = max(1, len(durations) // runs)
        sums = [sum(durations[start : start + times]) for start in range(0, len(durations) - times + 1, times)]
        medians[name] = statistics.median(sums[_WARM_UP_RUNS:] or sums) / 1000
    return medians


def _assigned(medians: Mapping[str, float], model: Model, wanted: frozenset[str]) -> NodeTimes:
    nodes = list(model.ir.graph)
    # By profiled name, the last of the original's nodes that it stands for.
    heads = {name: nodes[int(number[1])] for name in medians if (number := _NUMBERED.search(name)) is not None}
    ends = {id(node) for node in heads.values()}
    by_node: dict[str, float] = {}
    other = 0.0
    for name, spent in medians.items():
        found = _first_wanted(heads[name], ends, wanted) if name in heads else None
        if found is None:
            other += spent
        else:
            by_node[found] = by_node.get(found, 0.0) + spent
    return NodeTimes(by_node, other)


def _first_wanted(head: onnx_ir.Node, ends: set[int], wanted: frozenset[str]) -> str | None:
    """Return the nearest wanted node among those that end in ``head`` and are not told of by themselves."""
    pending, seen = [head], {id(head)}
    while pending:
        node = pending.pop(0)
        if node_name(node) in wanted:
            return node_name(node)
        for value in node.inputs:
            before = None if value is None else value.producer()
            if before is not None and id(before) not in seen and id(before) not in ends:
                seen.add(id(before))
                pending.append(before)
    return None
