"""Networks with a Flatten of every form, and the laws that hold whichever columns behind it go."""

import onnx

from onnxadmm.graph.model import Model, load, to_proto
from onnxadmm.units.columns import with_columns
from onnxadmm.units.units import Units, find_units
from tests.rewrite import laws
from tests.samples_text import parse_sample

HEAD = """<ir_version: 8, opset_import: ["" : 17]>
columns (float[N,2,8,8] x) => (float[N,3] y)
<"""

CONV = "float[6,2,3,3] W1, float[6] B1"

WAYS: dict[str, str] = {
    "a Flatten": f"""{CONV}, float[96,5] W2, float[5] B2, float[5,3] W3> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        r = Relu (h)
        f = Flatten (r)
        t = Gemm (f, W2, B2)
        s = Relu (t)
        y = Gemm (s, W3)
    }}""",
    "channels last, a Transpose and a Reshape": f"""{CONV}, float[96,5] W2, float[5,3] W3,
        int64[2] flat = {{-1, 96}}> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        r = Relu (h)
        l = Transpose <perm: ints = [0, 2, 3, 1]> (r)
        f = Reshape (l, flat)
        t = MatMul (f, W2)
        s = Relu (t)
        y = MatMul (s, W3)
    }}""",
    "two products that read one flattening": f"""{CONV}, float[5,96] W2, float[96,5] W3, float[5,3] W4> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        f = Flatten (h)
        t = Gemm <transB: int = 1> (f, W2)
        s = Sigmoid (t)
        u = MatMul (f, W3)
        v = Mul (s, u)
        y = MatMul (v, W4)
    }}""",
    "an activation, a slope for each column and a normalisation between": f"""{CONV}, float[96] slopes,
        float[96] positive1, float[96] shift, float[96] mean, float[96] positive2, float[96,3] W2> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        f = Flatten (h)
        p = PRelu (f, slopes)
        n = BatchNormalization (p, positive1, shift, mean, positive2)
        s = Sigmoid (n)
        y = MatMul (s, W2)
    }}""",
    "two flattenings that are added": f"""{CONV}, float[6,2,3,3] W2, float[96,3] W3> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        g = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W2)
        f = Flatten (h)
        k = Flatten (g)
        a = Add (f, k)
        r = Relu (a)
        y = MatMul (r, W3)
    }}""",
    "two flattenings that are joined": f"""{CONV}, float[4,2,5,5] W2, float[160,3] W3> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        g = Conv (x, W2)
        f = Flatten (h)
        k = Flatten (g)
        a = Concat <axis: int = 1> (f, k)
        r = Relu (a)
        y = MatMul (r, W3)
    }}""",
    "channels that are joined in front of it": f"""{CONV}, float[4,2,3,3] W2, float[160,3] W3> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        g = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W2)
        c = Concat <axis: int = 1> (h, g)
        f = Flatten (c)
        y = MatMul (f, W3)
    }}""",
    "a depthwise convolution and a sum of two in front of it": f"""{CONV}, float[6,2,3,3] W2, float[6,1,3,3] W3,
        float[96,3] W4> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        g = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W2)
        a = Add (h, g)
        d = Conv <group: int = 6, pads: ints = [1, 1, 1, 1]> (a, W3)
        f = Flatten (d)
        y = MatMul (f, W4)
    }}""",
    "a grouped convolution in front of it": f"""{CONV}, float[4,3,3,3] W2, float[64,3] W3> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        g = Conv <group: int = 2, pads: ints = [1, 1, 1, 1]> (h, W2)
        f = Flatten (g)
        y = MatMul (f, W3)
    }}""",
    "a flattening that is read by something else as well": f"""{CONV}, float[96,3] W2, int64[3] rows = {{-1, 3, 32}}> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        f = Flatten (h)
        t = MatMul (f, W2)
        q = Reshape (f, rows)
        u = ReduceMax <axes: ints = [2], keepdims: int = 0> (q)
        y = Add (t, u)
    }}""",
    "a single channel": """float[1,2,3,3] W1, float[16,3] W2> {
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1)
        f = Flatten (h)
        y = MatMul (f, W2)
    }""",
    "an image that is flattened as it comes": """float[128,4] W1, float[4,3] W2> {
        f = Flatten (x)
        h = Gemm (f, W1)
        r = Relu (h)
        y = Gemm (r, W2)
    }""",
}

LAWS = (
    laws.law_masked_equals_shrunk,
    laws.law_shrunk_is_valid,
    laws.law_masked_differs_only_in_zeros,
    laws.law_removed_units_cannot_be_seen,
    laws.law_shrunk_runs_optimised,
    laws.law_cost_is_counted_on_the_shrunk_graph,
    laws.law_record_says_what_was_removed,
)


def sample(way: str) -> onnx.ModelProto:
    return parse_sample(HEAD + WAYS[way])


def prepared(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, Model, Units]:
    """The network with its Gathers, as a message and as it is analysed, and its units."""
    model = with_columns(load(proto))
    return to_proto(model), model, find_units(model, features=True)
