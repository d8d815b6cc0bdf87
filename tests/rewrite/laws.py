"""What must hold for every network and every plan, one function per law. Each raises AssertionError by itself."""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]  # it ships no types
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from onnxadmm.graph.model import Model, load, to_proto
from onnxadmm.rewrite.mask import mask
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.rewrite.verify import Verification, verify
from onnxadmm.units.cost import Cost, CostKind
from onnxadmm.units.units import Units, find_units
from tests.graphs import feeds
from tests.graphs.checking import check
from tests.rewrite.plans import KINDS, random_keep

Array = NDArray[np.generic]
#: What computes a shape while the model runs, and may go once the shape is spelled out.
SHAPE_ARITHMETIC = ("Constant", "Shape", "Size", "Gather", "Slice", "Unsqueeze", "Squeeze", "Concat", "Cast", "Mul")
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)


@dataclass(frozen=True)
class Case:
    """A network, a plan, and what the package made of them."""

    original: onnx.ModelProto
    model: Model
    units: Units
    keep: NDArray[np.bool_]
    masked: Model
    shrunk: Model

    @property
    def removed(self) -> int:
        return int((~self.keep).sum())

    # Laws read these and change nothing in them.
    @cached_property
    def model_message(self) -> onnx.ModelProto:
        return to_proto(self.model)

    @cached_property
    def masked_message(self) -> onnx.ModelProto:
        return to_proto(self.masked)

    @cached_property
    def shrunk_message(self) -> onnx.ModelProto:
        return to_proto(self.shrunk)


def prune(original: onnx.ModelProto, model: Model, units: Units, keep: NDArray[np.bool_]) -> Case:
    """Apply a plan; the model it is applied to must not change."""
    before = to_proto(model).SerializeToString(deterministic=True)
    case = Case(original, model, units, keep, mask(model, units, keep), shrink(model, units, keep))
    assert to_proto(model).SerializeToString(deterministic=True) == before, "the original was changed"
    return case


def units_of(original: onnx.ModelProto) -> tuple[Model, Units]:
    model = load(original)
    return model, find_units(model)


def hold(
    original: onnx.ModelProto,
    *laws: Callable[[Case], object],
    kinds: Iterable[str] = KINDS,
    seeds: Iterable[int] = (0,),
) -> list[Case]:
    """Prune a network by random plans, for each seed one of every kind, and hold every result to the laws.

    Returns:
        the cases, for what else is asked of them; there is at least one.
    """
    model, units = units_of(original)
    cases = []
    for seed in seeds:
        for kind in kinds:
            cases.append(prune(original, model, units, random_keep(units, seed=seed, kind=kind)))
            for law in laws:
                law(cases[-1])
    assert cases, "no plan was tried"
    return cases


def law_masked_equals_shrunk(case: Case) -> Verification:
    """mask == shrink, at every batch size, and the first difference is named."""
    batches = (3, 1) if case.original.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_param") else (3,)
    verification = verify(
        case.masked,
        case.shrunk,
        [feeds(case.original, batch=batch, seed=batch) for batch in batches],
        kept=lambda name, shape: case.units.positions(name, case.keep, shape),
    )
    assert verification.passed, verification.first_difference
    return verification


def law_shrunk_is_valid(case: Case) -> None:
    """Checker and strict shape inference pass; the declared outputs are what shape inference finds."""
    proto = case.shrunk_message
    check(proto)
    check(case.masked_message)
    if inferred_outputs(case.original) is None:
        return  # onnx cannot follow some operators; where it follows the original it must follow the result
    inferred = inferred_outputs(proto)
    assert inferred is not None, "strict shape inference fails"
    for found, declared in zip(inferred, case.original.graph.output, strict=True):
        for left, right in zip(found.type.tensor_type.shape.dim, declared.type.tensor_type.shape.dim, strict=False):
            if left.HasField("dim_value") and right.HasField("dim_value"):
                assert left.dim_value == right.dim_value, f"{found.name}: {left.dim_value} for {right.dim_value}"


def law_signature_is_unchanged(case: Case) -> None:
    """Inputs, outputs, opset, metadata and doc strings survive."""
    before = case.original
    for after in (case.shrunk_message, case.masked_message):
        fed, fed_after = (
            [
                value
                for value in proto.graph.input
                if value.name not in {tensor.name for tensor in proto.graph.initializer}
            ]
            for proto in (before, after)
        )
        assert fed_after == fed
        assert list(after.graph.output) == list(before.graph.output)
        assert sorted((entry.domain, entry.version) for entry in after.opset_import) == sorted(
            (entry.domain, entry.version) for entry in before.opset_import
        )
        assert after.ir_version == before.ir_version
        assert (after.producer_name, after.doc_string) == (before.producer_name, before.doc_string)
        assert (after.graph.name, after.graph.doc_string) == (before.graph.name, before.graph.doc_string)
        metadata = {entry.key: entry.value for entry in after.metadata_props}
        assert metadata.items() >= {entry.key: entry.value for entry in before.metadata_props}.items()


def law_face_is_unchanged(case: Case) -> None:
    """The signature, and the names of nodes and weights survive."""
    law_signature_is_unchanged(case)
    before, shrunk = case.original, case.shrunk_message
    documented = [(node.op_type, node.name, node.doc_string, list(node.output)) for node in before.graph.node]
    survivors = [(node.op_type, node.name, node.doc_string, list(node.output)) for node in shrunk.graph.node]
    added = [entry for entry in survivors if entry not in documented]
    lost = [entry for entry in documented if entry not in survivors]
    assert [e for e in survivors if e not in added] == [e for e in documented if e not in lost], "nodes changed places"
    # A mean over fewer positions is scaled, and what is scaled has the name, as the end of what is written out has.
    written = any(entry[0].endswith("LayerNormalization") for entry in lost)
    scaled = {name for entry in added for name in entry[3] if entry[0] == "Mul" or (written and entry[0] == "Add")}
    gone = [entry for entry in lost if entry[0] not in SHAPE_ARITHMETIC and not {*entry[3]} - {""} <= scaled]
    assert not gone, f"nodes were lost: {gone}"
    # A size that is partly computed, a slice in steps, and a mean take a helper node; layer normalisation takes many.
    helpers = [entry for entry in added if entry[0] not in ("ReduceMean", "GlobalAveragePool")]
    allowed = {"Where", "Gather", "Mul"} | ({"Sub", "Add", "Sqrt", "Div"} if written else set())
    assert all(entry[0] in allowed for entry in helpers), f"nodes were added: {added}"
    weights = {tensor.name for tensor in before.graph.initializer if tensor.data_type in FLOATS}
    assert {tensor.name for tensor in shrunk.graph.initializer} >= weights
    new = {tensor.name for tensor in shrunk.graph.initializer} - {tensor.name for tensor in before.graph.initializer}
    assert all(any(mark in name for mark in ("_pruned", "_known", "_share", "number")) for name in new), new


def law_record_says_what_was_removed(case: Case) -> None:
    """The shrunk file's metadata count the units that went; an untouched file records nothing."""
    record = {entry.key: entry.value for entry in case.shrunk_message.metadata_props}.get("onnxadmm.pruned")
    if not case.removed:
        assert record is None
        return
    assert record is not None
    (entry,) = json.loads(record)
    counts = entry["units"].values()
    followed = sum(case.units.followers.gone(case.keep).values())
    assert sum(before - after for before, after in counts) == case.removed + followed


def law_masked_differs_only_in_zeros(case: Case) -> None:
    """Same nodes, same weights; where a weight differs it is zero, or what stands for zero in a quantised one.

    Gates on activations come on top: a Mul by ones, and zeros where a removed unit is.
    """
    before, after = case.original.graph, to_proto(case.masked).graph
    take_gates_out(case, after)
    old, new = constants(before), constants(after)
    assert list(old) == list(new)
    for name, array in old.items():
        assert array.shape == new[name].shape
        assert array.dtype == new[name].dtype
        different = array != new[name]
        assert not (new[name] != zero_of(case, name, old))[different].any(), f"{name} holds new numbers"
    gone = ~np.append(case.units.followers.with_them(case.keep), True)
    for reader in case.units.readers:
        if not gone[reader.units].any():
            continue  # a computed weight is written out only where something goes
        read = new[reader.tensor] != zero_of(case, reader.tensor, old)
        rows = read.reshape(*reader.units.shape[:-1], -1, *read.shape[1:])
        for block, removed in zip(
            rows if reader.units.ndim > 1 else [rows], np.atleast_2d(gone[reader.units]), strict=True
        ):
            assert not np.moveaxis(block, reader.axis, 0)[removed].any(), f"{reader.tensor} still reads a removed unit"
    assert [(n.op_type, n.name, list(n.input), list(n.output)) for n in after.node] == [
        (n.op_type, n.name, list(n.input), list(n.output)) for n in before.node
    ]


def take_gates_out(case: Case, graph: onnx.GraphProto) -> None:
    """Undo the Muls of the gates of a masked graph, once they are found to be right and no more than needed."""
    stays = np.append(case.units.followers.with_them(case.keep), True)
    arrays = constants(graph)
    for gate in case.units.gates:
        expected = stays[gate.reader.units]
        (node, *more) = [node for node in graph.node if gate.reader.tensor in node.input] or [None]
        assert not more
        assert (node is None) == bool(expected.all())
        if node is None:
            continue
        assert node.op_type == "Mul"
        assert np.array_equal(arrays[gate.reader.tensor], expected.reshape(gate.shape))
        for user in graph.node:
            user.input[:] = [node.input[0] if name == node.output[0] else name for name in user.input]
        graph.node.remove(node)
        for holder in (graph.initializer, graph.input):  # below IR version 4 both
            for item in list(holder):
                if item.name == gate.reader.tensor:
                    holder.remove(item)


def law_removed_units_cannot_be_seen(case: Case) -> None:
    """Whatever writes a removed unit may hold anything: the masked original must not notice.

    This is the definition of a unit that is gone, and shares nothing with ``shrink``.
    """
    scrambled = onnx.ModelProto.FromString(case.masked_message.SerializeToString())
    arrays = constants(scrambled.graph)
    gone = ~np.append(case.units.followers.with_them(case.keep), True)
    readers = {(reader.tensor, reader.axis) for reader in case.units.readers}
    garbage: dict[str, Array] = {}
    for writer in case.units.writers:
        if (writer.tensor, writer.axis) in readers or writer.units.ndim > 1 or writer.tensor not in arrays:
            continue  # the last: a computed weight is written out only where its readers lose units
        array = garbage.get(writer.tensor, arrays[writer.tensor]).copy()
        view = np.moveaxis(array, writer.axis, 0)
        zero = np.moveaxis(zero_of(case, writer.tensor, arrays), writer.axis, 0)[gone[writer.units]]
        old = view[gone[writer.units]]
        # Readers of other removed units share the tensor; what is zero there stays zero.
        view[gone[writer.units]] = np.where(old == zero, old, (old * 2 + 0.5).astype(old.dtype))
        garbage[writer.tensor] = array
    replace_constants(scrambled.graph, garbage)
    inputs = [feeds(case.original, seed=5)]
    verification = verify(case.masked, load(scrambled), inputs)
    assert verification.passed, f"a removed unit is still seen: {verification.first_difference}"


def law_shrunk_runs_optimised(case: Case) -> None:
    """onnxruntime loads the result with every optimisation and computes what it computes without.

    Not asked where its optimiser already breaks the original.
    """
    feed = feeds(case.original, seed=4)
    try:
        run(case.original, feed)
    except Exception:  # onnxruntime's errors have no common root below Exception
        return
    outputs = run(case.shrunk_message, feed)
    for expected, found in zip(run(case.masked_message, feed, optimise=False), outputs, strict=True):
        assert snr_db(expected, found) > 70


def law_reference_agrees(case: Case) -> bool:
    """onnx's own evaluator, which shares nothing with onnxruntime, gives the same for masked and shrunk.

    Returns False where it is no witness: it lacks an operator, or differs from onnxruntime on the original already.
    """
    feed = feeds(case.original, seed=3)
    original = evaluate(case.original, feed)
    if original is None or not agree(original, run(case.original, feed, optimise=False)):
        return False
    masked, shrunk = evaluate(case.masked_message, feed), evaluate(case.shrunk_message, feed)
    assert masked is not None
    assert shrunk is not None
    assert agree(masked, shrunk)
    return True


def law_cost_is_counted_on_the_shrunk_graph(case: Case) -> None:
    """The parameters and MACs that the units say are saved are those the shrunk graph really lacks."""
    everything = np.ones_like(case.keep)
    counts: tuple[tuple[CostKind, Callable[[onnx.ModelProto], int | None]], ...] = (
        ("params", count_parameters),
        ("macs", count_macs),
    )
    for kind, count in counts:
        cost = Cost(case.units, kind)
        before, after = count(case.model_message), count(case.shrunk_message)
        if before is None or after is None:
            continue
        saved = before - after + (added_factors(case) if kind == "params" else 0)
        assert math.isclose(cost.total(everything) - cost.total(case.keep), saved, abs_tol=0.5), kind


def law_nothing_removed_changes_nothing(original: onnx.ModelProto, model: Model, units: Units) -> None:
    """Keeping everything gives the bytes that came in."""
    case = prune(original, model, units, np.ones(units.count, np.bool_))
    before = to_proto(model).SerializeToString(deterministic=True)
    assert case.shrunk_message.SerializeToString(deterministic=True) == before
    assert case.masked_message.SerializeToString(deterministic=True) == before


# Oracles


def added_factors(case: Case) -> int:
    """The scalars the rewrite adds: the share of a mean's channels it kept is a constant, no weight."""
    had = {tensor.name for tensor in case.model_message.graph.initializer}
    return sum(
        1
        for tensor in case.shrunk_message.graph.initializer
        if tensor.name not in had and not tensor.dims and tensor.data_type == onnx.TensorProto.FLOAT
    )


def zero_of(case: Case, name: str, arrays: dict[str, Array]) -> Array:
    """What stands for zero at every position of a weight, in its shape."""
    point = case.units.zero_points.get(name)
    if point is None:
        return np.zeros_like(arrays[name])
    values = arrays[point.tensor].reshape(-1)
    shape = [values.size if axis == point.axis else 1 for axis in range(arrays[name].ndim)]
    return np.broadcast_to(values.reshape(shape), arrays[name].shape)


def inferred_outputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto] | None:
    """The outputs as strict shape inference finds them, not as the file declares them; None where it fails."""
    stripped = onnx.ModelProto.FromString(model.SerializeToString())
    for value in stripped.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        return list(shape_inference.infer_shapes(stripped, strict_mode=True, data_prop=True).graph.output)
    except shape_inference.InferenceError:
        return None


def snr_db(expected: Array, found: Array) -> float:
    """10 log10(signal / noise) in dB, inf where nothing differs."""
    left, right = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    noise = float(((left - right) ** 2).sum())
    return math.inf if noise == 0 else 10 * math.log10(max(float((left**2).sum()), 1e-30) / noise)


def agree(expected: list[Array], found: list[Array]) -> bool:
    """Equal shapes, and at most rounding between the numbers."""
    pairs = list(zip(expected, found, strict=True))
    return all(left.shape == right.shape and snr_db(left, right) > 80 for left, right in pairs)


def evaluate(model: onnx.ModelProto, feed: dict[str, NDArray[np.float32]]) -> list[Array] | None:
    """What onnx's reference evaluator computes; None where it fails, which it does in many ways."""
    try:
        return [np.asarray(output) for output in ReferenceEvaluator(model).run(None, feed)]
    except Exception:
        return None


def run(model: onnx.ModelProto, feed: dict[str, NDArray[np.float32]], *, optimise: bool = True) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, feed)]


def constants(graph: onnx.GraphProto) -> dict[str, Array]:
    """Every initializer and every result of a Constant node."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            value = helper.get_attribute_value(node.attribute[0])
            is_tensor = isinstance(value, TensorProto)
            array = numpy_helper.to_array(value) if is_tensor else np.asarray(value)
            if not is_tensor:
                array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
            found[node.output[0]] = array
    return found


def replace_constants(graph: onnx.GraphProto, arrays: dict[str, Array]) -> None:
    for tensor in graph.initializer:
        if tensor.name in arrays:
            tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] in arrays:
            del node.attribute[:]
            tensor = numpy_helper.from_array(arrays[node.output[0]])
            node.attribute.append(helper.make_attribute("value", tensor))


def count_parameters(model: onnx.ModelProto) -> int:
    """Elements of all float constants."""
    return sum(array.size for array in constants(model.graph).values() if array.dtype.kind == "f")


def count_macs(model: onnx.ModelProto) -> int | None:
    """Multiply-accumulates of Conv, ConvTranspose, Gemm and MatMul for one sample.

    None where a shape is not known, or an Einsum multiplies as well.
    """
    fixed = onnx.ModelProto.FromString(model.SerializeToString())
    for value in fixed.graph.input:
        for axis in value.type.tensor_type.shape.dim:
            if axis.HasField("dim_param"):
                axis.dim_value = 1
    for value in fixed.graph.output:
        if any(axis.HasField("dim_param") for axis in value.type.tensor_type.shape.dim):
            value.type.tensor_type.ClearField("shape")
    del fixed.graph.value_info[:]
    fixed = shape_inference.infer_shapes(fixed, data_prop=True)
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*fixed.graph.input, *fixed.graph.value_info, *fixed.graph.output)
    }
    shapes |= {name: list(array.shape) for name, array in constants(fixed.graph).items()}
    total = 0
    for node in fixed.graph.node:
        if node.op_type == "Einsum":
            return None
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and not all(
            shapes.get(name) and 0 not in shapes[name] for name in (*node.input[:2], node.output[0])
        ):
            return None
        if node.op_type in ("Conv", "ConvTranspose"):
            weight = shapes[node.input[1]]
            positions = shapes[node.output[0] if node.op_type == "Conv" else node.input[0]]
            total += math.prod(positions) * math.prod(weight[1:])
        elif node.op_type in ("Gemm", "MatMul"):
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            inner = shapes[node.input[0]][0 if transposed else -1]
            total += math.prod(shapes[node.output[0]]) * inner
    return total
