"""``doctor``, as it is used."""

import pytest

from tests.cli.conftest import one_document
from tests.conftest import Command


@pytest.mark.slow
def test_doctor_finds_that_training_works(command: Command) -> None:
    ran = command("doctor", "--json")
    assert ran.status == 0, ran
    document = one_document(ran.stdout)
    assert document["ok"] is True
    assert {finding["name"]: finding["status"] for finding in document["findings"]}["training"] == "ok"
    assert "All is well." in command("doctor").stdout
