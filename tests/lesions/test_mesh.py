from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import pdist
from skimage.measure import marching_cubes, mesh_surface_area

from medseg.lesions.hull import hull_of
from medseg.lesions.mesh import cell_patterns, mesh_tables

BASIS = np.diag([0.8, 0.9, 3.0])


def blob(seed: int = 3, shape=(24, 22, 9)) -> np.ndarray:
    return np.pad(ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0) > 0.02, 1)


def measured(mask, basis=BASIS) -> tuple[float, float]:
    patterns, tables = cell_patterns(mask), mesh_tables(basis)
    return float(patterns @ tables.area_mm2), float(patterns @ tables.volume_mm3)


def signed_volume(corners, faces) -> float:
    triangles = corners[faces]
    return abs(np.einsum("ti,ti->t", triangles[:, 0], np.cross(triangles[:, 1], triangles[:, 2])).sum()) / 6.0


@pytest.mark.parametrize("seed", range(5))
def test_area_and_volume_are_those_of_a_mesh_that_is_made(seed):
    mask = blob(seed)
    corners, faces, _, _ = marching_cubes(mask.astype(float), 0.5, spacing=(0.8, 0.9, 3.0), method="lorensen")
    area, volume = measured(mask)
    assert area == pytest.approx(mesh_surface_area(corners, faces), rel=1e-5)
    assert volume == pytest.approx(signed_volume(corners.astype(float), faces), rel=1e-5)


def test_one_voxel_is_an_octahedron():
    assert measured(np.pad(np.ones((1, 1, 1), bool), 1), np.eye(3)) == pytest.approx((np.sqrt(3.0), 1.0 / 6.0))


def test_a_mesh_encloses_as_much_as_its_complement_leaves_out():
    mask = blob()
    whole = np.ones((mask.shape[0] - 1, mask.shape[1] - 1, mask.shape[2] - 1)).size * np.linalg.det(BASIS)
    tables = mesh_tables(BASIS)
    inside, outside = cell_patterns(mask) @ tables.volume_mm3, cell_patterns(~mask) @ tables.volume_mm3
    assert inside + outside == pytest.approx(whole, rel=5e-3)  # but for cells that can be cut in two ways


def test_a_skewed_grid_changes_the_area_and_not_the_share_inside():
    skewed = BASIS.copy()
    skewed[0, 1] = 0.4
    mask = blob()
    assert measured(mask, skewed)[1] == pytest.approx(measured(mask)[1])
    assert measured(mask, skewed)[0] != pytest.approx(measured(mask)[0], rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_the_hull_is_that_of_all_corners_of_the_mesh(seed):
    from scipy.spatial import ConvexHull

    mask = blob(seed)
    corners, _, _, _ = marching_cubes(mask.astype(float), 0.5, spacing=(0.8, 0.9, 3.0))
    expected, hull = ConvexHull(corners.astype(float)), hull_of(mask, BASIS, 0.25)
    assert hull.volume_mm3 == pytest.approx(expected.volume, rel=1e-6)
    assert hull.area_mm2 == pytest.approx(expected.area, rel=1e-6)
    assert hull.mesh_diameter_mm == pytest.approx(pdist(corners.astype(float)).max(), rel=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 1, 1), (6, 5, 1), (1, 5, 6)])
def test_flat_lesions_have_a_hull(shape):
    hull = hull_of(np.ones(shape, bool), np.eye(3), 0.25)
    assert hull.volume_mm3 > 0
    assert hull.mesh_diameter_mm >= max(shape)


def test_the_feret_diameter_ends_a_quarter_voxel_outside():
    assert hull_of(np.ones((10, 1, 1), bool), np.eye(3), 0.25).feret_diameter_mm == pytest.approx(9.5)
