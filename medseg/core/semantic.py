"""SemanticMap: the class of each voxel, on the scan's own grid."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medseg.core.evidence import InstanceEvidence
from medseg.core.filled import filled_words, memory_order
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.errors import GridMismatch, InvalidLabelMap

__all__ = ["SemanticMap"]


@dataclass(frozen=True, eq=False)
class SemanticMap:
    """One class number a voxel.

    Parameters
    ----------
    array
        (I, J, K) uint8 or uint16, class numbers of `scheme`, 0 for background; read-only once here.
    geometry
        The grid: the scan's own.
    scheme
        What the numbers mean.
    probability
        (I, J, K) float32 in 0..1, probability that a voxel is any class but background, or None.
    evidence
        What the network says of the lesions' centers, or None.

    Raises
    ------
    GridMismatch
        If an array does not have the grid's shape.
    InvalidLabelMap
        If a number is not in the scheme, or the array is not unsigned integer.
    """

    array: NDArray[np.unsignedinteger]
    geometry: Geometry
    scheme: LabelScheme
    probability: NDArray[np.float32] | None = field(default=None)
    evidence: InstanceEvidence | None = field(default=None)

    def __post_init__(self) -> None:
        array = np.asarray(self.array).view()
        if array.shape != self.geometry.shape:
            raise GridMismatch(f"a semantic map on {self.geometry!r} cannot have shape {array.shape}")
        if array.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
            raise InvalidLabelMap(f"a semantic map is uint8 or uint16; got {array.dtype}")
        unknown = sorted(_numbers_in(array) - set(self.scheme.classes))
        if unknown:
            raise InvalidLabelMap(
                f"the semantic map holds {unknown}, which the label scheme {dict(self.scheme.classes)} does not name"
            )
        array.setflags(write=False)
        object.__setattr__(self, "array", array)
        if self.probability is not None:
            object.__setattr__(self, "probability", _checked_probability(self.probability, self.geometry))

    def __repr__(self) -> str:
        return f"SemanticMap({', '.join(self.scheme.classes.values())}; {self.geometry!r})"

    @property
    def n_foreground_voxels(self) -> int:
        """Number of voxels that are not background."""
        return int(np.count_nonzero(self.array))


def _numbers_in(array: NDArray[np.unsignedinteger]) -> set[int]:
    """The numbers above 0 that a map holds."""
    is_there = np.zeros(np.iinfo(array.dtype).max + 1, dtype=np.bool_)
    for _, values in filled_words(array.transpose(memory_order(array))):
        is_there[values] = True
    return set(np.flatnonzero(is_there).tolist()) - {0}


def _checked_probability(probability: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    view = np.asarray(probability, dtype=np.float32).view()
    if view.shape != geometry.shape:
        raise GridMismatch(f"a probability map on {geometry!r} cannot have shape {view.shape}")
    view.setflags(write=False)
    return view
