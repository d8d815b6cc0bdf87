"""Narrowing a failed verification down to the smallest removal that shows it, in a model that can be handed on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.bench.inputs import at_sizes_that_run, random_inputs, required_inputs
from onnxadmm.errors import ModelFileError, OnnxAdmmError
from onnxadmm.files import cannot_write, refuse_existing
from onnxadmm.graph.constants import constant, constants_by_name, with_constants
from onnxadmm.graph.model import Model, clone, from_proto, load, save, to_proto
from onnxadmm.plan.plan import Plan, make_plan
from onnxadmm.report.writer import write_text
from onnxadmm.rewrite.mask import mask
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.rewrite.verify import Verification, prove
from onnxadmm.runtime.custom_ops import custom_operators
from onnxadmm.surgery import InputShapes, Source, apply_plan, opened
from onnxadmm.units.units import Group, Units, find_units

_RANDOM = "random weights, seed 0"


@dataclass(frozen=True)
class Culprit:
    """The smallest removal that makes a verification fail.

    Attributes:
        group: name of its group.
        units: the units that go, numbered in the group.
        verification: what fails when only they go.
        model, plan: a model with random weights in place of the user's, and the plan that shows the failure in it.
        reproduced: whether it still fails with random weights.
        nodes: nodes of that model; fewer than the original's when a part of the graph shows the failure.
    """

    group: str
    units: tuple[int, ...]
    verification: Verification
    model: Model
    plan: Plan
    reproduced: bool
    nodes: int


def bisect(
    model: Source,
    plan: Plan,
    *,
    seed: int = 0,
    inputs: Mapping[str, object] = MappingProxyType({}),
    input_shapes: InputShapes | None = None,
    custom_ops: Sequence[str | Path] = (),
) -> Culprit | None:
    """Find the smallest part of a plan that fails on its own, and a small model that shows it.

    Groups are tried one by one, then halves of the first failing group's units. Nothing of the user's weights is in
    the model that is returned.

    Args:
        model: path or model.
        plan: the plan whose verification failed.
        seed: of the random inputs.
        inputs: values of some inputs by name, the same for every sample.
        input_shapes: whole shapes of inputs, by name, where the file leaves sizes free.
        custom_ops: libraries of custom operators that onnxruntime registers.

    Returns:
        The culprit, or None when every group of the plan passes on its own.
    """
    with custom_operators(custom_ops):
        applied = apply_plan(opened(model, input_shapes), plan)
        trial = _Trial(seed, inputs)
        for group in applied.units.groups:
            inside = np.zeros(applied.units.count, dtype=np.bool_)
            inside[group.places] = True
            removed = np.flatnonzero(inside & ~applied.keep)
            if removed.size and not trial.verify(applied.model, applied.units, removed).passed:
                smallest = _smallest(applied.model, applied.units, group, removed, trial)
                verification = trial.verify(applied.model, applied.units, smallest)
                return _smallest_reproduction(applied.model, group, smallest - group.start, verification, plan, trial)
        return None


def write_culprit(culprit: Culprit, folder: Path, *, force: bool) -> tuple[Path, Path]:
    """Write the model and the plan that show the failure; return their paths.

    Raises:
        OutputError: a file exists, or it cannot be written.
    """
    model_path, plan_path = folder / "reproduce.onnx", folder / "reproduce.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error, expected="a folder that can be written") from error
    for path in (model_path, plan_path):
        refuse_existing(path, force=force)
    save(culprit.model, model_path, force=force)
    plan = replace(culprit.plan, sha256=load(model_path).sha256)  # the file's bytes, not the message's
    write_text(plan_path, plan.to_json())
    return model_path, plan_path


@dataclass(frozen=True)
class _Trial:
    """How a removal is tried: with which random inputs, and what some inputs are held at."""

    seed: int
    inputs: Mapping[str, object]

    def verify(self, model: Model, units: Units, removed: NDArray[np.int64]) -> Verification:
        """Verify the removal of some units alone; a part of a graph has a part of the inputs."""
        keep = np.ones(units.count, dtype=np.bool_)
        keep[removed] = False
        names = {value.name for value in required_inputs(model)}
        held = {name: value for name, value in self.inputs.items() if name in names}
        try:
            small = shrink(model, units, keep)
            masked = mask(model, units, keep)

            def compared(sized: Model) -> Verification:
                feeds = [random_inputs(sized, batch=1, seed=self.seed, inputs=held)]
                return prove(masked, small, feeds, kept=lambda name, shape: units.positions(name, keep, shape))

            return at_sizes_that_run(model, compared)
        except OnnxAdmmError:
            raise
        except Exception as error:  # whatever a broken rule raises is what is being looked for
            return Verification(
                passed=False,
                snr_db=float("-inf"),
                max_abs_error=float("inf"),
                outputs=(),
                inputs_tried=0,
                threshold_db=0.0,
                exact_mismatch=0.0,
                first_difference=f"the rewriter fails: {type(error).__name__}: {error}",
            )


def _smallest(model: Model, units: Units, group: Group, removed: NDArray[np.int64], trial: _Trial) -> NDArray[np.int64]:
    """Halve the removed units of a group as long as one half still fails; whole rows where blocks stay equal."""
    rows = _rows(group, removed)
    while len(rows) > 1:
        halves = (rows[: len(rows) // 2], rows[len(rows) // 2 :])
        failing = next((half for half in halves if not trial.verify(model, units, np.concatenate(half)).passed), None)
        if failing is None:
            break
        rows = failing
    return np.sort(np.concatenate(rows))


def _rows(group: Group, removed: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the removed units in sets that may go by themselves: one of every block, or single ones."""
    blocks = group.block_numbers[removed - group.start]
    columns = [removed[blocks == block] for block in range(group.block_count)]
    return [np.asarray(row) for row in zip(*columns, strict=True)]


def _smallest_reproduction(
    model: Model, group: Group, units: NDArray[np.int64], verification: Verification, plan: Plan, trial: _Trial
) -> Culprit:
    """Return the smallest model without the user's weights in which the same removal fails."""
    best: tuple[Model, Plan, bool] | None = None
    for candidate in _candidates(model, group):
        found = find_units(candidate, inexact=plan.inexact, features=plan.features)
        same = found.group(group.name)
        if same is None or same.count != group.count:
            continue
        fails = not trial.verify(candidate, found, same.start + units).passed
        keep = np.ones(found.count, dtype=np.bool_)
        keep[same.start + units] = False
        if fails or best is None:
            shown = make_plan(candidate, found, keep, inexact=plan.inexact, features=plan.features, note=_RANDOM)
            best = (candidate, shown, fails)
        if fails:
            break
    assert best is not None  # the whole model with other weights has the same groups
    return Culprit(
        group=group.name,
        units=tuple(int(unit) for unit in units),
        verification=verification,
        model=best[0],
        plan=best[1],
        reproduced=best[2],
        nodes=best[0].ir.graph.num_nodes(),
    )


def _candidates(model: Model, group: Group) -> Iterator[Model]:
    """Yield models with random weights, the smallest first: parts of the graph around a group, then all of it."""
    nodes = list(model.ir.graph)
    owners = set(group.layers)
    own = [index for index, node in enumerate(nodes) if (node.name or node.outputs[0].name) in owners]
    if own:
        for margin in (4, 16, 64):
            part = _part(model, nodes, max(0, own[0] - margin), min(len(nodes), own[-1] + 1 + margin))
            if part is not None:
                yield _randomised(part)
    yield _randomised(model)


def _part(model: Model, nodes: Sequence[onnx_ir.Node], start: int, stop: int) -> Model | None:
    """Return a run of nodes as a model: what it reads from before becomes an input, what is read after an output."""
    copy = clone(model)
    inside = list(copy.ir.graph)[start:stop]
    made = {value.name for node in inside for value in node.outputs}
    constants = constants_by_name(copy)
    inputs = {
        value.name: value
        for node in inside
        for value in node.inputs
        if value is not None and value.name not in made and value.name not in constants
    }
    outputs = [
        value
        for node in inside
        for value in node.outputs
        if value.name and (value.is_graph_output() or any(use.node not in inside for use in value.uses()))
    ]
    if not inputs or not outputs or any(value.shape is None or value.type is None for value in inputs.values()):
        return None
    try:
        names = [name for name in inputs if name is not None]
        graph = onnx_ir.convenience.extract(copy.ir.graph, names, [value.name or "" for value in outputs])
        part = onnx_ir.Model(graph, ir_version=copy.ir.ir_version)
        return from_proto(onnx_ir.to_proto(part))
    except (ValueError, ModelFileError):
        return None


def _randomised(model: Model) -> Model:
    """Return the model with random numbers in place of every floating-point constant of more than one element."""
    generator = np.random.default_rng(0)
    arrays = {}
    for name, value in constants_by_name(model).items():
        array = constant(value)
        if array is not None and array.size > 1 and np.issubdtype(array.dtype, np.floating):
            # Variances have to be positive, and products must neither vanish nor explode.
            scale = 1.0 / np.sqrt(max(1, array[0].size))
            arrays[name] = (np.abs(generator.standard_normal(array.shape)) * scale + 0.01).astype(array.dtype)
    copy = with_constants(model, arrays)
    for graph in copy.ir.graphs():
        graph.doc_string = None
    return from_proto(to_proto(copy))
