"""Lesion shapes: implicit solids in world millimeters.

Each shape is star-shaped about its center: a straight line from the center leaves it once. So it is one piece, it
fits a sphere about its center (`diameter_mm` is that sphere's), and it can be scaled about its center.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import pi, prod
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ellipsoid", "Knobbed", "Point", "Rim", "Shape", "ShapeName", "Sphere", "draw_shape"]

Point = tuple[float, float, float]
ShapeName = Literal["sphere", "ellipsoid", "lobulated", "infiltrating", "rim"]

_ORIGIN: Point = (0.0, 0.0, 0.0)
_WORLD_AXES: tuple[Point, Point, Point] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


class Shape(Protocol):
    """What every lesion shape can do."""

    @property
    def center_mm(self) -> Point:
        """(3,) world position in RAS+ millimeters."""

    @property
    def diameter_mm(self) -> float:
        """Millimeters across the smallest sphere about the center that holds the shape."""

    @property
    def analytic_volume_mm3(self) -> float | None:
        """Cubic millimeters by formula, or None where there is no formula."""

    def contains(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(...,) bool: which of the world points (..., 3) in millimeters lie inside or on the surface."""

    def uptake(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(...,) float64 in 0..1: share of the lesion's intensity at world points (..., 3); 0 in a necrotic core."""

    def at(self, center_mm: Point) -> Self:
        """The same shape about another center."""


@dataclass(frozen=True)
class Sphere:
    """A ball.

    Examples
    --------
    >>> round(Sphere(diameter_mm=20.0).analytic_volume_mm3, 1)
    4188.8
    """

    diameter_mm: float
    center_mm: Point = _ORIGIN

    @property
    def analytic_volume_mm3(self) -> float:
        """Cubic millimeters: pi / 6 times the cube of the diameter."""
        return pi / 6.0 * self.diameter_mm**3

    def contains(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(...,) bool: which world points (..., 3) lie inside."""
        inside: NDArray[np.bool_] = _distance(points, self.center_mm) <= self.diameter_mm / 2.0
        return inside

    def uptake(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(...,) float64: 1 everywhere."""
        return np.ones(points.shape[:-1])

    def at(self, center_mm: Point) -> Self:
        """The same ball about another center."""
        return replace(self, center_mm=center_mm)


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid in any orientation.

    Parameters
    ----------
    semi_axes_mm
        (3,) float, millimeters from the center to the surface along each axis.
    axes
        (3, 3) float, one orthonormal world direction a row: the directions of the semi-axes.
    center_mm
        (3,) float, millimeters, RAS+.
    """

    semi_axes_mm: Point
    axes: tuple[Point, Point, Point] = _WORLD_AXES
    center_mm: Point = _ORIGIN

    @property
    def diameter_mm(self) -> float:
        """Millimeters: the longest axis."""
        return 2.0 * max(self.semi_axes_mm)

    @property
    def analytic_volume_mm3(self) -> float:
        """Cubic millimeters: 4/3 pi a b c."""
        return 4.0 / 3.0 * pi * prod(self.semi_axes_mm)

    def contains(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(...,) bool: which world points (..., 3) lie inside."""
        along_axes = (points - np.array(self.center_mm)) @ np.array(self.axes).T / np.array(self.semi_axes_mm)
        inside: NDArray[np.bool_] = (along_axes**2).sum(axis=-1) <= 1.0
        return inside

    def uptake(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(...,) float64: 1 everywhere."""
        return np.ones(points.shape[:-1])

    def at(self, center_mm: Point) -> Self:
        """The same ellipsoid about another center."""
        return replace(self, center_mm=center_mm)


@dataclass(frozen=True)
class Knobbed:
    """A ball with knobs: broad ones make a lobulated lesion, narrow and high ones an infiltrating one.

    In direction d the surface lies at core_radius (1 + max over knobs of height exp(sharpness (d . direction - 1))),
    so the highest knob's tip is exactly the farthest point.

    Parameters
    ----------
    core_radius_mm
        Millimeters from the center to the surface far from any knob.
    directions
        (n, 3) float, one unit vector a knob.
    heights
        (n,) float, height of each knob over the core, in core radii.
    sharpness
        About 4 for a knob as wide as the ball, 20 for a finger.
    center_mm
        (3,) float, millimeters, RAS+.
    """

    core_radius_mm: float
    directions: tuple[Point, ...]
    heights: tuple[float, ...]
    sharpness: float
    center_mm: Point = _ORIGIN

    @property
    def diameter_mm(self) -> float:
        """Millimeters: twice the distance of the farthest knob's tip."""
        return 2.0 * self.core_radius_mm * (1.0 + max(self.heights))

    @property
    def analytic_volume_mm3(self) -> None:
        """None: no formula."""
        return

    def contains(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(...,) bool: which world points (..., 3) lie inside."""
        offsets = points - np.array(self.center_mm)
        distance = np.linalg.norm(offsets, axis=-1)
        # the center has no direction; any will do, as it lies within the core
        cosines = offsets @ np.array(self.directions).T / np.maximum(distance, 1e-12)[..., None]
        knobs = (np.array(self.heights) * np.exp(self.sharpness * (cosines - 1.0))).max(axis=-1)
        inside: NDArray[np.bool_] = distance <= self.core_radius_mm * (1.0 + knobs)
        return inside

    def uptake(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(...,) float64: 1 everywhere."""
        return np.ones(points.shape[:-1])

    def at(self, center_mm: Point) -> Self:
        """The same shape about another center."""
        return replace(self, center_mm=center_mm)


@dataclass(frozen=True)
class Rim:
    """A lesion with a necrotic core: the core belongs to the lesion but takes nothing up.

    Parameters
    ----------
    outer
        The whole lesion.
    core_fraction
        0..1, the core is `outer` scaled by this about its center.
    """

    outer: Sphere | Ellipsoid
    core_fraction: float = 0.5

    @property
    def center_mm(self) -> Point:
        """(3,) world position in RAS+ millimeters."""
        return self.outer.center_mm

    @property
    def diameter_mm(self) -> float:
        """Millimeters: of the whole lesion."""
        return self.outer.diameter_mm

    @property
    def analytic_volume_mm3(self) -> float:
        """Cubic millimeters of the whole lesion, core included."""
        return self.outer.analytic_volume_mm3

    def contains(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(...,) bool: which world points (..., 3) lie inside, core included."""
        return self.outer.contains(points)

    def uptake(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(...,) float64: 0 in the core, 1 elsewhere."""
        center = np.array(self.center_mm)
        return np.where(self.outer.contains(center + (points - center) / self.core_fraction), 0.0, 1.0)

    def at(self, center_mm: Point) -> Self:
        """The same shape about another center."""
        return replace(self, outer=self.outer.at(center_mm))


def draw_shape(name: ShapeName, diameter_mm: float, rng: np.random.Generator) -> Shape:
    """Draw a shape about the world origin.

    Parameters
    ----------
    name
        Which family.
    diameter_mm
        Millimeters across the smallest sphere about the center that holds the shape.
    rng
        Source of the form; the same state gives the same shape.
    """
    return _DRAWERS[name](diameter_mm, rng)


def _draw_sphere(diameter_mm: float, rng: np.random.Generator) -> Sphere:  # noqa: ARG001 (one signature for all)
    return Sphere(diameter_mm)


def _draw_ellipsoid(diameter_mm: float, rng: np.random.Generator) -> Ellipsoid:
    longest = diameter_mm / 2.0
    semi_axes = (longest, longest * rng.uniform(0.55, 0.95), longest * rng.uniform(0.45, 0.9))
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    first, second, third = (_point(row) for row in rotation)
    return Ellipsoid(semi_axes, (first, second, third))


def _draw_lobulated(diameter_mm: float, rng: np.random.Generator) -> Knobbed:
    return _draw_knobbed(diameter_mm, rng, int(rng.integers(4, 8)), (0.35, 0.7), sharpness=6.0)


def _draw_infiltrating(diameter_mm: float, rng: np.random.Generator) -> Knobbed:
    return _draw_knobbed(diameter_mm, rng, int(rng.integers(14, 24)), (0.2, 0.9), sharpness=20.0)


def _draw_knobbed(
    diameter_mm: float, rng: np.random.Generator, n_knobs: int, heights: tuple[float, float], sharpness: float
) -> Knobbed:
    directions = rng.standard_normal((n_knobs, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    drawn = tuple(float(height) for height in rng.uniform(*heights, n_knobs))
    core = diameter_mm / 2.0 / (1.0 + max(drawn))
    return Knobbed(core, tuple(_point(row) for row in directions), drawn, sharpness)


def _draw_rim(diameter_mm: float, rng: np.random.Generator) -> Rim:
    return Rim(_draw_ellipsoid(diameter_mm, rng), core_fraction=float(rng.uniform(0.5, 0.65)))


_DRAWERS: dict[ShapeName, Callable[[float, np.random.Generator], Shape]] = {
    "sphere": _draw_sphere,
    "ellipsoid": _draw_ellipsoid,
    "lobulated": _draw_lobulated,
    "infiltrating": _draw_infiltrating,
    "rim": _draw_rim,
}


def _distance(points: NDArray[np.float64], center_mm: Point) -> NDArray[np.float64]:
    distance: NDArray[np.float64] = np.linalg.norm(points - np.array(center_mm), axis=-1)
    return distance


def _point(values: NDArray[np.float64]) -> Point:
    x, y, z = (float(value) for value in values)
    return (x, y, z)
