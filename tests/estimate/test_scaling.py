"""What a step takes on other machines, held against a simulation of it that knows no formula."""

from dataclasses import replace

import pytest

from onnxadmm.estimate.scaling import Hands, Machines, StepParts

#: 8 s of one core for the gradient, 0.1 s to add one, 0.5 s between, 1 s of the teacher, 2 s of reading.
PARTS = StepParts(gradient=8.0, adding=0.1, between=0.5, teacher=1.0, converting=0.0, decoding=2.0)
HERE = Hands(2, 2, 1)
EIGHT = Hands(8, 8, 8)
ONE = Hands(1, 1, 1)


def simulated(parts: StepParts, *, workers: int, beside: int, steps: int = 2000) -> float:
    """Seconds of a step where nothing but the two queues holds it up: a producer two batches ahead, and a consumer."""
    made, used = [0.0], [0.0]
    for step in range(1, steps):
        # A batch is begun when the one before is made, and the second before that one is taken.
        begun = max(made[-1], used[step - 3] if step >= 3 else 0.0)
        made.append(begun + max([parts.teacher / beside] * beside) + parts.converting)
        gradients = [parts.gradient / workers] * workers
        used.append(max(used[-1], made[-1]) + max(gradients) + sum([parts.adding] * (workers - 1)) + parts.between)
    return (used[-1] - used[steps // 2]) / (steps - 1 - steps // 2)


@pytest.mark.parametrize("workers", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("teacher", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("beside", [1, 2, 8])
def test_a_step_is_as_long_as_the_slower_of_the_training_and_the_thread_ahead_of_it(
    workers: int, teacher: float, beside: int
) -> None:
    parts = replace(PARTS, teacher=teacher, decoding=0.0)
    hands = Hands(1000, workers, beside)
    assert parts.seconds(hands) == pytest.approx(simulated(parts, workers=workers, beside=beside), rel=1e-3)


def test_cores_are_never_asked_for_more_than_they_are() -> None:
    work = 8.0 + 0.5 + 1.0 + 2.0
    for cores in (1, 2, 3, 4, 8, 32):
        for workers in range(1, cores + 1):
            assert PARTS.seconds(Hands(cores, workers, cores)) * cores >= work
    assert PARTS.seconds(HERE) == work / 2
    assert PARTS.limit(HERE) == "all work together on its cores"


def test_more_cores_are_never_slower_and_more_processes_pay_until_adding_costs_as_much() -> None:
    times = [PARTS.seconds(Hands(cores, min(cores, 8), cores)) for cores in (1, 2, 4, 8, 16)]
    assert times == sorted(times, reverse=True)
    # 8 / w + (w - 1) / 10 is least at w = sqrt(80).
    free = replace(PARTS, teacher=0.0)
    assert min(range(1, 33), key=lambda workers: free.seconds(Hands(1000, workers, 1))) == 9


def test_what_was_measured_is_what_is_told_of_the_same_machine() -> None:
    assert Machines(2).step(7.0, PARTS, here=HERE, there=HERE, exchanged=10**9) == 7.0


def test_another_machine_takes_as_much_more_or_less_as_its_parts_do() -> None:
    found = Machines(8).step(7.0, PARTS, here=HERE, there=EIGHT, exchanged=10**9)
    assert found == pytest.approx(7.0 * PARTS.seconds(EIGHT) / PARTS.seconds(HERE))
    assert found < 7.0


def test_machines_share_each_batch_and_wait_for_the_link_after_so_many_steps() -> None:
    # Of 100 MB half from each of three others and back to them, at 125 MB a second.
    four = Machines(2, 4, 125e6)
    assert four.traffic(10**8) == 3 * 10**8
    assert four.exchange(10**8) == pytest.approx(2.4)
    quarter = StepParts(gradient=2.0, adding=0.1, between=0.5, teacher=0.25, converting=0.0, decoding=0.5)
    assert PARTS.shared(4) == quarter
    step = 7.0 * quarter.seconds(HERE) / PARTS.seconds(HERE)
    assert four.step(7.0, PARTS, here=HERE, there=HERE, exchanged=10**8) == pytest.approx(step + 2.4 / 8)
    assert Machines(2, 1, 125e6).traffic(10**8) == 0


@pytest.mark.parametrize("machines", [2, 4, 16, 64])
def test_the_time_of_an_epoch_on_several_machines_is_what_their_clocks_say(machines: int) -> None:
    """Simulated step by step: each takes its share of a batch, then one receives from each and sends to each."""
    batches, size, link, rounds = 640, 1_000_000, 12.5e6, 16
    only = StepParts(gradient=8.0, adding=0.0, between=0.5, teacher=0.0, converting=0.0, decoding=0.0)
    clock = 0.0
    for step in range(1, batches + 1):
        clock += 8.0 / machines + 0.5
        if step % rounds == 0:
            clock += sum(size / 2 / link for _ in range(2) for _ in range(machines - 1))
    place = Machines(1, machines, link, local_steps=rounds)
    each = place.step(8.5, only, here=ONE, there=ONE, exchanged=size)
    assert each * batches == pytest.approx(clock)
