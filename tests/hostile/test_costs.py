"""No small file costs much: a verb takes seconds of computing and at most a gigabyte and a half."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxadmm.errors import ModelFileError
from onnxadmm.graph.constants import free_name
from onnxadmm.graph.model import load
from onnxadmm.rules.labels import MOST_LABELS, MOST_POSITIONS, Labels
from tests.hostile.costs import COSTLY, network, sparse
from tests.hostile.outcomes import judge

#: Bytes of address space beyond what the process has when a verb begins.
_ROOM = 3 * 2**29


@contextmanager
def limited(room: int) -> Iterator[None]:
    """Let this process take no more memory than it has and ``room``: what would is refused as ``MemoryError``."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space of a process")
@pytest.mark.parametrize("name", COSTLY)
def test_a_small_file_costs_little_time_and_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(COSTLY[name]().SerializeToString())
    assert path.stat().st_size < 2**21
    with limited(_ROOM):
        outcome = judge(path, tmp_path / "out.onnx")
    assert outcome.kind != "defect", outcome.words
    assert "MemoryError" not in outcome.words


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space of a process")
def test_the_limit_of_memory_is_one() -> None:
    with limited(2**28), pytest.raises(MemoryError):
        np.ones(2**29, np.uint8)


def test_a_sparse_weight_out_of_nowhere_is_refused_and_a_plausible_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(sparse(2**28).SerializeToString())
    with pytest.raises(ModelFileError, match=r"sparse tensors of at most \d+ bytes when dense, in a file of \d+"):
        load(path)
    path.write_bytes(sparse(2**20).SerializeToString())
    assert load(path).ir.graph.initializers["S"].shape == (8, 2**17)


def test_thousands_of_names_with_one_hint_stay_apart() -> None:
    taken: set[str] = set()
    assert len({free_name("a", taken) for _ in range(3000)}) == 3000
    assert free_name("b", {"b", "b_1"}) == "b_2"
    assert free_name("b", {"b", "b_1", "b_2", "b_3", "b_4"}) == "b_5"


def test_more_labels_than_memory_should_hold_are_refused() -> None:
    labels = Labels()
    with pytest.raises(ValueError, match="too many"):
        labels.new(MOST_LABELS + 1)
    axis = np.broadcast_to(np.zeros(1, np.int64), (MOST_POSITIONS,))
    labels.count_positions(axis)
    labels.count_positions(axis)
    with pytest.raises(ValueError, match="more positions"):
        labels.count_positions(np.zeros(2**12, np.int64))


def test_a_network_as_these_are_made_of_is_pruned(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(network([onnx.helper.make_node("Relu", ["h"], ["z"])]).SerializeToString())
    assert judge(path, tmp_path / "out.onnx").kind == "works"
