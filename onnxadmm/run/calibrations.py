"""The calibration of a run: units chosen and layers fitted with unlabelled samples, in plain sessions."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.problem import GateGroup, KeepArray, Problem
from onnxadmm.admm.settle import settle
from onnxadmm.admm.state import State, part, under
from onnxadmm.calibrate.allotment import allot
from onnxadmm.calibrate.choose import Choice, Tried, choose, nearest
from onnxadmm.calibrate.distance import Goal, Outlook, Results
from onnxadmm.calibrate.effort import EFFORTS, Effort, effort_of
from onnxadmm.calibrate.expect import Work, expected_work, measured_speed
from onnxadmm.calibrate.network import Network
from onnxadmm.calibrate.refit import Fitted, layers_to_fit, refit
from onnxadmm.errors import BudgetError, DataError, InputError
from onnxadmm.graph.constants import constants_by_name, with_constants
from onnxadmm.graph.model import Model, with_proto
from onnxadmm.plan.budget import COUNTED
from onnxadmm.plan.drop import parse_drop
from onnxadmm.plan.problem import restrict_to
from onnxadmm.plan.rank import score
from onnxadmm.rewrite.gates import open_gates
from onnxadmm.rewrite.mask import mask
from onnxadmm.run.checkpoint import Checkpoints
from onnxadmm.run.fisher import PASSES, expected_bytes, fisher_information
from onnxadmm.run.likeness import points_lost
from onnxadmm.run.promise import MOST_TRIES, Try, smallest
from onnxadmm.run.recipe import CalibrationOptions
from onnxadmm.run.refits import REFIT_SAMPLES, feeds_of
from onnxadmm.run.trainings import Pruned, Training, pruned_of
from onnxadmm.runtime.cores import usable_cores
from onnxadmm.runtime.session import SessionError
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.metrics import Meter
from onnxadmm.train.prepare.nodes import as_proto
from onnxadmm.train.prepare.tail import cut_tail
from onnxadmm.units.cost import Cost
from onnxadmm.units.units import Units

Array = NDArray[Any]

#: Under which name the Fisher information is kept among what was measured; empty where there is none.
_INFORMATION: Final = "information"
#: Share of the cost below which no network is searched for.
_LOWEST: Final = 0.02
#: ``nearest`` of the network at hand.
Compare = Callable[..., Tried]


@dataclass(frozen=True)
class Calibration:
    """Samples and options of a run that calibrates.

    Attributes:
        training: the data, and what they are fitted to; nothing trains.
        options: how much is looked at.
        measured: what is known of the groups, from a run with another budget or so far.
    """

    training: Training
    options: CalibrationOptions
    measured: dict[str, Array] = field(default_factory=dict)

    def prune(
        self,
        model: Model,
        units: Units,
        problem: Problem,
        *,
        checkpoints: Checkpoints,
        resume: State,
        told: bool = False,
    ) -> Pruned:
        """Choose units and connections, and fit the layers that read them.

        Args:
            model: without gates on activations.
            told: whether ``expected`` has said how long it will take.
            resume: the last state of an equal run that was interrupted; empty without.

        Raises:
            BudgetError: the budget cannot be met.
            DataError: the samples are all alike.
        """
        begun = pruned_of(part(resume, "pruned"))
        if begun is not None:
            return begun
        journal, problem = self.training.journal, self._of_what_is_seen(model, units, problem)
        network, effort, batches = self._looked_at(model, units, problem)
        choosing = self._is_choosing(problem)
        groups = problem.groups if choosing else ()
        if not told:
            self._tell(network, effort, batches, problem, groups)
        distance = self._distance(network, problem, effort)
        compare = partial(nearest, network=network, batches=batches, distance=distance, effort=effort)
        choices: Sequence[Choice] = ()
        with journal.stage("calibrate", total=len(groups)):
            self.measured.update(part(resume, "calibrate"))
            journal.progress.advance(sum(name.endswith("/order") for name in self.measured))
            if choosing:
                choices = self._choices(network, problem, batches, distance, effort, checkpoints)
        if choosing and self.options.max_drop is not None:
            keep, fitted = self._promised(network, problem, batches, effort, choices, compare)
        else:
            keep, fitted = self._fitted(network, problem, batches, effort, distance, choices, compare)
        if not self.training.recipe.chooses_at_once:  # else all training samples are learnt from afterwards
            self._warn_of_few(fitted, len(self.training.samples))
        pruned = Pruned(keep, fitted.zeros, fitted.constants)
        checkpoints.keep(under("pruned", pruned.state()))
        return pruned

    def _choices(
        self,
        network: Network,
        problem: Problem,
        batches: Sequence[Mapping[str, Array]],
        distance: Outlook,
        effort: Effort,
        checkpoints: Checkpoints,
    ) -> list[Choice]:
        """Measure the groups, but for those that were measured, and return the choices that there are."""

        def keep_groups(state: State) -> None:
            self.measured.update(state)
            checkpoints.keep(under("calibrate", self.measured))
            self.training.journal.progress.advance()

        information = self._information(network.model, network.units, problem, effort)
        choices = choose(
            network,
            problem,
            batches,
            score(network.model, network.units, by="magnitude", seed=0),
            distance,
            effort,
            information=information,
            on_group=keep_groups,
            resume=dict(self.measured),
        )
        checkpoints.flush()
        return choices

    def expected(self, model: Model, units: Units, problem: Problem) -> Work:
        """Say before it begins how long it will take, and how much memory.

        Raises:
            DataError: the samples are all alike.
        """
        problem = self._of_what_is_seen(model, units, problem)
        groups = problem.groups if self._is_choosing(problem) else ()
        return self._tell(*self._looked_at(model, units, problem), problem, groups)

    def _of_what_is_seen(self, model: Model, units: Units, problem: Problem) -> Problem:
        """The problem in which units stay that the loss does not see, as those that only other outputs read."""
        gated = open_gates(model, units)
        unseen = self.training.unseen(gated)
        seen = constants_by_name(gated).keys() - unseen
        return replace(problem, groups=restrict_to(problem, seen, unseen=unseen).groups)

    def _looked_at(
        self, model: Model, units: Units, problem: Problem
    ) -> tuple[Network, Effort, list[Mapping[str, Array]]]:
        network = Network(model, units, narrows=problem.connection_share == 1)
        macs = Cost(units, "macs").dense()
        effort = replace(
            effort_of(self.options.effort).for_network(macs, len(problem.groups)),
            memory=self.options.memory_bytes,
            threads=usable_cores(),
        )
        batches = feeds_of(network, self.training.samples)
        _refuse_all_alike(batches)
        return network, effort, batches

    def _information(self, model: Model, units: Units, problem: Problem, effort: Effort) -> Array | None:
        """The Fisher information of the gates, known from before or found; None where there are no gradients."""
        if _INFORMATION not in self.measured:
            try:
                found = fisher_information(
                    self.training, model, units, problem, memory=effort.memory, threads=effort.threads
                )
            except (InputError, SessionError) as error:
                self.training.journal.say(f"Units are chosen without gradients: {error}")
                found = np.empty(0)
            self.measured[_INFORMATION] = found
        found = self.measured[_INFORMATION]
        return found if found.size else None

    def _is_choosing(self, problem: Problem) -> bool:
        return _chooses(problem) or self.options.max_drop is not None

    def _fitted(
        self,
        network: Network,
        problem: Problem,
        batches: Sequence[Mapping[str, Array]],
        effort: Effort,
        distance: Outlook,
        choices: Sequence[Choice],
        compare: Compare,
    ) -> tuple[KeepArray, Fitted]:
        """The units that stay, and the layers that read them, fitted; where connections go as well, those chosen.

        Args:
            choices: of units; none where all of them stay.
        """
        journal, thinned, several = self.training.journal, problem.connection_share < 1, len(choices) > 1
        keep = np.ones(problem.unit_count, np.bool_)
        if len(choices) == 1:
            keep = settle(problem, lambda: choices[0](problem.budget))
        steps = len(choices) if several else len(layers_to_fit(network, keep, thinned=thinned))
        with journal.stage("refit", total=steps):
            if several:
                best = compare(choices, problem.budget, on_choice=journal.progress.advance)
                keep = settle(problem, lambda: best.choice(problem.budget))
                known = best.fitted_for(keep)
                if known is not None and not thinned:
                    return keep, known
            connections = allot(network, problem, keep, batches, effort, distance=distance) if thinned else None
            return keep, refit(
                network,
                keep,
                batches,
                effort,
                connections=connections,
                on_layer=lambda _: None if several else journal.progress.advance(),
            )

    def _promised(
        self,
        network: Network,
        problem: Problem,
        batches: Sequence[Mapping[str, Array]],
        effort: Effort,
        choices: Sequence[Choice],
        compare: Compare,
    ) -> tuple[KeepArray, Fitted]:
        """Search for the smallest network that loses no more than it may: its units, and the layers that read them.

        Of several choices the one counts that is nearest to the original under the first budget that can be met.

        Raises:
            BudgetError: every network that was tried loses more.
        """
        journal, drop = self.training.journal, parse_drop(self.options.max_drop or 0.0)
        model, units, held_out = network.model, network.units, self.training.held_out
        dense = problem.dense
        lost, unit, share = points_lost(self.training, model)
        most = drop.allowed(share)

        def attempt(share: float) -> Try[tuple[KeepArray, Fitted] | None]:
            try:
                tried = compare(left, share * dense)
                keep = tried.choice(share * dense)
            except BudgetError:
                return Try(share, math.inf, None)
            left[:] = [tried.choice]
            fitted = tried.fitted_for(keep) or refit(network, keep, batches, effort)
            made = mask(with_constants(model, fitted.constants), units, keep)
            return Try(problem.cost.total(keep) / dense, lost(made), (keep, fitted))

        def tell(tried: Try[tuple[KeepArray, Fitted] | None]) -> None:
            figure = "out of reach" if math.isinf(tried.lost) else f"{tried.lost:.2f} {unit} lost"
            told.append(f"{100 * tried.share:.1f} % of the {COUNTED[self.options.by].words}: {figure}")
            journal.progress.note(f"{told[-1]}.")
            journal.progress.advance()

        told: list[str] = []
        left = list(choices)
        with journal.stage("search", total=MOST_TRIES):
            found = smallest(attempt, most=most, lowest=_LOWEST, on_try=tell)
        if found is None or found.made is None:
            raise BudgetError(
                f"--max-drop {drop}",
                expected="a smaller network that loses no more",
                found=f"none: {'; '.join(told)}",
                way_out="allow more, give more samples, or train with --data and a budget",
            )
        journal.say(
            f"The smallest network that loses at most {most:g} {unit} on {len(held_out)} held-out samples "
            f"costs {100 * found.share:.1f} % of the {COUNTED[self.options.by].words} (tried: {'; '.join(told)})."
        )
        return found.made

    def _distance(self, network: Network, problem: Problem, effort: Effort) -> Outlook:
        """How far the outputs are from the original's, as the loss of a student from its teacher."""
        count = effort.shown(Cost(network.units, "macs").dense(), len(problem.groups), len(self.training.samples))
        # Inputs without a batch are constants of what is shown.
        data = replace(self.training.samples.some(count), held={})
        loss = Loss(task=self.training.loss.task, distillation=1.0)
        shown = self.training.shown(open_gates(network.model, network.units))
        proto, tail = cut_tail(as_proto(shown), keep_sigmoid=loss.task is Task.MSE)

        def measured(found: Sequence[Results], wanted: Sequence[Results]) -> float:
            meter, left = Meter(loss), count
            for one, other in zip(found, wanted, strict=True):
                logits, teacher = (np.asarray(each[tail.logits], np.float32)[:left] for each in (one, other))
                meter.add(logits, None, teacher)
                left -= len(logits)
            return meter.result().loss

        goal = Goal(with_proto(shown, proto), feeds_of(network, data), measured)
        return Outlook(goal, threads=effort.threads, room=effort.memory // 4)

    def _tell(
        self,
        network: Network,
        effort: Effort,
        batches: Sequence[Mapping[str, Array]],
        problem: Problem,
        groups: Sequence[GateGroup],
    ) -> Work:
        speed = measured_speed(network.model, batches[0], batches=len(batches), threads=effort.threads)
        macs = Cost(network.units, "macs").dense()
        samples = len(self.training.samples)
        gradients, needed = 0.0, 0.0
        if groups and _INFORMATION not in self.measured:
            gradients = PASSES * min(REFIT_SAMPLES, samples) / max(1, samples)
            needed = expected_bytes(network.model, sample_bytes=network.sample_bytes)

        def work(each: Effort) -> Work:
            each = each.for_network(macs, len(problem.groups))
            found = expected_work(
                network,
                groups,
                each,
                speed,
                samples=samples,
                shown=each.shown(macs, len(problem.groups), samples),
                passes=gradients,
                connections=problem.connections if problem.connection_share < 1 else (),
            )
            # Gradients come before everything else, and give back what they took.
            return replace(found, megabytes=min(max(found.megabytes, needed / 1e6), each.memory / 1e6))

        others = ", ".join(
            f"{name}: {work(each).seconds:.0f} s" for name, each in EFFORTS.items() if name != self.options.effort
        )
        expected = work(effort)
        self.training.journal.say(
            f"Calibration with {samples} samples at --effort {self.options.effort} will take about "
            f"{expected.seconds:.0f} s ({others}) and up to {expected.megabytes:.0f} MB"
            f"{'.' if self.options.max_drop is None else ', and its last step again for every budget that is tried.'}"
        )
        return expected

    def _warn_of_few(self, fitted: Fitted, samples: int) -> None:
        short = [(name, rows, width) for name, (rows, width) in fitted.sizes.items() if rows < width]
        if short:
            name, rows, width = max(short, key=lambda each: each[2] / each[1])
            needed = int(np.ceil(samples * width / rows))
            self.training.journal.warn(
                f"{len(short)} layers, among them {name}, read more numbers than the samples have rows for ({width} "
                f"against {rows}): they stay near what they were; {needed} samples would determine them."
            )


def _chooses(problem: Problem) -> bool:
    """Tell whether units have to go: where only connections do, none has to."""
    return problem.dense > problem.budget


def _refuse_all_alike(batches: Sequence[Mapping[str, Array]]) -> None:
    first = {name: array[:1] for name, array in batches[0].items() if array.ndim}
    alike = all((batch[name] == array).all() for batch in batches for name, array in first.items())
    if alike:
        raise DataError(
            "the samples", expected="samples that differ", found="all alike", way_out="give samples of the real kind"
        )
