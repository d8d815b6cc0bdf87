"""Samples made of nothing: they look like the inputs as far as the file says, and are good for a little."""

import numpy as np
import onnx
import pytest

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import OptionError
from onnxadmm.graph.model import Model, from_proto
from onnxadmm.graph.runtime import open_session
from onnxadmm.run.made_samples import NONE, made_samples
from tests.samples_text import parse_sample


def picture(before: str, *, constants: str = "", kind: str = "float", channels: int = 3) -> onnx.ModelProto:
    """A network of pictures, with lines that make ``p`` of its input ``x`` in front of a convolution."""
    return parse_sample(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        net ({kind}[N,{channels},16,16] x) => (float[N,4,14,14] y)
        <{constants}{"," if constants else ""} float[4,{channels},3,3] w>
        {{
        {before}
        y = Conv (p, w)
        }}"""
    )


def sampled(model: onnx.ModelProto, count: int = 64) -> np.ndarray:
    samples = made_samples(from_proto(model), seed=0, inputs={}, count=count)
    return samples["x"].astype(np.float64)


@pytest.mark.parametrize(
    ("before", "constants", "mean", "deviation"),
    [
        ("p = Identity (x)", "", 0.0, 1.0),
        ("a = Sub (x, m)\np = Div (a, s)", "float m = {120.0}, float s = {60.0}", 120.0, 60.0),
        ("a = Mul (x, f)\nb = Sub (a, m)\np = Div (b, s)",
         "float f = {0.00392157}, float m = {0.5}, float s = {0.2}", 127.5, 51.0),
        ("p = Mul (x, f)", "float f = {0.00392157}", 127.5, 63.75),
        ("a = Add (x, m)\np = Relu (a)", "float m = {2.0}", -2.0, 1.0),
    ],
    ids=["nothing", "shifted and scaled", "from bytes", "pixels", "added"],
)  # fmt: skip
def test_the_statistics_are_those_that_the_first_operators_take_out(
    before: str, constants: str, mean: float, deviation: float
) -> None:
    found = sampled(picture(before, constants=constants))
    assert found.mean() == pytest.approx(mean, abs=0.2 * deviation)
    assert found.std() == pytest.approx(deviation, rel=0.15)


def test_a_normalisation_at_the_input_tells_mean_and_deviation_of_every_channel() -> None:
    constants = "float[3] g = {1, 2, 3}, float[3] o = {5, 5, 5}, float[3] m = {10, -20, 30}, float[3] v = {4, 9, 16}"
    found = sampled(picture("p = BatchNormalization (x, g, o, m, v)", constants=constants), count=256)
    assert found.mean(axis=(0, 2, 3)) == pytest.approx([10, -20, 30], abs=0.8)
    assert found.std(axis=(0, 2, 3)) == pytest.approx([2, 3, 4], rel=0.15)


def test_pictures_are_smooth_and_their_channels_alike_and_rows_of_numbers_are_neither() -> None:
    def alike(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.corrcoef(one.reshape(-1), other.reshape(-1))[0, 1])

    found = sampled(picture("p = Identity (x)"))
    assert alike(found[..., 1:], found[..., :-1]) > 0.5
    assert alike(found[..., 1:, :], found[..., :-1, :]) > 0.5
    assert alike(found[:, 0], found[:, 1]) > 0.5
    assert abs(alike(found[1:], found[:-1])) < 0.2
    rows = sampled(
        parse_sample(
            """<ir_version: 8, opset_import: ["" : 17]> net (float[N,32] x) => (float[N,4] y) <float[32,4] w>
            { y = MatMul (x, w) }"""
        )
    )
    assert abs(alike(rows[:, 1:], rows[:, :-1])) < 0.1


def test_bytes_of_pictures_take_their_whole_range() -> None:
    found = sampled(picture("p = Cast <to: int = 1> (x)", kind="uint8"))
    assert found.min() < 30
    assert found.max() > 225
    assert (found == np.rint(found)).all()


def test_indices_are_valid_and_given_values_stay() -> None:
    model = parse_sample(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (int64[N,6] ids, float[N,1] t) => (float[N,6,4] y) <float[9,4] table>
        { e = Gather (table, ids)
          k = Unsqueeze (t, a)
          y = Mul (e, k) }""".replace("<float[9,4] table>", "<float[9,4] table, int64[1] a = {1}>")
    )
    found = made_samples(from_proto(model), seed=0, inputs={"t": 0.5}, count=20)
    assert found["ids"].shape == (20, 6)
    assert set(found["ids"].reshape(-1)) <= set(range(9))
    assert len(np.unique(found["ids"])) > 4
    assert (found["t"] == 0.5).all()


def test_a_fixed_batch_does_not_bound_how_many_are_made() -> None:
    model = picture("p = Identity (x)")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    found = sampled(model, count=24)
    assert found.shape == (24, 3, 16, 16)
    assert not (found[0] == found[1]).any()


def _accuracy(model: Model, digits: DemoFiles) -> float:
    with np.load(digits.test) as archive, open_session(model) as session:
        images, labels = archive["images"][:, None] / np.float32(16), archive["labels"]
        (logits,) = session.run({"image": images}).values()
    return float((logits.argmax(axis=1) == labels).mean())


@pytest.mark.slow
def test_a_fit_to_noise_is_far_better_than_a_cut_without_a_fit(digits: DemoFiles) -> None:
    report = oa.compress(
        digits.model,
        calibrate=NONE,
        test=digits.test,
        budget=oa.Budget(macs=0.75),
        calibration={"effort": "quick"},
        preprocessing={"scale": 1 / 16},  # of the test data; what is made is as the model reads it
        bench=False,
    )
    assert report.before.test is not None
    assert report.after.test is not None
    was = report.before.test.value
    lost = was - report.after.test.value
    by_magnitude = oa.rank(digits.model, oa.Budget(macs=0.75))
    cut = [was - _accuracy(oa.shrink(digits.model, plan), digits) for plan in (report.plan, by_magnitude)]
    assert lost < 0.015
    assert min(cut) > 2 * max(lost, 0.01)
    assert any("without data" in sentence for sentence in report.warnings)
    assert report.after.heldout is not None
    assert report.after.heldout.metric == "agreement"


@pytest.mark.parametrize("budget", [{"macs": 0.5}, {"params": 0.9, "macs": "1M"}, {"size": "50%"}])
def test_a_tight_budget_is_refused_in_one_sentence(digits: DemoFiles, budget: dict[str, float | str]) -> None:
    with pytest.raises(OptionError, match=r"at least 0\.75 of the original with --calibrate none.*real samples"):
        oa.compress(digits.model, calibrate=NONE, budget=budget)
