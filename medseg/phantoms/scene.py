"""Scene: where the lesions lie, which touch, which overlap, and which voxel belongs to which.

Lesions of different groups keep at least `_GAP_VOXELS` voxels between them, so connectivity alone tells them apart.
A group is two lesions in contact. "touching": they share no voxel, but are 26-neighbors. "overlapping": their shapes
share voxels, and each such voxel has one owner: the lesion whose center is nearer, distances counted in each shape's
own radius; a tie goes to the larger lesion. Every lesion is one 26-connected piece and owns at least one voxel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.errors import UsageError
from medseg.phantoms.body import Body
from medseg.phantoms.grid import field_of_view_mm, sample
from medseg.phantoms.shapes import Point, Shape, ShapeName, draw_shape
from medseg.phantoms.voxels import Voxels, divide, grow, is_inside, is_one_piece, n_shared, voxelize

__all__ = ["Contact", "PlacedLesion", "SceneRequest", "place_lesions"]

Contact = Literal["touching", "overlapping"]

_GAP_VOXELS = 2
_TRIES_PER_SIZE = 60
_N_SIZES = 12
_SHRINK = 0.85
_SMALLEST_OWN_SHARE = 0.5  # of its own voxels that a lesion keeps where two overlap
_SMALLEST_SHAPED_MM = {"lobulated": 12.0, "infiltrating": 18.0, "rim": 24.0}  # below, voxels blur the form away


@dataclass(frozen=True)
class SceneRequest:
    """How many lesions, of which sizes (millimeters), in contact or not, the first cut by the grid or not."""

    n_lesions: int
    smallest_mm: float
    largest_mm: float
    touching: bool
    at_border: bool

    def __post_init__(self) -> None:
        if self.n_lesions < 0:
            raise UsageError(f"n_lesions must be at least 0; got {self.n_lesions}")
        if not 0.0 < self.smallest_mm <= self.largest_mm < float("inf"):
            raise UsageError(
                f"lesion diameters need 0 < smallest_mm <= largest_mm; got {self.smallest_mm} and {self.largest_mm}"
            )
        if self.touching and self.n_lesions < 2:
            raise UsageError(f"touching lesions need n_lesions of at least 2; got {self.n_lesions}")
        if self.at_border and self.n_lesions < 1:
            raise UsageError("a lesion at the border needs n_lesions of at least 1; got 0")


@dataclass(frozen=True, eq=False)
class PlacedLesion:
    """A shape in its place, the voxels that it owns, and the number of its contact group, if any.

    `is_whole` is False where the grid or a neighbor took a part of the shape.
    """

    shape: Shape
    name: ShapeName
    voxels: Voxels
    group: int | None
    contact: Contact | None
    is_at_border: bool
    is_whole: bool


@dataclass(frozen=True, eq=False)
class _Space:
    """The grid, and which of its voxels (I, J, K) lesions may still take."""

    geometry: Geometry
    free: NDArray[np.bool_]


@dataclass(frozen=True)
class _Wanted:
    """What a group must be like: in which contact, with which number, its first lesion cut by the grid or not."""

    contact: Contact | None
    group: int | None
    at_border: bool


@dataclass(frozen=True)
class _Draft:
    """A shape drawn about the origin, before it has a place."""

    shape: Shape
    name: ShapeName


def place_lesions(
    geometry: Geometry, body: Body, request: SceneRequest, rng: np.random.Generator
) -> tuple[PlacedLesion, ...]:
    """Place lesions in a body, large ones first.

    Parameters
    ----------
    geometry
        The grid.
    body
        Where there is room.
    request
        What to place.
    rng
        Source of sizes, forms and places.

    Raises
    ------
    UsageError
        If the body has no room for so many lesions of such sizes.
    """
    if request.n_lesions and request.smallest_mm > max(field_of_view_mm(geometry)):
        raise _no_room(request, geometry)
    space = _Space(geometry, sample(geometry, body.room, np.bool_))
    diameters = np.exp(rng.uniform(np.log(request.smallest_mm), np.log(request.largest_mm), request.n_lesions))
    placed: list[PlacedLesion] = []
    n_groups = 0
    for contact, sizes in _groups(np.sort(diameters)[::-1], request.touching):
        n_groups += contact is not None
        wanted = _Wanted(contact, n_groups if contact else None, at_border=request.at_border and not placed)
        members = _place_group(space, wanted, sizes, request, rng)
        for lesion in members:
            taken = grow(lesion.voxels, _GAP_VOXELS, geometry)
            space.free[taken.box] &= ~taken.mask
        placed.extend(members)
    return tuple(placed)


def _groups(diameters: NDArray[np.float64], touching: bool) -> Iterator[tuple[Contact | None, list[float]]]:
    """Sizes of each group, large first: a touching pair and an overlapping pair if asked for, then single lesions."""
    left = [float(d) for d in diameters]
    contacts: tuple[Contact, ...] = ("touching", "overlapping") if touching else ()
    for contact in contacts:
        if len(left) >= 2:
            yield contact, [left.pop(0), left.pop(0)]
    for diameter in left:
        yield None, [diameter]


def _place_group(
    space: _Space, wanted: _Wanted, sizes: list[float], request: SceneRequest, rng: np.random.Generator
) -> list[PlacedLesion]:
    """Try places at the drawn sizes, then at smaller and smaller ones."""
    for _ in range(_N_SIZES):
        for _ in range(_TRIES_PER_SIZE):
            members = _settled(space, wanted, _draw_group(space, wanted, sizes, rng))
            if members:
                return members
        sizes = [max(size * _SHRINK, request.smallest_mm) for size in sizes]
    raise _no_room(request, space.geometry)


def _no_room(request: SceneRequest, geometry: Geometry) -> UsageError:
    hint = "; lesions smaller than a voxel cannot overlap" if request.touching else ""
    return UsageError(
        f"no room for {request.n_lesions} lesion(s) of {request.smallest_mm:g} to {request.largest_mm:g} mm "
        f"in {geometry!r}: ask for fewer or smaller lesions, or a larger grid{hint}"
    )


def _draw_group(space: _Space, wanted: _Wanted, sizes: list[float], rng: np.random.Generator) -> list[_Draft]:
    """One lesion at a random free place, with its neighbor if one is wanted; empty where that did not work out."""
    drawn = _draw(sizes[0], rng)
    center = _draw_center(space, rng)
    if center is None:
        return []
    if wanted.at_border:
        center = _moved_to_border(center, drawn.shape, space.geometry, rng)
    first = _Draft(drawn.shape.at(center), drawn.name)
    if wanted.contact is None:
        return [first]
    if not _fits(space, voxelize(first.shape, space.geometry)):  # before the search for a place beside it
        return []
    return _with_neighbor(first, _draw(sizes[1], rng), wanted.contact, space.geometry, rng)


def _draw(diameter_mm: float, rng: np.random.Generator) -> _Draft:
    names: list[ShapeName] = ["sphere", "ellipsoid", "lobulated", "infiltrating", "rim"]
    possible = [name for name in names if diameter_mm >= _SMALLEST_SHAPED_MM.get(name, 0.0)]
    name = possible[int(rng.integers(len(possible)))]
    return _Draft(draw_shape(name, diameter_mm, rng), name)


def _draw_center(space: _Space, rng: np.random.Generator) -> Point | None:
    """A world point whose voxel is free; drawn in the world, so that the grid's orientation does not matter."""
    geometry = space.geometry
    middle = geometry.to_world((np.array(geometry.shape) - 1.0) / 2.0)
    half = field_of_view_mm(geometry) / 2.0
    for _ in range(100):
        x, y, z = (float(value) for value in middle + rng.uniform(-half, half))
        i, j, k = np.rint(geometry.to_voxel((x, y, z))).astype(int)
        if is_inside((x, y, z), geometry) and space.free[i, j, k]:
            return (x, y, z)
    return None


def _moved_to_border(center: Point, shape: Shape, geometry: Geometry, rng: np.random.Generator) -> Point:
    """The center moved along the limb so near to an end of the grid that the grid cuts the shape."""
    axis = geometry.axial_axis
    voxel = geometry.to_voxel(center)
    depth = rng.uniform(0.1, 0.5) * shape.diameter_mm / 2.0 / geometry.spacing[axis]
    last = geometry.shape[axis] - 1.0
    voxel[axis] = min(depth, last) if voxel[axis] < last / 2.0 else max(last - depth, 0.0)
    x, y, z = (float(value) for value in geometry.to_world(voxel))
    return (x, y, z)


def _with_neighbor(
    first: _Draft, second: _Draft, contact: Contact, geometry: Geometry, rng: np.random.Generator
) -> list[_Draft]:
    """Move the second lesion along a random line towards the first until their voxels are neighbors.

    For "overlapping" until they share voxels, and on by a third to a half of its radius. Empty if the line misses.
    """
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    deeper_mm = rng.uniform(0.3, 0.5) * second.shape.diameter_mm / 2.0
    goal = voxelize(first.shape, geometry)
    if contact == "touching":
        goal, deeper_mm = grow(goal, 1, geometry), 0.0
    distance = (first.shape.diameter_mm + second.shape.diameter_mm) / 2.0 + 2.0 * max(geometry.spacing)
    while distance > 0.0:
        if n_shared(goal, voxelize(_beside(first.shape, second.shape, direction, distance), geometry)):
            moved = _beside(first.shape, second.shape, direction, distance - deeper_mm)
            return [first, _Draft(moved, second.name)]
        distance -= 0.5 * min(geometry.spacing)
    return []


def _beside(first: Shape, second: Shape, direction: NDArray[np.float64], distance_mm: float) -> Shape:
    x, y, z = (float(c) for c in np.array(first.center_mm) + distance_mm * direction)
    return second.at((x, y, z))


def _settled(space: _Space, wanted: _Wanted, drafts: list[_Draft]) -> list[PlacedLesion]:
    """The lesions with the voxels that they own, or an empty list if they do not fit or not as wanted."""
    if not drafts or not all(is_inside(draft.shape.center_mm, space.geometry) for draft in drafts):
        return []
    whole = [voxelize(draft.shape, space.geometry) for draft in drafts]
    if not all(_fits(space, voxels) for voxels in whole):
        return []
    owned = whole
    if wanted.contact:
        owned = list(divide((drafts[0].shape, whole[0]), (drafts[1].shape, whole[1]), space.geometry))
    if not _is_as_wanted(space.geometry, wanted, whole, owned):
        return []
    return [_placed(space.geometry, wanted, *parts) for parts in zip(drafts, whole, owned, strict=True)]


def _fits(space: _Space, voxels: Voxels) -> bool:
    return bool(space.free[voxels.box][voxels.mask].all())


def _is_as_wanted(geometry: Geometry, wanted: _Wanted, whole: list[Voxels], owned: list[Voxels]) -> bool:
    on_face = [voxels.on_face(geometry) for voxels in owned]
    if on_face[0] != wanted.at_border or any(on_face[1:]):
        return False
    if not all(o.count >= max(1, _SMALLEST_OWN_SHARE * w.count) for o, w in zip(owned, whole, strict=True)):
        return False
    if not all(is_one_piece(voxels) for voxels in owned):
        return False
    if wanted.contact is None:
        return True
    overlap = n_shared(whole[0], whole[1]) > 0
    return overlap == (wanted.contact == "overlapping") and n_shared(grow(owned[0], 1, geometry), owned[1]) > 0


def _placed(geometry: Geometry, wanted: _Wanted, draft: _Draft, whole: Voxels, owned: Voxels) -> PlacedLesion:
    on_face = owned.on_face(geometry)
    is_whole = not on_face and owned.count == whole.count
    return PlacedLesion(draft.shape, draft.name, owned, wanted.group, wanted.contact, on_face, is_whole)
