"""Kernels of numba over feature maps (I, J, K, C): moments of the channels, and what is left to do to a map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["add_moments", "finish", "finish_into"]


@njit(nogil=True, boundscheck=False, fastmath=True, cache=True)
def add_moments(array: Any, origin: Any) -> Any:
    """Sums (2, C) float64 of the differences to `origin` (C,), and of their squares; within a row in float32."""
    n_d, n_h, n_w, n_channels = array.shape
    total = np.zeros((2, n_channels), np.float64)
    sums, squares = np.empty(n_channels, np.float32), np.empty(n_channels, np.float32)
    for d in range(n_d):
        for h in range(n_h):
            sums[:] = np.float32(0)
            squares[:] = np.float32(0)
            for w in range(n_w):
                values = array[d, h, w]
                for c in range(n_channels):
                    difference = values[c] - origin[c]
                    sums[c] += difference
                    squares[c] += difference * difference
            for c in range(n_channels):
                total[0, c] += sums[c]
                total[1, c] += squares[c]
    return total


@njit(nogil=True, boundscheck=False, fastmath=True, cache=True)
def finish(array: Any, scale: Any, shift: Any, slope: Any, target: Any) -> None:
    """Scale, shift and activate a map (I, J, K, C) into another one."""
    for d in range(array.shape[0]):
        for h in range(array.shape[1]):
            finish_into(array[d, h], scale, shift, slope, target[d, h])


@njit(nogil=True, boundscheck=False, fastmath=True, cache=True)
def finish_into(row: Any, scale: Any, shift: Any, slope: Any, target: Any) -> None:
    """Scale, shift and activate a row (K, C) into another one."""
    for w in range(row.shape[0]):
        values, into = row[w], target[w]
        for c in range(row.shape[1]):
            value = values[c] * scale[c] + shift[c]
            into[c] = max(value, np.float32(0)) + slope[c] * min(value, np.float32(0))
