"""What tests of rules share: a rule that a test replaces is put back."""

from collections.abc import Iterator

import pytest

from onnxadmm.rules import table


@pytest.fixture(autouse=True)
def _restored_table() -> Iterator[None]:
    kept = dict(table._TABLE)
    yield
    table._TABLE.clear()
    table._TABLE.update(kept)
