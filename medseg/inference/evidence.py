"""Evidence: the instance heads, kept only where there may be lesions.

A network's center and offset heads over a whole scan are four channels that nobody looks at outside of lesions. So each
slab keeps the box around its foreground, in float16, and at the end one array spans them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from medseg.core.evidence import InstanceEvidence
from medseg.core.geometry import Geometry
from medseg.inference.decide import Decision
from medseg.inference.slab import SEMANTIC, Slab
from medseg.networks.heads import CENTER, OFFSET

__all__ = ["EvidenceCollector"]

_LEAST_FOREGROUND = 0.02  # probability below which no voxel of the scan becomes a lesion's by interpolation
_MARGIN = 1  # voxels around foreground that interpolation reaches


@dataclass(frozen=True, eq=False)
class _Part:
    """Heads (4, i, j, k) float16 of the box of one slab that begins at `low`."""

    low: NDArray[np.int_]
    heads: NDArray[np.float16]


class EvidenceCollector:
    """Looks at slabs on their way to the painter.

    Parameters
    ----------
    grid
        The network's grid.
    decision
        Tells foreground from logits.
    """

    def __init__(self, grid: Geometry, decision: Decision) -> None:
        self._grid, self._decision = grid, decision
        self._parts: list[_Part] = []
        self._has_heads = False

    def watching(self, slabs: Iterable[Slab]) -> Iterator[Slab]:
        """The same slabs."""
        for slab in slabs:
            if CENTER in slab.heads and OFFSET in slab.heads:
                self._has_heads = True
                self._keep(slab)
            yield slab

    def evidence(self) -> InstanceEvidence | None:
        """What was kept, once all slabs have passed; None if the network has no instance heads, or saw nothing."""
        if not self._has_heads or not self._parts:
            return None
        low = np.min([part.low for part in self._parts], axis=0)
        high = np.max([part.low + part.heads.shape[1:] for part in self._parts], axis=0)
        heads = np.zeros((4, *(high - low)), dtype=np.float16)
        for part in self._parts:
            start = part.low - low
            i, j, k = (slice(a, a + n) for a, n in zip(start.tolist(), part.heads.shape[1:], strict=True))
            heads[:, i, j, k] = part.heads
        return InstanceEvidence(heads[0], heads[1:], self._grid.cropped(low.tolist(), high.tolist()))

    def _keep(self, slab: Slab) -> None:
        logits = slab.heads[SEMANTIC]
        foreground = self._decision.foreground(self._decision.before_interpolation(logits)) > _LEAST_FOREGROUND
        voxels = foreground.nonzero().numpy()
        if not len(voxels):
            return
        low = np.maximum(voxels.min(axis=0) - _MARGIN, 0)
        high = np.minimum(voxels.max(axis=0) + 1 + _MARGIN, foreground.shape)
        i, j, k = (slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
        kept = torch.cat([slab.heads[CENTER][i, j, k], slab.heads[OFFSET][i, j, k]], dim=-1)
        in_order = np.moveaxis(np.moveaxis(kept.numpy().astype(np.float16), -1, 0), 1, slab.axis + 1)
        start = low.copy()
        start[0] += slab.start
        others = [axis for axis in range(3) if axis != slab.axis]
        begin = np.empty(3, dtype=int)
        begin[[slab.axis, *others]] = start
        self._parts.append(_Part(begin, in_order))
