"""Networks in which units end in a sum over an activation, without a weight that reads them: W1 writes them.

Some of them read the units with W2 as well. For each the operator that sums.
"""

from tests.rules.variant import Variant

_FLAT = "int64[3] flat = {0, 0, -1}, int64[4] square = {0, 0, 3, 3}, float[4,3,1,1] W3, float[4] B3"
_SQUARE = "int64[3] flat = {0, 0, -1}, int64[4] square = {0, 0, 3, 3}"

SUMMING: dict[str, Variant] = {
    "MatMul of two": Variant(
        "MatMul",
        """k = Conv (x, W3, B3)
        f = Reshape (h, flat)
        g = Reshape (k, flat)
        t = Transpose <perm: ints = [0, 2, 1]> (f)
        p = MatMul (t, g)
        z = Reshape (p, square)""",
        _FLAT,
        read=9,
    ),
    "MatMul of a tensor and its own transpose": Variant(
        "MatMul",
        """f = Reshape (h, flat)
        t = Transpose <perm: ints = [0, 2, 1]> (f)
        p = MatMul (t, f)
        z = Reshape (p, square)""",
        _SQUARE,
        read=9,
    ),
    "MatMul behind an activation that maps zero elsewhere": Variant(
        "MatMul",
        """s = Sigmoid (h)
        f = Reshape (s, flat)
        g = Reshape (h, flat)
        t = Transpose <perm: ints = [0, 2, 1]> (f)
        p = MatMul (t, g)
        z = Reshape (p, square)""",
        _SQUARE,
        read=9,
    ),
    "MatMul in an old file": Variant(
        "MatMul",
        """f = Reshape (h, flat)
        t = Transpose <perm: ints = [0, 2, 1]> (f)
        p = MatMul (t, f)
        z = Reshape (p, square)""",
        _SQUARE,
        read=9,
        opset=7,
    ),
    "Gemm of two": Variant(
        "Gemm",
        """k = Conv (x, W3, B3)
        f = ReduceMean <axes: ints = [2, 3], keepdims: int = 0> (h)
        g = ReduceMean <axes: ints = [2, 3], keepdims: int = 0> (k)
        p = Gemm <transB: int = 1, alpha: float = 0.5> (f, g)
        e = Reshape (p, image)
        z = Mul (h, e)""",
        "int64[4] image = {2, 1, 1, 2}, float[4,3,1,1] W3, float[4] B3",
        batch="2",
        image="3,2",
    ),
    "Einsum of two": Variant(
        "Einsum",
        """r = Relu (h)
        e = Einsum <equation: string = "nchw,nchv->nhwv"> (h, r)
        s = ReduceMean <axes: ints = [3], keepdims: int = 0> (e)
        u = Unsqueeze (s, one)
        z = Mul (h, u)""",
        "int64[1] one = {1}",
    ),
    "Einsum of one": Variant(
        "Einsum",
        """e = Einsum <equation: string = "nchw->nhw"> (h)
        z = Unsqueeze (e, one)""",
        "int64[1] one = {1}",
        read=1,
    ),
    "Einsum of three": Variant(
        "Einsum",
        """r = Sigmoid (h)
        k = Conv (x, W3, B3)
        z = Einsum <equation: string = "nchw,nchv,ncuv->nhwu"> (h, r, k)""",
        "float[4,3,1,1] W3, float[4] B3",
        read=3,
    ),
    "Einsum that sums two letters up": Variant(
        "Einsum",
        """k = Conv (x, W3, B3)
        e = Einsum <equation: string = "nchw,ndhw->nhw"> (h, k)
        z = Unsqueeze (e, one)""",
        "int64[1] one = {1}, float[5,3,1,1] W3, float[5] B3",
        read=1,
    ),
    "dot product by Mul and ReduceSum": Variant(
        "ReduceSum",
        """k = Conv (x, W3, B3)
        m = Mul (h, k)
        z = ReduceSum <keepdims: int = 1> (m, one)""",
        "int64[1] one = {1}, float[4,3,1,1] W3, float[4] B3",
        read=1,
    ),
    "sum of squares": Variant("ReduceSumSquare", "z = ReduceSumSquare <axes: ints = [1]> (h)", read=1),
    "sum of absolute values": Variant("ReduceL1", "z = ReduceL1 <axes: ints = [1]> (h)", read=1),
    "sum in an old file": Variant("ReduceSum", "z = ReduceSum <axes: ints = [-3]> (h)", read=1, opset=9),
    "logarithm of a sum": Variant(
        "ReduceLogSum",
        """e = Exp (h)
        z = ReduceLogSum <axes: ints = [1]> (e)""",
        read=1,
    ),
    "sum over everything": Variant(
        "ReduceSum",
        """s = ReduceSum <keepdims: int = 1> (h)
        e = Div (h, s)
        z = Sigmoid (e)""",
        batch="2",
    ),
    "division by the norm": Variant(
        "ReduceL2",
        """n = ReduceL2 <axes: ints = [1]> (h)
        z = Div (h, n)""",
    ),
    "LpNormalization": Variant("LpNormalization", "z = LpNormalization <axis: int = 1> (h)"),
    "LpNormalization of absolute values": Variant(
        "LpNormalization", "z = LpNormalization <axis: int = -3, p: int = 1> (h)"
    ),
    "mean over channels": Variant("ReduceMean", "z = ReduceMean <axes: ints = [1]> (h)", read=1),
    "mean over channels with its axes as operand": Variant(
        "ReduceMean", "z = ReduceMean (h, one)", "int64[1] one = {1}", read=1, opset=18
    ),
    "mean over what the operator takes for space": Variant(
        "GlobalAveragePool",
        """t = Transpose <perm: ints = [0, 2, 1, 3]> (h)
        m = GlobalAveragePool (t)
        s = Sub (t, m)
        z = Transpose <perm: ints = [0, 2, 1, 3]> (s)""",
    ),
    "norm over what the operator takes for space": Variant(
        "GlobalLpPool",
        """t = Transpose <perm: ints = [0, 2, 1, 3]> (h)
        m = GlobalLpPool <p: int = 2> (t)
        s = Div (t, m)
        z = Transpose <perm: ints = [0, 2, 1, 3]> (s)""",
    ),
    "mean over everything": Variant(
        "ReduceMean",
        """s = ReduceMean (h)
        e = Div (h, s)
        z = Sigmoid (e)""",
        batch="2",
    ),
    "mean over channels and rows, which are dropped": Variant(
        "ReduceMean",
        """s = ReduceMean <axes: ints = [2, -3], keepdims: int = 0> (h)
        u = Unsqueeze (s, ones)
        z = Mul (h, u)""",
        "int64[2] ones = {1, 2}",
    ),
    "root of the mean square": Variant(
        "ReduceMean",
        """s = Mul (h, h)
        m = ReduceMean <axes: ints = [1]> (s)
        e = Add (m, positive)
        r = Sqrt (e)
        z = Div (h, r)""",
        "float[1] positive",
    ),
    "root mean square in one operator": Variant(
        "RMSNormalization",
        """t = Transpose <perm: ints = [0, 2, 3, 1]> (h)
        n = RMSNormalization <epsilon: float = 0.5> (t, scale)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (n)""",
        "float[4] scale",
        opset=23,
    ),
    "root mean square over channels, rows and columns": Variant(
        "RMSNormalization",
        "z = RMSNormalization <axis: int = 1, epsilon: float = 0.5> (h, scale)",
        "float[4,1,1] scale",
        opset=23,
    ),
    "root mean square with one number as scale": Variant(
        "RMSNormalization",
        "z = RMSNormalization <axis: int = -3, epsilon: float = 0.5> (h, scale)",
        "float[1] scale",
        opset=23,
    ),
    "root mean square of onnxruntime": Variant(
        "SimplifiedLayerNormalization",
        """t = Transpose <perm: ints = [0, 2, 3, 1]> (h)
        n = SimplifiedLayerNormalization <epsilon: float = 0.5> (t, scale)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (n)""",
        "float[4] scale",
    ),
    "root mean squares that share a scale, which is added as well": Variant(
        "SimplifiedLayerNormalization",
        """t = Transpose <perm: ints = [0, 2, 3, 1]> (h)
        n = SimplifiedLayerNormalization <epsilon: float = 0.5> (t, scale)
        a = Add (t, scale)
        m = SimplifiedLayerNormalization <epsilon: float = 0.25> (a, scale)
        s = Sub (n, m)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (s)""",
        "float[4] scale",
    ),
    "root mean squares of one scale": Variant(
        "SimplifiedLayerNormalization",
        """t = Transpose <perm: ints = [0, 2, 3, 1]> (h)
        n = SimplifiedLayerNormalization <epsilon: float = 0.5> (t, scale)
        a = Sigmoid (n)
        m = SimplifiedLayerNormalization <epsilon: float = 0.25> (a, scale)
        s = Sub (n, m)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (s)""",
        "float[4] scale",
    ),
    "root mean square whose scale is computed": Variant(
        "SimplifiedLayerNormalization",
        """t = Transpose <perm: ints = [0, 2, 3, 1]> (h)
        m = ReduceMax <axes: ints = [0, 1, 2], keepdims: int = 0> (t)
        e = Exp (m)
        n = SimplifiedLayerNormalization <epsilon: float = 0.5> (t, e)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (n)""",
        batch="2",
    ),
    "root mean square of a sum, which is read as well": Variant(
        "SkipSimplifiedLayerNormalization",
        """k = Conv (x, W3, B3)
        f = Reshape (h, flat)
        g = Reshape (k, flat)
        s = Transpose <perm: ints = [0, 2, 1]> (f)
        t = Transpose <perm: ints = [0, 2, 1]> (g)
        n, , , a = com.microsoft.SkipSimplifiedLayerNormalization <epsilon: float = 0.5> (s, t, scale)
        b = Sub (n, a)
        u = Transpose <perm: ints = [0, 2, 1]> (b)
        z = Reshape (u, square)""",
        "float[4] scale, " + _FLAT,
        domain="com.microsoft",
    ),
    "root mean square of a sum with a constant": Variant(
        "SkipSimplifiedLayerNormalization",
        """f = Reshape (h, flat)
        s = Transpose <perm: ints = [0, 2, 1]> (f)
        n = com.microsoft.SkipSimplifiedLayerNormalization <epsilon: float = 0.5> (s, table, scale)
        u = Transpose <perm: ints = [0, 2, 1]> (n)
        z = Reshape (u, square)""",
        "float[4] scale, float[1,9,4] table, " + _SQUARE,
        domain="com.microsoft",
    ),
    "layer normalisation in one operator": Variant(
        "LayerNormalization",
        """t = Transpose <perm: ints = [0, 2, 3, 1]> (h)
        n = LayerNormalization <epsilon: float = 0.5> (t, scale, shift)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (n)""",
        "float[4] scale, float[4] shift",
    ),
    "layer normalisation without shift, axes of its means as operand": Variant(
        "LayerNormalization",
        """t = Transpose <perm: ints = [0, 2, 3, 1]> (h)
        n = LayerNormalization <epsilon: float = 0.5> (t, scale)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (n)""",
        "float[4] scale",
        opset=18,
    ),
    "layer normalisation over channels, rows and columns": Variant(
        "LayerNormalization",
        "z = LayerNormalization <axis: int = 1, epsilon: float = 0.5> (h, scale, shift)",
        "float[4,3,3] scale, float[4,3,3] shift",
    ),
    "layer normalisation of layer normalisation, as in a post-norm": Variant(
        "LayerNormalization",
        """t = Transpose <perm: ints = [0, 2, 3, 1]> (h)
        n = LayerNormalization <epsilon: float = 0.5> (t, scale, shift)
        a = Exp (n)
        m = Add (n, a)
        o = LayerNormalization <epsilon: float = 0.25> (m, scale, shift)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (o)""",
        "float[4] scale, float[4] shift",
    ),
    "layer normalisation of a sum, which is read as well": Variant(
        "SkipLayerNormalization",
        """k = Conv (x, W3, B3)
        f = Reshape (h, flat)
        g = Reshape (k, flat)
        s = Transpose <perm: ints = [0, 2, 1]> (f)
        t = Transpose <perm: ints = [0, 2, 1]> (g)
        n, , , a = com.microsoft.SkipLayerNormalization <epsilon: float = 0.5> (s, t, scale, shift, bias)
        b = Sub (n, a)
        u = Transpose <perm: ints = [0, 2, 1]> (b)
        z = Reshape (u, square)""",
        "float[4] scale, float[4] shift, float[4] bias, " + _FLAT,
        domain="com.microsoft",
    ),
    "layer normalisation of a sum in an old file": Variant(
        "SkipLayerNormalization",
        """f = Reshape (h, flat)
        s = Transpose <perm: ints = [0, 2, 1]> (f)
        n = com.microsoft.SkipLayerNormalization <epsilon: float = 0.5> (s, table, scale)
        u = Transpose <perm: ints = [0, 2, 1]> (n)
        z = Reshape (u, square)""",
        "float[4] scale, float[1,9,4] table, " + _SQUARE,
        domain="com.microsoft",
        opset=12,
    ),
    "layer normalisation over channels, written out": Variant(
        "ReduceMean",
        """m = ReduceMean <axes: ints = [1]> (h)
        c = Sub (h, m)
        s = Mul (c, c)
        v = ReduceMean <axes: ints = [1]> (s)
        e = Add (v, positive)
        r = Sqrt (e)
        z = Div (c, r)""",
        "float[1] positive",
    ),
    "global response normalisation": Variant(
        "ReduceMean",
        """g = ReduceL2 <axes: ints = [2, 3]> (h)
        m = ReduceMean <axes: ints = [1]> (g)
        e = Add (m, positive)
        d = Div (g, e)
        p = Mul (h, d)
        z = Add (p, h)""",
        "float[1] positive",
    ),
    "two sums": Variant(
        "MatMul",
        """n = ReduceL2 <axes: ints = [1]> (h)
        d = Div (h, n)
        f = Reshape (d, flat)
        t = Transpose <perm: ints = [0, 2, 1]> (f)
        p = MatMul (t, f)
        z = Reshape (p, square)""",
        _SQUARE,
        read=9,
    ),
    "quantised with the scale that all of it asks for": Variant(
        "DynamicQuantizeLinear",
        """q, scale, point = DynamicQuantizeLinear (h)
        z = DequantizeLinear (q, scale, point)""",
    ),
    "quantised behind an activation that maps zero elsewhere": Variant(
        "DynamicQuantizeLinear",
        """e = Exp (h)
        q, scale, point = DynamicQuantizeLinear (e)
        z = DequantizeLinear (q, scale, point)""",
    ),
}
