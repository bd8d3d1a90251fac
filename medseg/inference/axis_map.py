"""Where the voxels of one grid lie between those of another, axis by axis.

A network's grid comes from its scan by turning axes, cutting and changing spacing, so its axes run along the scan's:
interpolation is separable, and each axis needs two neighbors and a weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.inference.resized_axis import box_of, resized_neighbors
from medseg.io.resample import Neighbors

__all__ = ["AxisMap", "Rounding", "axis_maps", "clean_positions"]

Rounding = Literal["linear", "half_up", "half_even", "area", "floor", "corners"]
"""Two neighbors with weights, or the nearest one; a position in the middle goes up, or to the even neighbor. The last
three are a `ResizeRule`."""

_PARALLEL_TOLERANCE_VOXELS = 1e-3  # how far parallel axes may drift apart over the whole grid
_ROUNDING_VOXELS = 1e-7
_CLEAN_VOXELS = 1e-5  # how near to whole numbers a cut box and its size must be to be taken for such

IntArray = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class AxisMap(Neighbors):
    """How one axis of the target reads the source axis that it runs along.

    Parameters
    ----------
    below, above, weight
        Of each of the target's n voxels, see `Neighbors`.
    source_axis
        0, 1 or 2.
    is_outside
        (n,) bool, further than half a voxel from the source's outermost centers.
    """

    source_axis: int
    is_outside: NDArray[np.bool_]

    def part(self, start: int, stop: int, first_source: int = 0) -> AxisMap:
        """The target voxels start..stop alone; source voxels count from `first_source`."""
        return AxisMap(
            self.below[start:stop] - first_source,
            self.above[start:stop] - first_source,
            self.weight[start:stop],
            self.source_axis,
            self.is_outside[start:stop],
        )


def axis_maps(
    source: Geometry, target: Geometry, rounding: tuple[Rounding, Rounding, Rounding], margin: int = 0
) -> tuple[AxisMap, AxisMap, AxisMap] | None:
    """For each target axis how it reads the source, or None if the grids are turned or sheared against each other.

    Parameters
    ----------
    source, target
        The two grids.
    rounding
        For each source axis.
    margin
        Voxels that were added to the source on all sides.
    """
    to_source = np.linalg.inv(source.affine) @ target.affine
    axes = _parallel_axes(to_source, target)
    if axes is None:
        return None
    maps = []
    for target_axis, source_axis in enumerate(axes):
        scale, offset = to_source[source_axis, target_axis], to_source[source_axis, 3]
        n_source = source.shape[source_axis]
        positions = clean_positions(scale, offset, target.shape[target_axis], n_source)
        rule = rounding[source_axis]
        if rule in ("area", "floor", "corners"):
            n_box, inward = box_of(scale, offset, target.shape[target_axis], n_source)
            below, above, weight = resized_neighbors(inward, n_box, n_source, rule)
            is_outside = _is_outside(positions, n_source)
            maps.append(AxisMap(below + margin, above + margin, weight, source_axis, is_outside))
        else:
            maps.append(_axis_map(positions, n_source, source_axis, rule, margin))
    return (maps[0], maps[1], maps[2])


def _axis_map(
    positions: NDArray[np.float64], n_source: int, source_axis: int, rounding: Rounding, margin: int
) -> AxisMap:
    is_outside = _is_outside(positions, n_source)
    inside = np.clip(positions + margin, 0, n_source - 1 + 2 * margin)
    if rounding == "linear":
        below = np.floor(inside).astype(np.intp)
        weight = inside - below
        above = np.where(weight > 0, below + 1, below)
    else:
        nearest = np.floor(inside + 0.5) if rounding == "half_up" else np.rint(inside)
        below = above = np.minimum(nearest.astype(np.intp), n_source - 1 + 2 * margin)
        weight = np.zeros(len(inside))
    return AxisMap(below, above, weight, source_axis, is_outside)


def _is_outside(positions: NDArray[np.float64], n_source: int) -> NDArray[np.bool_]:
    return (positions < -0.5 - _ROUNDING_VOXELS) | (positions > n_source - 0.5 + _ROUNDING_VOXELS)


def clean_positions(scale: float, offset: float, n_target: int, n_source: int) -> NDArray[np.float64]:
    """Positions (n_target,) float64 of target voxels on a source axis of n_source voxels: scale x index + offset.

    Where the source is a whole number of target voxels in other voxels (a box that was cut and resized), positions are
    computed from these whole numbers, as resizing does: a position that rounding moves off the middle of two voxels
    would break ties of float16 values. A position that misses a center by rounding is on it.
    """
    index = np.arange(n_target, dtype=np.float64)
    positions: NDArray[np.float64] = scale * index + offset
    n_box = round(n_source / abs(scale))
    if n_box >= 1:
        edge = (-0.5 - offset) / scale  # where the source begins, in target voxels
        inward = index - round(edge + 0.5) if scale > 0 else round(edge + 0.5) - 1 - index
        exact: NDArray[np.float64] = (inward + 0.5) * (n_source / n_box) - 0.5
        if np.abs(exact - positions).max(initial=0.0) < _CLEAN_VOXELS:
            positions = exact
    nearest: NDArray[np.float64] = np.rint(positions)
    return np.where(np.abs(positions - nearest) < _ROUNDING_VOXELS, nearest, positions)


def _parallel_axes(to_source: NDArray[np.float64], target: Geometry) -> tuple[int, int, int] | None:
    """For each target axis the source axis that it runs along, or None if the grids are rotated or sheared."""
    drift = np.abs(to_source[:3, :3]) * np.array(target.shape)  # voxels of drift over the whole grid
    axes = [int(np.argmax(np.abs(to_source[:3, axis]))) for axis in range(3)]
    if sorted(axes) != [0, 1, 2]:
        return None
    for target_axis, source_axis in enumerate(axes):
        drift[source_axis, target_axis] = 0.0
    return (axes[0], axes[1], axes[2]) if drift.max() <= _PARALLEL_TOLERANCE_VOXELS else None
