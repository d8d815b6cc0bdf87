"""Measurements that fail without ending a run."""

import pytest

from onnxadmm.errors import ModelFileError
from onnxadmm.run import measure
from tests.bench.models import dense


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), "the layers were not timed: [Errno 28] No space left on device"),
        (ValueError("no JSON"), "the layers were not timed: no JSON"),
        (
            ModelFileError("m", expected="a", found="b", way_out="c"),
            "the layers were not timed: m: expected a, found b; c",
        ),
    ],
)
def test_a_profile_that_cannot_be_made_is_a_warning(
    error: Exception, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(measure, "profile_nodes", fail)
    models = (dense(4), dense(4))
    wanted = (frozenset(("y",)),) * 2
    profile, reason = measure._profile(models, wanted, batch=1, threads=1, seed=0, inputs={})
    assert profile is None
    assert reason.rstrip(".") == told
