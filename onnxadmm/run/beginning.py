"""The first steps of a compression: its engine, its units, its problem and its data."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxadmm.admm.problem import Problem
from onnxadmm.admm.state import State
from onnxadmm.cluster.actors import RayCrew
from onnxadmm.cluster.rounds import Rounds
from onnxadmm.graph.model import Model
from onnxadmm.graph.stated import leaves_sizes_open, with_samples
from onnxadmm.latency.cost import LatencyCost
from onnxadmm.run.checkpoint import SCHEMA, Header, read_checkpoint
from onnxadmm.run.choices import Choices
from onnxadmm.run.doubts import first_look
from onnxadmm.run.ending import Ending
from onnxadmm.run.finding import analyse, make_ready, measure_latency, state
from onnxadmm.run.journal import Journal
from onnxadmm.run.machines import Site, as_bytes, share_of_batch
from onnxadmm.run.made_samples import WARNING, is_none, made_samples, refuse_tight
from onnxadmm.run.reading import read_training
from onnxadmm.run.shared import HELD_OUT, Reading, Shared, without_amounts
from onnxadmm.run.trainings import Training
from onnxadmm.train.engine import Engine, check_precision, choose_engine
from onnxadmm.train.prepare.time_major import refuse_time_major
from onnxadmm.units.units import Units

#: Under what name a checkpoint says who computed gradients; it does not decide what may go on with it.
_ENGINE = "--engine"


@dataclass
class Beginning:
    """What a run of ``compress`` finds out before it costs time: its public methods are the first steps.

    Attributes:
        model: as given.
        choices: what is asked for.
        journal: what is told while it runs, and goes into the report.
        ending: what is done in the end.
        expected: least held-out accuracy of the original, a share; None: more than guessing would have.
        shared: what earlier runs have left, and this one leaves.
        count: samples that those of the data stand for; None: themselves.
        crew: machines that train; None: this process does.
        teacher: another network that teaches; None: the original does.
        engine: who computes gradients; None where nothing trains.
        ready: the model as it is pruned and trained, after ``find``.
        units: what may go, after ``find``.
        problem: what the solver is given, after ``find``.
        left: share of the network that may stay, which decides how long a small one is trained; 0 where that says
            nothing of what there is to learn: from another teacher.
        latency: what plans of the model take, where the budget is of that.
        training: data, teacher and both trainings, after ``read``.
    """

    model: Model
    choices: Choices
    journal: Journal
    ending: Ending
    expected: float | None = None
    shared: Shared = field(default_factory=Shared)
    count: int | None = None
    crew: RayCrew | None = None
    teacher: Model | None = None
    engine: Engine | None = field(init=False, default=None)
    ready: Model = field(init=False)
    units: Units = field(init=False)
    problem: Problem = field(init=False)
    left: float = field(init=False, default=0.0)
    latency: LatencyCost | None = field(init=False, default=None)
    training: Training = field(init=False)
    _reading: Reading = field(init=False)
    _ignored: tuple[str, ...] = field(init=False, default=())
    _is_simplified: bool = field(init=False, default=False)
    _before: Header | None = field(init=False, default=None)
    _begun: State = field(init=False, default_factory=dict)

    def choose_engine(self) -> None:
        """Find who computes gradients, where something trains.

        Raises:
            TrainingUnavailableError: nobody does here.
            OptionError: not in the precision that is asked for.
        """
        if self.trains:
            self.engine = choose_engine(self.choices.recipe.engine)
            check_precision(self.choices.recipe.precision)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: it cannot be read, or is that of a run with another model or other options.
        """
        self._before, self._begun = read_checkpoint(path)
        self.choices = self.choices.with_epochs_of(self._before.options)
        self._before.refuse_other_run(sha256=self.model.sha256, options=self.choices.deciding(), but={_ENGINE})
        before = self._before.options.get(_ENGINE)
        if before not in (None, self.engine):
            self.journal.warnings.append(
                f"Training began with the {before} engine and went on with the {self.engine} one."
            )
        self.journal.resume(self._before.history, self._before.seconds)

    def find(self) -> None:
        """Make the model ready, find the units, and refuse a budget that cannot be met before anything costs time.

        Where the file leaves sizes free and nobody has stated them, they are those of the data, which come first.
        """
        refuse_time_major(self.model)
        with self.journal.stage("analyse"):
            self.ready, self._is_simplified = make_ready(self.model, self.choices, self.journal)
            if not leaves_sizes_open(self.model):
                self._analyse()
        if not self.waits_for_data:
            self._state()

    def read(self, data: object, test: object | None) -> None:
        """Read the data and divide them."""
        made, waited = is_none(data) and self.choices.samples_alone, self.waits_for_data
        known = self.shared.reading
        with self.journal.stage("make samples" if made else "read data"):
            if known is not None and known.is_of((data, test), self._read_for()):
                self._reading, self.training = known, known.told_to(self.journal)
            else:
                self._read_anew(data, test, made=made)
            if leaves_sizes_open(self.model):
                shapes = self.training.samples.sample_shapes
                self.model, self.ready = with_samples(self.model, shapes), with_samples(self.ready, shapes)
                self._analyse()
            if made:
                refuse_tight(self.choices.budget, self.units, file_bytes=self.model.file_bytes)
            if self._before is not None:
                self._before.refuse_other_data(self._reading.digest)
        if waited:
            self._state()
        if self.crew is not None:
            self._gather(self.crew, data, made=made)

    def _gather(self, crew: RayCrew, data: object, *, made: bool) -> None:
        """Tell the machines what they need for taking part, each of which reads the data itself."""
        recipe = self.choices.recipe
        share = share_of_batch(self.training.samples, crew.count, batch_size=recipe.batch_size)
        recipe = replace(recipe, batch_size=share, workers=1 if crew.is_local else recipe.workers)
        other = crew.settle(
            Site(
                model=as_bytes(self.ready),
                input_shapes=self.ready.input_shapes,
                data=data,
                made=made,
                digest=self._reading.digest,
                recipe=recipe,
                preprocessing=self.choices.preprocessing,
                inputs=self.choices.inputs,
                seed=self.choices.seed,
                trains=not self.choices.samples_alone,
                teacher=None if self.teacher is None else as_bytes(self.teacher),
            )
        )
        self.training = replace(self.training, rounds=Rounds(crew, tell=self.journal.progress.note, known=not other))

    def _read_anew(self, data: object, test: object | None, *, made: bool) -> None:
        """Read the data, and look at the original on them."""
        said, warned = len(self.journal.notes), len(self.journal.warnings)
        self.training = read_training(
            self.ready,
            made_samples(self.ready, seed=self.choices.seed, inputs=self.choices.inputs) if made else data,
            test,
            recipe=self.choices.recipe,
            preprocessing=self.choices.preprocessing,
            made=made,
            inputs=self.choices.inputs,
            seed=self.choices.seed,
            journal=self.journal,
            trains=not self.choices.samples_alone,
            count=self.count,
            teacher=self.teacher,
        )
        if made:
            self.journal.warn(WARNING)
        if self.trains:
            self.training.first_batch()  # too few samples are refused before anything is said of them
        begin = time.perf_counter()
        looked = first_look(self.training, self.model, expected=self.expected)
        self._reading = self.shared.reading = Reading(
            sources=(data, test),
            options=self._read_for(),
            training=self.training,
            digest=self.training.digest(),
            original={} if looked is None else {HELD_OUT: looked},
            notes=tuple(self.journal.notes[said:]),
            warnings=tuple(self.journal.warnings[warned:]),
            looking=time.perf_counter() - begin,
        )

    def _read_for(self) -> dict[str, str]:
        """What decides how data are read, and what is said of the original on them."""
        return {**without_amounts(self.choices.deciding()), "--expect-accuracy": str(self.expected)}

    def _analyse(self) -> None:
        self.ready, self.units, self._ignored = analyse(self.ready, self.model, self.choices, self.ending, self.journal)

    @property
    def waits_for_data(self) -> bool:
        """Whether the problem cannot be stated without the data: they tell sizes, and inputs to measure with."""
        goal = self.choices.goal
        return leaves_sizes_open(self.model) or (goal is not None and goal.latency is not None)

    def _state(self) -> None:
        """State the problem, and refuse it where it cannot be solved; a budget of latency is measured first."""
        ready, units, choices, ending, goal = self.ready, self.units, self.choices, self.ending, self.choices.goal
        if goal is not None and goal.latency is not None:
            self.latency = measure_latency(ready, units, goal, choices, ending, self.journal, inputs=self._inputs())
        self.problem = state(ready, units, self.model, choices, ending, latency=self.latency)
        if self._before is not None:
            self.left = self._before.left  # what is asked for in milliseconds is another share on another day
        elif self.teacher is None:
            self.left = self.problem.left  # later the costs of latency are corrected by what was measured

    def _header(self) -> Header:
        return Header(
            schema=SCHEMA,
            sha256=self.model.sha256,
            data=self._reading.digest,
            options=self.choices.deciding() | ({} if self.engine is None else {_ENGINE: self.engine}),
            history=tuple(self.journal.history),
            seconds=self.journal.seconds(),
            left=self.left,
        )

    @property
    def trains(self) -> bool:
        """Whether the training engine is needed."""
        return not self.choices.samples_alone or self.choices.recipe.retrain_epochs != 0

    def _inputs(self) -> dict[str, object]:
        """The values of inputs that stay the same for every sample, wherever they came from."""
        return {**self.choices.inputs, **self.training.samples.held}
