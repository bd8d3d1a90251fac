"""Window readers: the network's input, window by window.

A scan whose intensities are only mapped is not copied as a whole: each window is mapped as it is read.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from medseg.core.recipe import WindowPlan
from medseg.inference.windows import Layout, Position, padded_image
from medseg.transforms.prepared import Prepared

__all__ = ["WindowReader", "tensor_reader", "window_reader"]

WindowReader = Callable[[Position], torch.Tensor]
"""From a window's position in the padded image to its voxels, (C, i, j, k) float32 on the CPU; not to be changed."""


def window_reader(prepared: Prepared, layout: Layout, plan: WindowPlan) -> WindowReader:
    """Reads windows of a prepared scan; what is pending is done to each, unless the scan has to be padded anyway.

    Parameters
    ----------
    prepared
        The network's input.
    layout, plan
        Windows, from `lay_windows`, and the plan that they were laid by.
    """
    pending = prepared.pending
    if pending is None or layout.padded_shape != layout.shape:
        # a scan that no step changed is the caller's, and read-only: torch wants arrays that may be written to
        image = torch.from_numpy(np.require(prepared.finished().image, np.float32, ("C", "W")))
        return tensor_reader(padded_image(image, layout, plan), layout)

    def read(position: Position) -> torch.Tensor:
        window = np.array(prepared.image[_part_at(position, layout)], np.float32, order="C")
        pending(window)
        return torch.from_numpy(window)

    return read


def tensor_reader(padded: torch.Tensor, layout: Layout) -> WindowReader:
    """Reads windows of an image (C, i, j, k) that is padded to the layout."""
    return lambda position: padded[_part_at(position, layout)].to(torch.float32)


def _part_at(position: Position, layout: Layout) -> tuple[slice, ...]:
    return (slice(None), *(slice(a, a + side) for a, side in zip(position, layout.window, strict=True)))
