"""Display: from intensities to gray, and from a grid of voxels to pixels that are square in millimeters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["GrayWindow", "gray_window", "pixel_shape", "resize_gray", "resize_labels"]

_CT_WINDOW_HU = (-160.0, 240.0)  # soft tissue: level 40, width 400
_CT_PROJECTION_WINDOW_HU = (-160.0, 1000.0)  # a maximum is mostly bone: white all over in the soft-tissue window
_PET_LOWEST_TOP = 5.0  # SUV; so that a scan without uptake does not show its noise as black
_ENOUGH_VOXELS = 2_000_000  # for percentiles


@dataclass(frozen=True)
class GrayWindow:
    """The intensities shown as black and white.

    Parameters
    ----------
    low, high
        Scan units, low < high.
    inverted
        True: high is black, as PET is read.
    """

    low: float
    high: float
    inverted: bool = False

    @property
    def background(self) -> int:
        """The gray (0..255) of everything at or below `low`."""
        return 255 if self.inverted else 0

    def to_gray(self, values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
        """Intensities of any shape as gray, uint8."""
        gray = np.clip((values.astype(np.float64) - self.low) / (self.high - self.low), 0.0, 1.0) * 255.0
        rounded = np.rint(255.0 - gray if self.inverted else gray)
        return rounded.astype(np.uint8)


def gray_window(values: NDArray[np.float32], modality: str | None, *, projection: bool = False) -> GrayWindow:
    """The window in which a scan is shown, in slices or in maximum intensity projections.

    Parameters
    ----------
    values
        (I, J, K) float32, scan units.
    modality
        DICOM modality code. "PT": inverted, 0 to the 99.9th percentile, at least 5 (SUV). "CT": -160 to 240 HU,
        in projections to 1000 HU. Anything else: 1st to 99th percentile.
    projection
        True for projections.
    """
    if modality == "CT":
        return GrayWindow(*(_CT_PROJECTION_WINDOW_HU if projection else _CT_WINDOW_HU))
    some = _thinned(values)
    if modality == "PT":
        return GrayWindow(0.0, max(_PET_LOWEST_TOP, float(np.percentile(some, 99.9))), inverted=True)
    low, high = (float(p) for p in np.percentile(some, (1.0, 99.0)))
    return GrayWindow(low, high) if high > low else GrayWindow(low, low + 1.0)


def pixel_shape(shape: tuple[int, int], spacing_mm: tuple[float, float], pixel_mm: float) -> tuple[int, int]:
    """Rows and columns of square pixels that cover a 2-D grid, at least 1 each."""
    return (
        max(1, round(shape[0] * spacing_mm[0] / pixel_mm)),
        max(1, round(shape[1] * spacing_mm[1] / pixel_mm)),
    )


def resize_gray(gray: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A gray picture at another size (rows, columns), smooth between voxels."""
    image = Image.fromarray(np.ascontiguousarray(gray))
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def resize_labels(labels: NDArray[np.unsignedinteger], shape: tuple[int, int]) -> NDArray[np.unsignedinteger]:
    """A label picture at another size (rows, columns): the label of the voxel under each pixel's center."""
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * size / n).astype(np.intp), size - 1)
        for n, size in zip(shape, labels.shape, strict=True)
    )
    return labels[np.ix_(rows, columns)]


def _thinned(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every n-th voxel on each axis, so that about two million are left: a percentile needs no more."""
    step = max(1, math.ceil((values.size / _ENOUGH_VOXELS) ** (1 / 3)))
    return values[::step, ::step, ::step]
