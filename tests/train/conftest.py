"""Both engines that compute gradients, for every test of what they compute."""

import pytest

from onnxadmm.train.engine import Engine
from tests.shared import ENGINES


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine that trains in a test, also where it asks for any."""
    chosen: Engine = request.param
    if chosen == "plain":
        monkeypatch.setattr("onnxadmm.train.engine._is_training_build", lambda owners: False)
    return chosen
