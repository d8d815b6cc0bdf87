"""How far off a network is with other constants: what running it as a whole with them says."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxadmm.calibrate.distance import Goal, Outlook
from onnxadmm.calibrate.network import Network
from onnxadmm.graph.constants import constant, constants_by_name, with_constants
from onnxadmm.graph.model import Model, from_proto
from onnxadmm.graph.runtime import open_session
from onnxadmm.rewrite.gates import open_gates
from onnxadmm.units.units import find_units
from tests.calibrate.networks import batches, convolutional, network, squares
from tests.graphs.decoder import decoder

Array = NDArray[Any]
Feeds = list[dict[str, Array]]


def as_a_whole(model: Model, changed: Model, feeds: Feeds) -> float:
    results = []
    for each in (changed, model):
        with open_session(each, threads=1) as session:
            results.append([session.run(feed) for feed in feeds])
    return squares(results[0], results[1])


def twice(model: Model, *names: str) -> Mapping[str, Array]:
    values = constants_by_name(model)
    return {name: 2 * np.asarray(constant(values[name])) for name in names}


@pytest.mark.parametrize("room", [0, 10**9])
def test_constants_change_it_as_a_model_that_holds_them(room: int) -> None:
    model = convolutional()
    feeds = batches(model)
    outlook = Outlook(Goal(model, feeds, squares), threads=1, room=room)
    # The second lot begins further behind, the third in front of it again.
    for lot in ([("w1",), ("w1", "b2"), ()], [("w3",)], [("w0",), ("w2", "b0")]):
        changes = [twice(model, *names) for names in lot]
        for found, change in zip(outlook(changes), changes, strict=True):
            whole = as_a_whole(model, with_constants(model, change), feeds)
            assert found == pytest.approx(whole, rel=1e-4, abs=1e-12)
            assert (found > 1e-3) == bool(change)


def test_what_nothing_reads_counts_for_nothing() -> None:
    model = convolutional()
    outlook = Outlook(Goal(model, batches(model), squares), threads=1, room=10**9)
    assert outlook([{"nothing": np.ones(3)}, {}]) == [0.0, 0.0]


def test_an_output_in_front_of_what_changes_is_that_of_the_original() -> None:
    model = network(
        "g (float[N,4] x) => (float[N,4] a, float[N,3] y) { a = MatMul(x, w) r = Relu(a) y = MatMul(r, v) }",
        {"w": [4, 4], "v": [4, 3]},
    )
    feeds = batches(model)
    outlook = Outlook(Goal(model, feeds, squares), threads=1, room=10**9)
    change = twice(model, "v")
    whole = as_a_whole(model, with_constants(model, change), feeds)
    assert outlook([change]) == pytest.approx([whole], rel=1e-4)


def test_units_behind_gates_go_as_in_the_masked_network() -> None:
    model = from_proto(decoder("Div"))
    units = find_units(model)
    assert units.gates
    network_of = Network(model, units)
    generator = np.random.default_rng(0)
    name = model.ir.graph.inputs[0].name or ""
    feeds: Feeds = [{name: generator.integers(0, 40, (2, 6))} for _ in range(2)]
    outlook = Outlook(Goal(open_gates(model, units), feeds, squares), threads=1, room=10**9)
    for group in units.groups:
        keep = np.ones(units.count, np.bool_)
        keep[group.start : group.start + group.count // 2] = False
        (found,) = outlook([network_of.without_units({}, keep)])
        whole = as_a_whole(model, network_of.masked({}, keep), feeds)
        assert found == pytest.approx(whole, rel=1e-3)
        assert found > 1e-6


def test_what_was_run_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = convolutional()
    outlook = Outlook(Goal(model, batches(model), squares), threads=1, room=10**9)
    ran: list[int] = []

    def counting(part, **named):  # type: ignore[no-untyped-def]
        ran.append(sum(node.op_type in ("Conv", "Gemm") for node in part.ir.graph))
        return open_session(part, **named)

    monkeypatch.setattr("onnxadmm.calibrate.frontier.open_session", counting)
    outlook([twice(model, "w2")] * 5)
    assert ran == [2, 2]  # two layers up to it, once; two from there on, opened once for all
    outlook([twice(model, "w3")])
    assert ran == [2, 2, 1, 1]
