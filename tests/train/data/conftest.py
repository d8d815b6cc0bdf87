"""Pictures that several files of this folder read."""

from pathlib import Path

import pytest

from tests.train.data.forms import source_of


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(str(source_of("folder", tmp_path_factory.mktemp("reference"))))
