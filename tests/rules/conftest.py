"""Faults that tests plant in the table of operators are gone after each test."""

import pytest


@pytest.fixture(autouse=True)
def _restored_table(restored_table: None) -> None: ...
