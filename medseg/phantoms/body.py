"""Body: a limb with skin, fat, muscle, bone, vessels and a couple of warm regions, as a function of world position."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.phantoms.grid import field_of_view_mm
from medseg.phantoms.shapes import Ellipsoid, Point

__all__ = ["Body", "Texture", "Tissue", "draw_body", "draw_texture"]

_SKIN_MARGIN = 0.94  # lesions stay inside this share of the way from the axis to the skin


class Tissue(IntEnum):
    """What lies at a point, lesions aside."""

    AIR = 0
    FAT = 1
    MUSCLE = 2
    CORTEX = 3
    MARROW = 4
    VESSEL = 5
    WARM = 6


@dataclass(frozen=True)
class _Tube:
    """A straight tube along the limb's axis, placed relative to that axis."""

    x_mm: float
    y_mm: float
    radius_mm: float


@dataclass(frozen=True)
class Body:
    """A limb that runs along world z through the whole field of view.

    Parameters
    ----------
    center_mm
        (3,) float, millimeters, RAS+: a point on the axis.
    semi_axes_mm
        (2,) float, millimeters from the axis to the skin along x and y, before taper and bulges.
    length_mm
        Millimeters over which the limb tapers once.
    taper
        Share by which the limb is wider at the upper end than at the middle.
    bulge, bulge_phase
        Height (share of the radius) and phase (radians) of three bulges around the circumference.
    fat_mm
        Millimeters of fat under the skin.
    bone, vessels
        Tubes along the axis.
    warm
        Regions of physiologic uptake, which are no lesions.
    """

    center_mm: Point
    semi_axes_mm: tuple[float, float]
    length_mm: float
    taper: float
    bulge: float
    bulge_phase: float
    fat_mm: float
    bone: _Tube
    vessels: tuple[_Tube, ...]
    warm: tuple[Ellipsoid, ...]

    def depth(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(...,) float64: 0 on the limb's axis, 1 on the skin, above 1 outside, for world points (..., 3)."""
        x, y, z = np.moveaxis(points - np.array(self.center_mm), -1, 0)
        width = 1.0 + self.taper * np.sin(np.pi * z / self.length_mm)
        outline = 1.0 + self.bulge * np.cos(3.0 * np.arctan2(y, x) + self.bulge_phase)
        depth: NDArray[np.float64] = np.hypot(x / self.semi_axes_mm[0], y / self.semi_axes_mm[1]) / (width * outline)
        return depth

    def tissues(self, points: NDArray[np.float64]) -> NDArray[np.uint8]:
        """(...,) uint8: the `Tissue` at world points (..., 3)."""
        depth = self.depth(points)
        tissue = np.full(depth.shape, Tissue.AIR, dtype=np.uint8)
        tissue[depth <= 1.0] = Tissue.FAT
        tissue[depth <= 1.0 - self.fat_mm / min(self.semi_axes_mm)] = Tissue.MUSCLE
        for region in self.warm:
            tissue[region.contains(points) & (depth <= 1.0)] = Tissue.WARM
        for vessel in self.vessels:
            tissue[self._off_axis(points, vessel) <= vessel.radius_mm] = Tissue.VESSEL
        off_bone = self._off_axis(points, self.bone)
        tissue[off_bone <= self.bone.radius_mm] = Tissue.CORTEX
        tissue[off_bone <= 0.55 * self.bone.radius_mm] = Tissue.MARROW
        return tissue

    def room(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(...,) bool: where lesions may grow: under the skin, outside of warm regions and vessels."""
        free = self.depth(points) <= _SKIN_MARGIN
        for region in self.warm:
            free &= ~region.contains(points)
        for vessel in self.vessels:
            free &= self._off_axis(points, vessel) > vessel.radius_mm
        return free

    def _off_axis(self, points: NDArray[np.float64], tube: _Tube) -> NDArray[np.float64]:
        center_x, center_y, _ = self.center_mm
        distance: NDArray[np.float64] = np.hypot(
            points[..., 0] - center_x - tube.x_mm, points[..., 1] - center_y - tube.y_mm
        )
        return distance


def draw_body(geometry: Geometry, rng: np.random.Generator) -> Body:
    """A limb that fills most of the field of view across and runs through it along z."""
    span = field_of_view_mm(geometry)
    center = geometry.to_world((np.array(geometry.shape) - 1.0) / 2.0)
    semi = (float(span[0] * rng.uniform(0.40, 0.43)), float(span[1] * rng.uniform(0.36, 0.41)))
    bone = _Tube(semi[0] * rng.uniform(-0.15, 0.15), semi[1] * rng.uniform(-0.15, 0.15), 0.12 * min(semi))
    return Body(
        center_mm=(float(center[0]), float(center[1]), float(center[2])),
        semi_axes_mm=semi,
        length_mm=float(span[2]),
        taper=float(rng.uniform(0.03, 0.08)),
        bulge=float(rng.uniform(0.01, 0.03)),
        bulge_phase=float(rng.uniform(0.0, 2.0 * np.pi)),
        fat_mm=float(min(semi) * rng.uniform(0.10, 0.16)),
        bone=bone,
        vessels=tuple(_draw_vessel(bone, semi, rng) for _ in range(2)),
        warm=tuple(_draw_warm(center, semi, span[2], rng) for _ in range(2)),
    )


def _draw_vessel(bone: _Tube, semi: tuple[float, float], rng: np.random.Generator) -> _Tube:
    angle, away = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.25, 0.35)
    return _Tube(
        float(bone.x_mm + away * semi[0] * np.cos(angle)),
        float(bone.y_mm + away * semi[1] * np.sin(angle)),
        0.035 * min(semi),
    )


def _draw_warm(
    center: NDArray[np.float64], semi: tuple[float, float], length_mm: float, rng: np.random.Generator
) -> Ellipsoid:
    """A spindle along the limb, such as a muscle that worked before the scan."""
    angle, away = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.45, 0.65)
    offset = (away * semi[0] * np.cos(angle), away * semi[1] * np.sin(angle), length_mm * rng.uniform(-0.4, 0.4))
    x, y, z = (float(c + o) for c, o in zip(center, offset, strict=True))
    thick = float(0.12 * min(semi) * rng.uniform(0.8, 1.3))
    return Ellipsoid((thick, 1.3 * thick, float(length_mm * rng.uniform(0.12, 0.2))), center_mm=(x, y, z))


@dataclass(frozen=True, eq=False)
class Texture:
    """Smooth variation: a sum of plane waves, so that it does not depend on the grid.

    `waves` is (n, 3) float64, radians a millimeter; `phases` is (n,) float64, radians.
    """

    waves: NDArray[np.float64]
    phases: NDArray[np.float64]

    def at(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(...,) float64 of mean 0 and standard deviation 1 at world points (..., 3)."""
        summed = np.cos(points @ self.waves.T + self.phases).sum(axis=-1)
        values: NDArray[np.float64] = summed * np.sqrt(2.0 / len(self.phases))
        return values


def draw_texture(rng: np.random.Generator) -> Texture:
    """Eight waves of 20 to 90 mm in any direction."""
    directions = rng.standard_normal((8, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    wavelengths = rng.uniform(20.0, 90.0, (8, 1))
    return Texture(2.0 * np.pi * directions / wavelengths, rng.uniform(0.0, 2.0 * np.pi, 8))
