"""What a calibration is said to take, against what it takes."""

import time
from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from onnxadmm.calibrate import expect
from onnxadmm.calibrate.allotment import allot
from onnxadmm.calibrate.choose import choose, nearest
from onnxadmm.calibrate.distance import Goal, Outlook
from onnxadmm.calibrate.effort import EFFORTS
from onnxadmm.calibrate.expect import Speed, expected_work
from onnxadmm.calibrate.network import Network
from onnxadmm.calibrate.refit import refit
from onnxadmm.graph.model import Model
from onnxadmm.graph.runtime import open_session
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.problem import Limits, state_problem
from onnxadmm.plan.rank import score
from onnxadmm.units.units import find_units
from tests.calibrate.networks import batches, network, squares

EFFORT = EFFORTS["normal"]


def dense(width: int) -> Model:
    """Three layers of some width, so that arithmetic takes longer than opening sessions."""
    return network(
        """g (float[N,40] x) => (float[N,5] y) {
            a = Gemm (x, w0, b0) r = Relu (a) c = Gemm (r, w1, b1) s = Relu (c) y = Gemm (s, w2, b2)
        }""",
        {"w0": [40, width], "b0": [width], "w1": [width, width], "b1": [width], "w2": [width, 5], "b2": [5]},
    )


def at(monkeypatch: pytest.MonkeyPatch, pace: float) -> None:
    monkeypatch.setattr(expect, "_operations_per_second", lambda: pace)


def pace() -> float:
    """Operations per second of processor time, whoever else is at work here."""
    matrix = np.ones((700, 700), np.float32)
    start = time.process_time()
    for _ in range(3):
        matrix @ matrix
    return 3 * 2 * 700**3 / (time.process_time() - start)


@pytest.mark.slow
@threadpool_limits.wrap(limits=1)  # threads that wait for each other in circles take processor time
@pytest.mark.parametrize("budget", [{"params": 0.6}, {"connections": 0.4}], ids=["units", "connections"])
def test_it_takes_about_as_long_as_was_said(budget: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    model = dense(500)
    units, feeds = find_units(model), batches(model, count=8, size=128)
    thinned = "connections" in budget
    problem = state_problem(model, units, Budget(**budget), Limits())
    at(monkeypatch, pace())
    with open_session(model) as session:
        start = time.process_time()
        for feed in feeds:
            session.run(feed)
        forward = time.process_time() - start
    said = expected_work(
        Network(model, units),
        () if thinned else problem.groups,
        EFFORT,
        Speed(forward, 0.005),
        samples=1024,
        shown=1024,
        connections=problem.connections if thinned else (),
    )
    start = time.process_time()
    net = Network(model, units)
    distance = Outlook(Goal(model, feeds, squares), threads=1, room=10**9)
    keep = np.ones(units.count, np.bool_)
    if not thinned:
        scores, flat = score(model, units, by="magnitude", seed=0), np.ones(units.count)
        choices = choose(net, problem, feeds, scores, distance, EFFORT, information=flat)
        tried = nearest(choices, problem.budget, network=net, batches=feeds, distance=distance, effort=EFFORT)
        keep = tried.choice(problem.budget)
    allotment = allot(net, problem, keep, feeds, EFFORT, distance=distance) if thinned else None
    if thinned:
        refit(net, keep, feeds, EFFORT, connections=allotment)
    spent = time.process_time() - start
    assert spent / 4 < said.seconds < 4 * spent


def test_looks_count_from_the_first_node_that_reads_on(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, 1e30)
    model = dense(20)
    units = find_units(model)
    problem = state_problem(model, units, Budget(params=0.6), Limits())
    given = (Network(model, units), problem.groups, EFFORT, Speed(1.0, 0.0))
    # Of the original, of statistics, and of each weight twice for the refit and once for how far that is; of five nodes
    # the groups are read by the third and fifth.
    looks, tried = EFFORT.looks * (3 / 5 + 1 / 5), len(EFFORT.weights)
    assert expected_work(*given, samples=100, shown=100).seconds == pytest.approx(2 + 3 * tried + looks)
    assert expected_work(*given, samples=100, shown=50).seconds == pytest.approx(2 + 2.5 * tried + looks / 2)
    more = expected_work(*given, samples=100, shown=100, passes=8.0)
    assert more.seconds == pytest.approx(10 + 3 * tried + looks)


def test_a_single_weight_is_not_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, 1e30)
    model = dense(20)
    problem = state_problem(model, find_units(model), Budget(params=0.6), Limits())
    one = replace(EFFORT, weights=(0.5,))
    found = expected_work(
        Network(model, find_units(model)), problem.groups, one, Speed(1.0, 0.0), samples=100, shown=100
    )
    assert found.seconds == pytest.approx(4 + one.looks * (3 / 5 + 1 / 5))


def test_connections_add_a_pass_and_a_look_for_each_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    model = dense(20)
    units = find_units(model)
    given = (Network(model, units), (), EFFORT)
    at(monkeypatch, 1e30)
    found = expected_work(*given, Speed(1.0, 0.0), samples=100, shown=100, connections=("w0", "w1", "w2"))
    assert found.seconds == pytest.approx(4 + 5 / 5 + 3 / 5 + 1 / 5)
    at(monkeypatch, 1.0)
    sums = [
        expected_work(*given, Speed(0.0, 0.0), samples=100, shown=100, connections=names).seconds
        for names in ((), ("w2",), ("w1", "w2"))
    ]
    assert sums[0] < sums[1] < sums[2]
