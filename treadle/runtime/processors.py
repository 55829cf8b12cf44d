"""How many processors this process may really use: its affinity mask and its control group."""

from __future__ import annotations

import os
from pathlib import Path


def available() -> int:
    """Processors that the affinity mask and the CPU quota of the control groups allow, at least 1.

    A quota of 2.5 processors counts as 2: a third thread would be throttled in the middle of a
    launch, and all others would wait for it.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    quota = cgroup_quota()
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def cgroup_quota(
    membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """The least number of processors that any control group above this process grants.

    Args:
        membership: the file that names the groups of the process.
        mount: where the control group file systems are mounted.

    Returns:
        Processors, or `None` where no group sets a limit.

    Source:
        Linux, Documentation/admin-guide/cgroup-v2.rst (`cpu.max`) and
        Documentation/scheduler/sched-bwc.rst (`cpu.cfs_quota_us`).
    """
    quotas: list[float] = []
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        if controllers == "":
            roots, reader = [mount, mount / "unified"], _quota_v2
        elif "cpu" in names:
            roots, reader = [mount / controllers, mount / "cpu"], _quota_v1
        else:
            continue
        for root in roots:
            # Inside a container the path may be the host's, and the group is the mount itself.
            for folder in (root / path.lstrip("/"), *(root / path.lstrip("/")).parents):
                if folder == root.parent:
                    break
                found = reader(folder)
                if found is not None:
                    quotas.append(found)
    return min(quotas, default=None)


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    if quota in ("", "max"):
        return None
    return int(quota) / int(period or 100_000)


def _quota_v1(folder: Path) -> float | None:
    quota = int(_read(folder / "cpu.cfs_quota_us").strip() or -1)
    period = int(_read(folder / "cpu.cfs_period_us").strip() or 0)
    return quota / period if quota > 0 and period > 0 else None


def _read(path: Path) -> str:
    """The text of a control file; one that is missing or closed to us sets no limit."""
    try:
        return path.read_text()
    except OSError:
        return ""
