"""Memory for a volume that is filled once, slice by slice: most of the time of a fast reading goes into its pages."""

from __future__ import annotations

import ctypes
import math
import mmap
import sys

import numpy as np
from numpy.typing import NDArray

__all__ = ["empty_slices", "make_pages"]

_MADV_POPULATE_WRITE = 23  # Linux 5.14; refused by older ones, without harm
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def empty_slices(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """An array of float32 to read slices into, of ordinary memory pages.

    numpy asks the kernel for huge pages. An array that is filled once, slice by slice, gains nothing by them, and on
    virtual machines the first touch of a huge page costs several times as much (1.9 s against 0.6 s for 600 MiB).
    """
    n_bytes = math.prod(shape) * np.dtype(np.float32).itemsize
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        return np.empty(shape, dtype=np.float32)
    try:
        pages = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, ValueError, OverflowError) as error:
        raise MemoryError(f"{n_bytes >> 20} MiB for a volume of shape {shape}: {error}") from error
    return np.frombuffer(pages, dtype=np.float32).reshape(shape)


def make_pages(array: NDArray[np.float32]) -> None:
    """Have the kernel make the memory pages of a slice at once, just before it is written; its content stays.

    Else each page is made when it is first touched, which takes a third longer. Where the system does not know this, or
    the slice does not begin with a page, nothing happens.
    """
    if _LIBC is not None and array.flags.c_contiguous:
        _LIBC.madvise(
            ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes), ctypes.c_int(_MADV_POPULATE_WRITE)
        )
