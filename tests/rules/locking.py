"""Networks in which an operator works along the channels, which makes the filters of W1 stay."""

from tests.rules.variant import Variant

LOCKING: dict[str, Variant] = {
    "Softmax": Variant("Softmax", "z = Softmax <axis: int = 1> (h)"),
    "LogSoftmax": Variant("LogSoftmax", "z = LogSoftmax <axis: int = 1> (h)"),
    "old Softmax": Variant("Softmax", "z = Softmax (h)", opset=11),
    "Hardmax": Variant("Hardmax", "z = Hardmax <axis: int = 1> (h)"),
    "ReduceMax": Variant(
        "ReduceMax",
        """m = ReduceMax <keepdims: int = 1> (h, along)
        z = Sub (h, m)""",
        "int64[1] along = {1}",
        opset=18,
    ),
    "ArgMax": Variant(
        "ArgMax",
        """k = ArgMax <axis: int = 1> (h)
        f = Cast <to: int = 1> (k)
        z = Add (h, f)""",
    ),
    "TopK": Variant("TopK", "z, i = TopK <axis: int = 1> (h, three)", "int64[1] three = {3}", read=3),
    "CumSum": Variant("CumSum", "z = CumSum (h, along)", "int64 along = {1}"),
    "BatchNormalization": Variant(
        "BatchNormalization",
        "z = BatchNormalization <spatial: int = 0> (h, S, B3, M, V)",
        f"float[4,3,3] S, float[4,3,3] B3, float[4,3,3] M, float[4,3,3] V = {{{', '.join(['1.5'] * 36)}}}",
        opset=8,
    ),
    "LRN": Variant("LRN", "z = LRN <size: int = 3, alpha: float = 1.0> (h)"),
    "MeanVarianceNormalization": Variant(
        "MeanVarianceNormalization", "z = MeanVarianceNormalization <axes: ints = [0, 1, 2, 3]> (h)"
    ),
    "GatherElements": Variant(
        "GatherElements",
        "z = GatherElements <axis: int = 1> (h, indices)",
        "int64[1,3,1,1] indices = {0, 1, 3}",
        read=3,
    ),
    "Gather": Variant(
        "Gather",
        """k = ArgMax <axis: int = 2, keepdims: int = 0> (x)
        s = ReduceMin <keepdims: int = 0> (k)
        u = Unsqueeze (s, zero)
        c = Gather <axis: int = 1> (h, u)
        z = Mul (h, c)""",
        "int64[1] zero = {0}",
    ),
    "ScatterND": Variant(
        "ScatterND",
        """t = Transpose <perm: ints = [1, 2, 3, 0]> (h)
        s = ScatterND (t, places, update)
        z = Transpose <perm: ints = [3, 0, 1, 2]> (s)""",
        "int64[1,3] places = {3, 0, 0}, float[1,2] update",
        batch="2",
    ),
    "Trilu": Variant(
        "Trilu",
        """t = Transpose <perm: ints = [0, 2, 3, 1]> (h)
        u = Trilu (t)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (u)""",
    ),
    "ReverseSequence": Variant(
        "ReverseSequence",
        """t = Transpose <perm: ints = [1, 2, 0, 3]> (h)
        r = ReverseSequence <time_axis: int = 0, batch_axis: int = 1> (t, lengths)
        z = Transpose <perm: ints = [2, 0, 1, 3]> (r)""",
        "int64[3] lengths = {3, 2, 4}",
    ),
    "Resize": Variant(
        "Resize", 'z = Resize <mode: string = "linear"> (h, , scales)', "float[4] scales = {1.0, 2.0, 1.0, 1.0}", read=8
    ),
    "Upsample": Variant(
        "Upsample",
        'z = Upsample <mode: string = "nearest"> (h, scales)',
        "float[4] scales = {1.0, 2.0, 1.0, 1.0}",
        read=8,
        opset=9,
    ),
    "CenterCropPad": Variant(
        "CenterCropPad", "z = CenterCropPad <axes: ints = [1]> (h, five)", "int64[1] five = {5}", read=5, opset=18
    ),
    "Size": Variant(
        "Size",
        """n = Size (h)
        f = Cast <to: int = 1> (n)
        z = Div (h, f)""",
    ),
    "NonZero": Variant(
        "NonZero",
        """i = NonZero (h)
        f = Cast <to: int = 1> (i)
        m = ReduceMean <keepdims: int = 0> (f)
        z = Mul (h, m)""",
    ),
    "EyeLike": Variant(
        "EyeLike",
        """m = ReduceMean <axes: ints = [2, 3], keepdims: int = 0> (h)
        e = EyeLike (m)
        u = Unsqueeze (e, space)
        z = Mul (h, u)""",
        "int64[2] space = {2, 3}",
    ),
    "Range": Variant(
        "Add",
        """r = Range (zero, four, one)
        f = Cast <to: int = 1> (r)
        u = Unsqueeze (f, space)
        z = Add (h, u)""",
        "int64 zero = {0}, int64 four = {4}, int64 one = {1}, int64[2] space = {1, 2}",
    ),
    "MaxPool of every second": Variant(
        "MaxPool",
        """t = Transpose <perm: ints = [0, 2, 3, 1]> (h)
        p = MaxPool <kernel_shape: ints = [1, 1], strides: ints = [1, 2]> (t)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (p)""",
        read=2,
    ),
    "AveragePool that pads": Variant(
        "AveragePool",
        """t = Transpose <perm: ints = [0, 2, 3, 1]> (h)
        p = AveragePool <kernel_shape: ints = [1, 1], pads: ints = [0, 0, 0, 1], count_include_pad: int = 1> (t)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (p)""",
        read=5,
    ),
    "Conv of several": Variant(
        "Conv",
        """t = Transpose <perm: ints = [0, 2, 3, 1]> (h)
        c = Conv <pads: ints = [0, 1, 0, 1]> (t, W3)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (c)""",
        "float[3,3,1,3] W3",
    ),
    "ConvTranspose of a stated size": Variant(
        "ConvTranspose",
        """t = Transpose <perm: ints = [0, 2, 3, 1]> (h)
        c = ConvTranspose <output_shape: ints = [3, 4]> (t, W3)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (c)""",
        "float[3,3,1,1] W3",
    ),
}
