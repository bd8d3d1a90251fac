"""Intensity of each lesion: mean, standard deviation, minimum, maximum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.lesions.foreground import Foreground, lesion_means

__all__ = ["IntensityStatistics", "intensity_statistics"]


@dataclass(frozen=True, eq=False)
class IntensityStatistics:
    """Each (n,) float64 in the unit of the scan, entry n - 1 for lesion n; `std` is the population's (divides by N)."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]


def intensity_statistics(foreground: Foreground, n_lesions: int, intensities: NDArray[Any]) -> IntensityStatistics:
    """Summarize the intensities of each lesion.

    Sums run in float64, and the deviation is taken from the mean in a second sum: intensities far from 0 (Bq/ml) lose
    no digits.

    Parameters
    ----------
    foreground
        Voxels whose numbers are exactly 1..n.
    n_lesions
        n.
    intensities
        (I, J, K) float32, one channel of a scan on the same grid.

    Returns
    -------
    Four statistics for each lesion.

    References
    ----------
    Zwanenburg A et al. The Image Biomarker Standardisation Initiative. Radiology 295:328 (2020): mean Q4LE, variance
    ECT3, minimum 1GSF, maximum 84IY.
    """
    values = intensities[foreground.indices].astype(np.float64)
    mean = lesion_means(foreground, n_lesions, values)
    deviations = values - mean[foreground.numbers - 1]
    lowest, highest = np.full(n_lesions, np.inf), np.full(n_lesions, -np.inf)
    np.minimum.at(lowest, foreground.numbers - 1, values)
    np.maximum.at(highest, foreground.numbers - 1, values)
    return IntensityStatistics(mean, np.sqrt(lesion_means(foreground, n_lesions, deviations**2)), lowest, highest)
