"""Memory that a process has freed stays with it for a while, for what it needs next.

A network frees and takes megabytes many times a second. The C library of Linux gives a block back to the system each
time, which has to fill the next one with zeros, page by page: a tenth of a segmentation's processor time.
"""

from __future__ import annotations

import ctypes
import os

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 128 << 20
_OWN_BYTES = 32 << 20  # from here on a block goes back at once; the most that glibc allows
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let this process keep up to 128 MiB that it has freed; blocks of 32 MiB and more still go back.

    Only with the GNU C library, and not where the environment already says how it is to allocate. For processes of
    medseg's own: a library has no business with the memory of its user's.

    Returns
    -------
    Whether it was done.

    References
    ----------
    mallopt(3), Linux manual page.
    """
    if not _is_glibc() or any(name in os.environ for name in _VARIABLES):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # both: each one alone ends glibc's own way of learning the other, and blocks then go back all the more often
    return bool(mallopt(_M_MMAP_THRESHOLD, _OWN_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):  # another system
        return False
