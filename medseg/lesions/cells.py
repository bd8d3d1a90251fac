"""Cells: the voxels of a component, cut where the network's grid is finer than the scan's.

On thick slices a lesion of a few millimeters is one or two voxels deep, and the voxels around its center lie in the
next lesion already; the network has said more than that. Along each axis a voxel is as many cells as the network's grid
has voxels in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.lesions.orientation import CanonicalView

__all__ = ["Cells", "cells_a_voxel"]

Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cells:
    """The n voxels of a component and their m cells, both in R, A, S order.

    Parameters
    ----------
    voxels
        (n, 3) indices in the component's box, along the grid's own axes.
    places, cell_places
        (n, 3) and (m, 3) indices in the boxes of voxels and of cells, as seen in R, A, S.
    middles
        (m, 3) the cells' middles in voxels, in the component's box, along the grid's own axes.
    voxel_of
        (m,) which voxel each cell is of.
    spacing_mm, cell_spacing_mm
        (3,) of voxels and of cells, R, A, S.
    """

    voxels: NDArray[np.intp]
    places: NDArray[np.intp]
    cell_places: NDArray[np.intp]
    middles: Points
    voxel_of: NDArray[np.intp]
    spacing_mm: Points
    cell_spacing_mm: Points

    @classmethod
    def of(cls, mask: NDArray[np.bool_], n_cells: tuple[int, int, int], view: CanonicalView) -> Cells:
        """The cells of a component.

        Parameters
        ----------
        mask
            (i, j, k) bool, the component on its box, along the grid's own axes.
        n_cells
            (3,) cells a voxel along each of them.
        view
            The grid's.
        """
        cut = np.array([n_cells[axis] for axis in view.axes])
        seen = view.turn(mask)
        places = np.argwhere(seen)
        number = np.full(seen.shape, -1, dtype=np.intp)
        number[tuple(places.T)] = np.arange(len(places))
        finer = seen
        for axis, n in enumerate(cut.tolist()):
            finer = np.repeat(finer, n, axis=axis)
        cell_places = np.argwhere(finer)
        spacing = np.array(view.spacing)
        return cls(
            view.own(places, mask.shape),
            places,
            cell_places,
            view.own((cell_places + 0.5) / cut - 0.5, mask.shape),
            number[tuple((cell_places // cut).T)],
            spacing,
            spacing / cut,
        )

    @property
    def n_a_voxel(self) -> int:
        """How many cells a voxel is cut into."""
        return len(self.cell_places) // max(len(self.places), 1)

    def totals(self, values: Points) -> Points:
        """(n,) sums of (m,) values over the cells of each voxel."""
        return np.bincount(self.voxel_of, weights=values, minlength=len(self.places)).astype(np.float64, copy=False)


def cells_a_voxel(scan: Geometry, evidence: Geometry) -> tuple[int, int, int]:
    """How many voxels of the network's grid there are in one of the scan's, along each axis of the scan, at least one.

    Parameters
    ----------
    scan
        The scan's grid.
    evidence
        The network's.
    """
    steps = np.linalg.norm(np.linalg.inv(evidence.affine[:3, :3]) @ scan.affine[:3, :3], axis=0)
    i, j, k = (max(1, int(n)) for n in np.rint(steps))
    return i, j, k
