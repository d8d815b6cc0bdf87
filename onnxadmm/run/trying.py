"""One step and some gradients before anything takes long, in a process of its own."""

from onnxadmm.admm.problem import Problem
from onnxadmm.graph.model import Model
from onnxadmm.rewrite.gates import open_gates
from onnxadmm.run.trainings import Training
from onnxadmm.train.preflight.preflight import Preflight, preflight
from onnxadmm.units.units import Units


def try_step(training: Training, model: Model, units: Units) -> Preflight:
    """Take one step of the whole network, and check its gradients.

    Args:
        model: without gates on activations.

    Raises:
        NotTrainableError: it cannot be trained.
    """
    with training.journal.stage("preflight"):
        return preflight(
            training.shown(open_gates(model, units)),
            loss=training.loss,
            batch=training.first_batch(),
            threads=training.recipe.threads,
            freeze_untrainable=training.recipe.freeze_untrainable,
            engine=training.recipe.engine,
        )


def warn_of_frozen(training: Training, found: Preflight, problem: Problem) -> None:
    """Put weights that keep their values among the warnings of the report."""
    frozen = [f"{name} (behind {operator})" for name, operator in found.untrainable.items() if name not in problem.held]
    if frozen:
        training.journal.warnings.append(
            f"These weights kept their values, since training cannot pass an operator: {', '.join(frozen)}."
        )
