"""Sizes that the file leaves free: found, stated, counted at, and said."""

import json
from pathlib import Path

import onnx
import pytest

from onnxadmm.bench.latency import measure_latency
from onnxadmm.errors import OptionError
from onnxadmm.graph.model import Model, load
from onnxadmm.graph.shapes import infer
from onnxadmm.graph.stated import leaves_sizes_open, with_input_shapes, with_samples
from onnxadmm.planning import rank
from onnxadmm.report.inspection import inspect_units
from onnxadmm.surgery import find_groups, shrink, verify
from tests.conftest import Command
from tests.samples_text import parse_sample


def picture(body: str, weights: str = "", *, shape: str = "N,3,H,W") -> Model:
    """Two convolutions of pictures of any size with something behind them; 75 weights for each position."""
    return load(
        parse_sample(
            f"""<ir_version: 8, opset_import: ["" : 17]>
            picture (float[{shape}] x) => (float[a,b,c,d] y)
            <float[4,3,3,3] W1, float[2,4,1,1] W2, {weights} float[4] B1>
            {{ h = Conv <pads: ints = [1,1,1,1]> (x, W1, B1)
              {body}
              y = Conv (z, W2) }}"""
        )
    )


def pruned_and_proven(model: Model, **given: dict[str, tuple[int, ...]]) -> None:
    plan = rank(model, ratio=0.5, **given)  # type: ignore[arg-type]
    assert verify(model, shrink(model, plan), plan, **given).passed  # type: ignore[arg-type]


def test_a_line_of_text_has_one_height_and_any_width() -> None:
    model = picture("z = Add (h, P)", "float[1,1,48,1] P,")
    sizes = infer(model).sizes["x"]
    assert sizes[:3] == (1, 3, 48)
    assert infer(model).dynamic("x") == (True, False, False, True)
    pruned_and_proven(model)


def test_a_length_that_is_only_repeated_is_not_taken_for_the_only_one() -> None:
    """The network accepts 97 by 101, and 1 by 1, which says nothing about sizes that are computed from others."""
    model = picture("z = Add (h, P)", "float[1,4,97,101] P,")
    assert infer(model).dynamic("x") == (True, False, True, True)


def test_a_window_has_room_at_the_sizes_that_are_found() -> None:
    """Rounded towards zero, a window of four moves once over two rows; the two here need 32 of them."""
    model = picture(
        """m = MaxPool <kernel_shape: ints = [8,1], strides: ints = [8,1]> (h)
        p = MaxPool <kernel_shape: ints = [4,1], strides: ints = [4,1]> (m)
        q = Squeeze (p, rows)
        z = Unsqueeze (q, rows)""",
        "int64[1] rows = {2},",
    )
    assert infer(model).sizes["x"] == (1, 3, 32, 32)
    assert infer(model).dynamic("x") == (True, False, True, True)
    pruned_and_proven(model)


def test_the_only_size_that_a_table_of_positions_allows_is_found_and_is_a_constant() -> None:
    """What is computed from it is known, and locks nothing."""
    model = picture("z = Add (h, P)", "float[1,4,224,224] P,")
    assert infer(model).sizes["x"] == (1, 3, 224, 224)
    assert infer(model).dynamic("x") == (True, False, False, False)


def test_sizes_that_mirroring_needs_are_found() -> None:
    model = picture('z = Pad <mode: string = "reflect"> (h, pads)', "int64[8] pads = {0, 0, 300, 0, 0, 0, 300, 0},")
    assert infer(model).sizes["x"] == (1, 3, 320, 320)


def test_a_limit_that_only_values_show_is_found_by_running() -> None:
    """Positions are counted while the model runs, and there are 20 of them."""
    model = load(
        parse_sample(
            """<ir_version: 8, opset_import: ["" : 17]>
            text (float[N,T,3] x) => (float[N,T,2] y)
            <float[3,8] W1, float[20,8] P, float[8,2] W2, int64[1] two = {2}, int64[1] one = {1}>
            { h = MatMul (x, W1)
              e = Exp (x)
              s = ReduceSum <keepdims: int = 0> (e, two)
              p = Greater (s, s)
              n = Not (p)
              i = Cast <to: int = 7> (n)
              c = CumSum (i, one0)
              q = Gather (P, c)
              r = Add (h, q)
              y = MatMul (r, W2) }""".replace("(i, one0)", "(i, axis)").replace(
                "int64[1] one = {1}", "int64 axis = {1}"
            )
        )
    )
    pruned_and_proven(model)
    assert measure_latency([model], names=["text"], large=1, seconds=0.01).sizes["x"][1] < 20


def test_costs_are_counted_at_the_stated_size_and_say_so() -> None:
    model = picture("z = Relu (h)")
    stated = find_groups(model, input_shapes={"x": (1, 3, 11, 7)})
    found = inspect_units("picture", stated)
    assert found.macs == 11 * 7 * (4 * 27 + 8)
    assert found.input_shapes == "x:1,3,11,7"
    assert inspect_units("picture", find_groups(model)).input_shapes == "x:1,3,256,256"
    assert infer(with_input_shapes(model, {"x": (1, 3, 11, 7)})).dynamic("h") == (True, False, True, True)


def test_latency_is_measured_at_the_stated_size_and_says_so() -> None:
    model = with_input_shapes(picture("z = Relu (h)"), {"x": (1, 3, 11, 7)})
    assert measure_latency([model], names=["picture"], large=2, seconds=0.01).sizes == {"x": (1, 3, 11, 7)}


def test_a_model_without_free_sizes_is_counted_at_none() -> None:
    model = picture("z = Relu (h)", shape="N,3,8,8")
    assert infer(model).sizes == {}
    assert not leaves_sizes_open(model)


def test_samples_of_the_data_state_what_nobody_has() -> None:
    model = picture("z = Relu (h)")
    assert with_samples(model, {"x": (3, 12, 10)}).input_shapes == {"x": (1, 3, 12, 10)}
    stated = with_input_shapes(model, {"x": (1, 3, 5, 5)})
    assert with_samples(stated, {"x": (3, 12, 10)}) is stated
    assert with_samples(model, {"x": (4, 12, 10)}) is model, "data that do not fit are refused elsewhere"


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"z": (1, 3, 8, 8)}, "one of x"),
        ({"x": (1, 3, 8)}, "4 lengths"),
        ({"x": (1, 4, 8, 8)}, "3 at axis 1"),
        ({"x": (1, 3, 0, 8)}, "at least 1"),
        ({"x": (1, 3, 8, 9)}, "8 at axis 3"),
    ],
)
def test_a_shape_that_contradicts_the_file_is_refused(shapes: dict[str, tuple[int, ...]], words: str) -> None:
    with pytest.raises(OptionError, match="--input-shape") as refusal:
        with_input_shapes(picture("z = Relu (h)", shape="N,3,S,S"), shapes)
    assert words in str(refusal.value)


@pytest.mark.parametrize("text", ["x", "x:", "x:1,a", ":1,3", "x:1,3,8,8 x:1,3,8,8"])
def test_a_shape_that_cannot_be_read_is_refused_with_status_two(command: Command, tmp_path: Path, text: str) -> None:
    onnx.save(parse_sample(FLAT), tmp_path / "m.onnx")
    options = [word for part in text.split() for word in ("--input-shape", part)]
    ran = command("inspect", tmp_path / "m.onnx", *options)
    assert ran.status == 2
    assert "--input-shape" in ran.stderr


def test_the_command_line_takes_shapes(command: Command, tmp_path: Path) -> None:
    onnx.save(parse_sample(FLAT), tmp_path / "m.onnx")
    ran = command("inspect", tmp_path / "m.onnx", "--input-shape", "x:1,7,3", "--json")
    assert json.loads(ran.stdout)["macs"] == 7 * (3 * 4 + 4 * 2)
    assert json.loads(ran.stdout)["input_shapes"] == "x:1,7,3"


FLAT = """<ir_version: 8, opset_import: ["" : 17]>
    flat (float[N,T,3] x) => (float[N,T,2] y)
    <float[3,4] W1, float[4,2] W2>
    { h = MatMul (x, W1)
      y = MatMul (h, W2) }"""
