"""How a compression trains: every choice the user may make, with the defaults that measured best."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from onnxadmm.admm.settings import Mode, Settings, paper_settings
from onnxadmm.errors import OptionError

if TYPE_CHECKING:
    from onnxadmm.train.engine import EngineChoice, Precision
    from onnxadmm.train.figures import OwnMetric
    from onnxadmm.train.losses import Loss
    from onnxadmm.train.norm_restore import NormMode
    from onnxadmm.units.cost import CostKind

LossName = Literal["cross-entropy", "mse", "bce"]
Method = Literal["auto", "calibrated", "admm", "paper"]

# A run is measured in steps, since small data sets need many passes and large ones few.
_PRUNE_STEPS = 2200
_RETRAIN_STEPS = 8500
_MOST_EPOCHS = 300
# A calibrated network is trained for all epochs where half of it goes or more, for fewer where less does.
_LIGHT_CUT, _LEAST_EPOCHS = 0.5, 0.2
# Of retraining; see docs/method.md for the measurements.
_RATE, _DEEP_RATE = 5e-3, 2e-3
# While units are chosen.
_PRUNE_RATE = 1e-3
#: Points of accuracy, or hundredths of the outputs' variance, that bytes may cost.
MOST_LOST = 0.3
_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True)
class Recipe:
    """How a compression trains.

    Attributes:
        loss: what the logits mean; None: ``"cross-entropy"``, or where nothing trains what the outputs look like.
        distillation: weight of the original network as teacher, 0 to 1; 1 needs no labels.
        temperature: of the teacher's and student's probabilities.
        output: name of the output that the loss is taken of; None: the only one, or with ``distillation`` 1 all of
            them together.
        class_axis: axis of that output along which the classes lie, for cross-entropy; None: that of its Softmax or
            ArgMax, or the only one that the labels fit.
        ignore_index: the class label that means none; None: -100, and 255 where it is no class.
        class_weights: what the classes count, in the loss, with its teacher, and in held-out and test figures:
            ``"balanced"``, by how rare they are; a number for each; or a file of them. None: all alike. Weights are
            scaled to a mean of 1 over the training data.
        sample_weights: name of the array among the data that says what each sample counts, or an ``.npy`` file with a
            number for each sample; the product where there are both. None: all alike.
        metric: what is measured on held-out and test data, and decides: of classes ``"accuracy"``, ``"top-5"``,
            ``"f1"``, ``"mean-iou"`` or ``"perplexity"``, of numbers ``"r2"`` or ``"mae"``, with ``"bce"``
            ``"accuracy"``, ``"f1"`` or ``"mean-iou"``; or a function of outputs (float32 ``[N, ...]``, before a Softmax
            or Sigmoid at the end) and labels ``[N, ...]`` that returns a number of which more is better. None: the
            accuracy, of numbers the mean square error.
        mode: ``"holistic"``: one budget for all layers; ``"joint"``: a target for every layer.
        method: ``"calibrated"``: a calibration with some of the training samples chooses units, and only the small
            network trains; ``"admm"``: units and connections are chosen while the whole network trains; ``"paper"``:
            the same by box and sphere splitting; ``"auto"``: see ``settled``.
        epochs: passes over the training data while a training chooses units; None: about 2,200 steps, with
            ``method="calibrated"`` none.
        retrain_epochs: passes while the small network is trained; None: about 8,500 steps, where nothing trains before
            10,700; there, where less than half of the network is to go, a share of them: a fifth where it is a tenth.
        batch_size: samples per step.
        learning_rate: highest one while a training chooses units; None: 1e-3, or as much of it as the network bears,
            which long runs try first.
        retrain_learning_rate: highest one of retraining; None: 5e-3, for deep networks (see ``is_deep``) 2e-3, or as
            much of it as the small network bears.
        retrain_weight_decay: of retraining, decoupled, per unit of learning rate; it keeps small networks from
            learning the training data by heart.
        freeze_untrainable: keep the values of weights whose gradient would have to pass an operator that has none,
            instead of refusing the model.
        refit: after pruning, fit the weights of the original to its outputs without the units that went, and go on with
            them where they are better on held-out data than those that were trained; None: where units are chosen in
            fewer than 2,200 steps, ``method="admm"``.
        norm: ``"keep"``: networks train as they are, normalisations with the statistics of the file; ``"restore"``:
            BatchNormalization stands behind convolutions again while they train, with the statistics of each batch,
            and is folded into them afterwards; those of the model train so too. ``"auto"``: see ``choose_network``.
        held_out: share of the training data that every decision is made with.
        engine: who computes gradients: ``"training"``, the training build of onnxruntime; ``"plain"``, this package, on
            any onnxruntime; ``"auto"``: the first where it is installed, else the second.
        precision: of products of matrices while a network trains: ``"float32"``, or ``"bf16"`` where onnxruntime and
            the processor have such products; weights, sums, moments and every evaluation stay float32.
        threads: threads of one operator; 0 leaves the choice to onnxruntime.
        workers: processes that share each batch, and threads that evaluate and ask the teacher beside them; None: as
            many as pay.
        accumulate: parts each of them computes one after the other, which saves memory.
        cluster: machines that train together, each on its part of the data: ``"local:2"`` starts processes of one core
            here, ``"ray://HOST:PORT"`` and ``"auto"`` join a Ray cluster, the second the one that this machine is part
            of. Each has its share of every batch. None: this process trains.
        local_steps: most steps that a machine takes between two rounds in which all agree.

    Raises:
        OptionError: a value is out of range.

    Examples:
        ```python
        short = oa.Recipe(epochs=2, retrain_epochs=4, batch_size=64)
        teacher_alone = oa.Recipe(distillation=1)  # no labels
        numbers = oa.Recipe(loss="mse")
        ```
    """

    loss: LossName | None = None
    distillation: float = 0.9
    temperature: float = 4.0
    output: str | None = None
    class_axis: int | None = None
    ignore_index: int | None = None
    class_weights: str | Sequence[float] | None = None
    sample_weights: str | None = None
    metric: "str | OwnMetric | None" = None
    mode: Mode = "holistic"
    method: Method = "auto"
    epochs: int | None = None
    retrain_epochs: int | None = None
    batch_size: int = 128
    learning_rate: float | None = None
    retrain_learning_rate: float | None = None
    retrain_weight_decay: float = 0.1
    freeze_untrainable: bool = False
    refit: bool | None = None
    norm: "NormMode" = "auto"
    held_out: float = 0.1
    engine: "EngineChoice" = "auto"
    precision: "Precision" = "float32"
    threads: int = 1
    workers: int | None = None
    accumulate: int = 1
    cluster: str | None = None
    local_steps: int = 8

    def __post_init__(self) -> None:
        for option, value, least in (
            ("--epochs", self.epochs, 1),
            ("--retrain-epochs", self.retrain_epochs, 0),
            ("--batch-size", self.batch_size, 1),
            ("--threads", self.threads, 0),
            ("--workers", self.workers, 1),
            ("--accumulate", self.accumulate, 1),
            ("--local-steps", self.local_steps, 1),
        ):
            if value is not None and value < least:
                raise OptionError(
                    option, expected=f"at least {least}", found=str(value), way_out="give a larger number"
                )
        for option, rate in (
            ("--learning-rate", self.learning_rate),
            ("--retrain-learning-rate", self.retrain_learning_rate),
        ):
            if rate is not None and not 0 < rate < math.inf:
                raise OptionError(option, expected="above 0", found=f"{rate:g}", way_out="1e-3 is usual")
        if self.loss not in (None, "cross-entropy", "mse", "bce"):
            raise OptionError(
                "--loss", expected="cross-entropy, mse or bce", found=repr(self.loss), way_out="choose one of them"
            )
        if self.norm not in ("auto", "keep", "restore"):
            raise OptionError(
                "--norm", expected="auto, keep or restore", found=repr(self.norm), way_out="choose one of them"
            )
        if self.engine not in ("auto", "training", "plain"):
            raise OptionError(
                "--engine", expected="auto, training or plain", found=repr(self.engine), way_out="choose one of them"
            )
        if self.precision not in ("float32", "bf16"):
            raise OptionError(
                "--precision", expected="float32 or bf16", found=repr(self.precision), way_out="choose one of them"
            )
        # Imported late: the command line reads the defaults of this class and trains nothing yet.
        from onnxadmm.cluster.address import parse_address
        from onnxadmm.train.workers.parts import cut

        if self.method not in get_args(Method):
            raise OptionError(
                "--method",
                expected="auto, calibrated, admm or paper",
                found=repr(self.method),
                way_out="choose one of them",
            )
        if self.chooses_at_once:
            self._refuse_pruning_options()
        if self.cluster is not None:
            parse_address(self.cluster)
        cut(self.batch_size, workers=self.workers or 1, accumulate=self.accumulate)
        self.objective()
        self.settings(steps_per_epoch=1)

    def __repr__(self) -> str:
        chosen = {item.name: getattr(self, item.name) for item in fields(self)}
        told = [f"{item.name}={chosen[item.name]!r}" for item in fields(self) if chosen[item.name] != item.default]
        return f"Recipe({', '.join(told)})"

    def objective(self) -> "Loss":
        """Return the loss of training.

        Raises:
            OptionError: a weight or temperature is out of range.
        """
        from onnxadmm.train.losses import Loss, Task

        return Loss(
            task=Task(self.loss or "cross-entropy"), distillation=self.distillation, temperature=self.temperature
        )

    def settled(self, *, connections: bool) -> "Recipe":
        """Return the recipe with the method that ``"auto"`` stands for, in a run with training data.

        That is ``"calibrated"``, but ``"admm"`` where something is asked for that a calibration does not choose as well
        as a training does, or has no use for: connections, a target for every layer, epochs, a rate or a refit of
        pruning, weights that keep their values, or no training behind it. Sweeps and searches with data, and estimates
        for hours, for other machines or for more samples, take ``"admm"`` as well.

        Args:
            connections: whether some of them go.
        """
        if self.method != "auto":
            return self
        chooses_in_training = (
            connections
            or self.mode == "joint"
            or any(said is not None for said in (self.epochs, self.learning_rate, self.refit))
            or self.freeze_untrainable
            or self.retrain_epochs == 0
        )
        return replace(self, method="admm" if chooses_in_training else "calibrated")

    @property
    def chooses_at_once(self) -> bool:
        """Whether units are chosen before anything trains."""
        return self.method == "calibrated"

    def _refuse_pruning_options(self) -> None:
        for option, found in (
            ("--epochs", None if self.epochs is None else str(self.epochs)),
            ("--learning-rate", None if self.learning_rate is None else f"{self.learning_rate:g}"),
            ("--mode", None if self.mode == "holistic" else self.mode),
            ("--refit" if self.refit else "--no-refit", None if self.refit is None else "it"),
        ):
            if found is not None:
                raise OptionError(
                    option,
                    expected="none with --method calibrated, which chooses and fits before anything trains",
                    found=found,
                    way_out=f"leave {option} out"
                    + (", or give --retrain-epochs" if option == "--epochs" else "")
                    + ", or choose --method admm",
                )

    @property
    def part_size(self) -> int:
        """Samples of a batch that are computed, and where batch statistics train normalised, at a time."""
        return self.batch_size // ((self.workers or 1) * self.accumulate)

    def beside(self, cores: int) -> int:
        """Parts of the samples that run at the same time where no gradient is taken, on so many cores."""
        return self.workers or max(1, cores // self.threads if self.threads else 1)

    def settings(self, *, steps_per_epoch: int, share: float = 1.0) -> Settings:
        """Return the solver's settings for data of this length, and a share of the epochs, at least one."""
        whole = self.epochs if self.epochs is not None else _epochs(_PRUNE_STEPS, steps_per_epoch)
        epochs = max(1, math.ceil(share * whole))
        if self.method == "paper":
            return replace(paper_settings(mode=self.mode, epochs=epochs), learning_rate=self.pruning_rate)
        return Settings(
            mode=self.mode,
            epochs=epochs,
            # Some forty iterations are enough to step the budget down smoothly, however short an epoch is.
            iterations_per_epoch=max(1, min(8, round(40 / whole))),
            learning_rate=self.pruning_rate,
            # Gates close with the steps that they take. In a short run each is as much longer: else they are all but
            # open when the last choice falls, which then is one of units of the whole network, shut at once behind it.
            gate_step=max(1.0, _PRUNE_STEPS / (epochs * steps_per_epoch)),
        )

    def refits(self, *, steps_per_epoch: int) -> bool:
        """Whether layers are fitted anew behind pruning: where nobody says, behind one that is short.

        A network has lost more in a few steps than the fit loses; one that has trained for long is left as it is.
        """
        if self.refit is not None or not self.may_refit:
            return self.may_refit
        return self.settings(steps_per_epoch=steps_per_epoch).epochs * steps_per_epoch < _PRUNE_STEPS

    @property
    def may_refit(self) -> bool:
        """Whether layers are fitted anew behind pruning with these epochs, or would be with fewer."""
        return self.method == "admm" if self.refit is None else self.refit

    @property
    def pruning_rate(self) -> float:
        """The highest learning rate while units are chosen, where the network bears it."""
        return _PRUNE_RATE if self.learning_rate is None else self.learning_rate

    @property
    def tries_pruning_rate(self) -> bool:
        """Whether it is tried if the network bears that: the paper's method stays what it is."""
        return self.learning_rate is None and self.method != "paper"

    def retraining_rate(self, *, deep: bool) -> float:
        """Return the highest learning rate of retraining.

        Args:
            deep: whether the network is.
        """
        if self.retrain_learning_rate is not None:
            return self.retrain_learning_rate
        return _DEEP_RATE if deep else _RATE

    def retraining_epochs(self, *, steps_per_epoch: int, share: float = 1.0, left: float = 0.0) -> int:
        """Return the passes over the data of retraining.

        Args:
            share: of them that is taken, at least one where there are some.
            left: share of the network that may stay, which counts where a calibration chooses and nobody says how many.
        """
        if self.retrain_epochs is not None:
            whole = float(self.retrain_epochs)
        elif self.chooses_at_once:
            part = min(1.0, max(_LEAST_EPOCHS, (1 - left) / _LIGHT_CUT))
            whole = part * _epochs(_RETRAIN_STEPS + _PRUNE_STEPS, steps_per_epoch)
        else:
            whole = _epochs(_RETRAIN_STEPS, steps_per_epoch)
        return math.ceil(round(share * whole, 6))  # 300 times 0.6 are no more than 180


@dataclass(frozen=True)
class Preprocessing:
    """What is done to stored values before the model reads them.

    Attributes:
        mean, std: one number or one per channel, after scaling.
        scale: factor on stored values; None: 1/255 for bytes, 1 otherwise.
        augment: ``"flip,crop4"``, ``"rrc224,flip"`` and the like, while training only.
        resize: length that the shorter side of pictures is brought to; None: as short as ``crop`` allows.
        crop: height and width of the middle that is cut out of them; None: what the model reads.
        max_bad: share of the pictures that may be damaged; these are left out, more are refused.
        cache: folder that keeps decoded pictures, and the answers of the teacher to samples that come as they are, for
            the next epochs and runs; None: none.

    Examples:
        ```python
        bytes_of_imagenet = oa.Preprocessing(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], scale=1 / 255)
        ```
    """

    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    scale: float | None = None
    augment: str = ""
    resize: int | None = None
    crop: int | None = None
    max_bad: float = 0.001
    cache: str | Path | None = None

    def __post_init__(self) -> None:
        if self.cache is not None:
            object.__setattr__(self, "cache", str(self.cache))  # as options are kept, and compared


def _epochs(steps: int, steps_per_epoch: int) -> int:
    return min(_MOST_EPOCHS, max(3, math.ceil(steps / steps_per_epoch)))


@dataclass(frozen=True)
class CalibrationOptions:
    """How a calibration works.

    Attributes:
        effort: ``"quick"``, ``"normal"`` or ``"best"``: how much is looked at.
        memory: bytes that statistics and activations may take, such as ``"4GB"``.
        max_drop: instead of a budget, points of held-out accuracy that may be lost (of agreement with the original
            without labels; where the outputs are numbers, hundredths of their variance), or ``"2%"`` of what the
            original has: the smallest network that loses no more is searched for.
        by: what that costs the least of: ``"macs"``, ``"params"``, ``"size"`` or ``"latency"``.

    Raises:
        OptionError: there is no such effort or cost, the memory is not a number of bytes, or the points are not some.

    Examples:
        ```python
        closely = oa.CalibrationOptions(effort="best", memory="8GB")
        promise = oa.CalibrationOptions(max_drop=1, by="size")  # instead of a budget
        ```
    """

    effort: str = "normal"
    memory: str = "4GB"
    max_drop: float | str | None = None
    by: "CostKind" = "macs"

    def __post_init__(self) -> None:
        # Imported late, as above.
        from onnxadmm.calibrate.effort import effort_of
        from onnxadmm.plan.budget import COUNTED
        from onnxadmm.plan.drop import parse_drop

        effort_of(self.effort)
        _ = self.memory_bytes
        if self.max_drop is not None:
            parse_drop(self.max_drop)
        if self.by not in COUNTED:
            kinds = list(COUNTED)
            expected = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
            raise OptionError("--by", expected=expected, found=repr(self.by), way_out="choose one of them")

    @property
    def memory_bytes(self) -> int:
        """``memory`` as a number."""
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kMG]?)B?\s*", str(self.memory))
        size = 0 if match is None else int(float(match[1]) * _FACTORS[match[2]])
        if size < 10**8:
            raise OptionError(
                "--memory", expected="at least 100MB", found=repr(self.memory), way_out="write a size such as 4GB"
            )
        return size
