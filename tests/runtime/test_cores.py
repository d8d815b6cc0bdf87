"""The count of usable cores: affinity, and control groups as files that only look like the kernel's."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from onnxadmm.runtime import cores
from onnxadmm.runtime.cores import usable_cores

HERE = Path(cores.__file__).parents[1]


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose affinity mask holds eight cores, whatever this machine has."""
    monkeypatch.setattr(cores, "_of_affinity", lambda: 8)


def machine(tmp_path: Path, membership: str, files: Mapping[str, str]) -> int:
    """Count with these control groups."""
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    (tmp_path / "membership").write_text(membership)
    return usable_cores(mount=tmp_path / "cgroup", membership=tmp_path / "membership")


@pytest.mark.parametrize(
    ("limit", "count"),
    [("150000 100000", 2), ("200000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("nonsense", 8), ("1 0", 8)],
)
def test_limit_of_a_container_counts_and_parts_of_a_core_are_rounded_up(tmp_path: Path, limit: str, count: int) -> None:
    assert machine(tmp_path, "0::/\n", {"cpu.max": limit}) == count


def test_smallest_limit_of_all_groups_above_counts(tmp_path: Path) -> None:
    files = {"cpu.max": "max 100000", "a/cpu.max": "300000 100000", "a/b/cpu.max": "500000 100000"}
    assert machine(tmp_path, "0::/a/b\n", files) == 3


def test_group_that_is_named_as_the_host_sees_it_is_found_at_the_root(tmp_path: Path) -> None:
    assert machine(tmp_path, "0::/system.slice/docker-1234.scope\n", {"cpu.max": "400000 100000"}) == 4


def test_group_outside_of_what_is_mounted_is_the_root(tmp_path: Path) -> None:
    assert machine(tmp_path, "0::/../../other\n", {"cpu.max": "400000 100000"}) == 4


@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu"])
def test_limit_of_the_first_version_of_control_groups_counts(tmp_path: Path, folder: str) -> None:
    files = {f"{folder}/docker/cpu.cfs_quota_us": "250000", f"{folder}/docker/cpu.cfs_period_us": "100000"}
    assert machine(tmp_path, "11:memory:/docker\n4:cpu,cpuacct:/docker\n0::/docker\n", files) == 3


def test_no_limit_of_the_first_version_is_minus_one(tmp_path: Path) -> None:
    files = {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}
    assert machine(tmp_path, "4:cpu:/\n", files) == 8


def test_a_machine_without_control_groups_has_the_cores_of_its_affinity_mask(tmp_path: Path) -> None:
    assert usable_cores(mount=tmp_path / "none", membership=tmp_path / "none") == 8


def test_limit_above_the_affinity_mask_adds_no_core(tmp_path: Path) -> None:
    assert machine(tmp_path, "0::/\n", {"cpu.max": "6400000 100000"}) == 8


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has an affinity mask to narrow")
def test_cores_follow_the_affinity_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(("own", "count"), [(lambda: 3, 3), (lambda: None, 1)])
def test_the_count_of_newer_interpreters_is_theirs(monkeypatch: pytest.MonkeyPatch, own: object, count: int) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(os, "process_cpu_count", own, raising=False)
    assert usable_cores(mount=Path("none"), membership=Path("none")) == count


def test_cores_are_counted_in_one_place_only() -> None:
    counting = {
        path.relative_to(HERE).as_posix()
        for path in HERE.rglob("*.py")
        if any(word in path.read_text(encoding="utf-8") for word in ("cpu_count", "sched_getaffinity"))
    }
    assert counting == {"runtime/cores.py"}
