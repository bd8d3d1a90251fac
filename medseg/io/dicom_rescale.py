"""Stored numbers of a DICOM frame into a slice of a volume: HU, Bq/ml, SUV.

Stored numbers of up to 16 bits are exact in float32, and a rescale that is not exact there is worked out in float64.

References
----------
.. [1] DICOM PS3.3 C.11.1 (Modality LUT: Rescale Slope and Intercept, Modality LUT Sequence)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.pixels.processing import apply_modality_lut

from medseg.core.volume import count_non_finite
from medseg.errors import UnreadableImage
from medseg.io.dicom_frames import Frame

__all__ = ["rescale_into"]

_FAR_BELOW_INFINITY = 1e38  # float32 ends at 3.4e38


def rescale_into(
    frame: Frame, stored: NDArray[np.generic], out: NDArray[np.float32], divisor: np.float32 | None = None
) -> int:
    """Rescale by the frame's own slope and intercept, or through its lookup table, and divide.

    Parameters
    ----------
    frame
        What the stored numbers are rescaled by.
    stored
        (row, column), the frame's numbers as they are stored.
    out
        (row, column) float32, written to.
    divisor
        What the rescaled pixels are divided by (SUV), or None.

    Returns
    -------
    How many pixels are NaN or infinite then: 0 by proof where whole numbers cannot leave the range of float32, counted
    elsewhere.

    Raises
    ------
    UnreadableImage
        If the lookup table cannot be used.
    """
    exact = frame.slope == 1 and frame.intercept == int(frame.intercept) and abs(frame.intercept) < 2**22
    if frame.has_lut:
        out[:] = _through_lut(frame, stored)
    elif exact and stored.dtype.itemsize <= 2:
        out[:] = stored
        if frame.intercept:  # twice over the slice, but faster than one addition that casts on the way
            out += np.float32(frame.intercept)
    else:
        scratch = np.multiply(stored, frame.slope, dtype=np.float64)
        scratch += frame.intercept
        out[:] = scratch
    if divisor is not None:
        out /= divisor
    return 0 if _is_surely_finite(frame, stored.dtype, divisor) else count_non_finite(out)


def _is_surely_finite(frame: Frame, stored: np.dtype[Any], divisor: np.float32 | None) -> bool:
    """Whether no number of the stored type can leave the range of float32: whole numbers rescaled by usual factors."""
    if stored.kind not in "iu" or frame.has_lut:
        return False
    largest = 256.0**stored.itemsize * abs(frame.slope) + abs(frame.intercept)
    by = 1.0 if divisor is None else abs(float(divisor))
    return largest < _FAR_BELOW_INFINITY and by > 0 and largest / by < _FAR_BELOW_INFINITY


def _through_lut(frame: Frame, stored: NDArray[np.generic]) -> NDArray[np.generic]:
    path = frame.file.path
    try:
        tags = dcmread(path, stop_before_pixels=True, force=True, specific_tags=["ModalityLUTSequence"])
        mapped: NDArray[np.generic] = apply_modality_lut(stored, tags)
    except Exception as error:
        raise UnreadableImage(f"{path}: ModalityLUTSequence cannot be used: {error}") from error
    return mapped
