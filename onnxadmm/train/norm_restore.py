"""Networks that train with BatchNormalization, also where an exporter folded it into the convolutions.

``restore`` puts a BatchNormalization behind convolutions, the identity at first: with mean m and variance d of each
channel measured on training data, its scale is sqrt(d + epsilon) and its shift m. Training normalises with the
statistics of each batch. ``Network.finished`` measures them once more and folds everything back,

    k = scale / sqrt(d + epsilon)      W' = W k      b' = shift + (b - m) k

so the user's graph comes back with the same nodes and other numbers. The convolution needs no bias of its own in
between: the shift takes its place, under its name. Zeros of W stay zeros.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.graph.constants import (
    constant,
    constants_by_name,
    free_name,
    new_initializer,
    set_constant,
    value_names,
)
from onnxadmm.graph.model import Model, clone, to_proto
from onnxadmm.graph.shapes import infer
from onnxadmm.operators.table import find
from onnxadmm.train.batch_statistics import measure_copy, measure_values
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.trainer import OrtTrainer

FloatArray = NDArray[np.float32]

NormMode = Literal["auto", "keep", "restore"]

EPSILON = 1e-5
#: Normalisations, present or possible, of the smallest network that calls for them: VGG-11 has 8, AlexNet and LeNet,
#: which trained well before there were any, have 5 and 2.
DEEP = 8
#: Samples of which the statistics say something about all data.
ENOUGH = 16


@dataclass(frozen=True)
class Site:
    """A convolution that gets a normalisation.

    Attributes:
        output: name of its result.
        weight, bias: names of its constants.
        channels: of its result.
    """

    output: str
    weight: str
    bias: str
    channels: int


@dataclass(frozen=True)
class Norm:
    """A normalisation that was put behind a convolution; all but ``site`` are names of constants."""

    site: Site
    scale: str
    mean: str
    variance: str


@dataclass(frozen=True)
class Network:
    """A model in the form that trains.

    Attributes:
        model: what trains: the user's weights under the user's names, and normalisations.
        norms: the normalisations that the user's model has not.
        batch_statistics: names of the means of all normalisations that train with the statistics of each batch.
    """

    model: Model
    norms: tuple[Norm, ...] = ()
    batch_statistics: frozenset[str] = frozenset()

    def finished(
        self, trainer: OrtTrainer, batches: Callable[[], Iterable[Batch]], *, threads: int = 1
    ) -> dict[str, FloatArray]:
        """Return the constants of the user's model that training changed, statistics measured anew and folded in.

        Args:
            trainer: of ``model``.
            batches: training data of the trainer's batch size; not called where there are no statistics.
        """
        return self.fold({**trainer.weights, **self.reestimate(trainer, batches, threads=threads)})

    def reestimate(
        self, trainer: OrtTrainer, batches: Callable[[], Iterable[Batch]], *, threads: int = 1
    ) -> dict[str, FloatArray]:
        """Measure all statistics at the trainer's weights; means and variances by the names of their constants."""
        made = trainer.artifacts
        if not made.statistics:
            return {}
        return measure_copy(made.forward, made.statistics, trainer.weights, batches(), threads=threads)

    def fold(self, arrays: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Compute constants of the user's model.

        Args:
            arrays: constants of ``model`` that have changed, by name.

        Returns:
            Constants of the user's model, by name; arrays that folding leaves alone are those that were given.
        """
        known = constants_by_name(self.model)
        values = dict(arrays)
        for norm in self.norms:
            scale, shift, mean, variance, weight = (
                np.asarray(values.get(name, constant(known[name])), np.float64)
                for name in (norm.scale, norm.site.bias, norm.mean, norm.variance, norm.site.weight)
            )
            factor = scale / np.sqrt(variance + EPSILON)
            along = factor.reshape(-1, *[1] * (weight.ndim - 1))  # [cout] -> [cout, 1, ...]
            values[norm.site.weight] = (weight * along).astype(np.float32)
            values[norm.site.bias] = (shift - mean * factor).astype(np.float32)
            for name in (norm.scale, norm.mean, norm.variance):
                values.pop(name, None)
        return values


def choose_network(
    model: Model, mode: NormMode, batches: Callable[[], Iterable[Batch]], *, together: int, threads: int = 1
) -> Network:
    """Give a model the form that trains.

    Args:
        mode: ``"keep"``: as it stands, statistics of normalisations kept; ``"restore"``: see ``restore``; ``"auto"``:
            restored where the network is deep and enough samples are normalised together.
        batches: training data, as for ``restore``.
        together: samples whose statistics are taken together in training.
    """
    if mode == "keep" or (mode == "auto" and (together < ENOUGH or not is_deep(model))):
        return Network(model)
    return restore(model, batches, threads=threads)


def is_deep(model: Model) -> bool:
    """Whether a network has so many layers with, or without, a normalisation that it matters how they train."""
    return len(find_sites(model)) + len(own_norms(model)) >= DEEP


def restore(model: Model, batches: Callable[[], Iterable[Batch]], *, threads: int = 1, own: bool = True) -> Network:
    """Put normalisations behind convolutions and let them, and those of the model, train with batch statistics.

    Args:
        model: left as it is.
        batches: training data to measure on, of equal size; only the inputs are read.
        own: also let the normalisations the model has train with batch statistics.
    """
    sites = find_sites(model)
    present = own_norms(model) if own else frozenset()
    if not sites:
        return Network(model, batch_statistics=present)
    proto = to_proto(model)
    measured = measure_values(proto, {s.output: s.channels for s in sites}, batches(), threads=threads)
    result = clone(model)
    taken = value_names(result)
    producers = {node.outputs[0].name: node for node in result.ir.graph if len(node.outputs) == 1}
    norms = tuple(_insert(result, producers[site.output], site, *measured[site.output], taken=taken) for site in sites)
    return Network(result, norms, present | {norm.mean for norm in norms})


def find_sites(model: Model) -> tuple[Site, ...]:
    """Find the convolutions that may once have had a normalisation behind them.

    Those with a bias, for folding leaves one; of float32 weights that nothing else reads; not normalised already; not
    on single positions (gates of squeeze and excitation); and with another layer between them and every output.
    """
    shapes = infer(model)
    last = _without_layer_behind(model.ir.graph)
    found = []
    for node in model.ir.graph:
        if node.op_type != "Conv" or node.domain not in ("", "ai.onnx") or len(node.inputs) < 3:
            continue
        output, shape = node.outputs[0], shapes.shape(node.outputs[0].name or "")
        weight, bias = (_own_float(value) for value in node.inputs[1:3])
        if weight is None or bias is None or output in last or not output.uses():
            continue
        if shape is None or len(shape) < 3 or int(np.prod(shape[2:])) == 1:
            continue
        if _is_normalised(output):
            continue
        names = [str(value.name) for value in node.inputs[1:3] if value is not None]
        found.append(Site(str(output.name), names[0], names[1], len(bias)))
    return tuple(found)


def own_norms(model: Model) -> frozenset[str]:
    """Names of the means of the model's BatchNormalizations that can train with batch statistics.

    Those of constant scale and shift, whose mean and variance nothing else reads.
    """
    found: set[str] = set()
    for node in model.ir.graph:
        if node.op_type != "BatchNormalization" or node.domain not in ("", "ai.onnx"):
            continue
        if sum(bool(output.uses()) for output in node.outputs) != 1 or node.attributes.get_int("training_mode", 0) == 1:
            continue
        # Equal shifts may be one constant (a block's last convolution and its shortcut have the same gradients).
        if all(_float(value) is not None for value in node.inputs[1:3]) and all(
            _own_float(value) is not None for value in node.inputs[3:5]
        ):
            found.update(str(value.name) for value in node.inputs[3:4] if value is not None)
    return frozenset(found)


def _normalises(node: onnx_ir.Node) -> bool:
    return find(node.domain, node.op_type).normalises


def _is_normalised(output: onnx_ir.Value) -> bool:
    """Whether a normalisation reads a value, perhaps channels last, perhaps written out: it begins with a mean then."""
    for reader, _ in output.uses():
        if _normalises(reader):
            return True
        if reader.op_type == "Transpose" and any(
            _normalises(behind) or behind.op_type == "ReduceMean" for behind, _ in reader.outputs[0].uses()
        ):
            return True
    return False


def _own_float(value: onnx_ir.Value | None) -> NDArray[Any] | None:
    """A float32 constant that one node reads and that is no output of the graph."""
    return None if value is None or len(value.uses()) != 1 or value.is_graph_output() else _float(value)


def _float(value: onnx_ir.Value | None) -> NDArray[Any] | None:
    """A float32 constant."""
    array = None if value is None else constant(value)
    return array if array is not None and array.dtype == np.float32 else None


def _without_layer_behind(graph: onnx_ir.Graph) -> set[onnx_ir.Value]:
    """Values that reach an output of the graph on some way without a layer."""
    bare: set[onnx_ir.Value] = set(graph.outputs)
    for node in reversed(graph):
        if not find(node.domain, node.op_type).is_layer and any(output in bare for output in node.outputs):
            bare.update(value for value in node.inputs if value is not None)
    return bare


def _insert(
    model: Model, conv: onnx_ir.Node, site: Site, mean: FloatArray, variance: FloatArray, *, taken: set[str]
) -> Norm:
    """Put the identity behind a convolution, whose bias becomes the shift."""
    graph = model.ir.graph
    shift = conv.inputs[2]
    assert shift is not None
    bias = constant(shift)
    assert bias is not None
    scale = np.sqrt(variance.astype(np.float64) + EPSILON).astype(np.float32)
    # What the convolution gives without its bias lies around mean - bias.
    centre = (mean.astype(np.float64) - bias).astype(np.float32)
    names = (("scale", scale), ("mean", centre), ("variance", variance))
    made = [new_initializer(model, f"{site.output}/{part}", array, taken=taken) for part, array in names]
    set_constant(model, shift, mean)
    output = conv.outputs[0]
    norm = onnx_ir.Node(
        "",
        "BatchNormalization",
        inputs=[output, made[0], shift, made[1], made[2]],
        attributes=[onnx_ir.AttrFloat32("epsilon", EPSILON)],
        name=f"{conv.name or site.output}/norm",
    )
    result = norm.outputs[0]
    result.name = free_name(f"{site.output}/normalised", taken)
    result.shape, result.type = output.shape, output.type
    output.replace_all_uses_with(result)
    norm.replace_input_with(0, output)
    conv.resize_inputs(2)
    graph.insert_after(conv, norm)
    return Norm(site, *(str(value.name) for value in made))
