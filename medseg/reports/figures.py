"""Figures: key images of lesions and an overview of the case, as WebP bytes.

Equal input gives equal bytes: no time, no random color.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from medseg.core.geometry import Geometry
from medseg.core.lesions import LesionMap
from medseg.core.volume import Volume
from medseg.lesions.foreground import Foreground, find_foreground
from medseg.reports.display import GrayWindow, pixel_shape, resize_gray, resize_labels
from medseg.reports.marks import draw_directions, draw_line, draw_scale_bar, write
from medseg.reports.outlines import paint_outlines
from medseg.reports.planes import Plane, View, plane_of

__all__ = ["FIELD_MM", "key_image", "key_slices", "overview"]

FIELD_MM = 240.0
"""Millimeters that a key image shows about its lesion; more if the lesion is larger than half of that."""

_LONGEST_SIDE_PX = 336
_QUALITY = 85
_OVERVIEW_SIDE_PX = 384
_OVERVIEW_GAP_PX = 4
_GAP_COLOR = (128, 128, 128)
_MOST_NUMBERS = 50  # in the overview; more would hide the picture

Box2D = tuple[slice, slice]


def key_slices(lesions: LesionMap) -> NDArray[np.intp]:
    """The axial slice in which each lesion is largest: (n,) int, index on the grid's axial axis.

    The first of several that are equally large.
    """
    axis = lesions.geometry.axial_axis
    n_slices = lesions.geometry.shape[axis]
    foreground = find_foreground(lesions.array)
    keys = (foreground.numbers.astype(np.intp) - 1) * n_slices + foreground.indices[axis]
    counts = np.bincount(keys, minlength=lesions.n_lesions * n_slices)
    slices: NDArray[np.intp] = counts.reshape(lesions.n_lesions, n_slices).argmax(axis=1)
    return slices


def key_image(
    volume: Volume,
    lesions: LesionMap,
    window: GrayWindow,
    lesion_id: int,
    slice_index: int | None = None,
    ends: NDArray[np.float64] | None = None,
    *,
    lossless: bool = False,
) -> bytes:
    """One lesion in the axial slice where it is largest, outlined; other lesions in the slice outlined thinner.

    Parameters
    ----------
    volume
        The scan; its first channel is shown.
    lesions
        The lesions, on the same grid.
    window
        What is shown black and white.
    lesion_id
        Which lesion, from 1.
    slice_index
        Index on the axial axis; None finds the slice.
    ends
        (2, 3) RAS+ millimeters, ends of a line to draw, such as the longest diameter.
    lossless
        Keep every pixel as it was drawn; larger.

    Returns
    -------
    WebP bytes: patient right on the left, front up, pixels square in millimeters, the longer side 336 pixels.
    """
    plane = plane_of(lesions.geometry, "axial")
    index = int(key_slices(lesions)[lesion_id - 1]) if slice_index is None else slice_index
    at = tuple(index if axis == plane.axis else slice(None) for axis in range(3))  # a view: np.take copies whole scans
    values, labels = plane.show(volume.array[0][at]), plane.show(lesions.array[at])
    box = _field_about(labels == lesion_id, plane.spacing_mm)
    pixel_mm = _pixel_mm(labels[box].shape, plane.spacing_mm, _LONGEST_SIDE_PX)
    picture = _outlined(values[box], labels[box], plane, window, pixel_mm, lesion_id)
    image = Image.fromarray(picture)
    if ends is not None:
        draw_line(image, _in_picture(lesions.geometry, plane, box, pixel_mm, ends))
    draw_directions(image, plane, window)
    draw_scale_bar(image, pixel_mm, window)
    return _webp(image, lossless=lossless)


def _in_picture(
    geometry: Geometry, plane: Plane, box: Box2D, pixel_mm: float, points: NDArray[np.float64]
) -> list[tuple[float, float]]:
    """Where world points lie in the picture of a part of a slice: (x, y) pixels."""
    voxels = geometry.to_voxel(points)
    placed = []
    for axis, flip, start, spacing in (
        (plane.right, plane.flip_right, box[1].start, plane.spacing_mm[1]),
        (plane.down, plane.flip_down, box[0].start, plane.spacing_mm[0]),
    ):
        along = geometry.shape[axis] - 1 - voxels[:, axis] if flip else voxels[:, axis]
        placed.append((along - start + 0.5) * spacing / pixel_mm)
    return list(zip(placed[0].tolist(), placed[1].tolist(), strict=True))


def overview(volume: Volume, lesions: LesionMap, window: GrayWindow, *, lossless: bool = False) -> bytes:
    """Maximum intensity projections from the front and from the left, with the outlines of all lesions.

    Where lesions lie behind each other, the smaller one is drawn on top.

    Parameters
    ----------
    volume, lesions, window, lossless
        As `key_image`.

    Returns
    -------
    WebP bytes: coronal and sagittal projection side by side at one scale, head up.
    """
    foreground = find_foreground(lesions.array)
    views: tuple[View, ...] = ("coronal", "sagittal")
    planes = [plane_of(lesions.geometry, view) for view in views]
    shape = lesions.geometry.shape
    pixel_mm = max(_pixel_mm((shape[p.down], shape[p.right]), p.spacing_mm, _OVERVIEW_SIDE_PX) for p in planes)
    panels = [_projection(volume, lesions, foreground, plane, window, pixel_mm) for plane in planes]
    return _webp(_side_by_side(panels), lossless=lossless)


def _projection(
    volume: Volume, lesions: LesionMap, foreground: Foreground, plane: Plane, window: GrayWindow, pixel_mm: float
) -> Image.Image:
    values = plane.show(volume.array[0].max(axis=plane.axis))
    labels = plane.show(_projected_labels(lesions, foreground, plane.axis))
    image = Image.fromarray(_outlined(values, labels, plane, window, pixel_mm))
    draw_directions(image, plane, window)
    _draw_numbers(image, lesions, plane, window, pixel_mm)
    return image


def _projected_labels(lesions: LesionMap, foreground: Foreground, axis: int) -> NDArray[np.unsignedinteger]:
    """Lesion numbers seen along an axis, the smaller lesion (the higher number) in front."""
    shape = [n for other, n in enumerate(lesions.geometry.shape) if other != axis]
    labels = np.zeros(shape, dtype=lesions.array.dtype)
    first, second = (indices for other, indices in enumerate(foreground.indices) if other != axis)
    np.maximum.at(labels, (first, second), foreground.numbers)
    return labels


def _field_about(mask: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> Box2D:
    """The part of a slice to show: a square field about the lesion, moved so that it stays inside the slice."""
    extents = [np.flatnonzero(mask.any(axis=1 - axis)) for axis in range(2)]
    sides_mm = [(e[-1] - e[0] + 1) * s for e, s in zip(extents, spacing_mm, strict=True)]
    field_mm = max(FIELD_MM, 2.0 * max(sides_mm))
    rows, columns = (
        _span((int(e[0]) + int(e[-1]) + 1) / 2.0, round(field_mm / s), size)
        for e, s, size in zip(extents, spacing_mm, mask.shape, strict=True)
    )
    return rows, columns


def _span(center: float, length: int, size: int) -> slice:
    length = min(max(length, 1), size)
    start = min(max(round(center - length / 2.0), 0), size - length)
    return slice(start, start + length)


def _pixel_mm(shape: tuple[int, ...], spacing_mm: tuple[float, float], side_px: int) -> float:
    return max(shape[0] * spacing_mm[0], shape[1] * spacing_mm[1]) / side_px


def _outlined(
    values: NDArray[np.float32],
    labels: NDArray[np.unsignedinteger],
    plane: Plane,
    window: GrayWindow,
    pixel_mm: float,
    emphasized: int | None = None,
) -> NDArray[np.uint8]:
    """A gray picture (rows, columns, 3) with lesion outlines."""
    shape = pixel_shape((labels.shape[0], labels.shape[1]), plane.spacing_mm, pixel_mm)
    gray = resize_gray(window.to_gray(values), shape)
    picture = np.repeat(gray[:, :, None], 3, axis=2)
    paint_outlines(picture, resize_labels(labels, shape), emphasized)
    return picture


def _draw_numbers(image: Image.Image, lesions: LesionMap, plane: Plane, window: GrayWindow, pixel_mm: float) -> None:
    """The number of each of the largest lesions, right of its projection."""
    boxes = ndimage.find_objects(lesions.array, min(lesions.n_lesions, _MOST_NUMBERS)) if lesions.n_lesions else []
    for lesion_id, box in enumerate(boxes, start=1):
        down, right = plane.extent(box, lesions.geometry.shape)
        y = (down.start + down.stop) / 2.0 * plane.spacing_mm[0] / pixel_mm
        x = right.stop * plane.spacing_mm[1] / pixel_mm + 3.0
        is_at_edge = x > image.width - 14
        write(image, (image.width - 2 if is_at_edge else x, y), str(lesion_id), "rm" if is_at_edge else "lm", window)


def _side_by_side(panels: list[Image.Image]) -> Image.Image:
    width = sum(panel.width for panel in panels) + _OVERVIEW_GAP_PX * (len(panels) - 1)
    height = max(panel.height for panel in panels)
    sheet = Image.new("RGB", (width, height), _GAP_COLOR)
    x = 0
    for panel in panels:
        sheet.paste(panel, (x, 0))
        x += panel.width + _OVERVIEW_GAP_PX
    return sheet


def _webp(image: Image.Image, *, lossless: bool) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", lossless=lossless, quality=_QUALITY, method=4)
    return buffer.getvalue()
