"""The line of each lesion's longest diameter: where a radiologist would lay the caliper."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medseg.core.table import LesionTable
from medseg.errors import UsageError
from medseg.lesions.location import LPS

__all__ = ["long_axes"]

_COLUMNS = [[f"longest_{end}_{axis}_lps_mm" for axis in "xyz"] for end in ("start", "end")]


def long_axes(table: LesionTable) -> NDArray[np.float64]:
    """The two ends of the longest diameter of every lesion, out of the table.

    Parameters
    ----------
    table
        n lesions.

    Returns
    -------
    (n, 2, 3) float64, RAS+ millimeters.

    Raises
    ------
    UsageError
        If the table was made without the ends of the diameters.

    Examples
    --------
    >>> from medseg.core.geometry import Geometry
    >>> from medseg.core.lesions import Lesion, LesionMap
    >>> from medseg.lesions.measure import measure_lesions
    >>> array = np.zeros((10, 3, 1), dtype=np.uint16)
    >>> array[1:9, 1] = 1
    >>> lesions = LesionMap(array, Geometry((10, 3, 1), np.eye(4)), (Lesion("lesion"),))
    >>> long_axes(measure_lesions(lesions)).round(2).tolist()
    [[[0.75, 1.0, 0.0], [8.25, 1.0, 0.0]]]
    """
    missing = sorted({name for end in _COLUMNS for name in end} - set(table.column_names))
    if missing:
        raise UsageError(
            f"the lesion table lacks {', '.join(missing)}; measure without choosing columns, or choose these"
        )
    ends = [[[row[name] for name in end] for end in _COLUMNS] for row in table]
    axes: NDArray[np.float64] = np.array(ends, dtype=np.float64).reshape(-1, 2, 3) * LPS
    return axes
