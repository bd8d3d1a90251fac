"""LesionMap: which lesion each voxel belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.core.filled import filled_words, memory_order
from medseg.core.geometry import Geometry
from medseg.errors import GridMismatch, InvalidLabelMap

__all__ = ["Lesion", "LesionMap", "label_dtype"]


@dataclass(frozen=True)
class Lesion:
    """What is known of one lesion beside its voxels.

    Parameters
    ----------
    class_name
        Its class, or the region that its classes make up.
    score
        0..1, how sure the method is, or None.
    separation_method
        How it came apart from others: "components", "watershed" or "offsets"; None for a map from elsewhere.
    split_from_component
        Lesions with the same number were one connected component; None if the lesion is a whole component.
    vote_spread_mm
        Root mean square distance in mm of its voxels' votes for its center from their mean; None without votes.
    """

    class_name: str
    score: float | None = None
    separation_method: str | None = None
    split_from_component: int | None = None
    vote_spread_mm: float | None = None


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
        How the lesions came apart: "components", "watershed", "offsets", or "read" for a map from disk.
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
        present, highest = _present(array, self.n_lesions)
        if highest != self.n_lesions:
            raise InvalidLabelMap(
                f"{self.n_lesions} lesions need the numbers 1..{self.n_lesions}; highest is {highest}"
            )
        missing = np.flatnonzero(~present[1:]) + 1
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


def _present(array: NDArray[np.unsignedinteger], n_lesions: int) -> tuple[NDArray[np.bool_], int]:
    """Which of the numbers 0..n a map holds, and the highest number in it. One pass, in little memory."""
    present = np.zeros(n_lesions + 2, dtype=np.bool_)
    highest = 0
    for _, values in filled_words(array.transpose(memory_order(array))):
        highest = max(highest, int(values.max()))
        present[np.minimum(values, n_lesions + 1)] = True
    return present[:-1], highest


def label_dtype(n_lesions: int) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
    """The smallest unsigned type that holds the numbers 0..n_lesions: uint16, or uint32 from 65,536 lesions on."""
    return np.dtype(np.uint16) if n_lesions <= np.iinfo(np.uint16).max else np.dtype(np.uint32)
