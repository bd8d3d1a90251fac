"""Faint findings: what a network marks where a scan shows no intensity that a lesion could have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medseg.core.semantic import SemanticMap
from medseg.core.volume import Volume
from medseg.lesions.components import label_components

__all__ = ["without_faint"]


def without_faint(semantic: SemanticMap, volume: Volume, least_peak: float) -> tuple[SemanticMap, str | None]:
    """Take components out of a map that nowhere reach an intensity.

    A network that normalizes its features has an opinion on a scan of nothing too; this rule has none.

    Parameters
    ----------
    semantic
        The map.
    volume
        The scan on the same grid; its first channel is looked at, in its own unit.
    least_peak
        The intensity that a 26-connected component of the foreground must reach in at least one voxel.

    Returns
    -------
    The map without them, and a note that counts them; the map itself and None if there are none.
    """
    labels, n_components = label_components((semantic.array > 0).astype(np.uint8), connectivity=26)
    peaks = np.full(n_components + 1, -np.inf, dtype=np.float32)
    foreground = labels > 0
    np.maximum.at(peaks, labels[foreground], volume.array[0][foreground])
    is_faint = peaks < least_peak
    is_faint[0] = False
    if not is_faint.any():
        return semantic, None
    out = is_faint[labels]
    kept = np.where(out, 0, semantic.array).astype(semantic.array.dtype)
    ml = np.count_nonzero(out) * semantic.geometry.voxel_volume_ml
    note = f"left out {int(is_faint.sum())} region(s) of {ml:.3g} ml in which the scan nowhere reaches {least_peak:g}"
    return replace(semantic, array=kept), note
