"""Figures of a whole scan, from the columns of its lesions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from medseg.core.table import Value

__all__ = ["longest_separation", "scan_totals"]

_HULL_PAYS_FROM = 500


def scan_totals(columns: Mapping[str, Sequence[Any]], n_lesions: int, has_suv: bool) -> dict[str, Value]:
    """Totals as `medseg.core.columns_context.TOTALS` lists them; None without their column."""

    def total(name: str) -> Value:
        return float(sum(columns[name])) if name in columns else None

    def highest(name: str) -> Value:
        return max(columns[name], default=None) if name in columns else None

    places = [f"centroid_{axis}_lps_mm" for axis in "xyz"]
    is_placed = n_lesions > 1 and all(place in columns for place in places)
    below_recist = columns.get("is_below_recist")
    return {
        "n_lesions": n_lesions,
        "n_recist_measurable": None if below_recist is None else n_lesions - sum(map(bool, below_recist)),
        "volume_ml": total("volume_ml"),
        "longest_diameter_sum_mm": total("longest_diameter_mm"),
        "who_product_sum_mm2": total("who_product_mm2"),
        "largest_longest_diameter_mm": highest("longest_diameter_mm"),
        "suv_max": highest("suv_max") if has_suv else None,
        "suv_peak": highest("suv_peak") if has_suv else None,
        "mtv_ml": total("mtv_ml") if has_suv else None,
        "tlg_suv_ml": total("tlg_suv_ml") if has_suv else None,
        "dissemination_mm": longest_separation(np.stack([columns[place] for place in places], axis=-1))
        if is_placed
        else None,
    }


def longest_separation(points: NDArray[np.float64]) -> float:
    """Longest distance between two of the points (P, 3), P at least 2; beyond some hundred, of their convex hull."""
    if len(points) >= _HULL_PAYS_FROM:
        centered = points - points.mean(axis=0)
        _, sizes, axes = np.linalg.svd(centered, full_matrices=False)
        rank = int(np.count_nonzero(sizes > 1e-9 * max(float(sizes[0]), 1e-300)))
        if rank < 2:
            return float(np.ptp(centered @ axes[0]))
        points = points[ConvexHull(centered @ axes[:rank].T).vertices]
    return float(pdist(points).max())
