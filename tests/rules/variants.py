"""Networks that show an operator in a case that its sample does not: other attributes, computed sizes.

``PASSING`` lose units through the operator.
"""

from tests.rules.variant import Variant
from tests.rules.windows import WINDOWS

_SHAPED = "int64[1] zero = {0}, int64[1] two = {2}"
_OTHER = "float[4,4,1,1] W3, float[4] B3"
_PATCHES = "int64[4] rows = {6, 2, 2, 2}, int64[4] patches = {1, 3, 4, 4}, float[3,5] W3, float[5,3] W4"

PASSING: dict[str, Variant] = {
    **WINDOWS,
    "slice in the middle": Variant(
        "Slice",
        "z = Slice (h, from, to, axes)",
        "int64[1] from = {2}, int64[1] to = {5}, int64[1] axes = {1}",
        channels=7,
        read=3,
    ),
    "slice with steps": Variant(
        "Slice",
        "z = Slice (h, from, to, axes, steps)",
        "int64[2] from = {1, 0}, int64[2] to = {8, 2}, int64[2] axes = {1, 2}, int64[2] steps = {2, 1}",
        channels=9,
        read=4,
    ),
    "slice backwards": Variant(
        "Slice",
        "z = Slice (h, from, to, axes, steps)",
        "int64[1] from = {-1}, int64[1] to = {-9223372036854775807}, int64[1] axes = {1}, int64[1] steps = {-1}",
    ),
    "slice with 32-bit sizes": Variant(
        "Slice",
        "z = Slice (h, from, to, axes)",
        "int32[1] from = {2}, int32[1] to = {5}, int32[1] axes = {1}",
        channels=7,
        read=3,
    ),
    "slice of partly free sizes": Variant(
        "Slice",
        """n = Shape (h)
        height = Slice (n, two, three)
        more = Add (height, one)
        half = Div (more, two)
        ends = Concat <axis: int = 0> (four, half)
        z = Slice (h, starts, ends, axes)""",
        """int64[1] two = {2}, int64[1] three = {3}, int64[1] one = {1}, int64[1] four = {4}, int64[2] starts = {1, 0},
        int64[2] axes = {1, 2}""",
        channels=6,
        read=3,
        image="H,3",
    ),
    "old slice": Variant(
        "Slice", "z = Slice <starts: ints = [2], ends: ints = [5], axes: ints = [1]> (h)", channels=7, read=3, opset=9
    ),
    "squeeze of all axes of size one": Variant(
        "Squeeze",
        """m = ReduceMean <axes: ints = [2, 3], keepdims: int = 1> (h)
        s = Squeeze (m)
        z = Unsqueeze (s, space)""",
        "int64[2] space = {2, 3}",
        batch="2",
    ),
    "old squeeze of all axes of size one": Variant(
        "Squeeze",
        """m = ReduceMean <axes: ints = [2, 3], keepdims: int = 1> (h)
        s = Squeeze (m)
        z = Unsqueeze <axes: ints = [2, 3]> (s)""",
        batch="2",
        opset=11,
    ),
    "tile of an axis of size one": Variant(
        "Tile",
        """m = ReduceMean <axes: ints = [1], keepdims: int = 1> (x)
        c = Slice (m, from, to, axes)
        t = Tile (c, times)
        z = Add (h, t)""",
        "int64[2] from = {0, 0}, int64[2] to = {3, 3}, int64[2] axes = {2, 3}, int64[4] times = {1, 4, 1, 1}",
    ),
    "expand to a computed shape": Variant(
        "Expand",
        """n = Shape (h)
        e = Expand (slope, n)
        z = Mul (h, e)""",
        "float[1,1,1] slope",
        image="H,3",
    ),
    "expand of a bias": Variant(
        "Expand",
        """e = Expand (bias, size)
        z = Add (h, e)""",
        "float[4,1,1] bias, int64[4] size = {1, 4, 3, 3}",
    ),
    "squeeze and excite by computed shapes": Variant(
        "Reshape",
        """n = Shape (h)
        nc = Slice (n, zero, two)
        m = ReduceMean <axes: ints = [2, 3], keepdims: int = 0> (h)
        v = Concat <axis: int = 0> (nc, ones)
        g = Reshape (m, v)
        z = Mul (h, g)""",
        _SHAPED + ", int64[2] ones = {1, 1}",
    ),
    "copied sizes": Variant(
        "Reshape",
        """t = Reshape (h, merged)
        u = Unsqueeze (t, three)
        z = Relu (u)""",
        "int64[3] merged = {0, 0, -1}, int64[1] three = {3}",
    ),
    "copied size of another axis": Variant(
        "Reshape",
        """t = Transpose <perm: ints = [0, 2, 1, 3]> (h)
        r = Reshape (t, merged)
        a = Relu (r)
        b = Reshape (a, split)
        z = Transpose <perm: ints = [0, 2, 1, 3]> (b)""",
        "int64[3] merged = {12, 0, 3}, int64[4] split = {4, 3, 3, -1}",
        channels=3,
        read=3,
        batch="4",
    ),
    "more patches than channels": Variant(
        "Reshape",
        """a = Reshape (h, rows)
        b = Transpose <perm: ints = [0, 2, 1, 3]> (a)
        c = Reshape (b, patches)
        d = Transpose <perm: ints = [0, 3, 2, 1]> (c)
        e = MatMul (d, W3)
        f = MatMul (e, W4)
        g = Add (d, f)
        i = Transpose <perm: ints = [0, 3, 2, 1]> (g)
        j = Reshape (i, rows)
        k = Transpose <perm: ints = [0, 2, 1, 3]> (j)
        z = Reshape (k, patches)""",
        _PATCHES,
        channels=3,
        read=3,
        batch="1",
        image="4,4",
    ),
    "attention between patches": Variant(
        "Reshape",
        """a = Reshape (h, rows)
        b = Transpose <perm: ints = [0, 2, 1, 3]> (a)
        c = Reshape (b, patches)
        d = Transpose <perm: ints = [0, 3, 2, 1]> (c)
        e = Transpose <perm: ints = [0, 3, 1, 2]> (c)
        f = MatMul (d, e)
        g = Softmax <axis: int = -1> (f)
        v = MatMul (d, W3)
        w = MatMul (g, v)
        i = MatMul (w, W4)
        o = Add (d, i)
        j = Transpose <perm: ints = [0, 3, 2, 1]> (o)
        k = Reshape (j, rows)
        l = Transpose <perm: ints = [0, 2, 1, 3]> (k)
        z = Reshape (l, patches)""",
        _PATCHES,
        channels=3,
        read=3,
        batch="1",
        image="4,4",
    ),
    "reshape of computed sizes in an old file": Variant(
        "Reshape",
        """n = Shape (h)
        first = Slice <starts: ints = [0], ends: ints = [1]> (n)
        width = Slice <starts: ints = [3], ends: ints = [4]> (n)
        v = Concat <axis: int = 0> (first, four, rest, width)
        r = Relu (h)
        z = Reshape (r, v)""",
        "int64[1] four = {4}, int64[1] rest = {3}",
        opset=8,
        image="3,W",
    ),
    "size used as a number": Variant(
        "Shape",
        """n = Shape <start: int = 1, end: int = 2> (h)
        f = Cast <to: int = 1> (n)
        r = Sqrt (f)
        z = Div (h, r)""",
    ),
    "size used as a number in an old file": Variant(
        "Shape",
        """n = Shape (h)
        f = Cast <to: int = 1> (n)
        r = ReduceMean <axes: ints = [0], keepdims: int = 0> (f)
        z = Div (h, r)""",
        opset=8,
    ),
    "size inside a branch": Variant(
        "Shape",
        """n = Shape (h)
        m = ReduceMax <keepdims: int = 0> (n)
        c = Greater (m, limit)
        f = Cast <to: int = 1> (c)
        z = Mul (h, f)""",
        "int64 limit = {3}",
        opset=18,
    ),
    "depth to space by columns": Variant(
        "DepthToSpace", 'z = DepthToSpace <blocksize: int = 2, mode: string = "CRD"> (h)', channels=12, read=3
    ),
    "group normalisation": Variant(
        "GroupNormalization",
        """g = GroupNormalization <num_groups: int = 3> (h, scale, shift)
        z = Reshape (g, same)""",
        "float[6] scale, float[6] shift, int64[4] same = {0, 6, 3, 3}",
        channels=6,
        read=6,
        opset=21,
    ),
    "group normalisation by instance normalisation": Variant(
        "Reshape",
        """g = Reshape (h, grouped)
        i = InstanceNormalization (g, ones, zeros)
        n = Shape (h)
        b = Reshape (i, n)
        s = Mul (b, scale)
        z = Add (s, shift)""",
        """int64[3] grouped = {0, 3, -1}, float[3] ones = {1.0, 1.0, 1.0}, float[3] zeros = {0.0, 0.0, 0.0},
        float[6,1,1] scale, float[6,1,1] shift""",
        channels=6,
        read=6,
        image="H,W",
    ),
    "resize to computed sizes": Variant(
        "Resize",
        """n = Shape (h)
        nc = Slice (n, zero, two)
        sizes = Concat <axis: int = 0> (nc, larger)
        z = Resize <mode: string = "nearest"> (h, , , sizes)""",
        _SHAPED + ", int64[2] larger = {6, 7}",
    ),
    "reshapes to sizes in an old file": Variant(
        "Reshape",
        """f = Reshape (h, flat)
        r = Relu (f)
        z = Reshape (r, image)""",
        "int64[2] flat = {-1, 36}, int64[4] image = {-1, 4, 3, 3}",
        opset=8,
    ),
    "gather in an old file": Variant(
        "Gather", "z = Gather <axis: int = 1> (h, order)", "int64[3] order = {3, 0, 2}", read=3, opset=7
    ),
    "tile in an old file": Variant(
        "Tile",
        """m = ReduceMean <axes: ints = [1], keepdims: int = 1> (x)
        t = Tile (m, times)
        z = Add (h, t)""",
        "int64[4] times = {1, 4, 1, 1}",
        opset=7,
    ),
    "dropout with a mask whose shape nobody infers": Variant("Dropout", "z, mask = Dropout (h)", opset=7),
    "statistics that nobody reads": Variant(
        "BatchNormalization",
        "z, m, v, sm, sv = BatchNormalization (h, S, B3, M, V)",
        "float[4] S, float[4] B3, float[4] M, float[4] V = {1.0, 0.5, 2.0, 1.5}",
        opset=9,
    ),
    "resize by old scales": Variant(
        "Resize",
        'z = Resize <mode: string = "nearest"> (h, scales)',
        "float[4] scales = {1.0, 1.0, 2.0, 2.0}",
        opset=10,
    ),
    "pad by computed sizes": Variant(
        "Pad",
        """n = Shape (h)
        width = Slice (n, three, four)
        lack = Sub (eight, width)
        pads = Concat <axis: int = 0> (nothing, lack)
        z = Pad (h, pads)""",
        """int64[1] three = {3}, int64[1] four = {4}, int64[1] eight = {8},
        int64[7] nothing = {0, 1, 0, 0, 0, 2, 0}""",
        read=7,
        image="3,W",
    ),
    "gather of repeated channels": Variant(
        "Gather", "z = Gather <axis: int = 1> (h, order)", "int32[6] order = {3, 0, 3, -2, 1, 0}", channels=6, read=6
    ),
    "gather of channels that stand in a box of their own": Variant(
        "Gather",
        """c = Gather <axis: int = 1> (h, order)
        z = Squeeze (c, ones)""",
        "int64[1,4,1] order = {-1, 0, 2, 0}, int64[2] ones = {1, 3}",
        channels=6,
    ),
    "gather of every sample's channels from one line": Variant(
        "Gather",
        """m = ReduceMean <axes: ints = [2, 3], keepdims: int = 1> (h)
        f = Reshape (m, flat)
        z = Gather (f, order)""",
        "int64[1] flat = {-1}, int64[2,4,1,1] order = {0, 1, 2, 3, 4, 5, 6, 7}",
        batch="2",
    ),
    "gather of one channel": Variant(
        "Gather",
        """c = Gather <axis: int = 1> (h, two)
        u = Unsqueeze (c, one)
        z = Mul (h, u)""",
        "int64 two = {2}, int64[1] one = {1}",
    ),
    "gather of a box of channels": Variant(
        "Gather",
        """c = Gather <axis: int = 1> (h, box)
        m = ReduceMean <axes: ints = [1, 2], keepdims: int = 0> (c)
        u = Unsqueeze (m, one)
        z = Mul (h, u)""",
        "int64[2,2] box = {5, 1, 1, 2}, int64[1] one = {1}",
        channels=6,
        read=6,
    ),
    "embedding": Variant(
        "Gather",
        """k = ArgMax <axis: int = 1, keepdims: int = 0> (x)
        e = Gather <axis: int = 0> (table, k)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (e)""",
        "float[3,4] table",
    ),
    "gather of elements by constant indices": Variant(
        "GatherElements",
        "z = GatherElements <axis: int = 2> (h, indices)",
        "int64[1,4,2,3] indices = {0,1,2,1,0,2, 2,2,1,0,0,0, 1,1,0,2,1,0, 0,0,2,2,1,1}",
        batch="1",
    ),
    "einsum of three operands": Variant(
        "Einsum",
        """e = Einsum <equation: string = "nchw,dc,d->ndhw"> (h, W3, B3)
        z = Relu (e)""",
        _OTHER.replace("float[4,4,1,1]", "float[4,4]"),
    ),
    "einsum without an arrow": Variant(
        "Einsum",
        """t = Transpose <perm: ints = [0, 2, 3, 1]> (h)
        e = Einsum <equation: string = "abci, id"> (t, W3)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (e)""",
        "float[4,5] W3",
        read=5,
    ),
    "einsum with an ellipsis in front": Variant(
        "Einsum",
        """t = Transpose <perm: ints = [0, 2, 3, 1]> (h)
        e = Einsum <equation: string = "...i,oi->...o"> (t, W3)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (e)""",
        "float[5,4] W3",
        read=5,
    ),
    "einsum of an ellipsis behind, broadcast": Variant(
        "Einsum",
        'z = Einsum <equation: string = "nc...,cd,d...->nd..."> (h, W3, W4)',
        "float[4,5] W3, float[5,1,3] W4",
        read=5,
    ),
    "softmax across the channels": Variant("Softmax", "z = Softmax <axis: int = 2> (h)"),
    "minimum of three": Variant(
        "Min",
        """a = Conv (x, W3, B3)
        z = Min (h, a, limit)""",
        "float[4,3,1,1] W3, float[4] B3, float[4,1,1] limit",
    ),
    "comparison in an older file": Variant(
        "GreaterOrEqual",
        """g = GreaterOrEqual (h, limit)
        f = Cast <to: int = 1> (g)
        z = Add (h, f)""",
        "float[4,1,1] limit",
        opset=13,
    ),
    "power by a vector": Variant(
        "Pow",
        """p = Abs (h)
        z = Pow (p, positive_exponent)""",
        "float[1,4,1,1] positive_exponent",
    ),
    "choice by a constant mask": Variant(
        "Where", "z = Where (mask, h, other)", "bool[4,1,1] mask = {1,0,1,1}, float[4,1,1] other"
    ),
}
