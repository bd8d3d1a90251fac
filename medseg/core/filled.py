"""What of a label array is not 0, found eight bytes at a time: lesions fill a small part of a scan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["filled_places", "filled_words", "memory_order"]

_BLOCK_BYTES = 1 << 21  # what is looked at stays in the cache
_WORD_BYTES = 8


def memory_order(array: NDArray[Any]) -> tuple[int, int, int]:
    """The axes of (I, J, K) from the longest stride to the shortest; those of extent 1 come first."""
    first, second, third = sorted(range(3), key=lambda axis: (array.shape[axis] > 1, -abs(array.strides[axis])))
    return first, second, third


def filled_words(array: NDArray[Any]) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
    """Words of eight bytes in which some value is not 0, in one pass.

    Parameters
    ----------
    array
        (A, B, C) integer or bool, axes in memory order; an array that is not contiguous is copied block by block.

    Yields
    ------
    places
        (m,) place of the first value of each word in the flattened array, ascending from block to block.
    values
        (m, 8 / item size) the values of each word; past the end of the array they are 0.
    """
    per_word = _WORD_BYTES // array.itemsize
    for start, block in _blocks(array):
        words = _whole_words(block, per_word).view(np.uint64)
        filled = np.flatnonzero(words != 0)
        if filled.size:
            yield filled * per_word + start, words[filled].view(array.dtype).reshape(-1, per_word)


def filled_places(array: NDArray[Any]) -> NDArray[np.intp]:
    """(N,) places, ascending, of what is not 0 in the flattened (A, B, C) array; axes in memory order."""
    found = [(places[:, None] + np.arange(values.shape[1]))[values != 0] for places, values in filled_words(array)]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.intp)


def _blocks(array: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Place of the first value, and values, of one contiguous stretch after the other."""
    length = _BLOCK_BYTES // array.itemsize
    if array.flags.c_contiguous:
        flat = array.reshape(-1)
        for start in range(0, flat.size, length):
            yield start, flat[start : start + length]
        return
    plane = array.shape[1] * array.shape[2]
    n_planes = max(1, length // max(1, plane))
    for first in range(0, array.shape[0], n_planes):
        yield first * plane, np.ascontiguousarray(array[first : first + n_planes]).reshape(-1)


def _whole_words(block: NDArray[Any], per_word: int) -> NDArray[Any]:
    """The block itself if words lie in it evenly, else a copy, filled up with 0."""
    n_missing = -block.size % per_word
    if n_missing == 0 and block.ctypes.data % _WORD_BYTES == 0:
        return block
    whole = np.zeros(block.size + n_missing, dtype=block.dtype)
    whole[: block.size] = block
    return whole
