"""Uptake of tracer: SUVmax, mean and peak, metabolic volume and total lesion glycolysis at stated thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.choice import ALL, Choice
from medseg.core.table import Value
from medseg.lesions.bodies import LesionVoxels
from medseg.lesions.intensity import hottest_voxel
from medseg.lesions.peak import ball_mean, highest_ball_mean, peak_ball

__all__ = ["uptake_columns"]

_SHARES_OF_MAX = {"41pct": 0.41, "50pct": 0.50}
_SUV = {"suv2p5": 2.5, "suv4": 4.0}
_PEAK_PLACE = tuple(f"suv_peak_{axis}_lps_mm" for axis in "xyz")


def uptake_columns(
    voxels: LesionVoxels, channel: NDArray[Any], values: NDArray[Any], choice: Choice = ALL
) -> dict[str, list[Value]]:
    """Columns of uptake, entry n - 1 for lesion n.

    Parameters
    ----------
    voxels
        Of lesions 1..n.
    channel
        (I, J, K) SUV.
    values
        (N,) SUV of the lesions' voxels.
    choice
        Which columns are wanted; what none of them needs is not computed.

    References
    ----------
    Wahl RL et al. From RECIST to PERCIST. J Nucl Med 50:122S (2009): SUVpeak in a ball of 1 ml.
    """
    ball = peak_ball(voxels.geometry)
    voxel_ml = voxels.geometry.voxel_volume_ml
    rows: list[dict[str, Value]] = []
    has_peak, has_peak_at_max = choice.holds("suv_peak", *_PEAK_PLACE), choice.holds("suv_peak_at_max")
    for number, own in enumerate(voxels.split(values), start=1):
        row = _burden(own.astype(np.float64), voxel_ml)
        if has_peak:
            row["suv_peak"], center = highest_ball_mean(voxels, number, channel, ball)
            world = voxels.geometry.to_world(center) * [-1.0, -1.0, 1.0]
            row.update(zip(_PEAK_PLACE, world.tolist(), strict=True))
        if has_peak_at_max:
            indices = np.stack(voxels.of(number), axis=-1)
            hottest = indices[hottest_voxel(indices, own, voxels)].astype(np.int64)
            row["suv_peak_at_max"] = float(ball_mean(channel, hottest[None], ball)[0])
        rows.append(row)
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def _burden(values: NDArray[np.float64], voxel_ml: float) -> dict[str, Value]:
    """Maximum, mean, volume and glycolysis of the whole lesion and of its parts at or above each threshold."""
    highest, mean = float(values.max()), float(values.mean())
    row: dict[str, Value] = {
        "suv_max": highest,
        "suv_mean": mean,
        "mtv_ml": values.size * voxel_ml,
        "tlg_suv_ml": mean * values.size * voxel_ml,
    }
    thresholds = {**{name: share * highest for name, share in _SHARES_OF_MAX.items()}, **_SUV}
    for name, threshold in thresholds.items():
        above = values[values >= threshold]
        row[f"mtv_{name}_ml"] = above.size * voxel_ml
        row[f"tlg_{name}_suv_ml"] = float(above.sum()) * voxel_ml if above.size else None
    return row
