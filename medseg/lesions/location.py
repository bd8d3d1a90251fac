"""Where each lesion lies: centroid, nearest voxel, boxes, and what lies on the border of the scan."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.choice import ALL, Choice
from medseg.lesions.bodies import LesionVoxels

__all__ = ["LPS", "border_columns", "location_columns"]

LPS = np.array([-1.0, -1.0, 1.0])
"""What turns RAS+ millimeters into LPS, and back."""

_SAME = 1e-6


def location_columns(voxels: LesionVoxels, choice: Choice = ALL) -> dict[str, list[Any]]:
    """Columns of position, entry n - 1 for lesion n; what none of the chosen columns needs is not computed."""
    geometry = voxels.geometry
    centroids = geometry.to_world(voxels.mean_index)
    columns: dict[str, list[Any]] = {}
    for axis, name in enumerate("xyz"):
        columns[f"centroid_{name}_lps_mm"] = (centroids[:, axis] * LPS[axis]).tolist()
        columns[f"centroid_{name}_ras_mm"] = centroids[:, axis].tolist()
    for axis, name in enumerate("ijk"):
        columns[f"centroid_{name}"] = voxels.mean_index[:, axis].tolist()
        columns[f"bbox_{name}_min"] = voxels.low[:, axis].tolist()
        columns[f"bbox_{name}_max"] = voxels.high[:, axis].tolist()
    if choice.holds(*(f"inner_{name}" for name in "ijk")):
        inner = _nearest_voxels(voxels)
        columns |= {f"inner_{name}": inner[:, axis].tolist() for axis, name in enumerate("ijk")}
    if choice.holds(*(f"bbox_{name}_{end}_lps_mm" for name in "xyz" for end in ("min", "max"))):
        for end, corners in zip(("min", "max"), _world_boxes(voxels), strict=True):
            columns |= {f"bbox_{name}_{end}_lps_mm": corners[:, axis].tolist() for axis, name in enumerate("xyz")}
    return columns


def border_columns(voxels: LesionVoxels, choice: Choice = ALL) -> dict[str, list[Any]]:
    """Whether a lesion touches a face of the grid, and with which area."""
    if not choice.holds("touches_border", "area_on_border_mm2"):
        return {}
    geometry = voxels.geometry
    shape = np.array(geometry.shape)
    touches = ((voxels.low == 0) | (voxels.high == shape)).any(axis=1)
    area = np.zeros(voxels.n_lesions)
    a, b, c = geometry.affine[:3, :3].T
    for axis, face in enumerate((np.cross(b, c), np.cross(a, c), np.cross(a, b))):
        for place in (0, int(shape[axis]) - 1):
            for number in np.flatnonzero((voxels.low[:, axis] <= place) & (voxels.high[:, axis] > place)).tolist():
                n_faces = np.count_nonzero(voxels.of(number + 1)[axis] == place)
                area[number] += n_faces * float(np.linalg.norm(face))
    return {"touches_border": touches.tolist(), "area_on_border_mm2": area.tolist()}


def _nearest_voxels(voxels: LesionVoxels) -> NDArray[np.int64]:
    """The lesion voxel (n, 3) nearest to each centroid; of equals the first by world x, y, z."""
    basis = voxels.geometry.affine[:3, :3]
    gram = basis.T @ basis
    is_straight = bool(np.abs(gram - np.diag(np.diag(gram))).max() <= 1e-6 * gram.max())
    unambiguous = np.asarray(
        (np.abs(voxels.mean_index % 1.0 - 0.5) > 1e-6).all(axis=1)
    )  # not halfway between two voxels
    nearest = np.empty((voxels.n_lesions, 3), dtype=np.int64)
    for number in range(1, voxels.n_lesions + 1):
        middle = np.rint(voxels.mean_index[number - 1]).astype(np.int64)
        if is_straight and unambiguous[number - 1] and voxels.labels[tuple(middle)] == number:
            nearest[number - 1] = middle
            continue
        indices = np.stack(voxels.of(number), axis=-1)
        apart = (indices - voxels.mean_index[number - 1]) @ basis.T
        squares = np.square(apart).sum(axis=1)
        near = np.flatnonzero(squares <= squares.min() + _SAME)
        places = np.round(apart[near] / _SAME)
        nearest[number - 1] = indices[near[np.lexsort(places.T[::-1])[0]]]
    return nearest


def _world_boxes(voxels: LesionVoxels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest LPS position (n, 3) of the corners of each lesion's voxels."""
    affine = voxels.geometry.affine * [[-1.0], [-1.0], [1.0], [1.0]]
    lowest, highest = np.empty((2, voxels.n_lesions, 3))
    half = 0.5 * np.abs(affine[:3, :3]).sum(axis=1)
    for axis in range(3):
        row = affine[axis]
        if np.count_nonzero(np.abs(row[:3]) > 1e-9 * half[axis]) == 1:  # parallel to an array axis: its ends are enough
            ends = np.stack([voxels.low, voxels.high - 1]) @ row[:3] + row[3]
            low, high = ends.min(axis=0), ends.max(axis=0)
        else:
            i, j, k = voxels.indices
            places = i * row[0] + j * row[1] + k * row[2] + row[3]
            starts = voxels.starts[:-1]
            low = np.minimum.reduceat(places, starts) if starts.size else places
            high = np.maximum.reduceat(places, starts) if starts.size else places
        lowest[:, axis], highest[:, axis] = low - half[axis], high + half[axis]
    return lowest, highest
