"""How sure the model is of each lesion, and the volume that its probabilities add up to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medseg.core.columns_context import CONFIDENCE
from medseg.core.table import Value
from medseg.lesions.bodies import LesionVoxels
from medseg.lesions.shells import dilate

__all__ = ["CONFIDENCE_COLUMNS", "confidence_columns"]

CONFIDENCE_COLUMNS = (*(column.name for column in CONFIDENCE), "partial_volume_ml", "partial_volume_std_ml")
"""What `confidence_columns` gives."""

_TOUCHING = np.array([step for step in np.ndindex(3, 3, 3) if step != (1, 1, 1)]) - 1


def confidence_columns(voxels: LesionVoxels, probabilities: NDArray[np.float32]) -> dict[str, list[Value]]:
    """Columns of confidence and partial volume from the probability (I, J, K) of anything but background, 0..1."""
    rows: list[dict[str, Value]] = []
    voxel_ml = voxels.geometry.voxel_volume_ml
    for number, own in enumerate(voxels.split(voxels.read(probabilities)), start=1):
        own = own.astype(np.float64)
        around = _touching(voxels, number, probabilities)
        both = np.concatenate([own, around])
        rows.append(
            {
                "probability_mean": float(own.mean()),
                "probability_median": float(np.median(own)),
                "probability_min": float(own.min()),
                "probability_max": float(own.max()),
                "probability_entropy_bits": float(_entropy(own).mean()),
                "partial_volume_ml": float(both.sum()) * voxel_ml,
                "partial_volume_std_ml": float(np.sqrt((both * (1.0 - both)).sum())) * voxel_ml,
            }
        )
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def _touching(voxels: LesionVoxels, number: int, probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probability of the background voxels that touch the lesion, if only at a corner."""
    box = voxels.box(number, (1, 1, 1))
    labels = voxels.labels[box]
    around: NDArray[np.float64] = probabilities[box][dilate(labels == number, _TOUCHING) & (labels == 0)].astype(
        np.float64
    )
    return around


def _entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(p, 1e-300, 1.0)
    outside = np.clip(1.0 - p, 1e-300, 1.0)
    entropy: NDArray[np.float64] = -(p * np.log2(inside) + (1.0 - p) * np.log2(outside))
    return entropy
