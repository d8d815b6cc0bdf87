"""Sums over activations: what ends there is removed on every side, exactly, behind a gate that never ships."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxadmm.graph.model import load, to_proto
from onnxadmm.graph.runtime import open_session
from onnxadmm.rewrite.gates import open_gates
from tests.graphs import feeds
from tests.graphs.checking import check
from tests.rewrite import laws
from tests.rules.faults import Fault, caught, gated_elsewhere, not_rewritten, plant, ungated
from tests.rules.summing import SUMMING
from tests.samples_text import parse_sample

EXACT = (
    laws.law_shrunk_is_valid,
    laws.law_masked_equals_shrunk,
    laws.law_masked_differs_only_in_zeros,
    laws.law_removed_units_cannot_be_seen,
)


MEANS = [name for name in SUMMING if SUMMING[name].operator in ("ReduceMean", "GlobalAveragePool")]


def check_laws(original: onnx.ModelProto) -> None:
    model, units = laws.units_of(original)
    assert units.gates
    laws.law_nothing_removed_changes_nothing(original, model, units)
    laws.hold(original, *EXACT, laws.law_face_is_unchanged, seeds=range(2))


@pytest.mark.parametrize("name", SUMMING)
def test_units_that_are_summed_up_go_exactly(name: str) -> None:
    original = SUMMING[name].model()
    _, units = laws.units_of(original)
    assert any("W1" in group.tensors for group in units.groups), units.locked
    check_laws(original)


@pytest.mark.parametrize("name", SUMMING)
@pytest.mark.parametrize("fault", [ungated, gated_elsewhere], ids=lambda fault: fault.__name__)
def test_a_missing_or_wrong_gate_is_found(name: str, fault: Fault) -> None:
    original = SUMMING[name].model()
    assert not caught(original, seeds=range(1))
    plant(fault, SUMMING[name].operator, domain=SUMMING[name].domain)
    assert caught(original)


@pytest.mark.parametrize("name", MEANS)
def test_a_mean_that_is_divided_by_too_few_is_found(name: str) -> None:
    plant(not_rewritten, SUMMING[name].operator)
    assert caught(SUMMING[name].model())


def test_a_mean_that_is_an_output_keeps_its_name_and_its_value() -> None:
    original = parse_sample(
        """<ir_version: 8, opset_import: ["" : 17]>
        mean (float[N,5,3] x) => (float[N,5,1] y)
        <float[3,4] W1>
        { h = MatMul (x, W1)
          y = ReduceMean <axes: ints = [2]> (h) }"""
    )
    check_laws(original)


@pytest.mark.parametrize("name", SUMMING)
def test_open_gates_change_nothing_and_are_read_by_every_unit_of_theirs(name: str) -> None:
    original = SUMMING[name].model()
    model, units = laws.units_of(original)
    gated = to_proto(open_gates(model, units))
    check(gated)
    arrays = laws.constants(gated.graph)
    for gate in units.gates:
        assert (arrays[gate.reader.tensor] == 1).all()
        assert arrays[gate.reader.tensor].shape == gate.shape
        assert gate.reader.units.shape == gate.shape[:1]
    feed = feeds(original, seed=1)
    results = []
    for proto in (original, gated):
        with open_session(load(proto), as_written=True) as session:  # by onnx where onnxruntime is too old
            results.append(session.run(feed))
    for name, expected in results[0].items():
        assert laws.snr_db(expected, results[1][name]) > 100


def test_a_model_without_such_sums_is_its_own_gated_model() -> None:
    model, units = laws.units_of(
        parse_sample(
            """<ir_version: 8, opset_import: ["" : 17]>
            plain (float[N,3] x) => (float[N,2] y)
            <float[3,4] W1, float[4,2] W2>
            { h = MatMul (x, W1)
              y = MatMul (h, W2) }"""
        )
    )
    assert units.gates == ()
    assert open_gates(model, units) is model


def test_a_gate_takes_a_name_that_is_free() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        taken (float[N,5,3] x) => (float[N,5,2] y)
        <float[3,4] W1, float[3,4] W2, float[5,2] W3, float[1] q_gate, float[1] q_gate_1d>
        { q0 = MatMul (x, W1)
          q = Mul (q0, q_gate)
          k0 = MatMul (x, W2)
          k1 = Mul (k0, q_gate_1d)
          k = Transpose <perm: ints = [0, 2, 1]> (k1)
          s = MatMul (q, k)
          y = MatMul (s, W3) }"""
    original = parse_sample(text)
    _, units = laws.units_of(original)
    assert [gate.reader.tensor for gate in units.gates] == ["q_gate_1"]
    check_laws(original)


LOCKED = {
    "integers": (
        """c = Cast <to: int = 6> (h)
        t = Transpose <perm: ints = [0, 2, 1]> (c)
        p = MatMul (c, t)
        f = Cast <to: int = 1> (p)
        y = MatMul (f, W2)""",
        "in other numbers than floats",
    ),
    "positions that stay on the other side": (
        """t = Transpose <perm: ints = [0, 2, 1]> (x)
        p = MatMul (h, t)
        y = MatMul (p, W2)""",
        "positions that stay",
    ),
    "the logarithm of a sum of exponentials": (
        """m = ReduceLogSumExp <axes: ints = [2]> (h)
        y = MatMul (m, W3)""",
        "mixes along it",
    ),
}


@pytest.mark.parametrize("name", LOCKED)
def test_what_cannot_be_gated_exactly_locks_by_name(name: str) -> None:
    body, reason = LOCKED[name]
    _, units = laws.units_of(
        parse_sample(
            f"""<ir_version: 8, opset_import: ["" : 17]>
            locked (float[N,4,4] x) => (float[N,a,2] y)
            <float[4,4] W1, float[4,2] W2, float[1,2] W3>
            {{
            h = MatMul (x, W1)
            {body}
            }}"""
        )
    )
    assert units.gates == ()
    (locked,) = [group for group in units.locked if group.name == "W1"]
    assert reason in locked.reason


def test_heads_stay_the_units_where_they_can_be_and_else_the_size_of_a_head_shrinks_evenly() -> None:
    """A bias on the scores of every head makes the heads stay."""

    def attention(bias: str) -> list[tuple[int, set[str]]]:
        original = parse_sample(
            f"""<ir_version: 8, opset_import: ["" : 17]>
            heads (float[N,5,6] x{", float[N,3,5,5] given" if bias == "given" else ""}) => (float[N,5,2] y)
            <float[6,12] W1, float[6,12] W3, float[6,12] W4, float[12,2] W2, float[3,5,5] learned,
            int64[4] cut = {{0, 0, 3, 4}}, int64[3] flat = {{0, 0, -1}}>
            {{
            m = MatMul (x, W1)
            a = Reshape (m, cut)
            q = Transpose <perm: ints = [0, 2, 1, 3]> (a)
            c = MatMul (x, W3)
            d = Reshape (c, cut)
            k = Transpose <perm: ints = [0, 2, 3, 1]> (d)
            e = MatMul (x, W4)
            g = Reshape (e, cut)
            v = Transpose <perm: ints = [0, 2, 1, 3]> (g)
            r = MatMul (q, k)
            s = Add (r, {bias})
            p = Softmax <axis: int = -1> (s)
            o = MatMul (p, v)
            t = Transpose <perm: ints = [0, 2, 1, 3]> (o)
            f = Reshape (t, flat)
            y = MatMul (f, W2)
            }}"""
        )
        case = laws.hold(original, laws.law_masked_equals_shrunk)[0]
        return [(group.count, set(group.tensors)) for group in case.units.groups]

    assert attention("learned") == [(3, {"W1", "W3", "W4", "learned"})]
    assert attention("given") == [(4, {"W1", "W3"}), (4, {"W4"})]


@st.composite
def products(draw: st.DrawFn) -> onnx.ModelProto:
    """``y = (q k) W3`` of random sizes, by one of the operators that contract two activations."""
    rows, size, inputs, batch = (draw(st.integers(2, 6)) for _ in range(4))
    dtype = draw(st.sampled_from(["float", "double"]))
    same = draw(st.booleans())
    by = draw(st.sampled_from(["MatMul", "stack", "Einsum", "FusedMatMul", "Gemm"]))
    first, second = draw(st.booleans()), draw(st.booleans())  # whether an operand has its sizes exchanged
    dtype = "float" if by == "FusedMatMul" else dtype
    squeeze = by == "Gemm"
    lead = [] if squeeze else [batch, 1] if by == "stack" else ["N"]
    perm = [*range(len(lead)), len(lead) + 1, len(lead)]
    shape = ",".join(str(part) for part in [*lead, rows, inputs])
    activation = draw(st.sampled_from(["Identity", "Sigmoid", "Tanh", "Exp"]))
    turned = f"Transpose <perm: ints = {perm}>"
    q = "q0" if not first else "q1"
    k = "k0" if second else "k1"
    if by in ("MatMul", "stack"):
        node = "s = MatMul (q0, k1)"
    elif by == "Einsum":
        node = (
            f's = Einsum <equation: string = "n{"da" if first else "ad"},n{"bd" if second else "db"}->nab"> ({q}, {k})'
        )
    else:
        name = "com.microsoft.FusedMatMul" if by == "FusedMatMul" else "Gemm"
        node = f"s = {name} <transA: int = {int(first)}, transB: int = {int(second)}> ({q}, {k})"
    return parse_sample(
        f"""<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        product (float[{shape}] x) => ({dtype}[{",".join(str(part) for part in [*lead, rows, 2])}] y)
        <{dtype}[{inputs},{size}] W1, {dtype}[{inputs},{size}] W2, {dtype}[{rows},2] W3>
        {{
        c = Cast <to: int = {11 if dtype == "double" else 1}> (x)
        a = MatMul (c, W1)
        b = MatMul (c, W2)
        q0 = {activation} (a)
        k0 = Tanh ({"a" if same else "b"})
        q1 = {turned} (q0)
        k1 = {turned} (k0)
        {node}
        y = MatMul (s, W3)
        }}""",
        seed=draw(st.integers(0, 99)),
    )


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(original=products(), seed=st.integers(0, 99))
def test_products_of_random_sizes_shrink_exactly(original: onnx.ModelProto, seed: int) -> None:
    used = {name for node in original.graph.node for name in node.input}
    (case,) = laws.hold(original, *EXACT, kinds=["random"], seeds=[seed])
    assert len(case.units.gates) == 1
    assert any("W1" in group.tensors and group.count > 1 for group in case.units.groups)
    assert laws.law_masked_equals_shrunk(case).snr_db > 100
    if not {"Einsum", "FusedMatMul"} & {node.op_type for node in original.graph.node}:  # these the law does not count
        laws.law_cost_is_counted_on_the_shrunk_graph(case)
    assert used <= {name for node in to_proto(case.shrunk).graph.node for name in node.input} | {"W2", "x"}


def test_the_multiply_accumulates_of_the_product_fall_with_the_contracted_size() -> None:
    original = SUMMING["MatMul of a tensor and its own transpose"].model()
    model, units = laws.units_of(original)
    keep = np.ones(units.count, np.bool_)
    keep[0] = False
    case = laws.prune(original, model, units, keep)
    laws.law_cost_is_counted_on_the_shrunk_graph(case)
    (node,) = [node for node in to_proto(case.shrunk).graph.node if node.op_type == "MatMul"]
    assert laws.count_macs(to_proto(model)) == 9 * 4 * 3 + 9 * 9 * 4 + 9 * 9 * 2
    assert laws.count_macs(to_proto(case.shrunk)) == 9 * 3 * 3 + 9 * 9 * 3 + 9 * 9 * 2
    assert node.input[1] == "f"


def test_a_plan_read_from_a_file_masks_with_a_gate_and_leaves_none() -> None:
    original = SUMMING["dot product by Mul and ReduceSum"].model()
    model, units = laws.units_of(original)
    keep = np.ones(units.count, np.bool_)
    keep[1:3] = False
    case = laws.prune(original, load(to_proto(model)), units, keep)
    assert [node.op_type for node in to_proto(case.masked).graph.node].count("Mul") == 2
    assert [node.op_type for node in to_proto(case.shrunk).graph.node].count("Mul") == 1
    assert not any("gate" in tensor.name for tensor in to_proto(case.shrunk).graph.initializer)


FUNCTION = """<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
    calls (float[N,5,6] x) => (float[N,5,2] y)
    <float[6,8] W1, float[6,8] W2, float[5,2] W3>
    {
    q = MatMul (x, W1)
    k = MatMul (x, W2)
    s = own.Product (q, k)
    y = MatMul (s, W3)
    }
    <domain: "own", opset_import: ["" : 17]>
    Product (a, b) => (c)
    {
    t = Transpose <perm: ints = [0, 2, 1]> (b)
    c = MatMul (a, t)
    }"""


def test_a_product_inside_of_a_function_is_gated_where_the_function_is_called() -> None:
    original = parse_sample(FUNCTION)
    model, units = laws.units_of(original)
    assert len(units.gates) == 1
    assert [(group.count, set(group.tensors)) for group in units.groups] == [(8, {"W1", "W2"})]
    laws.hold(
        original, laws.law_masked_equals_shrunk, laws.law_removed_units_cannot_be_seen, kinds=["random"], seeds=[0]
    )
    gated = to_proto(open_gates(model, units))
    assert "Product" not in {node.op_type for node in gated.graph.node}
    assert laws.snr_db(*laws.run(original, feeds(original)), *laws.run(gated, feeds(original))) > 100
