"""Windows of air around the body: found before the run, counted, and checked by sample."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.geometry import Geometry
from medseg.core.recipe import ChannelSpec
from medseg.core.volume import Volume
from medseg.inference.windows import Layout, Position

__all__ = ["AirWindows", "air_levels", "find_air"]

_CT_AIR_HU = -900.0
_MARGIN_VOXELS = 1.5  # of the network's grid, around a window: half a voxel to its edge, one for interpolation
_MARGIN_SCAN_VOXELS = 2  # what cubic interpolation reaches further
_STRIDE = 4  # a sparse look first: most windows of the body show at once that they are no air


@dataclass(frozen=True)
class AirWindows:
    """Windows that need not be run.

    Parameters
    ----------
    positions
        Where they begin, in the padded image.
    n_windows
        Of how many.
    n_voxels, n_image_voxels
        Voxels of the network's grid that no window covers without them, and all of them.
    levels
        For each channel the highest intensity that counts as air, in its own unit.
    """

    positions: frozenset[Position]
    n_windows: int
    n_voxels: int
    n_image_voxels: int
    levels: tuple[float, ...]

    def note(self) -> str:
        """What was skipped, and why that is safe, for the provenance."""
        levels = ", ".join(f"{level:g}" for level in self.levels)
        return (
            f"skipped {len(self.positions)} of {self.n_windows} windows of air around the body: no voxel of the scan "
            f"in them is above {levels}; {self.n_voxels} of {self.n_image_voxels} voxels of the network's grid were "
            "seen by no window and are background"
        )

    def sample(self, n: int) -> list[Position]:
        """Some of the windows, the same ones in every run."""
        positions = sorted(self.positions)
        return random.Random(0).sample(positions, min(n, len(positions)))  # noqa: S311  # no secret


def air_levels(volume: Volume, channels: Sequence[ChannelSpec]) -> tuple[float, ...]:
    """For each channel the highest intensity that counts as air: -900 HU in CT, else the scan's own minimum."""
    return tuple(
        _CT_AIR_HU if spec.modality == "CT" and spec.units == "stored" else float(channel.min())
        for channel, spec in zip(volume.array, channels, strict=True)
    )


def find_air(volume: Volume, levels: Sequence[float], network_grid: Geometry, layout: Layout) -> AirWindows:
    """Find the windows in which the scan shows nothing but air, connected to the scan's edge by such windows.

    A window counts only if no voxel of the scan within it, and in the margin that interpolation reaches, is above the
    level in any channel. Intensities are the scan's own: normalization may hide what air is.

    Parameters
    ----------
    volume
        (C, I, J, K) on the scan's grid.
    levels
        Of each channel, from `air_levels`.
    network_grid
        Grid of the image that the windows lie on, without its padding.
    layout
        The windows.
    """
    to_scan = np.linalg.inv(volume.geometry.affine) @ network_grid.affine
    lattice = [len(along) for along in layout.starts]
    is_air = np.zeros(lattice, dtype=bool)
    for place in np.ndindex(*lattice):
        position = tuple(starts[n] for starts, n in zip(layout.starts, place, strict=True))
        is_air[place] = _is_air(volume, levels, _box_in_scan(position, layout, to_scan, volume.geometry))
    outside = _connected_to_edge(is_air)
    positions = [
        tuple(starts[n] for starts, n in zip(layout.starts, place, strict=True)) for place in np.argwhere(outside)
    ]
    skipped = frozenset((i, j, k) for i, j, k in positions)
    n_image = int(np.prod(layout.shape))
    return AirWindows(skipped, layout.n_windows, _n_uncovered(layout, skipped), n_image, tuple(levels))


def _box_in_scan(
    position: Sequence[int], layout: Layout, to_scan: NDArray[np.float64], scan: Geometry
) -> tuple[slice, ...]:
    """The scan's voxels around a window; empty where it lies in the padding."""
    ends = []
    for axis in range(3):
        start = position[axis] - layout.pad_before[axis]
        stop = min(start + layout.window[axis], layout.shape[axis])
        ends.append((max(start, 0) - _MARGIN_VOXELS, stop - 1 + _MARGIN_VOXELS))
    corners = np.array(list(product(*ends)))
    voxels = corners @ to_scan[:3, :3].T + to_scan[:3, 3]
    first = np.maximum(np.floor(voxels.min(axis=0)) - _MARGIN_SCAN_VOXELS, 0).astype(int)
    last = np.minimum(np.ceil(voxels.max(axis=0)) + _MARGIN_SCAN_VOXELS, np.array(scan.shape) - 1).astype(int)
    return tuple(slice(a, max(b + 1, a)) for a, b in zip(first, last, strict=True))


def _is_air(volume: Volume, levels: Sequence[float], box: tuple[slice, ...]) -> bool:
    for channel, level in zip(volume.array, levels, strict=True):
        inside = channel[box]
        sparse = inside[::_STRIDE, ::_STRIDE, ::_STRIDE]
        if inside.size and (sparse.max() > level or inside.max() > level):
            return False
    return True


def _connected_to_edge(is_air: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of the windows of air that the lattice's edge reaches over faces."""
    labels, _ = ndimage.label(is_air)
    edge = np.ones(is_air.shape, dtype=bool)
    edge[tuple(slice(1, -1) for _ in range(3))] = False
    at_edge = np.unique(labels[edge])
    connected: NDArray[np.bool_] = np.isin(labels, at_edge[at_edge > 0])
    return connected


def _n_uncovered(layout: Layout, skipped: Iterable[Position]) -> int:
    """Voxels of the image under skipped windows only."""
    gone = set(skipped)
    covered = np.zeros(layout.padded_shape, dtype=bool)
    for row in layout.starts[0]:
        for position in layout.in_rows(0, row):
            if position not in gone:
                covered[tuple(slice(a, a + side) for a, side in zip(position, layout.window, strict=True))] = True
    image = tuple(slice(a, a + n) for a, n in zip(layout.pad_before, layout.shape, strict=True))
    return int(np.count_nonzero(~covered[image]))
