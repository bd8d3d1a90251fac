"""From class probabilities on the network's grid to a semantic map on the scan's own.

Probabilities are interpolated, then the most probable class is taken, slab by slab: no class map of the scan's full
size ever exists. Interpolating labels, or logits, gives other voxels at the lesion's border.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.core.semantic import SemanticMap
from medseg.io.resample import resampled_slabs

__all__ = ["softmax", "to_scan_grid"]


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities (N, I, J, K) of logits (N, I, J, K), both float32."""
    shifted: NDArray[np.float32] = logits - logits.max(axis=0, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=0, keepdims=True)
    return shifted


def to_scan_grid(
    probabilities: NDArray[np.float32], network_grid: Geometry, scan_grid: Geometry, scheme: LabelScheme
) -> SemanticMap:
    """The most probable class at each voxel of the scan, ties going to the lower class number.

    Parameters
    ----------
    probabilities
        (N, i, j, k) float32 on `network_grid`, channel 0 background, channel c class c.
    network_grid, scan_grid
        Where the network saw the scan, and the scan's own grid.
    scheme
        Names of the classes.

    Returns
    -------
    SemanticMap on `scan_grid`, with the probability of anything but background.
    """
    dtype = np.uint8 if scheme.highest <= np.iinfo(np.uint8).max else np.uint16
    classes = np.empty(scan_grid.shape, dtype=dtype)
    foreground = np.empty(scan_grid.shape, dtype=np.float32)
    for part, slab in resampled_slabs(probabilities, network_grid, scan_grid):
        classes[part] = slab.argmax(axis=0)
        foreground[part] = np.clip(1.0 - slab[0], 0.0, 1.0)
    return SemanticMap(classes, scan_grid, scheme, probability=foreground)
