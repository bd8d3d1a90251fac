"""Fragments: lesions that are shared out voxel by voxel end as one connected part each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["in_one_part"]

_CUBE = np.ones((3, 3, 3), dtype=bool)
_RANK_OF_CONNECTIVITY = {6: 1, 18: 2, 26: 3}


def in_one_part(
    owner: NDArray[np.intp],
    n_owners: int,
    places: NDArray[np.intp],
    spacing_mm: NDArray[np.float64],
    connectivity: int,
) -> NDArray[np.intp]:
    """Each owner's largest part stays; other parts go to the neighbor with the largest common face.

    Parameters
    ----------
    owner
        (n,) owner, from 0, of each voxel of a connected component.
    n_owners
        How many there are.
    places
        (n, 3) indices of the voxels.
    spacing_mm
        (3,) along the axes.
    connectivity
        6, 18 or 26.

    Returns
    -------
    (n,) owners.
    """
    owner = owner.copy()
    at = tuple((places - places.min(axis=0)).T)
    field = np.zeros([int(along.max()) + 1 for along in at], dtype=np.int32)
    neighbors = ndimage.generate_binary_structure(3, _RANK_OF_CONNECTIVITY[connectivity])
    fragments: list[NDArray[np.intp]] = []
    for number in range(n_owners):
        field[at] = owner == number
        parts, n_parts = ndimage.label(field, neighbors)
        if n_parts < 2:
            continue
        part_of = parts[at]
        sizes = np.bincount(part_of, minlength=n_parts + 1)[1:]
        for part in range(1, n_parts + 1):
            if part != int(sizes.argmax()) + 1:
                fragments.append(np.flatnonzero(part_of == part))
    for fragment in fragments:
        owner[fragment] = -1
    waiting = fragments
    while waiting:
        field[...] = -1
        field[at] = owner
        left = []
        for fragment in waiting:
            to = _neighbor(np.stack(at, axis=-1)[fragment], field, spacing_mm, connectivity)
            if to is None:
                left.append(fragment)
            else:
                owner[fragment] = to
        if len(left) == len(waiting):
            raise AssertionError("a fragment of a component touches the rest of it")
        waiting = left
    return owner


def _neighbor(
    places: NDArray[np.intp], field: NDArray[np.int32], spacing_mm: NDArray[np.float64], connectivity: int
) -> int | None:
    """The owner around a fragment; None if only other fragments are around it."""
    area: dict[int, float] = {}
    for step in np.argwhere(_CUBE) - 1:
        n_moved = int(np.count_nonzero(step))
        if n_moved == 0 or n_moved > _RANK_OF_CONNECTIVITY[connectivity]:
            continue
        there = places + step
        is_inside = ((there >= 0) & (there < field.shape)).all(axis=1)
        around = field[tuple(there[is_inside].T)]
        # faces count by their area; edges and corners, which have none, decide only where there is no face
        weight = float(np.prod(spacing_mm[step == 0])) if n_moved == 1 else 1e-9
        for number, count in enumerate(np.bincount(around[around >= 0])):
            if count:
                area[number] = area.get(number, 0.0) + weight * int(count)
    return min(area, key=lambda number: (-area[number], number)) if area else None
