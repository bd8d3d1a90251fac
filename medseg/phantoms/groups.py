"""Groups: lesions in contact, with a drawn share of the smaller one inside the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.phantoms.masks import MaskShape, draw_mask
from medseg.phantoms.shapes import Shape, ShapeName, draw_shape

__all__ = ["Group", "draw_group", "shared_fraction"]

_POINTS = 14  # a side of the lattice on which shared volume is counted
_HALVINGS = 12
_TOLERANCE = 0.02  # by which a share may miss what was drawn
_MASK_SHARE = 0.35  # of forms with lobes, where there are masks
_SMALLEST_MM = {"lobulated": 12.0, "infiltrating": 18.0, "mask": 8.0}  # below, voxels blur the form away


@dataclass(frozen=True)
class Group:
    """Shapes in their places, the name of each one's form, and its largest share in common with another."""

    shapes: tuple[Shape, ...]
    forms: tuple[str, ...]
    overlaps: tuple[float, ...]


def draw_group(
    form: str,
    diameters_mm: Sequence[float],
    overlap: tuple[float, float],
    masks: Sequence[MaskShape],
    center: NDArray[np.float64],
    rng: np.random.Generator,
) -> Group | None:
    """Draw lesions that are in contact, the first one about a center; None where that does not work out.

    Parameters
    ----------
    form
        "smooth" (balls and ellipsoids), "lobed" (lobulated, infiltrating, masks) or "any".
    diameters_mm
        Millimeters, one a member.
    overlap
        Range of the share of the smaller lesion's volume that lies in the one it is attached to.
    masks
        Forms beside the mathematical ones.
    center
        (3,) millimeters.
    rng
        Source of everything drawn.
    """
    drawn = [_draw_form(form, diameter, masks, rng) for diameter in diameters_mm]
    first = drawn[0][1].at(_point(center))
    placed, overlaps = [first], [0.0]
    for _, shape in drawn[1:]:
        to = int(rng.integers(len(placed)))
        wanted = float(rng.uniform(*overlap))
        beside = _attached(placed[to], shape, wanted, rng)
        if beside is None:
            return None
        shares = [shared_fraction(other, beside) for other in placed]
        if abs(shares[to] - wanted) > _TOLERANCE or max(shares) > max(overlap[1], wanted) + _TOLERANCE:
            return None
        overlaps = [max(had, share) for had, share in zip(overlaps, shares, strict=True)]
        placed.append(beside)
        overlaps.append(max(shares))
    return Group(tuple(placed), tuple(name for name, _ in drawn), tuple(overlaps))


def shared_fraction(first: Shape, second: Shape) -> float:
    """Share of the smaller shape's volume that lies in the other one too."""
    clouds = [_cloud(first), _cloud(second)]
    volumes = [len(cloud) * shape.diameter_mm**3 for cloud, shape in zip(clouds, (first, second), strict=True)]
    small, other = (0, second) if volumes[0] < volumes[1] else (1, first)
    return float(other.contains(clouds[small]).mean()) if len(clouds[small]) else 0.0


def _cloud(shape: Shape) -> NDArray[np.float64]:
    """(n, 3) points of a lattice that lie in a shape."""
    ticks = (np.arange(_POINTS) + 0.5) / _POINTS - 0.5
    lattice = np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 3)
    points: NDArray[np.float64] = lattice * shape.diameter_mm + np.array(shape.center_mm)
    return points[shape.contains(points)]


def _draw_form(
    form: str, diameter_mm: float, masks: Sequence[MaskShape], rng: np.random.Generator
) -> tuple[str, Shape]:
    is_lobed = form == "lobed" or (form == "any" and rng.random() < 0.3)
    if is_lobed:
        diameter_mm = max(diameter_mm, _SMALLEST_MM["lobulated"]) if form == "lobed" else diameter_mm
        if masks and diameter_mm >= _SMALLEST_MM["mask"] and rng.random() < _MASK_SHARE:
            return "mask", draw_mask(masks, diameter_mm, rng)
        names: list[ShapeName] = ["lobulated", "infiltrating"]
        possible = [name for name in names if diameter_mm >= _SMALLEST_MM[name]]
        if possible:
            name = possible[int(rng.integers(len(possible)))]
            return name, draw_shape(name, diameter_mm, rng)
    name = "sphere" if rng.random() < 0.2 else "ellipsoid"
    return name, draw_shape(name, diameter_mm, rng)


def _attached(to: Shape, shape: Shape, wanted: float, rng: np.random.Generator) -> Shape | None:
    """The shape moved along a random line until it has the wanted share in common with another."""
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    origin = np.array(to.center_mm)
    near, far = 0.0, (to.diameter_mm + shape.diameter_mm) / 2
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        if shared_fraction(to, shape.at(_point(origin + middle * direction))) > wanted:
            near = middle
        else:
            far = middle
    return shape.at(_point(origin + near * direction))


def _point(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return (x, y, z)
