"""Intensity of each lesion in one channel: the IBSI's statistics and histogram, and where it is highest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.choice import ALL, Choice
from medseg.core.table import Value
from medseg.lesions.bodies import LesionVoxels

__all__ = [
    "CT_WINDOW_CENTERS_HU",
    "ct_windows",
    "histogram_entropy",
    "hottest_voxel",
    "intensity_columns",
    "intensity_statistics",
]

CT_WINDOW_CENTERS_HU = {"lung": -600.0, "soft_tissue": 40.0, "bone": 400.0}
"""Centers of the windows in which a CT is looked at, by name."""

_SAME = 1e-6  # mm, places that are told apart
_QUANTILES = {"p5": 0.05, "p10": 0.10, "p25": 0.25, "median": 0.50, "p75": 0.75, "p90": 0.90, "p95": 0.95}
_ORDER_COLUMNS = (
    *_QUANTILES,
    *("iqr", "robust_mean_absolute_deviation", "median_absolute_deviation", "quartile_coefficient"),
)
_HOTTEST = tuple(f"hottest_{axis}_lps_mm" for axis in "xyz")


def intensity_columns(
    voxels: LesionVoxels,
    values: NDArray[Any],
    mesh_volume_ml: Sequence[float],
    is_suv: bool,
    choice: Choice = ALL,
) -> dict[str, list[Value]]:
    """Columns of intensity, entry n - 1 for lesion n.

    Parameters
    ----------
    voxels
        Of lesions 1..n.
    values
        (N,) intensity of each of these voxels.
    mesh_volume_ml
        n numbers, for the integrated intensity if it is wanted.
    is_suv
        Whether bins are 0.25 SUV wide, or 25 of the scan's units.
    choice
        Which columns are wanted; what none of them needs is not computed.

    Returns
    -------
    One list a column of `medseg.core.columns_scan.INTENSITY`, without those of rim and margin.
    """
    rows: list[dict[str, Value]] = []
    in_order, center = choice.holds(*_ORDER_COLUMNS), choice.holds("center_of_mass_shift_mm")
    integrated, hottest = choice.holds("integrated_intensity"), choice.holds(*_HOTTEST)
    bins = [
        (name, width, is_own)
        for name, width, is_own in (("bin25", 25.0, not is_suv), ("bin0p25", 0.25, is_suv))
        if choice.holds(f"entropy_{name}_bits", f"uniformity_{name}")
    ]
    for number, own in enumerate(voxels.split(values), start=1):
        own = own.astype(np.float64)
        row = _moments(own)
        if in_order:
            row.update(_order_statistics(own))
        if integrated:
            row["integrated_intensity"] = float(row["mean"] or 0.0) * mesh_volume_ml[number - 1] * 1000.0
        for name, width, is_own in bins:
            entropy, uniformity = histogram_entropy(own, width) if is_own else (None, None)
            row[f"entropy_{name}_bits"], row[f"uniformity_{name}"] = entropy, uniformity
        if center:
            row["center_of_mass_shift_mm"] = _center_of_mass_shift(voxels, number, own)
        if hottest:
            row.update(zip(_HOTTEST, _hottest_place(voxels, number, own), strict=True))
        rows.append(row)
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def intensity_statistics(values: NDArray[np.float64]) -> dict[str, Value]:
    """Statistics of at least one intensity (N,), in float64; None where undefined.

    References
    ----------
    Zwanenburg A et al. The Image Biomarker Standardisation Initiative. Radiology 295:328 (2020), and its reference
    manual (2019), section 3.3. Percentiles are linear between the two nearest voxels, as numpy's.

    Examples
    --------
    >>> statistics = intensity_statistics(np.array([1.0, 1.0, 4.0]))
    >>> statistics["mean"], round(statistics["p90"], 6), round(statistics["kurtosis"], 6)
    (2.0, 3.4, -1.5)
    """
    return {**_moments(values), **_order_statistics(values)}


def _moments(values: NDArray[np.float64]) -> dict[str, Value]:
    """What needs no order of the intensities."""
    mean, lowest, highest = float(values.mean()), float(values.min()), float(values.max())
    deviations = values - mean
    squares = deviations * deviations
    variance = float(squares.mean())
    std = math.sqrt(variance)
    energy = float(np.dot(values, values))
    has_spread = highest > lowest
    return {
        "mean": mean,
        "std": std,
        "min": lowest,
        "max": highest,
        "variance": variance,
        "skewness": float((squares * deviations).mean()) / std**3 if has_spread else None,
        "kurtosis": float((squares * squares).mean()) / variance**2 - 3.0 if has_spread else None,
        "range": highest - lowest,
        "mean_absolute_deviation": float(np.abs(deviations).mean()),
        "coefficient_of_variation": std / mean if mean else None,
        "energy": energy,
        "rms": math.sqrt(energy / values.size),
    }


def _order_statistics(values: NDArray[np.float64]) -> dict[str, Value]:
    """What needs the intensities in order."""
    ordered = np.sort(values)
    quantiles = {name: _quantile(ordered, share) for name, share in _QUANTILES.items()}
    low, high = np.searchsorted(ordered, quantiles["p10"]), np.searchsorted(ordered, quantiles["p90"], side="right")
    middle = ordered[low:high]
    spread = quantiles["p75"] - quantiles["p25"]
    quartiles = quantiles["p75"] + quantiles["p25"]
    return {
        **quantiles,
        "iqr": spread,
        "robust_mean_absolute_deviation": float(np.abs(middle - middle.mean()).mean()) if middle.size else None,
        "median_absolute_deviation": float(np.abs(values - quantiles["median"]).mean()),
        "quartile_coefficient": spread / quartiles if quartiles else None,
    }


def ct_windows(medians: Sequence[Value]) -> list[Value]:
    """Name of the window whose center lies nearest to each median HU.

    Examples
    --------
    >>> ct_windows([-750.0, 30.0, 800.0])
    ['lung', 'soft_tissue', 'bone']
    """

    def nearest(median: Value) -> Value:
        distances = {name: abs(float(median or 0.0) - center) for name, center in CT_WINDOW_CENTERS_HU.items()}
        return min(distances, key=lambda name: distances[name])

    return [nearest(median) for median in medians]


def _quantile(ordered: NDArray[np.float64], share: float) -> float:
    place = share * (ordered.size - 1)
    below = int(place)
    above = min(below + 1, ordered.size - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))


def histogram_entropy(values: NDArray[np.float64], bin_width: float) -> tuple[float, float]:
    """Entropy in bits and uniformity of the histogram of intensities (N,); bins start at multiples of their width."""
    bins = np.floor(values / bin_width)
    bins -= bins.min()
    if bins.max() < 4 * values.size + 1024:
        counts = np.bincount(bins.astype(np.int64))
    else:  # few voxels of very different intensity
        counts = np.unique(bins, return_counts=True)[1]
    shares = counts[counts > 0] / values.size
    return max(0.0, float(-(shares * np.log2(shares)).sum())), float(np.square(shares).sum())


def _center_of_mass_shift(voxels: LesionVoxels, number: int, values: NDArray[np.float64]) -> Value:
    """Mm from the centroid to the one weighted by intensity."""
    total = float(values.sum())
    weighted = values @ (np.stack(voxels.of(number), axis=-1) - voxels.mean_index[number - 1])
    return float(np.linalg.norm(voxels.geometry.affine[:3, :3] @ weighted / total)) if total else None


def _hottest_place(voxels: LesionVoxels, number: int, values: NDArray[np.float64]) -> list[float]:
    """LPS of the hottest voxel."""
    indices = np.stack(voxels.of(number), axis=-1)
    place = voxels.geometry.to_world(indices[hottest_voxel(indices, values, voxels)]) * [-1.0, -1.0, 1.0]
    return [float(x) for x in place]


def hottest_voxel(indices: NDArray[Any], values: NDArray[Any], voxels: LesionVoxels) -> int:
    """Which voxel is highest; of equals the first by world x, then y, then z, however the grid is stored."""
    highest = np.flatnonzero(values == values.max())
    if highest.size == 1:
        return int(highest[0])
    places = np.round(voxels.geometry.to_world(indices[highest]) / _SAME)
    return int(highest[np.lexsort(places.T[::-1])[0]])
