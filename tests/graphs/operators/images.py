"""Blocks on images ``[N, C, ...]``: convolutions, pools, normalisations, resizing, sampling."""

import math

import numpy as np

from tests.graphs import weighted
from tests.graphs.builder import Attribute, GraphBuilder, Value
from tests.graphs.operators.registry import Kind, Port, block, divisible, image4, port, project, reduced

_IMAGE: tuple[Kind, ...] = ("image",)


def _small(x: Port) -> bool:
    return math.prod(x.sizes) <= 40


@block("Conv", "Conv", on=_IMAGE)
def convolution(b: GraphBuilder, x: Port) -> Value:
    return weighted.conv(b, x)


@block("grouped Conv", "Conv", on=_IMAGE, fits=divisible(4))
def grouped_convolution(b: GraphBuilder, x: Port) -> Value:
    groups = b.choices.pick((2, 4))
    return weighted.conv(b, x, channels=groups * b.choices.integer(1, 3), groups=groups)


@block("depthwise Conv", "Conv", on=_IMAGE)
def depthwise(b: GraphBuilder, x: Port) -> Value:
    return weighted.depthwise(b, x, keep_size=b.choices.chance(50))


@block("grouped Conv behind a depthwise one", "Conv", on=_IMAGE, fits=divisible(2))
def grouped_twice(b: GraphBuilder, x: Port) -> Value:
    """Three in a row: grouped, depthwise, grouped by another number."""
    y = weighted.conv(b, x, channels=x.channels, groups=2, keep_size=True)
    y = b.one("Relu", [weighted.conv(b, y, channels=y.shape[1], groups=y.shape[1], keep_size=True)])
    return weighted.conv(b, y, channels=y.shape[1], groups=b.choices.pick((1, 2)), keep_size=True)


@block("Conv with a computed weight", "Conv", "Mul", on=_IMAGE)
def scaled_weight(b: GraphBuilder, x: Port) -> Value:
    """Weight normalisation as it is written out: a direction times a length per filter."""
    count = b.choices.integer(2, 6)
    ones = [1] * (x.rank - 1)
    weight = b.one("Mul", [b.weight([count, x.channels, *ones[1:]], x.channels), b.positive([count, *ones], "length")])
    return b.one("Conv", [x, weight, b.bias([count])])


def _transposed(b: GraphBuilder, x: Port, groups: int, channels: int) -> Value:
    spatial = len(x.sizes)
    stride = b.choices.pick((1, 2))
    attributes: dict[str, Attribute] = {"strides": [stride] * spatial}
    if groups > 1:
        attributes["group"] = groups
    if stride == 2 and b.choices.chance(30):
        attributes["output_padding"] = [1] * spatial
    if b.choices.chance(30):
        attributes["pads"] = [0] * spatial + [1] * spatial
    weight = b.weight([x.channels, channels // groups, *[2] * spatial], 2 * x.channels // groups)
    operands = [x, weight, b.bias([channels])] if b.choices.chance(70) else [x, weight]
    return b.one("ConvTranspose", operands, attributes)


@block("ConvTranspose", "ConvTranspose", on=_IMAGE, fits=_small)
def transposed_convolution(b: GraphBuilder, x: Port) -> Value:
    return _transposed(b, x, 1, b.choices.integer(2, 6))


@block("depthwise ConvTranspose", "ConvTranspose", on=_IMAGE, fits=_small)
def depthwise_transposed(b: GraphBuilder, x: Port) -> Value:
    return _transposed(b, x, x.channels, x.channels)


@block(
    "grouped ConvTranspose", "ConvTranspose", on=_IMAGE, passes=False,
    fits=lambda x: _small(x) and divisible(2)(x),
)  # fmt: skip
def grouped_transposed(b: GraphBuilder, x: Port) -> Value:
    return _transposed(b, x, 2, 2 * b.choices.integer(1, 4))


def _register_pool(name: str) -> None:
    @block(name, name, on=_IMAGE, fits=lambda x: min(x.sizes) >= 2)
    def pool(b: GraphBuilder, x: Port) -> Value:
        spatial = len(x.sizes)
        attributes: dict[str, Attribute] = {"kernel_shape": [2] * spatial}
        if b.choices.chance(50):
            attributes["strides"] = [b.choices.pick((1, 2)) for _ in x.sizes]
        if b.choices.chance(30):
            attributes["pads"] = [0] * spatial + [1] * spatial
            if name == "AveragePool":
                attributes["count_include_pad"] = b.choices.integer(0, 1)
        elif name != "LpPool" and b.choices.chance(20):
            attributes["ceil_mode"] = 1
        elif b.choices.chance(20):
            attributes["auto_pad"] = b.choices.pick(("SAME_UPPER", "SAME_LOWER"))
        return b.one(name, [x], attributes)


def _register_global(name: str) -> None:
    @block(name, name, on=_IMAGE)
    def pool(b: GraphBuilder, x: Port) -> Value:
        """A gate by the pooled value, so that space survives."""
        gate = b.one("Sigmoid", [project(b, port("image", b.one(name, [x])), x.channels)])
        return b.one("Mul", [x, gate])


for _name in ("MaxPool", "AveragePool", "LpPool"):
    _register_pool(_name)
for _name in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
    _register_global(_name)


@block("MaxUnpool", "MaxPool", "MaxUnpool", on=_IMAGE, opsets=(13, 21), passes=False,
       fits=lambda x: image4(x) and not any(size % 2 for size in x.sizes))  # fmt: skip
def unpool(b: GraphBuilder, x: Port) -> Value:
    window: dict[str, Attribute] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    pooled, indices = b.node("MaxPool", [x], window, outputs=2)
    return b.one("MaxUnpool", [b.one("Mul", [pooled, b.scalar(0.7)]), indices], window)


def _regions(b: GraphBuilder, x: Port) -> np.ndarray:
    corners = b.random.uniform(0, 1, (x.shape[0], 2))
    return np.concatenate([corners, corners + b.random.uniform(0.5, 2, corners.shape)], axis=1).astype(np.float32)


@block("RoiAlign", "RoiAlign", on=_IMAGE, opsets=(13, 21), fixed=True, fits=image4)
def align_regions(b: GraphBuilder, x: Port) -> Value:
    batch = b.initializer(np.arange(x.shape[0], dtype=np.int64), "image")
    size: dict[str, Attribute] = {"output_height": 2, "output_width": 2, "sampling_ratio": 2}
    if b.choices.chance(30):
        size["mode"] = "max"
    return b.one("RoiAlign", [x, b.initializer(_regions(b, x), "regions"), batch], size)


@block("MaxRoiPool", "MaxRoiPool", on=_IMAGE, opsets=(13, 21), fixed=True, fits=image4)
def pool_regions(b: GraphBuilder, x: Port) -> Value:
    numbers = np.arange(x.shape[0], dtype=np.float32)[:, None]
    rows = np.concatenate([numbers, np.round(_regions(b, x))], axis=1).astype(np.float32)
    return b.one("MaxRoiPool", [x, b.initializer(rows, "regions")], {"pooled_shape": [2, 2]})


@block("GridSample", "GridSample", on=_IMAGE, opsets=(16, 21), fits=image4)
def sample(b: GraphBuilder, x: Port) -> Value:
    """Sampled where a layer says: its two channels become coordinates."""
    places = b.one("Tanh", [project(b, x, 2)])
    grid = b.one("Transpose", [places], {"perm": [0, 2, 3, 1]})
    mode = b.choices.pick(("bilinear", "bicubic") if b.opset < 20 else ("linear", "cubic"))
    return b.one("GridSample", [x, grid], {"mode": mode, "align_corners": b.choices.integer(0, 1)})


@block("AffineGrid", "AffineGrid", "GridSample", on=_IMAGE, opsets=(20, 21), fixed=True, fits=image4)
def transform(b: GraphBuilder, x: Port) -> Value:
    """A spatial transformer: six numbers from the image turn it."""
    means = reduced(b, "ReduceMean", x, [2, 3], keep=False)
    numbers = weighted.dense(b, means, 6)
    theta = b.one("Reshape", [numbers, b.integers(-1, 2, 3)])
    grid = b.one("AffineGrid", [theta, b.integers(x.shape[0], x.channels, 3, 3)])
    return b.one("GridSample", [x, grid], {"mode": "linear"})


@block("Resize by scales", "Resize", on=_IMAGE, opsets=(13, 21), fits=lambda x: image4(x) and _small(x))
def resize_by_scales(b: GraphBuilder, x: Port) -> Value:
    scales = b.initializer(np.asarray([1, 1, 2, b.choices.pick((1.0, 1.5, 2.0))], np.float32), "scales")
    attributes: dict[str, Attribute] = {"mode": b.choices.pick(("nearest", "linear", "cubic"))}
    if attributes["mode"] == "nearest":
        attributes["coordinate_transformation_mode"] = b.choices.pick(("asymmetric", "half_pixel"))
    return b.one("Resize", [x, None, scales], attributes)


@block("Resize to sizes", "Resize", on=_IMAGE, opsets=(13, 21), fits=lambda x: image4(x) and _small(x))
def resize_to_sizes(b: GraphBuilder, x: Port) -> Value:
    """Sizes that name all axes; where the batch is free its length and that of the channels are computed."""
    wanted = (x.sizes[0] + 1, x.sizes[1] * 2)
    if b.opset >= 18 and b.choices.chance(40):
        return b.one("Resize", [x, None, None, b.integers(*wanted)], {"mode": "nearest", "axes": [2, 3]})
    if not b.symbolic_batch and b.choices.chance(50):
        return b.one("Resize", [x, None, None, b.integers(*x.shape[:2], *wanted)], {"mode": "linear"})
    front = b.one("Slice", [b.one("Shape", [x]), b.integers(0), b.integers(2)])
    target = b.one("Concat", [front, b.integers(*wanted)], {"axis": 0})
    return b.stated("Resize", [x, None, None, target], [((*x.shape[:2], *wanted), x.dtype)])[0]


@block("Resize along the channels", "Resize", on=_IMAGE, opsets=(13, 21), passes=False, fits=image4)
def resize_channels(b: GraphBuilder, x: Port) -> Value:
    scales = b.initializer(np.asarray([1, 2, 1, 1], np.float32), "scales")
    return b.one("Resize", [x, None, scales], {"mode": "nearest"})


@block("Upsample", "Upsample", on=_IMAGE, opsets=(9, 9), fits=image4)
def upsample(b: GraphBuilder, x: Port) -> Value:
    scales = b.initializer(np.asarray([1, 1, 2, b.choices.pick((1, 2))], np.float32), "scales")
    return b.one("Upsample", [x, scales], {"mode": "nearest"})


@block("DepthToSpace", "DepthToSpace", on=_IMAGE, fits=lambda x: image4(x) and divisible(4)(x))
def depth_to_space(b: GraphBuilder, x: Port) -> Value:
    return b.one("DepthToSpace", [x], {"blocksize": 2, "mode": b.choices.pick(("DCR", "CRD"))})


@block("SpaceToDepth", "SpaceToDepth", on=_IMAGE, fits=lambda x: image4(x) and not any(size % 2 for size in x.sizes))
def space_to_depth(b: GraphBuilder, x: Port) -> Value:
    return b.one("SpaceToDepth", [x], {"blocksize": 2})


@block("pixel shuffle by Reshape", "Reshape", "Transpose", on=_IMAGE, fits=lambda x: image4(x) and divisible(4)(x))
def pixel_shuffle(b: GraphBuilder, x: Port) -> Value:
    """[N, 4C, H, W] -> [N, C, 2, 2, H, W] -> [N, C, H, 2, W, 2] -> [N, C, 2H, 2W]."""
    height, width = x.sizes
    y = b.one("Reshape", [x, b.integers(-1, x.channels // 4, 2, 2, height, width)])
    y = b.one("Transpose", [y], {"perm": [0, 1, 4, 2, 5, 3]})
    return b.one("Reshape", [y, b.integers(-1, x.channels // 4, 2 * height, 2 * width)])


@block("Col2Im", "Col2Im", on=_IMAGE, opsets=(18, 21), fits=lambda x: image4(x) and divisible(4)(x))
def columns_to_image(b: GraphBuilder, x: Port) -> Value:
    columns = b.one("Reshape", [x, b.integers(0, 0, -1)])
    size = b.integers(*(2 * size for size in x.sizes))
    return b.one("Col2Im", [columns, size, b.integers(2, 2)], {"strides": [2, 2]})


@block("CenterCropPad", "CenterCropPad", on=_IMAGE, opsets=(18, 21), fits=image4)
def crop_or_pad(b: GraphBuilder, x: Port) -> Value:
    return b.one("CenterCropPad", [x, b.integers(x.sizes[0] + 1, max(1, x.sizes[1] - 1))], {"axes": [2, 3]})


@block("BatchNormalization", "BatchNormalization", on=("image", "flat"))
def batch_normalization(b: GraphBuilder, x: Port) -> Value:
    count = [x.channels]
    operands = [b.positive(count, "gamma"), b.bias(count, "beta"), b.bias(count, "mean"), b.positive(count, "variance")]
    return b.one("BatchNormalization", [x, *operands])


def _spread(x: Port) -> bool:
    return math.prod(x.sizes) >= 2


@block("InstanceNormalization", "InstanceNormalization", on=_IMAGE, fits=_spread)
def instance_normalization(b: GraphBuilder, x: Port) -> Value:
    return b.one("InstanceNormalization", [x, b.positive([x.channels], "scale"), b.bias([x.channels])])


@block("GroupNormalization", "GroupNormalization", on=_IMAGE, opsets=(21, 21),
       fits=lambda x: _spread(x) and divisible(2)(x))  # fmt: skip
def group_normalization(b: GraphBuilder, x: Port) -> Value:
    groups = b.choices.pick([count for count in (2, 3, 4) if x.channels % count == 0])
    operands = [x, b.positive([x.channels], "scale"), b.bias([x.channels])]
    return b.stated("GroupNormalization", operands, [(x.shape, x.dtype)], attributes={"num_groups": groups})[0]


@block(
    "group normalisation by InstanceNormalization", "InstanceNormalization", "Reshape", on=_IMAGE,
    fits=lambda x: _spread(x) and divisible(2)(x),
)  # fmt: skip
def group_normalization_by_instance(b: GraphBuilder, x: Port) -> Value:
    """As torch exports it: groups become channels, every group is normalised, and the shape comes back from Shape."""
    groups = b.choices.pick([count for count in (2, 3, 4) if x.channels % count == 0])
    y = b.one("Reshape", [x, b.integers(0, groups, -1)])
    ones = b.initializer(np.ones(groups, np.float32), "ones")
    y = b.one("InstanceNormalization", [y, ones, b.initializer(np.zeros(groups, np.float32), "zeros")])
    y = b.reshaped(y, b.one("Shape", [x]), x.shape)
    return b.one("Add", [b.one("Mul", [y, b.positive(x.channel_shape, "scale")]), b.bias(x.channel_shape)])


@block("LRN", "LRN", on=_IMAGE, passes=False, fits=image4)
def local_response(b: GraphBuilder, x: Port) -> Value:
    return b.one("LRN", [x], {"size": 3, "alpha": 0.5, "bias": 1.0})


@block("MeanVarianceNormalization over space", "MeanVarianceNormalization", on=_IMAGE, fits=image4)
def mean_variance_over_space(b: GraphBuilder, x: Port) -> Value:
    uneven = b.one("Add", [x, b.bias(x.sizes, "position")])  # the runtime divides what is even by zero
    return b.stated("MeanVarianceNormalization", [uneven], [(x.shape, x.dtype)], attributes={"axes": [2, 3]})[0]


@block("MeanVarianceNormalization of all", "MeanVarianceNormalization", on=_IMAGE, passes=False, fits=image4)
def mean_variance_of_all(b: GraphBuilder, x: Port) -> Value:
    return b.stated("MeanVarianceNormalization", [x], [(x.shape, x.dtype)], attributes={"axes": [1, 2, 3]})[0]


@block("dense convolutions", "Concat", "Conv", on=_IMAGE, fits=lambda x: x.channels <= 12)
def dense_convolutions(b: GraphBuilder, x: Port) -> Value:
    """DenseNet: every layer reads all before it."""
    y: Value = x
    for _ in range(2):
        grown = weighted.conv(b, b.one("Relu", [y]), channels=b.choices.integer(1, 3), keep_size=True)
        y = b.one("Concat", [y, grown], {"axis": 1})
    return y
