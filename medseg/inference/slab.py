"""Slab: some rows of a network's outputs that are final."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from medseg.inference.engine import Heads
from medseg.inference.windows import Axis

__all__ = ["INTERPOLATED", "SEMANTIC", "Slab"]

SEMANTIC = "semantic"
INTERPOLATED = "interpolated"  # in place of SEMANTIC: activated values that lie on the scan's own grid already


@dataclass(frozen=True, eq=False)
class Slab:
    """Rows of the network's grid that are done.

    Parameters
    ----------
    axis
        The axis of the image along which slabs follow each other.
    start, stop
        First row and the row after the last.
    heads
        Name to (rows, m, n, N) on the CPU: the slab's axis first, the other two in the image's order, channels last.
        float32, or float16 where sums were kept so. Empty if no window touched anything yet.
    covered
        (rows, m, n) bool, where a window was; None for everywhere. What none covered is background.
    """

    axis: Axis
    start: int
    stop: int
    heads: Heads
    covered: torch.Tensor | None = None

    def logits(self, background: Callable[[], NDArray[np.float32]]) -> torch.Tensor:
        """Logits (rows, m, n, N) of the "semantic" head; `background` gives (N,) those of what no window covered."""
        values = self.heads.get(SEMANTIC)
        if self.covered is None and values is not None:
            return values
        if self.covered is None:
            raise AssertionError("a slab without heads says what is covered")
        filling = torch.from_numpy(background())
        if values is None:
            return filling.expand((*self.covered.shape, len(filling))).contiguous()
        return torch.where(self.covered[..., None], values, filling.to(values.dtype))
