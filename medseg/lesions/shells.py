"""Rim and margin: the lesion's outer voxels, and the voxels around it."""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry

__all__ = ["ball_steps", "dilate", "padded", "steps_margin"]


def padded(mask: NDArray[np.bool_], margin: tuple[int, int, int]) -> NDArray[np.bool_]:
    """The mask (I, J, K) with so many voxels of False around it on each axis; quicker than `numpy.pad`."""
    i, j, k = mask.shape
    wide = np.zeros((i + 2 * margin[0], j + 2 * margin[1], k + 2 * margin[2]), dtype=np.bool_)
    wide[margin[0] : margin[0] + i, margin[1] : margin[1] + j, margin[2] : margin[2] + k] = mask
    return wide


def ball_steps(geometry: Geometry, radius_mm: float) -> NDArray[np.int64]:
    """All voxel steps (B, 3) of at most `radius_mm`, on skewed grids too, without the step of nothing."""
    inverse = np.linalg.inv(geometry.affine[:3, :3])
    most = np.floor(radius_mm * np.linalg.norm(inverse, axis=1) + 1e-9).astype(int).tolist()
    steps = np.array(list(product(*(range(-m, m + 1) for m in most))), dtype=np.int64)
    lengths = np.linalg.norm(steps @ geometry.affine[:3, :3].T, axis=1)
    chosen: NDArray[np.int64] = steps[(lengths <= radius_mm * (1 + 1e-9)) & (lengths > 0)]
    return chosen


def steps_margin(steps: NDArray[np.int64]) -> tuple[int, int, int]:
    """How many voxels the steps reach along each axis."""
    most = np.abs(steps).max(axis=0, initial=0).tolist()
    return most[0], most[1], most[2]


def dilate(mask: NDArray[np.bool_], steps: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a voxel of the mask (I, J, K) lies at one of the steps or right there; nothing comes from beyond the array.

    Steps in a row along the first axis are taken together: a run of n is n - 1 shifted copies of the mask, made once.
    """
    margin = steps_margin(steps)
    runs = _runs(steps.tobytes())
    wide = padded(mask, margin)
    dilated = mask.copy()
    smeared, length = wide, 1
    size = mask.shape
    for run_length in sorted(runs):
        while length < run_length:
            length += 1
            smeared = smeared.copy()
            smeared[length - 1 :] |= wide[: len(wide) - length + 1]
        for last, second, third in runs[run_length]:
            i, j, k = margin[0] + last, margin[1] + second, margin[2] + third
            dilated |= smeared[i : i + size[0], j : j + size[1], k : k + size[2]]
    return dilated


@lru_cache(maxsize=16)
def _runs(steps: bytes) -> dict[int, list[tuple[int, int, int]]]:
    """Runs of steps along the first axis by length: (last, second, third), each voxel looking back along the run."""
    lines: dict[tuple[int, int], list[int]] = {}
    for first, second, third in (*np.frombuffer(steps, dtype=np.int64).reshape(-1, 3).tolist(), (0, 0, 0)):
        lines.setdefault((second, third), []).append(first)
    runs: dict[int, list[tuple[int, int, int]]] = {}
    for (second, third), firsts in lines.items():
        runs.setdefault(max(firsts) - min(firsts) + 1, []).append((max(firsts), second, third))
    return runs
