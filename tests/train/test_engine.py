import importlib.metadata
import sys
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxadmm.errors import NotTrainableError, TrainingUnavailableError
from onnxadmm.train import engine as engines
from onnxadmm.train.backward.gradient import build_gradient_graph, gradient_name
from onnxadmm.train.engine import Engine, EngineChoice, choose_engine, inference_session, providers, unavailable_reason
from tests.shared import needs_training_build
from tests.train.graphs import model_of, random


def installed(**versions: str) -> Callable[[str], str]:
    def version_of(name: str) -> str:
        if name.replace("-", "_") in versions:
            return versions[name.replace("-", "_")]
        raise importlib.metadata.PackageNotFoundError(name)

    return version_of


def test_plain_onnxruntime_trains_and_is_said_to_lack_the_training_api() -> None:
    owners = providers(installed(onnxruntime="1.32.0"))
    assert owners == {"onnxruntime": "1.32.0"}
    assert unavailable_reason(owners) is None
    reason = unavailable_reason(owners, engine="training")
    assert reason is not None
    assert "onnxruntime 1.32.0 without the training API" in reason


def test_two_providers_are_said_to_overwrite_each_other() -> None:
    owners = providers(installed(onnxruntime="1.32.0", onnxruntime_training_cpu="1.19.2"))
    reason = unavailable_reason(owners)
    assert reason is not None
    assert "2 distributions that overwrite each other" in reason
    assert "onnxruntime 1.32.0" in reason
    assert "onnxruntime-training-cpu 1.19.2" in reason


def test_no_provider_is_said_to_be_missing() -> None:
    assert unavailable_reason(providers(installed())) == "no onnxruntime at all"


def test_the_training_build_is_taken_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_native", lambda: None)
    monkeypatch.setattr(engines, "providers", lambda: {"onnxruntime-training-cpu": "1.19.2"})
    assert [choose_engine(choice) for choice in ("auto", "training", "plain")] == ["training", "training", "plain"]
    monkeypatch.setattr(engines, "providers", lambda: {"onnxruntime": "1.32.0"})
    assert [choose_engine(choice) for choice in ("auto", "plain")] == ["plain", "plain"]


def test_refusal_is_one_sentence_that_says_what_the_training_build_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "providers", lambda: {"onnxruntime": "1.32.0"})
    with pytest.raises(TrainingUnavailableError) as caught:
        choose_engine("training")
    message = str(caught.value)
    assert "onnxruntime-training-cpu 1.19.2" in message
    assert "CPython 3.9 to 3.12" in message
    assert "--engine plain" in message
    assert "\n" not in message
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("choice", ["auto", "plain"])
@pytest.mark.parametrize(
    ("owners", "found"),
    [({}, "no onnxruntime at all"), ({"onnxruntime": "1", "onnxruntime-gpu": "2"}, "2 distributions that overwrite")],
)
def test_nothing_trains_without_a_runtime_that_works(
    choice: EngineChoice, owners: dict[str, str], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "providers", lambda: owners)
    with pytest.raises(TrainingUnavailableError, match=found):
        choose_engine(choice)


def test_building_a_gradient_without_the_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "providers", lambda: {"onnxruntime": "1.32.0"})
    with pytest.raises(TrainingUnavailableError):
        build_gradient_graph(square(), loss="loss", weights=["w"], outputs=[], engine="training")


def square() -> onnx.ModelProto:
    """loss = sum (x w)^2"""
    model = model_of(
        [
            helper.make_node("Mul", ["x", "w"], ["p"]),
            helper.make_node("Mul", ["p", "p"], ["s"]),
            helper.make_node("ReduceSum", ["s"], ["loss"], keepdims=0),
        ],
        inputs={"x": [3], "w": [3], "unused": [2]},
        outputs=["loss"],
        weights={},
    )
    model.graph.output[0].type.tensor_type.shape.Clear()
    return model


def test_gradient_graph_computes_what_calculus_says(engine: Engine) -> None:
    graph = build_gradient_graph(square(), loss="loss", weights=["w"], outputs=[], engine=engine)
    assert [value.name for value in graph.graph.output] == ["loss", gradient_name("w")]
    x, w = random([3], seed=1), random([3], seed=2)
    feeds = {"x": x, "w": w, "unused": np.zeros(2, np.float32)}
    loss, gradient = inference_session(graph, threads=1).run(None, feeds)
    assert loss == pytest.approx(float(((x * w) ** 2).sum()), rel=1e-5)
    np.testing.assert_allclose(gradient, 2 * x**2 * w, rtol=1e-5)


def test_weight_the_loss_does_not_depend_on_is_refused_by_name(engine: Engine) -> None:
    with pytest.raises(NotTrainableError, match="unused"):
        build_gradient_graph(square(), loss="loss", weights=["w", "unused"], outputs=[], engine=engine)


@needs_training_build
def test_torch_is_never_imported() -> None:
    build_gradient_graph(square(), loss="loss", weights=["w"], outputs=[], engine="training")
    assert "torch" not in sys.modules
    assert "onnxruntime.training" not in sys.modules


def test_environment_of_these_tests_has_one_provider() -> None:
    assert len(providers()) == 1
