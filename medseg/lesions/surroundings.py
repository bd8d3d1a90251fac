"""Intensity in the rim and in the margin of each lesion, for one channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.table import Value
from medseg.lesions.bodies import LesionVoxels
from medseg.lesions.foreground import Box
from medseg.lesions.shells import ball_steps, dilate, steps_margin

__all__ = ["Shell", "lesion_shells", "shell_columns"]

_THICKNESS_MM = 3.0


class Shell:
    """Rim and margin of one lesion as flat places in its box."""

    def __init__(self, box: Box, rim: NDArray[np.bool_], margin: NDArray[np.bool_]) -> None:
        self.box = box
        self.rim = np.nonzero(rim)
        self.margin = np.nonzero(margin)


def lesion_shells(voxels: LesionVoxels) -> list[Shell]:
    """Rim and margin of 3 mm of every lesion.

    The rim is what lies in the lesion within 3 mm of a voxel outside it, the margin what lies in no lesion within 3 mm
    of a voxel of it, center to center. Beyond the scan lies nothing, neither lesion nor outside.
    """
    steps = ball_steps(voxels.geometry, _THICKNESS_MM)
    margin = steps_margin(steps)
    shells = []
    for number in range(1, voxels.n_lesions + 1):
        box = voxels.box(number, (margin[0] + 1, margin[1] + 1, margin[2] + 1))
        labels = voxels.labels[box]
        inside = labels == number
        rim = dilate(~inside, steps) & inside
        around = dilate(inside, steps) & (labels == 0)
        shells.append(Shell(box, rim, around))
    return shells


def shell_columns(
    shells: Sequence[Shell],
    channel: NDArray[Any],
    means: Sequence[Value],
    organs: NDArray[Any] | None,
    hosts: Sequence[int],
) -> dict[str, list[Value]]:
    """Columns of rim and margin.

    Parameters
    ----------
    shells
        Of lesions 1..n.
    channel
        (I, J, K) intensities.
    means
        Mean of each lesion.
    organs
        (I, J, K) organ numbers, or None.
    hosts
        Organ number of each lesion, 0 for none.
    """
    rows: list[dict[str, Value]] = []
    for shell, mean, host in zip(shells, means, hosts, strict=True):
        part = channel[shell.box]
        rim, margin = part[shell.rim].astype(np.float64), part[shell.margin].astype(np.float64)
        margin_mean = _mean(margin)
        in_organ = margin[organs[shell.box][shell.margin] == host] if organs is not None and host else margin[:0]
        rows.append(
            {
                "rim_3mm_n_voxels": rim.size,
                "rim_3mm_mean": _mean(rim),
                "rim_3mm_std": _std(rim),
                "margin_3mm_n_voxels": margin.size,
                "margin_3mm_mean": margin_mean,
                "margin_3mm_std": _std(margin),
                "margin_3mm_contrast": None
                if margin_mean is None or not isinstance(mean, float)
                else mean - margin_mean,
                "organ_margin_3mm_mean": _mean(in_organ),
            }
        )
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if values.size else None


def _std(values: NDArray[np.float64]) -> float | None:
    return float(values.std()) if values.size else None
