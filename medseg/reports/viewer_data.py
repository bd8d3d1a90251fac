"""What the viewer of a page holds: the scan cut to the body, thinned if need be, in 256 levels; and its lesions.

The grid is turned so that x runs to the patient's left, y to the back and z to the head, as the pictures are drawn.
Levels lie closer together where they matter, so that any window can be chosen in the browser. Equal input gives equal
bytes.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.lesions import LesionMap
from medseg.core.volume import Volume
from medseg.reports.planes import plane_of

__all__ = ["MOST_BYTES", "ViewerGrid", "ViewerVoxels", "viewer_voxels"]

MOST_BYTES = 10_500_000
"""Of packed voxels; as text in the page a third more."""

_MOST_VOXELS = 24_000_000
_MARGIN_MM = 10.0
_CT_BODY_HU = -300.0
_GZIP_LEVEL = 5
_TABLE_ENTRIES = 1 << 14
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

Triple = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class ViewerGrid:
    """The grid in the page, and how it is taken from the scan's.

    Parameters
    ----------
    axes, flips
        The scan's axis that becomes x, y and z, and whether it is turned.
    low, factors
        First voxel on each turned axis, and how many voxels become one.
    geometry
        The resulting grid.
    """

    axes: Triple
    flips: tuple[bool, bool, bool]
    low: Triple
    high: Triple
    factors: Triple
    geometry: Geometry

    def turned(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array on the scan's grid, turned and cut; a view."""
        steps = tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)
        box = tuple(slice(low, high) for low, high in zip(self.low, self.high, strict=True))
        cut: NDArray[Any] = array.transpose(self.axes)[steps][box]
        return cut

    def from_world(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Voxels of the page's grid, fractional, of RAS+ millimeters (..., 3)."""
        return self.geometry.to_voxel(points)

    @property
    def lps(self) -> NDArray[np.float64]:
        """(4, 4) voxel of the page's grid to LPS millimeters."""
        affine: NDArray[np.float64] = _RAS_TO_LPS @ self.geometry.affine
        return affine


@dataclass(frozen=True, eq=False)
class ViewerVoxels:
    """Packed voxels, what each level stands for, and what was done to get there."""

    grid: ViewerGrid
    levels: NDArray[np.float64]
    scan: bytes
    lesions: bytes
    label_bytes: int
    note: str


def viewer_voxels(
    volume: Volume, lesions: LesionMap, modality: str | None, most_bytes: int = MOST_BYTES
) -> ViewerVoxels:
    """Pack the first channel of a scan and its lesions for the page.

    Parameters
    ----------
    volume, lesions
        On one grid.
    modality
        DICOM modality code: decides where levels lie and what is body.
    most_bytes
        Limit of the packed scan; it is thinned until it fits.

    Returns
    -------
    Gzip streams: of the levels, uint8, each the difference to the one before in its row; of the lesion numbers, uint8
    or uint16. Where voxels were united their mean is shown, and the highest lesion number among them, so that no
    lesion is lost.
    """
    values = volume.array[0]
    levels = _levels(values, modality, lesions.array)
    turn = _turn(volume.geometry)
    box = _body(turn.turned(values), turn.turned(lesions.array), turn.geometry.spacing, modality)
    factors: Triple = (1, 1, 1)
    while True:
        grid = _cut(turn, box, factors)
        size = int(np.prod(grid.geometry.shape))
        if size <= _MOST_VOXELS:
            scan = _packed_scan(grid.turned(values), factors, levels)
            if len(scan) <= most_bytes or max(factors) >= 16:
                break
        factors = _coarser(factors, turn.geometry.spacing)
    numbers = _packed_lesions(grid.turned(lesions.array), factors, lesions.n_lesions)
    return ViewerVoxels(grid, levels, scan, *numbers, _note(grid, levels, modality))


def _turn(geometry: Geometry) -> ViewerGrid:
    """The whole grid, turned."""
    plane = plane_of(geometry, "axial")
    axes = (plane.right, plane.down, plane.axis)
    flips = (plane.flip_right, plane.flip_down, geometry.axcodes[plane.axis] == "I")
    affine = geometry.affine.copy()
    for new, (old, flip) in enumerate(zip(axes, flips, strict=True)):
        affine[:3, new] = geometry.affine[:3, old] * (-1.0 if flip else 1.0)
        if flip:
            affine[:3, 3] += geometry.affine[:3, old] * (geometry.shape[old] - 1)
    i, j, k = (geometry.shape[axis] for axis in axes)
    return ViewerGrid(axes, flips, (0, 0, 0), (i, j, k), (1, 1, 1), Geometry((i, j, k), affine))


def _body(
    values: NDArray[np.float32], labels: NDArray[Any], spacing_mm: tuple[float, ...], modality: str | None
) -> tuple[Triple, Triple]:
    """The box of what is no air, and of all lesions, with a margin."""
    some = values[::2, ::2, ::2]
    is_body = some > _CT_BODY_HU if modality == "CT" else some > 0.02 * float(np.percentile(some, 99.9))
    low, high = [], []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        body = 2 * np.flatnonzero(is_body.any(axis=others))
        seen = np.concatenate([body, body + 1, np.flatnonzero(labels.any(axis=others))])
        margin = round(_MARGIN_MM / spacing_mm[axis])
        size = values.shape[axis]
        low.append(max(0, int(seen.min()) - margin) if seen.size else 0)
        high.append(min(size, int(seen.max()) + 1 + margin) if seen.size else size)
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def _cut(turn: ViewerGrid, box: tuple[Triple, Triple], factors: Triple) -> ViewerGrid:
    low, high = box
    affine = turn.geometry.affine.copy()
    affine[:3, 3] = turn.geometry.to_world(np.array(low) + (np.array(factors) - 1) / 2.0)
    affine[:3, :3] *= factors
    i, j, k = (-(-(h - lo) // f) for lo, h, f in zip(low, high, factors, strict=True))
    return ViewerGrid(turn.axes, turn.flips, low, high, factors, Geometry((i, j, k), affine))


def _coarser(factors: Triple, spacing_mm: tuple[float, ...]) -> Triple:
    """Unite one voxel more along the axis with the finest voxels."""
    sizes = [factor * size for factor, size in zip(factors, spacing_mm, strict=True)]
    axis = int(np.argmin(np.round(sizes, 3)))
    i, j, k = (factor + (n == axis) for n, factor in enumerate(factors))
    return i, j, k


def _levels(values: NDArray[np.float32], modality: str | None, labels: NDArray[Any]) -> NDArray[np.float64]:
    """(256,) what each level stands for, ascending, scan units."""
    if modality == "CT":
        air, tissue = np.linspace(-1024, -200, 60, endpoint=False), np.linspace(-200, 300, 140, endpoint=False)
        return np.concatenate([air, tissue, np.linspace(300, 1500, 40, endpoint=False), np.linspace(1500, 3000, 16)])
    some = values[::2, ::2, ::2]
    low, high = (float(p) for p in np.percentile(some, (0.1, 99.95)))
    if labels.any():
        high = max(high, float(values[labels > 0].max()))
    if modality == "PT":
        return np.linspace(0.0, 1.0, 256) ** 2 * max(high, 1e-6)
    return np.linspace(low, high if high > low else low + 1.0, 256)


def _packed_scan(cut: NDArray[np.float32], factors: Triple, levels: NDArray[np.float64]) -> bytes:
    table, scale = _level_table(levels)
    slabs = []
    for start in range(0, cut.shape[2], factors[2]):
        united = _mean(cut[:, :, start : start + factors[2]], factors)
        entry = np.clip((united - np.float32(levels[0])) * scale, 0, _TABLE_ENTRIES - 1).astype(np.intp)
        level = table[entry].T
        slabs.append(np.diff(level, axis=1, prepend=np.uint8(0)).tobytes())
    return gzip.compress(b"".join(slabs), _GZIP_LEVEL, mtime=0)


def _level_table(levels: NDArray[np.float64]) -> tuple[NDArray[np.uint8], np.float32]:
    """The level of each of many equal steps from the first level to the last, and steps a unit: searching is slow."""
    step = (levels[-1] - levels[0]) / _TABLE_ENTRIES
    centers = levels[0] + (np.arange(_TABLE_ENTRIES) + 0.5) * step
    table = np.searchsorted((levels[1:] + levels[:-1]) / 2.0, centers).astype(np.uint8)
    return table, np.float32(1.0 / step)


def _mean(slab: NDArray[np.float32], factors: Triple) -> NDArray[np.float32]:
    """(x, y) mean over the slab's depth and over blocks of its plane."""
    total = slab.sum(axis=2, dtype=np.float32) if slab.shape[2] > 1 else slab[:, :, 0]
    counts = np.full((1, 1), slab.shape[2], dtype=np.float32)
    for axis in range(2):
        total = _block_sums(total, factors[axis], axis)
        ones = np.ones((slab.shape[0], 1) if axis == 0 else (1, slab.shape[1]), dtype=np.float32)
        counts = counts * _block_sums(ones, factors[axis], axis)
    united: NDArray[np.float32] = total / counts
    return united


def _block_sums(array: NDArray[np.float32], factor: int, axis: int) -> NDArray[np.float32]:
    """Sums of `factor` neighbors along an axis; the last block may have fewer."""
    if factor == 1:
        return array
    moved = np.moveaxis(array, axis, 0)
    sums = np.zeros((-(-moved.shape[0] // factor), *moved.shape[1:]), dtype=np.float32)
    for offset in range(factor):
        part = moved[offset::factor]
        sums[: len(part)] += part
    return np.moveaxis(sums, 0, axis)


def _packed_lesions(cut: NDArray[Any], factors: Triple, n_lesions: int) -> tuple[bytes, int]:
    united = cut
    for axis, factor in enumerate(factors):
        if factor > 1:
            united = np.maximum.reduceat(united, np.arange(0, united.shape[axis], factor), axis=axis)
    dtype = np.dtype(np.uint8 if n_lesions <= np.iinfo(np.uint8).max else "<u2")
    packed = gzip.compress(united.T.astype(dtype).tobytes(), _GZIP_LEVEL, mtime=0)
    return packed, dtype.itemsize


def _note(grid: ViewerGrid, levels: NDArray[np.float64], modality: str | None) -> str:
    """What the viewer shows, in words."""
    shown = " x ".join(map(str, grid.geometry.shape))
    spacing = " x ".join(f"{size:.3g}" for size in grid.geometry.spacing)
    parts = [f"The viewer shows {shown} voxels of {spacing} mm, cut to the body"]
    if max(grid.factors) > 1:
        united = " x ".join(map(str, grid.factors))
        parts.append(f"{united} voxels of the scan united into one (their mean; the lesion with the highest number)")
    steps = np.diff(levels)
    unit = " HU" if modality == "CT" else ""
    within = steps[(levels[:-1] >= -200) & (levels[:-1] < 300)] if modality == "CT" else steps
    parts.append(f"in 256 levels, {within.max():.2g}{unit} apart at most" + (" in soft tissue" if unit else ""))
    return ", ".join(parts) + ". Measurements and key images are from the scan itself."
