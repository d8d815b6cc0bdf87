"""A network in stretches computes what the whole one computes."""

import numpy as np
import pytest

from onnxadmm.calibrate.frontier import Frontier
from onnxadmm.graph.constants import constant, constants_by_name, set_constants
from onnxadmm.graph.model import clone
from onnxadmm.graph.part import up_to
from onnxadmm.graph.runtime import open_session
from tests.calibrate.networks import batches, convolutional, network


@pytest.mark.parametrize("room", [0, 10**9])
def test_stretches_give_what_the_whole_network_gives(room: int) -> None:
    model = convolutional()
    feeds = batches(model)
    names = [value.name or "" for node in model.ir.graph for value in node.outputs]
    with open_session(up_to(model, names), threads=1) as session:
        expected = [session.run(feed) for feed in feeds]
    frontier = Frontier(feeds, threads=1, room=room)
    for index, node in enumerate(model.ir.graph):
        wanted = [value.name or "" for value in node.inputs if value is not None and value.producer() is not None]
        for found, whole in zip(frontier.advance(model, wanted, index), expected, strict=True):
            for name in wanted:
                np.testing.assert_allclose(found[name], whole[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("room", [0, 10**9])
def test_weights_that_change_before_they_are_read_count(room: int) -> None:
    model = convolutional()
    feeds = batches(model)
    changing = clone(model)
    frontier = Frontier(feeds, threads=1, room=room)
    list(frontier.advance(changing, ["r"], 2))
    before = constant(constants_by_name(model)["w1"])
    assert before is not None
    set_constants(changing, {"w1": 2 * before})
    found = next(iter(frontier.advance(changing, ["c"], 3)))
    with open_session(up_to(changing, ["c"]), threads=1) as session:
        np.testing.assert_allclose(found["c"], session.run(feeds[0])["c"], rtol=1e-4, atol=1e-5)


def test_kept_values_save_running_nodes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = convolutional()
    ran: list[int] = []

    def counting(part, **named):  # type: ignore[no-untyped-def]
        ran.append(sum(node.op_type == "Conv" for node in part.ir.graph))
        return open_session(part, **named)

    monkeypatch.setattr("onnxadmm.calibrate.frontier.open_session", counting)
    for room, expected in ((10**9, [1, 1, 1]), (0, [1, 2, 3])):
        ran.clear()
        frontier = Frontier(batches(model), threads=1, room=room)
        for name, index in (("r", 2), ("s", 4), ("u", 7)):
            list(frontier.advance(model, [name], index))
        assert ran == expected


def test_what_a_body_captures_is_kept_for_it() -> None:
    model = network(
        """g (float[N,3] x, bool c) => (float[N,3] y) {
            h = Relu (x)
            k = Neg (x)
            y = If (c) <then_branch = t () => (float[N,3] a) { a = Add (h, k) },
                        else_branch = e () => (float[N,3] b) { b = Identity (k) }>
        }""",
        {},
    )
    feed = {"x": np.array([[1, -2, 3]], np.float32), "c": np.array(True)}
    frontier = Frontier([feed], threads=1, room=10**9)
    list(frontier.advance(model, [], 2))
    (found,) = frontier.advance(model, ["y"], 3)
    np.testing.assert_array_equal(found["y"], [[0, 2, 0]])


def test_a_sequence_is_no_reason_to_stop() -> None:
    model = network(
        """g (float[N,4] x) => (float[N,2] y) {
            s = SplitToSequence <axis = 1> (x, two)
            z = Abs (x)
            y = SequenceAt (s, one)
        }""",
        {},
        constants={"two": np.array(2), "one": np.array(1)},
    )
    feed = {"x": np.array([[1, 2, 3, 4]], np.float32)}
    frontier = Frontier([feed], threads=1, room=10**9)
    list(frontier.advance(model, ["z"], 2))
    (found,) = frontier.advance(model, ["y"], 3)
    np.testing.assert_array_equal(found["y"], [[3, 4]])
