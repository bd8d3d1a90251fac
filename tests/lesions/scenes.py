"""Small bodies with known answers, and ways to look at one body on several grids."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.labels import BINARY_LESION, LabelScheme
from medseg.core.lesions import Lesion, LesionMap
from medseg.core.semantic import SemanticMap

ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))


def make_grid(shape: tuple[int, int, int], spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Geometry:
    return Geometry(shape, np.diag([*spacing, 1.0]))


def grid_over(extent_mm: float, spacing: tuple[float, float, float]) -> Geometry:
    """A cube of the given width in millimeters."""
    return make_grid(tuple(int(np.ceil(extent_mm / step)) + 1 for step in spacing), spacing)


def world_of_voxels(geometry: Geometry) -> NDArray[np.float64]:
    return geometry.to_world(np.moveaxis(np.indices(geometry.shape), 0, -1))


def ball(geometry: Geometry, center_mm: tuple[float, ...], radius_mm: float) -> NDArray[np.bool_]:
    return np.linalg.norm(world_of_voxels(geometry) - center_mm, axis=-1) <= radius_mm


def semantic_map(array: NDArray, geometry: Geometry | None = None, probability: NDArray | None = None) -> SemanticMap:
    array = np.asarray(array, dtype=np.uint8)
    highest = max(1, int(array.max(initial=0)))
    scheme = BINARY_LESION if highest == 1 else LabelScheme(classes={n: f"class {n}" for n in range(1, highest + 1)})
    return SemanticMap(array, geometry or make_grid(array.shape), scheme, probability)


def lesion_map(array: NDArray, geometry: Geometry | None = None) -> LesionMap:
    array = np.asarray(array, dtype=np.uint16)
    return LesionMap(array, geometry or make_grid(array.shape), (Lesion("lesion"),) * int(array.max(initial=0)))


def reorient(
    array: NDArray, geometry: Geometry, axes: tuple[int, ...], directions: tuple[int, ...]
) -> tuple[NDArray, Geometry]:
    """The same body on the same voxels, stored with permuted and flipped axes."""
    turned = array.transpose(axes)[tuple(slice(None, None, step) for step in directions)]
    affine = geometry.affine.copy()
    affine[:3, :3] = geometry.affine[:3, axes] * directions
    first_voxel = np.zeros(3)
    for new_axis, old_axis in enumerate(axes):
        first_voxel[old_axis] = 0 if directions[new_axis] == 1 else geometry.shape[old_axis] - 1
    affine[:3, 3] = geometry.to_world(first_voxel)
    return turned, Geometry(turned.shape, affine)


def restore(array: NDArray, axes: tuple[int, ...], directions: tuple[int, ...]) -> NDArray:
    """Undo what `reorient` did to the array."""
    return array[tuple(slice(None, None, step) for step in directions)].transpose(np.argsort(axes))
