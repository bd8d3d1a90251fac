"""Volume: intensities in memory, with the grid that they lie on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.errors import GridMismatch, NonFiniteVoxels, UsageError

__all__ = ["Units", "Volume", "count_non_finite"]

Units = Literal["stored", "suv"]


@dataclass(frozen=True, eq=False)
class Volume:
    """Finite intensities on a grid.

    Parameters
    ----------
    array
        (C, I, J, K) float32, read-only once here, in the unit of each channel (HU, SUV, Bq/ml, ...).
    geometry
        The grid.
    channels
        One name a channel.
    notes
        What was done to the voxels beside reading and rescaling them (NaN filled, single axes dropped, unit taken on
        trust): goes into the provenance.
    check_finite
        False where the caller has proven that no voxel is NaN or infinite, so that they are not looked through again.
    units
        "suv" or "stored" (whatever the file holds: HU, Bq/ml, ...): one for all channels, or one a channel; once here,
        a tuple with one a channel.

    Raises
    ------
    GridMismatch
        If the array does not have the grid's shape, a channel has no name, or there are not as many units as channels.
    UsageError
        If a unit is unknown.
    NonFiniteVoxels
        If any voxel is NaN or infinite.
    """

    array: NDArray[np.float32]
    geometry: Geometry
    channels: tuple[str, ...]
    notes: tuple[str, ...] = ()
    check_finite: InitVar[bool] = True
    units: Units | Sequence[Units] = "stored"

    def __post_init__(self, check_finite: bool) -> None:
        array = np.asarray(self.array, dtype=np.float32).view()
        if array.ndim != 4 or array.shape[1:] != self.geometry.shape:
            raise GridMismatch(f"a volume on {self.geometry!r} needs an array (C, I, J, K); got shape {array.shape}")
        if len(self.channels) != array.shape[0]:
            raise GridMismatch(f"{array.shape[0]} channel(s) need as many names; got {self.channels}")
        n_bad = count_non_finite(array) if check_finite else 0
        if n_bad:
            raise NonFiniteVoxels(
                f"{n_bad} of {array.size} voxels are NaN or infinite; medseg does not guess them (--nan-as VALUE fills)"
            )
        array.setflags(write=False)
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "units", _one_unit_a_channel(self.units, array.shape[0]))

    def __repr__(self) -> str:
        return f"Volume({', '.join(self.channels)}; {self.geometry!r})"


def _one_unit_a_channel(units: Units | Sequence[Units], n_channels: int) -> tuple[Units, ...]:
    each: tuple[Units, ...] = (units,) * n_channels if isinstance(units, str) else tuple(units)
    unknown = sorted(set(each) - set(get_args(Units)))
    if unknown:
        raise UsageError(f"units are {' or '.join(get_args(Units))}; got {', '.join(map(repr, unknown))}")
    if len(each) != n_channels:
        raise GridMismatch(f"{n_channels} channel(s) need one unit for all or one each; got {each}")
    return each


def count_non_finite(array: NDArray[np.float32]) -> int:
    """How many voxels of (..., I, J, K) are NaN or infinite, counted slab by slab: no second array of its size."""
    if array.ndim > 3:
        return sum(count_non_finite(part) for part in array)
    slabs = np.moveaxis(array, int(np.argmax(np.abs(array.strides))), 0)
    return sum(slab.size - int(np.count_nonzero(np.isfinite(slab))) for slab in slabs)
