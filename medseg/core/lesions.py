"""LesionMap: which lesion each voxel belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.errors import GridMismatch, InvalidLabelMap

__all__ = ["Lesion", "LesionMap", "label_dtype"]

_BLOCK_VOXELS = 2**21


@dataclass(frozen=True)
class Lesion:
    """What is known of one lesion beside its voxels: its class, and how sure the method is (0..1, or None)."""

    class_name: str
    score: float | None = None


@dataclass(frozen=True, eq=False)
class LesionMap:
    """Lesions as numbers 1..n, one owner a voxel.

    Lesions are numbered by descending volume, then by world centroid, so that the numbers do not depend on how the
    grid is oriented. `medseg.separate_lesions` and `medseg.read_lesions` make such maps; the constructor checks that
    the numbers are exactly 1..n.

    Parameters
    ----------
    array
        (I, J, K) uint16 or uint32, 0 for background; read-only once here.
    geometry
        The grid.
    lesions
        n entries; entry n - 1 describes lesion n.
    method
        How the lesions came apart: "components", "watershed", or "read" for a map from disk.
    n_removed, removed_volume_ml
        What the minimum volume took away: number of components and milliliters.
    renumbered
        True if a map from disk held other numbers than 1..n.

    Raises
    ------
    GridMismatch
        If the array does not have the grid's shape.
    InvalidLabelMap
        If the numbers are not exactly 1..n.
    """

    array: NDArray[np.unsignedinteger]
    geometry: Geometry
    lesions: tuple[Lesion, ...]
    method: str = "read"
    n_removed: int = 0
    removed_volume_ml: float = 0.0
    renumbered: bool = False

    def __post_init__(self) -> None:
        array = np.asarray(self.array).view()
        if array.shape != self.geometry.shape:
            raise GridMismatch(f"a lesion map on {self.geometry!r} cannot have shape {array.shape}")
        if array.dtype not in (np.dtype(np.uint16), np.dtype(np.uint32)):
            raise InvalidLabelMap(f"a lesion map is uint16 or uint32; got {array.dtype}")
        highest = int(array.max(initial=0))
        if highest != self.n_lesions:
            raise InvalidLabelMap(
                f"{self.n_lesions} lesions need the numbers 1..{self.n_lesions}; highest is {highest}"
            )
        missing = np.flatnonzero(~_present(array, highest)[1:]) + 1
        if missing.size:
            raise InvalidLabelMap(f"lesion numbers must be exactly 1..{highest}; missing {missing[:10].tolist()}")
        array.setflags(write=False)
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "lesions", tuple(self.lesions))

    @property
    def n_lesions(self) -> int:
        """Number of lesions."""
        return len(self.lesions)

    def __repr__(self) -> str:
        return f"LesionMap({self.n_lesions} lesion(s) by {self.method}; {self.geometry!r})"


def _present(array: NDArray[np.unsignedinteger], highest: int) -> NDArray[np.bool_]:
    """Which of the numbers 0..highest a map holds; block by block, in little memory."""
    present = np.zeros(highest + 1, dtype=np.bool_)
    axes = sorted(range(3), key=lambda axis: -abs(array.strides[axis]))
    in_memory_order = array.transpose(axes)
    planes = max(1, _BLOCK_VOXELS // max(1, in_memory_order[0].size))
    for start in range(0, in_memory_order.shape[0], planes):
        block = in_memory_order[start : start + planes]
        present[block[block > 0]] = True
    return present


def label_dtype(n_lesions: int) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
    """The smallest unsigned type that holds the numbers 0..n_lesions: uint16, or uint32 from 65,536 lesions on."""
    return np.dtype(np.uint16) if n_lesions <= np.iinfo(np.uint16).max else np.dtype(np.uint32)
