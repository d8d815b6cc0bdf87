"""How many cores this process may use: the one count for threads, workers and what a report says about the machine."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_MOUNT: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")


def usable_cores(*, mount: Path = _MOUNT, membership: Path = _MEMBERSHIP) -> int:
    """Cores this process may use at a time: those of its affinity mask, within the limit of its control groups.

    A limit that is no whole number is rounded up: a process that may use one and a half cores gains from two threads.

    Args:
        mount: where the control groups are mounted.
        membership: the file that says which of them this process is in.

    Returns:
        At least 1.
    """
    limits = [math.ceil(quota) for quota in _quotas(mount, membership)]
    return max(1, min([_of_affinity(), *limits]))


def _of_affinity() -> int:
    # Since CPython 3.13; it respects the affinity mask and -X cpu_count.
    count = getattr(os, "process_cpu_count", None)
    if count is not None:
        return count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(mount: Path, membership: Path) -> Iterator[float]:
    """Cores that each control group above this process leaves it; those without a limit are passed over."""
    for version, folder, group in _groups(mount, membership):
        # Inside a container the group is often named as the host sees it, and mounted as the root: what does not
        # exist is no limit, and every group above counts.
        for part in (group, *group.parents):
            quota = _quota(folder / part.relative_to("/"), version)
            if quota is not None:
                yield quota


def _groups(mount: Path, membership: Path) -> Iterator[tuple[int, Path, PurePosixPath]]:
    """Version, mount folder and name of the control groups of this process that may limit its cores."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    if not lines and mount.is_dir():
        lines = ["0::/"]
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        group = PurePosixPath("/", name.lstrip("/"))
        if ".." in group.parts:
            group = PurePosixPath("/")  # a group outside of what is mounted here
        if number == "0" and not controllers:
            yield 2, mount, group
        elif "cpu" in controllers.split(","):
            yield 1, mount / controllers, group
            yield 1, mount / "cpu", group


def _quota(folder: Path, version: int) -> float | None:
    try:
        if version == 2:
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        cores = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None  # no limit, or none that is written there
    return cores if cores > 0 else None
