"""How much two masks overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GridMismatch, InvalidLabelMap

__all__ = ["dice"]


def dice(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float | None:
    """Dice coefficient of two masks: twice the voxels in both over the voxels in each, summed.

    Parameters
    ----------
    prediction
        Bool, any shape.
    reference
        Bool, the same shape.

    Returns
    -------
    0..1; None when both masks are empty, where the coefficient is 0 / 0.

    Raises
    ------
    GridMismatch
        If the shapes differ.
    InvalidLabelMap
        If an array is not bool: which classes or lesions count is the caller's choice (`semantic.array == 1`).

    References
    ----------
    Dice LR. Measures of the amount of ecologic association between species. Ecology 26:297 (1945).

    Examples
    --------
    >>> dice(np.array([True, True, False]), np.array([True, False, False]))
    0.6666666666666666
    """
    if prediction.shape != reference.shape:
        raise GridMismatch(f"Dice needs masks of one shape; got {prediction.shape} and {reference.shape}")
    for side, mask in (("prediction", prediction), ("reference", reference)):
        if mask.dtype != np.bool_:
            raise InvalidLabelMap(f"Dice needs bool masks; the {side} is {mask.dtype} (write `array > 0`)")
    n_voxels = np.count_nonzero(prediction) + np.count_nonzero(reference)
    if n_voxels == 0:
        return None
    return float(2 * np.count_nonzero(prediction & reference) / n_voxels)
