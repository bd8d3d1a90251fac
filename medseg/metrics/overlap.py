"""How much two masks, or pairs of lesions, overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GridMismatch, InvalidLabelMap
from medseg.metrics.contingency import Contingency

__all__ = ["dice", "dice_of_counts", "iou_of_counts", "pair_scores", "relative_difference"]


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


def dice_of_counts(shared: float, first: float, second: float) -> float | None:
    """Dice from voxels shared and voxels of each; None when both are empty."""
    return 2.0 * shared / (first + second) if first + second else None


def iou_of_counts(shared: float, first: float, second: float) -> float | None:
    """Intersection over union from voxels shared and voxels of each; None when both are empty."""
    return shared / (first + second - shared) if first + second else None


def relative_difference(prediction: float, reference: float) -> float | None:
    """Prediction minus reference over reference; None where the reference is 0."""
    return (prediction - reference) / reference if reference else None


def pair_scores(table: Contingency, by: str = "iou", epsilon: float = 0.0) -> NDArray[np.float64]:
    """IoU, Dice or overlap of every pair of lesions that shares voxels.

    Parameters
    ----------
    table
        Voxel counts.
    by
        "iou", "dice", or "overlap": the share of the reference's voxels that are predicted.
    epsilon
        Added to numerator and denominator.

    Returns
    -------
    (M,) float64, 0..1, in the order of the table's pairs.
    """
    shared = table.shared_voxels.astype(np.float64)
    prediction = table.prediction_voxels[table.prediction - 1].astype(np.float64)
    reference = table.reference_voxels[table.reference - 1].astype(np.float64)
    numerator, denominator = {
        "iou": (shared, prediction + reference - shared),
        "dice": (2.0 * shared, prediction + reference),
        "overlap": (shared, reference),
    }[by]
    scores: NDArray[np.float64] = (numerator + epsilon) / (denominator + epsilon)
    return scores
