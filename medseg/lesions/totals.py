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
    """Totals as `medseg.core.columns_context.TOTALS` lists them."""
    centroids = np.stack([np.array(columns[f"centroid_{axis}_lps_mm"], dtype=np.float64) for axis in "xyz"], axis=-1)
    return {
        "n_lesions": n_lesions,
        "n_recist_measurable": n_lesions - sum(map(bool, columns["is_below_recist"])),
        "volume_ml": float(sum(columns["volume_ml"])),
        "longest_diameter_sum_mm": float(sum(columns["longest_diameter_mm"])),
        "who_product_sum_mm2": float(sum(columns["who_product_mm2"])),
        "largest_longest_diameter_mm": max(columns["longest_diameter_mm"], default=None),
        "suv_max": max(columns["suv_max"], default=None) if has_suv else None,
        "suv_peak": max(columns["suv_peak"], default=None) if has_suv else None,
        "mtv_ml": float(sum(columns["mtv_ml"])) if has_suv else None,
        "tlg_suv_ml": float(sum(columns["tlg_suv_ml"])) if has_suv else None,
        "dissemination_mm": longest_separation(centroids) if n_lesions > 1 else None,
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
