"""Whether the lengths at a node fit together, as far as ONNX's inference does not look at that itself."""

from collections.abc import Iterable, Mapping
from functools import cache
from math import prod

import onnx
from onnx import numpy_helper

from onnxadmm.operators.nodes import attribute
from onnxadmm.operators.table import find


def lengths_of(given: onnx.TypeProto | None) -> tuple[int, ...] | None:
    """All lengths of a tensor type, None when one is unknown."""
    if given is None or not given.HasField("tensor_type") or not given.tensor_type.HasField("shape"):
        return None
    lengths = []
    for dim in given.tensor_type.shape.dim:
        if not dim.HasField("dim_value"):
            return None
        lengths.append(dim.dim_value)
    return tuple(lengths)


def bears_inference(nodes: Iterable[onnx.NodeProto], opsets: Mapping[str, int]) -> bool:
    """Whether ONNX's inference can look at nodes, and at those in their bodies.

    It takes for granted that attributes are of the types that an operator asks for, and that a Split has as many
    results as it says; it may end the process where that is not so.
    """
    pending = list(nodes)
    while pending:
        proto = pending.pop()
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        asked = _attribute_types(proto.op_type, opsets.get(domain, 0), domain)
        for item in proto.attribute:
            if asked.get(item.name, item.type) != item.type:
                return False
            if item.name == "num_outputs" and not item.ref_attr_name and item.i != len(proto.output):
                return False
            pending.extend(item.g.node)
    return True


@cache
def _attribute_types(operator: str, version: int, domain: str) -> Mapping[str, int]:
    if version < 1 or not onnx.defs.has(operator, version, domain):
        return {}
    schema = onnx.defs.get_schema(operator, version, domain)
    return {name: int(item.type.value) for name, item in schema.attributes.items()}  # type: ignore[attr-defined]  # a stub


def plausible(
    proto: onnx.NodeProto, types: Mapping[str, onnx.TypeProto], results: Mapping[str, onnx.TypeProto]
) -> bool:
    """Whether the lengths fit together, as far as ONNX's inference does not look at that itself."""
    if proto.domain not in ("", "ai.onnx"):
        return True
    given = [lengths_of(types[name]) if name else None for name in proto.input[:2]]
    outputs = [lengths_of(result) or () for result in results.values()]
    if any(length < 0 for lengths in outputs for length in lengths):
        return False
    windowed = find("", proto.op_type).windowed
    if windowed and given[0] is not None and 0 not in given[0] and any(0 in out for out in outputs):
        return False
    if proto.op_type == "Reshape" and given[0] is not None and proto.output[0] in results:
        target = lengths_of(results[proto.output[0]])
        return target is None or prod(target) == prod(given[0])
    if len(given) < 2 or given[0] is None or given[1] is None:
        return True
    if proto.op_type == "Conv":
        return bool(given[0][1] == given[1][1] * attribute(proto, "group", 1))
    if proto.op_type == "Gemm":
        inner = given[0][0 if attribute(proto, "transA", 0) else 1]
        return bool(inner == given[1][1 if attribute(proto, "transB", 0) else 0])
    return True


def runs(proto: onnx.NodeProto, types: Mapping[str, onnx.TypeProto], data: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether a node would compute with these lengths and values: inference also accepts some that fail while running.

    Args:
        types: of its operands, by name.
        data: values of those that are known.
    """
    if proto.domain not in ("", "ai.onnx") or not proto.input:
        return True
    given = lengths_of(types[proto.input[0]])
    if given is None:
        return True
    if find("", proto.op_type).windowed:
        weight = lengths_of(types[proto.input[1]]) if len(proto.input) > 1 and proto.input[1] in types else None
        return _window_fits(proto, given, weight)
    if proto.op_type == "Pad":
        return _has_enough_to_mirror(proto, given, data)
    if proto.op_type == "Gather" and len(proto.input) > 1 and proto.input[1] in data:
        indices = numpy_helper.to_array(data[proto.input[1]])
        length = given[attribute(proto, "axis", 0)] if given else 0
        return not indices.size or bool(-length <= indices.min() and indices.max() < length)
    return True


def _window_fits(proto: onnx.NodeProto, given: tuple[int, ...], weight: tuple[int, ...] | None) -> bool:
    """Whether a window of a convolution or pooling is no larger than the padded image that it moves over."""
    listed = {item.name: list(item.ints) for item in proto.attribute}
    mode = next((item.s for item in proto.attribute if item.name == "auto_pad"), b"NOTSET")
    sides = given[2:]
    kernel = listed.get("kernel_shape") or list(weight[2:] if weight is not None else ())
    if proto.op_type == "ConvTranspose" or mode.startswith(b"SAME") or len(kernel) != len(sides):
        return True
    pads = listed.get("pads") if mode == b"NOTSET" else None
    pads = pads if pads and len(pads) == 2 * len(sides) else [0] * (2 * len(sides))
    spread = listed.get("dilations") or [1] * len(sides)
    padded = [side + pads[axis] + pads[axis + len(sides)] for axis, side in enumerate(sides)]
    return all((size - 1) * step < room for size, step, room in zip(kernel, spread, padded, strict=True))


def _has_enough_to_mirror(proto: onnx.NodeProto, given: tuple[int, ...], data: Mapping[str, onnx.TensorProto]) -> bool:
    mode = next((item.s for item in proto.attribute if item.name == "mode"), b"constant")
    if mode != b"reflect":
        return True
    pads = next((list(item.ints) for item in proto.attribute if item.name == "pads"), None)
    if pads is None and len(proto.input) > 1 and proto.input[1] in data:
        pads = numpy_helper.to_array(data[proto.input[1]]).reshape(-1).tolist()
    if pads is None or len(pads) != 2 * len(given):
        return True  # of some axes only, or computed while running
    return all(max(pads[axis], pads[axis + len(given)]) < length for axis, length in enumerate(given))
