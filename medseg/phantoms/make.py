"""The front door: a scan of a synthetic limb with lesions, and the exact truth about them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medseg.core.geometry import Geometry
from medseg.core.lesions import Lesion, LesionMap, label_dtype
from medseg.core.volume import Volume
from medseg.errors import UsageError
from medseg.phantoms.body import draw_body, draw_texture
from medseg.phantoms.grid import make_grid, world_axes
from medseg.phantoms.paint import paint_ct, paint_pet
from medseg.phantoms.scene import Contact, PlacedLesion, SceneRequest, place_lesions
from medseg.phantoms.shapes import Point, ShapeName
from medseg.phantoms.voxels import points_of

__all__ = ["Phantom", "PhantomKind", "PhantomLesion", "make_phantom"]

PhantomKind = Literal["pet", "ct"]


@dataclass(frozen=True)
class _Kind:
    """Grid of a kind of scan, in the order x, y, z, the range of its lesions, and how that range is drawn."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    lowest: float
    highest: float


_KINDS: dict[PhantomKind, _Kind] = {
    "pet": _Kind((64, 64, 80), (4.0, 4.0, 3.27), lowest=3.0, highest=15.0),
    "ct": _Kind((128, 128, 64), (1.5, 1.5, 3.0), lowest=60.0, highest=90.0),
}


class PhantomLesion(BaseModel):
    """The truth about one lesion.

    Parameters
    ----------
    lesion_id
        Its number in the lesion map.
    shape
        Family of its form.
    center_ras_mm
        (3,) millimeters, RAS+: center of the form, not the centroid of its voxels.
    diameter_mm
        Millimeters across the smallest sphere about the center that holds the form.
    analytic_volume_ml
        Milliliters by formula; None where the form has none, or where the grid or a neighbor took a part of it.
    intensity
        SUV (PET) or HU (CT) before blur, texture and noise; of the rim where the core is necrotic.
    n_voxels, volume_ml
        Voxels that it owns, and their volume.
    group
        Number of its contact group, shared with the lesion that it touches; None if it stands alone.
    contact
        "touching" (26-neighbors, no voxel shared), "overlapping" (shared voxels were divided), or None.
    cut_by_border
        True if it reaches a face of the grid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lesion_id: int
    shape: ShapeName
    center_ras_mm: Point
    diameter_mm: float
    analytic_volume_ml: float | None
    intensity: float
    n_voxels: int
    volume_ml: float
    group: int | None
    contact: Contact | None
    cut_by_border: bool


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic scan and its truth: `truths[n - 1]` describes lesion n of `lesions`."""

    volume: Volume
    lesions: LesionMap
    truths: tuple[PhantomLesion, ...]
    kind: PhantomKind
    seed: int

    def __repr__(self) -> str:
        return f"Phantom({self.kind}, seed {self.seed}, {len(self.truths)} lesion(s), {self.volume.geometry!r})"

    def to_json(self) -> str:
        """What is known of the phantom beside its voxels, as indented JSON text with a final newline."""
        geometry = self.volume.geometry
        description = {
            "schema_version": 1,
            "kind": self.kind,
            "units": "SUV" if self.kind == "pet" else "HU",
            "seed": self.seed,
            "shape": list(geometry.shape),
            "affine_ras_mm": geometry.affine.tolist(),
            "lesions": [truth.model_dump(mode="json") for truth in self.truths],
        }
        return json.dumps(description, indent=2) + "\n"


def make_phantom(
    kind: PhantomKind = "pet",
    seed: int = 0,
    *,
    n_lesions: int | None = None,
    touching: bool = False,
    at_border: bool = False,
    smallest_mm: float = 6.0,
    largest_mm: float = 60.0,
    shape: tuple[int, int, int] | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    orientation: str = "RAS",
    oblique_degrees: float = 0.0,
    noise: float = 1.0,
) -> Phantom:
    """Make a scan of a limb with lesions whose voxels are known exactly.

    The same arguments give the same arrays. A voxel belongs to a lesion if its center lies inside the lesion's form;
    a lesion too small to hold a voxel center gets the voxel nearest to its center.

    Parameters
    ----------
    kind
        "pet" (SUV) or "ct" (HU).
    seed
        0 or above.
    n_lesions
        How many; None draws 3 to 7. 0 gives a body without lesions.
    touching
        True: the two largest lesions touch, the next two (of four or more) overlap; the others stand apart.
    at_border
        True: an end of the grid cuts the largest lesion; else no lesion reaches a face.
    smallest_mm, largest_mm
        Millimeters, range of the lesions' diameters, drawn evenly on a log scale. A lesion that finds no place
        is made smaller within the range.
    shape, spacing_mm
        (I, J, K) voxels and (3,) millimeters along each axis of the array; None for the kind's own: 64 x 64 x 80 of
        4 x 4 x 3.27 mm for PET, 128 x 128 x 64 of 1.5 x 1.5 x 3 mm for CT, in the order of `orientation`.
    orientation
        Axis codes of the array.
    oblique_degrees
        Degrees of tilt of the grid, -45 to 45.
    noise
        Multiplies the noise; 0 leaves it out.

    Raises
    ------
    UsageError
        If an argument is out of range, or the body has no room for the lesions.

    Examples
    --------
    >>> phantom = make_phantom("pet", seed=1, n_lesions=2, shape=(32, 32, 40), spacing_mm=(8.0, 8.0, 6.54))
    >>> phantom.lesions.n_lesions, phantom.volume.geometry.axcodes
    (2, 'RAS')
    """
    _check(kind, seed, noise)
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(5)]
    of_body, of_scene, of_intensity, of_texture, of_noise = streams
    geometry = _grid(_KINDS[kind], shape, spacing_mm, orientation, oblique_degrees)
    body = draw_body(geometry, of_body)
    n_drawn = int(of_scene.integers(3, 8))
    request = SceneRequest(n_drawn if n_lesions is None else n_lesions, smallest_mm, largest_mm, touching, at_border)
    lesions = _numbered(place_lesions(geometry, body, request, of_scene), geometry)
    intensities = _draw_intensities(kind, len(lesions), of_intensity)
    paint = paint_pet if kind == "pet" else paint_ct
    painted = list(zip(lesions, intensities, strict=True))
    array = paint(geometry, body, draw_texture(of_texture), painted, noise, of_noise)
    return Phantom(
        Volume(array[None], geometry, (kind,), units="suv" if kind == "pet" else "stored"),
        _lesion_map(lesions, geometry),
        tuple(_truth(n, lesion, value, geometry) for n, (lesion, value) in enumerate(painted, start=1)),
        kind,
        seed,
    )


def _check(kind: str, seed: int, noise: float) -> None:
    if kind not in _KINDS:
        raise UsageError(f"a phantom is of kind {' or '.join(map(repr, _KINDS))}; got {kind!r}")
    if seed < 0:
        raise UsageError(f"a seed is 0 or above; got {seed}")
    if not 0.0 <= noise < float("inf"):
        raise UsageError(f"noise is a factor of 0 or above; got {noise}")


def _grid(
    kind: _Kind,
    shape: tuple[int, int, int] | None,
    spacing_mm: tuple[float, float, float] | None,
    orientation: str,
    oblique_degrees: float,
) -> Geometry:
    first, second, third = world_axes(orientation)
    own_shape = (kind.shape[first], kind.shape[second], kind.shape[third])
    own_spacing = (kind.spacing_mm[first], kind.spacing_mm[second], kind.spacing_mm[third])
    return make_grid(shape or own_shape, spacing_mm or own_spacing, orientation, oblique_degrees)


def _draw_intensities(kind: PhantomKind, n_lesions: int, rng: np.random.Generator) -> list[float]:
    """Even on a log scale for SUV, where most lesions are moderate; even for HU."""
    lowest, highest = _KINDS[kind].lowest, _KINDS[kind].highest
    if kind == "ct":
        return [float(hu) for hu in rng.uniform(lowest, highest, n_lesions)]
    return [float(suv) for suv in np.exp(rng.uniform(np.log(lowest), np.log(highest), n_lesions))]


def _numbered(lesions: Sequence[PlacedLesion], geometry: Geometry) -> list[PlacedLesion]:
    """By descending number of voxels, then by world centroid (x, y, z; RAS+, to a micrometer)."""

    def key(lesion: PlacedLesion) -> tuple[float, ...]:
        centroid = points_of(lesion.voxels, geometry).mean(axis=0)
        return (-lesion.voxels.count, *(round(float(c), 3) for c in centroid))

    return sorted(lesions, key=key)


def _lesion_map(lesions: Sequence[PlacedLesion], geometry: Geometry) -> LesionMap:
    array: NDArray[np.unsignedinteger] = np.zeros(geometry.shape, dtype=label_dtype(len(lesions)))
    for number, lesion in enumerate(lesions, start=1):
        array[lesion.voxels.box][lesion.voxels.mask] = number
    return LesionMap(array, geometry, tuple(Lesion("lesion") for _ in lesions), method="phantom")


def _truth(number: int, lesion: PlacedLesion, intensity: float, geometry: Geometry) -> PhantomLesion:
    volume_mm3 = lesion.shape.analytic_volume_mm3 if lesion.is_whole else None
    return PhantomLesion(
        lesion_id=number,
        shape=lesion.name,
        center_ras_mm=lesion.shape.center_mm,
        diameter_mm=lesion.shape.diameter_mm,
        analytic_volume_ml=None if volume_mm3 is None else volume_mm3 / 1000.0,
        intensity=intensity,
        n_voxels=lesion.voxels.count,
        volume_ml=lesion.voxels.count * geometry.voxel_volume_ml,
        group=lesion.group,
        contact=lesion.contact,
        cut_by_border=lesion.is_at_border,
    )
