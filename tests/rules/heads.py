"""Attention as exporters write it, in many operators; W1 writes the queries, or queries, keys and values.

For each the number of heads that may go, each with all its positions.
"""

_END = """
   s = MatMul (q, k)
   p = Softmax <axis: int = -1> (s)
   o = MatMul (p, v)
   t = Transpose <perm: ints = [0, 2, 1, 3]> (o)
   f = Reshape (t, flat)
   y = MatMul (f, W2)
}"""
_HEAD = """<ir_version: 8, opset_import: ["" : 17]>
heads (float[N,5,6] x) => (float[N,5,2] y)
<"""

HEADS: dict[str, tuple[int, str]] = {
    "separate projections": (
        3,
        f"""{_HEAD} float[6,12] W1, float[6,12] W3, float[6,12] W4, float[12] B1, float[12,2] W2,
        float[3,5,5] relative, int64[4] cut = {{0, 0, 3, 4}}, int64[3] flat = {{0, 0, -1}}> {{
        m = MatMul (x, W1)
        n = Add (B1, m)
        a = Reshape (n, cut)
        q = Transpose <perm: ints = [0, 2, 1, 3]> (a)
        c = MatMul (x, W3)
        d = Reshape (c, cut)
        k = Transpose <perm: ints = [0, 2, 3, 1]> (d)
        e = MatMul (x, W4)
        g = Reshape (e, cut)
        v = Transpose <perm: ints = [0, 2, 1, 3]> (g)
        {_END}""".replace("s = MatMul (q, k)", "r = MatMul (q, k)\n s = Add (r, relative)"),
    ),
    "one projection, cut to five axes": (
        3,
        f"""{_HEAD} float[6,36] W1, float[36] B1, float[12,2] W2, int64 zero = {{0}}, int64 one = {{1}},
        int64 two = {{2}}, int64[5] cut = {{0, 0, 3, 3, 4}}, int64[3] flat = {{0, 0, -1}}> {{
        m = MatMul (x, W1)
        n = Add (m, B1)
        a = Reshape (n, cut)
        b = Transpose <perm: ints = [2, 0, 3, 1, 4]> (a)
        q = Gather <axis: int = 0> (b, zero)
        c = Gather <axis: int = 0> (b, one)
        v = Gather <axis: int = 0> (b, two)
        k = Transpose <perm: ints = [0, 1, 3, 2]> (c)
        {_END}""",
    ),
    "one projection, split": (
        3,
        f"""{_HEAD} float[6,36] W1, float[36] B1, float[12,2] W2, int64[3] sizes = {{12, 12, 12}},
        int64[4] cut = {{0, 0, 3, 4}}, int64[3] flat = {{0, 0, 12}}> {{
        m = MatMul (x, W1)
        n = Add (m, B1)
        a, b, c = Split <axis: int = 2> (n, sizes)
        d = Reshape (a, cut)
        q = Transpose <perm: ints = [0, 2, 1, 3]> (d)
        e = Reshape (b, cut)
        k = Transpose <perm: ints = [0, 2, 3, 1]> (e)
        g = Reshape (c, cut)
        v = Transpose <perm: ints = [0, 2, 1, 3]> (g)
        {_END}""",
    ),
    "shared key heads by Expand": (
        2,
        f"""{_HEAD} float[6,24] W1, float[6,8] W3, float[6,8] W4, float[24,2] W2, int64[4] cut = {{0, 0, 6, 4}},
        int64[4] cut_keys = {{0, 0, 2, 4}}, int64[1] two = {{2}}, int64[5] copies = {{1, 1, 3, 1, 1}},
        int64[4] merged = {{0, 6, 5, 4}}, int64[3] flat = {{0, 0, -1}}> {{
        m = MatMul (x, W1)
        a = Reshape (m, cut)
        q = Transpose <perm: ints = [0, 2, 1, 3]> (a)
        b = MatMul (x, W3)
        c = Reshape (b, cut_keys)
        d = Transpose <perm: ints = [0, 2, 1, 3]> (c)
        e = Unsqueeze (d, two)
        g = Expand (e, copies)
        h = Reshape (g, merged)
        k = Transpose <perm: ints = [0, 1, 3, 2]> (h)
        i = MatMul (x, W4)
        j = Reshape (i, cut_keys)
        l = Transpose <perm: ints = [0, 2, 1, 3]> (j)
        n = Unsqueeze (l, two)
        u = Expand (n, copies)
        v = Reshape (u, merged)
        {_END}""",
    ),
    "one key head for all by Expand": (
        3,
        f"""{_HEAD} float[6,12] W1, float[6,4] W3, float[6,4] W4, float[12,2] W2, int64[4] cut = {{0, 0, 3, 4}},
        int64[1] one = {{1}}, int64[4] copies = {{1, 3, 1, 1}}, int64[3] flat = {{0, 0, -1}}> {{
        m = MatMul (x, W1)
        a = Reshape (m, cut)
        q = Transpose <perm: ints = [0, 2, 1, 3]> (a)
        b = MatMul (x, W3)
        c = Unsqueeze (b, one)
        d = Expand (c, copies)
        k = Transpose <perm: ints = [0, 1, 3, 2]> (d)
        e = MatMul (x, W4)
        g = Unsqueeze (e, one)
        v = Expand (g, copies)
        {_END}""",
    ),
    "heads merged with a free batch": (
        3,
        f"""{_HEAD} float[6,12] W1, float[6,12] W3, float[6,12] W4, float[12,2] W2, int64[4] cut = {{0, 0, 3, 4}},
        int64[3] merged = {{-1, 5, 4}}, int64[4] parted = {{-1, 3, 5, 5}}, int64[4] again = {{-1, 3, 5, 4}},
        int64[3] flat = {{0, 0, -1}}> {{
        m = MatMul (x, W1)
        a = Reshape (m, cut)
        b = Transpose <perm: ints = [0, 2, 1, 3]> (a)
        q = Reshape (b, merged)
        c = MatMul (x, W3)
        d = Reshape (c, cut)
        e = Transpose <perm: ints = [0, 2, 1, 3]> (d)
        g = Reshape (e, merged)
        k = Transpose <perm: ints = [0, 2, 1]> (g)
        i = MatMul (x, W4)
        j = Reshape (i, cut)
        l = Transpose <perm: ints = [0, 2, 1, 3]> (j)
        v = Reshape (l, merged)
        {_END}""".replace("o = MatMul (p, v)", "n = MatMul (p, v)\n o = Reshape (n, again)")
        .replace(
            "p = Softmax <axis: int = -1> (s)",
            "u = Reshape (s, parted)\n w = Softmax <axis: int = -1> (u)\n p = Reshape (w, flatter)",
        )
        .replace("int64[3] merged", "int64[3] flatter = {-1, 5, 5}, int64[3] merged"),
    ),
    "heads merged with a batch that is computed": (
        3,
        f"""{_HEAD} float[6,12] W1, float[6,12] W3, float[6,12] W4, float[12,2] W2, int64[4] cut = {{0, 0, 3, 4}},
        int64[2] front = {{0, 1}}, int64[1] zero = {{0}}, int64[1] minus = {{-1}}, int64[1] four = {{4}},
        int64[3] behind = {{3, 5, 5}}, int64[3] again = {{3, 5, 4}}, int64[3] flat = {{0, 0, -1}}> {{
        m = MatMul (x, W1)
        a = Reshape (m, cut)
        b = Transpose <perm: ints = [0, 2, 1, 3]> (a)
        i = MatMul (x, W3)
        d = Reshape (i, cut)
        e = Transpose <perm: ints = [0, 2, 1, 3]> (d)
        j = MatMul (x, W4)
        l = Reshape (j, cut)
        h = Transpose <perm: ints = [0, 2, 1, 3]> (l)
        size = Shape (b)
        pair = Gather (size, front)
        blocks = ReduceProd (pair)
        merged = Concat <axis: int = 0> (blocks, minus, four)
        batch = Gather (size, zero)
        parted = Concat <axis: int = 0> (batch, behind)
        whole = Concat <axis: int = 0> (batch, again)
        scores = Concat <axis: int = 0> (blocks, five, minus)
        q = Reshape (b, merged)
        g = Reshape (e, merged)
        k = Transpose <perm: ints = [0, 2, 1]> (g)
        v = Reshape (h, merged)
        {_END}""".replace("o = MatMul (p, v)", "n = MatMul (p, v)\n o = Reshape (n, whole)")
        .replace(
            "p = Softmax <axis: int = -1> (s)",
            "u = Reshape (s, parted)\n w = Softmax <axis: int = -1> (u)\n p = Reshape (w, scores)",
        )
        .replace("int64[1] four", "int64[1] five = {5}, int64[1] four"),
    ),
    "rotary positions": (
        3,
        f"""{_HEAD} float[6,12] W1, float[6,12] W3, float[6,12] W4, float[12,2] W2, float[5,4] cosine, float[5,4] sine,
        int64[4] cut = {{0, 0, 3, 4}}, int64[1] zero = {{0}}, int64[1] two = {{2}}, int64[1] far = {{99}},
        int64[1] last = {{3}}, int64[3] flat = {{0, 0, -1}}> {{
        m = MatMul (x, W1)
        a = Reshape (m, cut)
        b = Transpose <perm: ints = [0, 2, 1, 3]> (a)
        c = Slice (b, zero, two, last)
        d = Slice (b, two, far, last)
        e = Neg (d)
        g = Concat <axis: int = -1> (e, c)
        h = Mul (b, cosine)
        i = Mul (g, sine)
        q = Add (h, i)
        j = MatMul (x, W3)
        l = Reshape (j, cut)
        k = Transpose <perm: ints = [0, 2, 3, 1]> (l)
        n = MatMul (x, W4)
        u = Reshape (n, cut)
        v = Transpose <perm: ints = [0, 2, 1, 3]> (u)
        {_END}""",
    ),
}
