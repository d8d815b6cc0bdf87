"""Faults that tests plant in the table of operators are gone after each test."""

from collections.abc import Iterator

import pytest

from onnxadmm.operators import table


@pytest.fixture(autouse=True)
def _restored_table() -> Iterator[None]:
    kept = {(entry.domain, entry.name): entry for entry in table.operators()}
    yield
    table._TABLE.clear()
    table._TABLE.update(kept)
