"""How much memory and how many cores there are; memory is asked for before a large array is made.

A size that does not fit is refused with a sentence; without the question the system would swap for minutes, or kill the
process without a word.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path

from medseg.errors import ScanTooLarge

__all__ = ["available_memory_bytes", "check_fits_memory", "resident_bytes", "usable_cores"]

_MEMINFO, _STATUS = Path("/proc/meminfo"), Path("/proc/self/status")
_CGROUP = Path("/sys/fs/cgroup")
_MIB, _GIB = 2**20, 2**30


def available_memory_bytes() -> int:
    """Bytes that this process may still take: the least of what system, container and process limit leave."""
    return max(0, min(_system_bytes(), _container_bytes(), _limit_bytes()))


def check_fits_memory(n_bytes: int, what: str) -> None:
    """Refuse arrays that do not fit into memory.

    Parameters
    ----------
    n_bytes
        Bytes of the arrays that are about to be made.
    what
        The file or case that they belong to, for the message.

    Raises
    ------
    ScanTooLarge
        If less is available.
    """
    available = available_memory_bytes()
    if n_bytes > available:
        raise ScanTooLarge(
            f"{what} needs {_shown(n_bytes)} of memory, {_shown(available)} are free. Crop it, resample it, or use a "
            "larger machine"
        )


def resident_bytes() -> int:
    """Bytes that this process holds in memory now; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shown(n_bytes: int) -> str:
    return f"{n_bytes / _GIB:.1f} GiB" if n_bytes >= _GIB else f"{n_bytes / _MIB:.0f} MiB"


def _system_bytes() -> int:
    """What Linux says is available (caches count, for they can be dropped); elsewhere all the physical memory."""
    kib = _field_kib(_MEMINFO, "MemAvailable:")
    return kib * 1024 if kib is not None else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _container_bytes() -> int:
    """What the limit of a container (cgroup 2) leaves, file caches not counted."""
    with suppress(OSError, ValueError):
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        cached = next(
            int(line.split()[1])
            for line in (_CGROUP / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
        return limit - used + cached
    return 2**63


def _limit_bytes() -> int:
    """What `ulimit -v` leaves."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return 2**63
    return limit - (_field_kib(_STATUS, "VmSize:") or 0) * 1024


def _field_kib(file: Path, name: str) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in file.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    return None
