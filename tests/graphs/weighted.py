"""Steps with a weight matrix or kernel: Conv of any rank, ConvTranspose, Gemm, MatMul."""

import math

from tests.graphs.builder import Attribute, GraphBuilder, Value


def conv_attributes(
    b: GraphBuilder, spatial: tuple[int, ...], *, keep_size: bool
) -> tuple[list[int], dict[str, Attribute]]:
    """Kernel shape and attributes that leave at least one position on every spatial axis."""
    if keep_size:
        kernel = [b.choices.pick((1, 3)) for _ in spatial]
        pads = [size // 2 for size in kernel]
        if b.choices.chance(15):
            b.features.add("auto_pad")
            return kernel, {"auto_pad": b.choices.pick(("SAME_UPPER", "SAME_LOWER"))}
        return kernel, {"pads": pads + pads}
    attributes: dict[str, Attribute] = {}
    kernel = [b.choices.pick([size for size in (1, 2, 3) if size <= extent]) for extent in spatial]
    if b.choices.chance(25):
        attributes["strides"] = [b.choices.pick((1, 2)) for _ in spatial]
        b.features.add("strides")
    if b.choices.chance(15):
        b.features.add("auto_pad")
        attributes["auto_pad"] = b.choices.pick(("VALID", "SAME_UPPER", "SAME_LOWER"))
        return kernel, attributes
    if b.choices.chance(20) and all(2 * (size - 1) + 1 <= extent for size, extent in zip(kernel, spatial, strict=True)):
        attributes["dilations"] = [2 for _ in spatial]
        b.features.add("dilations")
    if b.choices.chance(50):
        attributes["pads"] = [b.choices.integer(0, min(1, size - 1)) for size in kernel * 2]
    if b.choices.chance(50):
        attributes["kernel_shape"] = kernel
    return kernel, attributes


def conv(b: GraphBuilder, x: Value, *, channels: int | None = None, keep_size: bool = False, groups: int = 1) -> Value:
    """A convolution over all axes after the second; ``channels`` of the result, random if None."""
    count = channels if channels is not None else b.choices.integer(2, 8)
    kernel, attributes = conv_attributes(b, x.shape[2:], keep_size=keep_size)
    if groups > 1:
        attributes["group"] = groups
        b.features.add("grouped Conv")
    inputs = [x, b.weight([count, x.shape[1] // groups, *kernel], x.shape[1] // groups * math.prod(kernel))]
    b.features.add(f"Conv {x.rank - 2}-D")
    if b.choices.chance(65):
        return b.one("Conv", [*inputs, b.bias([count])], attributes)
    return b.one("Conv", inputs, attributes)


def pointwise(b: GraphBuilder, x: Value, channels: int) -> Value:
    """A 1x1 convolution."""
    weight = b.weight([channels, x.shape[1], *[1] * (x.rank - 2)], x.shape[1])
    return b.one("Conv", [x, weight, b.bias([channels])])


def depthwise(b: GraphBuilder, x: Value, *, keep_size: bool = False) -> Value:
    """One filter per channel, or two (multiplier 2)."""
    multiplier = b.choices.weighted(((70, 1), (30, 2))) if x.shape[1] <= 6 and not keep_size else 1
    b.features.add(f"depthwise Conv with multiplier {multiplier}")
    return conv(b, x, channels=x.shape[1] * multiplier, keep_size=keep_size, groups=x.shape[1])


def grouped_conv(b: GraphBuilder, x: Value) -> Value:
    """Channels in two or more blocks, each with its own filters; widened first where the count does not divide."""
    if x.shape[1] % 2 or x.shape[1] < 4:
        x = pointwise(b, x, b.choices.pick((4, 6, 8)))
    groups = b.choices.pick([number for number in (2, 3, 4) if x.shape[1] % number == 0])
    return conv(b, x, channels=groups * b.choices.integer(1, 3), groups=groups)


def conv_transpose(b: GraphBuilder, x: Value) -> Value:
    """An up-sampling convolution; few rules know it."""
    if x.shape[-1] > 5:
        return conv(b, x)
    channels = b.choices.integer(2, 6)
    weight = b.weight([x.shape[1], channels, *[2] * (x.rank - 2)], x.shape[1] * 2)
    return b.one("ConvTranspose", [x, weight, b.bias([channels])], {"strides": [2] * (x.rank - 2)})


def gemm(b: GraphBuilder, x: Value, features: int) -> Value:
    """[N, f] -> [N, features] by Gemm: both transposes, alpha and beta, C of every shape or absent."""
    attributes: dict[str, Attribute] = {}
    transposed = b.choices.chance(60)
    if transposed:
        attributes["transB"] = 1
    if b.choices.chance(25):
        attributes["alpha"] = 0.8
        b.features.add("Gemm alpha")
    if b.choices.chance(25):
        attributes["beta"] = 1.5
        b.features.add("Gemm beta")
    if b.choices.chance(12):
        attributes["transA"] = 1
        b.features.add("Gemm transA")
        x = b.one("Transpose", [x], {"perm": [1, 0]})
    wide = x.shape[0] if "transA" in attributes else x.shape[1]
    weight = b.weight([features, wide] if transposed else [wide, features], wide)
    addend = b.choices.weighted(((50, [features]), (15, [1, features]), (8, []), (7, [1]), (20, None)))
    b.features.add("Gemm without C" if addend is None else f"Gemm with C of rank {len(addend)}")
    return b.one("Gemm", [x, weight] if addend is None else [x, weight, b.bias(addend)], attributes)


def matmul(b: GraphBuilder, x: Value, features: int) -> Value:
    """[..., f] -> [..., features] by MatMul with a constant on the right, then a bias on either side of Add."""
    shape = [x.shape[-1], features]
    if x.rank > 2 and b.choices.chance(15):
        shape = [1, *shape]
        b.features.add("MatMul with a batched constant")
    y = b.one("MatMul", [x, b.weight(shape, x.shape[-1])])
    b.features.add(f"MatMul of rank {x.rank}")
    if b.choices.chance(70):
        bias = b.bias([features] if b.choices.chance(70) else [1] * (x.rank - 1) + [features])
        y = b.one("Add", [bias, y] if b.choices.chance(40) else [y, bias])
    return y


def left_matmul(b: GraphBuilder, x: Value) -> Value:
    """[..., t, f] -> [..., t', f] by MatMul with a constant on the left: mixes positions, not features."""
    rows = b.choices.integer(2, 6)
    b.features.add("MatMul with a constant on the left")
    return b.one("MatMul", [b.weight([rows, x.shape[-2]], x.shape[-2]), x])


def dense(b: GraphBuilder, x: Value, features: int) -> Value:
    """A fully connected layer on the last axis, as any exporter may write it."""
    if x.rank == 2 and b.choices.chance(60):
        return gemm(b, x, features)
    return matmul(b, x, features)
