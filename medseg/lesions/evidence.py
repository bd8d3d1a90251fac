"""Evidence at the voxels of a component: heat and votes, wherever the network's grid lies against the scan's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.evidence import InstanceEvidence
from medseg.core.geometry import Geometry
from medseg.errors import GridMismatch
from medseg.lesions.orientation import CanonicalView

__all__ = ["EvidenceSampler", "check_same_place"]

_ROUNDING_VOXELS = 1e-6  # voxel centers of two grids that lie this near to each other coincide


def check_same_place(evidence: InstanceEvidence, geometry: Geometry, voxels: NDArray[np.intp]) -> None:
    """Refuse evidence that has nothing in common with a scan's foreground, as that of another case.

    Parameters
    ----------
    evidence
        Heatmap and offsets on their own grid, cut to where the network saw lesions.
    geometry
        The scan's grid.
    voxels
        (n, 3) indices of voxels of its foreground, at least one, the outermost among them.

    Raises
    ------
    GridMismatch
        If the boxes around both do not meet.
    """
    low, high = voxels.min(axis=0), voxels.max(axis=0)
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), axis=-1).reshape(-1, 3)
    to_evidence = np.linalg.inv(evidence.geometry.affine) @ geometry.affine
    index = corners @ to_evidence[:3, :3].T + to_evidence[:3, 3]
    if (index.max(axis=0) < -1).any() or (index.min(axis=0) > np.array(evidence.geometry.shape)).any():
        raise GridMismatch(
            f"the evidence lies on {evidence.geometry!r}, away from everything that the semantic map on {geometry!r} "
            "marks; take the evidence of the same case"
        )


class EvidenceSampler:
    """Reads evidence at voxels of another grid, linearly interpolated, beyond its outermost voxels 0.

    Parameters
    ----------
    evidence
        Heatmap and offsets on their own grid.
    geometry
        The grid whose voxels are asked for.
    """

    def __init__(self, evidence: InstanceEvidence, geometry: Geometry) -> None:
        self._evidence = evidence
        self._to_evidence = np.linalg.inv(evidence.geometry.affine) @ geometry.affine
        view = CanonicalView.of(geometry)
        signs = np.array([1.0 if direction.step == 1 else -1.0 for direction in view.directions])
        own = _directions(geometry)[:, list(view.axes)] * signs
        self._turn = np.linalg.inv(own) @ _directions(evidence.geometry)

    def at(self, places: NDArray[np.number]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Heat and offsets at places.

        Parameters
        ----------
        places
            (n, 3) indices on the grid, whole for the middles of voxels.

        Returns
        -------
        heat
            (n,) float64.
        offsets_mm
            (n, 3) float64, millimeters along the grid's axes in R, A, S order and direction.
        """
        index = places @ self._to_evidence[:3, :3].T + self._to_evidence[:3, 3]
        whole = np.rint(index)
        index = np.where(np.abs(index - whole) < _ROUNDING_VOXELS, whole, index)
        low = np.floor(index.min(axis=0)).astype(int)
        high = np.ceil(index.max(axis=0)).astype(int) + 1
        low, high = np.clip(low, 0, self._evidence.geometry.shape), np.clip(high, 0, self._evidence.geometry.shape)
        if (low >= high).any():
            return np.zeros(len(places)), np.zeros((len(places), 3))
        box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
        inside = (index - low).T
        heat = _interpolated(self._evidence.center[box], inside)
        offsets = np.stack([_interpolated(part, inside) for part in self._evidence.offsets_mm[:, *box]], axis=-1)
        return heat, offsets @ self._turn.T


def _directions(geometry: Geometry) -> NDArray[np.float64]:
    """(3, 3) unit world vectors of the axes, one a column."""
    columns: NDArray[np.float64] = geometry.affine[:3, :3] / np.array(geometry.spacing)
    return columns


def _interpolated(values: NDArray[np.floating], index: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = ndimage.map_coordinates(
        values.astype(np.float64), index, order=1, mode="grid-constant"
    )
    return result
