"""One Ray cluster of this machine for all tests of a file."""

import logging
import os
import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """A cluster that runs already, which crews use."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = pytest.importorskip("ray", reason="onnxadmm[ray] runs machines")
    before = signal.getsignal(signal.SIGTERM)
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    signal.signal(signal.SIGTERM, before)  # Ray takes it for itself, and other tests run in this process
    yield
    ray.shutdown()
