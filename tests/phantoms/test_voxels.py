"""Voxels: a shape's voxels have its volume on any grid, and shared voxels get one owner."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.phantoms.grid import make_grid
from medseg.phantoms.shapes import Ellipsoid, Shape, Sphere, draw_shape
from medseg.phantoms.voxels import Voxels, divide, grow, is_one_piece, n_shared, points_of, voxelize

GRIDS = {
    "isotropic": make_grid((60, 60, 60), (1.0, 1.0, 1.0), "RAS", 0.0),
    "anisotropic": make_grid((60, 60, 20), (1.0, 1.0, 3.0), "RAS", 0.0),
    "left posterior": make_grid((60, 60, 20), (1.0, 1.0, 3.0), "LPS", 0.0),
    "sagittal": make_grid((20, 60, 60), (3.0, 1.0, 1.0), "SAR", 0.0),
    "oblique": make_grid((70, 70, 25), (1.0, 1.0, 3.0), "RAS", 20.0),
    "coarse": make_grid((20, 20, 20), (3.0, 3.0, 3.0), "RAS", 0.0),
}
CENTER = (12.3, -34.6, 140.2)


def _tolerance_mm3(shape: Shape, geometry: Geometry) -> float:
    """Bound on the error of counting voxel centers.

    Only voxels that the surface passes through can be counted wrongly; they lie within half a voxel diagonal of it,
    and their errors have both signs. With N such voxels, each wrong by at most one voxel volume, independent
    rounding gives an error of about sqrt(N) / 2 voxels; six of those is a generous bound.
    """
    surface = pi * shape.diameter_mm**2  # of the sphere about it: no convex body within has a larger one
    diagonal = float(np.linalg.norm(geometry.spacing))
    n_on_surface = surface * diagonal / geometry.voxel_volume_mm3
    return 3.0 * np.sqrt(n_on_surface) * geometry.voxel_volume_mm3


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    "shape",
    [
        Sphere(30.0, CENTER),
        Sphere(17.0, CENTER),
        Ellipsoid((18.0, 9.0, 7.0), center_mm=CENTER),
        draw_shape("ellipsoid", 36.0, np.random.default_rng(2)).at(CENTER),
        draw_shape("rim", 36.0, np.random.default_rng(2)).at(CENTER),
    ],
    ids=["sphere 30", "sphere 17", "ellipsoid", "turned ellipsoid", "rim"],
)
def test_voxel_volume_is_the_analytic_volume(grid: str, shape: Shape):
    geometry = GRIDS[grid]
    volume = voxelize(shape, geometry).count * geometry.voxel_volume_mm3
    assert volume == pytest.approx(shape.analytic_volume_mm3, abs=_tolerance_mm3(shape, geometry))


@pytest.mark.parametrize("name", ["lobulated", "infiltrating"])
def test_one_lesion_has_nearly_the_same_volume_on_every_grid(name):
    shape = draw_shape(name, 36.0, np.random.default_rng(5)).at(CENTER)
    fine = make_grid((80, 80, 80), (0.5, 0.5, 0.5), "RAS", 0.0)
    expected = voxelize(shape, fine).count * fine.voxel_volume_mm3
    for geometry in GRIDS.values():
        volume = voxelize(shape, geometry).count * geometry.voxel_volume_mm3
        assert volume == pytest.approx(expected, abs=_tolerance_mm3(shape, geometry))


@pytest.mark.parametrize("grid", GRIDS)
def test_bounding_box_loses_no_voxel(grid: str):
    geometry = GRIDS[grid]
    shape = draw_shape("infiltrating", 33.0, np.random.default_rng(1)).at(CENTER)
    everywhere = shape.contains(geometry.to_world(np.moveaxis(np.indices(geometry.shape), 0, -1)))
    found = np.zeros(geometry.shape, dtype=bool)
    voxels = voxelize(shape, geometry)
    found[voxels.box] = voxels.mask
    assert np.array_equal(found, everywhere)


def test_bounding_box_also_holds_for_sheared_grids():
    affine = np.array([[1.0, 0.4, 0.3, -30.0], [0.0, 1.0, 0.5, -30.0], [0.0, 0.0, 2.0, -30.0], [0, 0, 0, 1]])
    geometry = Geometry((60, 60, 30), affine)
    sphere = Sphere(20.0)
    n_everywhere = sphere.contains(geometry.to_world(np.moveaxis(np.indices(geometry.shape), 0, -1))).sum()
    assert voxelize(sphere, geometry).count == n_everywhere


def test_shape_between_voxel_centers_gets_the_nearest_voxel():
    geometry = Geometry((10, 10, 10), np.diag([4.0, 4.0, 4.0, 1.0]))
    voxels = voxelize(Sphere(2.0, (17.9, 14.0, 9.9)), geometry)
    assert voxels.count == 1
    assert points_of(voxels, geometry).tolist() == [[16.0, 16.0, 8.0]]


def test_points_of_voxels_are_their_centers():
    geometry = GRIDS["oblique"]
    sphere = Sphere(12.0, CENTER)
    points = points_of(voxelize(sphere, geometry), geometry)
    assert sphere.contains(points).all()
    indices = geometry.to_voxel(points)
    assert np.allclose(indices, np.rint(indices), atol=1e-9)


def test_only_voxels_on_a_face_count_as_on_a_face():
    geometry = Geometry((5, 5, 5), np.eye(4))
    box = (slice(0, 3), slice(1, 3), slice(1, 3))
    inner = np.zeros((3, 2, 2), dtype=bool)
    inner[1] = True
    assert not Voxels(box, inner).on_face(geometry)
    inner[0, 0, 0] = True
    assert Voxels(box, inner).on_face(geometry)
    last = Voxels((slice(2, 3), slice(2, 3), slice(3, 5)), np.ones((1, 1, 2), dtype=bool))
    assert last.on_face(geometry)


def test_growing_one_voxel_gives_its_26_neighbors_inside_the_grid():
    geometry = Geometry((5, 5, 5), np.eye(4))
    middle = Voxels((slice(2, 3),) * 3, np.ones((1, 1, 1), dtype=bool))
    corner = Voxels((slice(0, 1),) * 3, np.ones((1, 1, 1), dtype=bool))
    assert grow(middle, 1, geometry).count == 27
    assert grow(corner, 1, geometry).count == 8
    assert grow(middle, 2, geometry).count == 125


def test_corner_contact_is_one_piece_and_a_gap_is_two():
    corner = np.zeros((2, 2, 2), dtype=bool)
    corner[0, 0, 0] = corner[1, 1, 1] = True
    gap = np.zeros((3, 1, 1), dtype=bool)
    gap[[0, 2]] = True
    assert is_one_piece(Voxels((slice(0, 2),) * 3, corner))
    assert not is_one_piece(Voxels((slice(0, 3), slice(0, 1), slice(0, 1)), gap))


def test_shared_voxels_go_to_the_center_that_is_nearer_in_radii():
    geometry = Geometry((60, 30, 30), np.diag([1.0, 1.0, 1.0, 1.0]))
    large, small = Sphere(24.0, (20.0, 15.0, 15.0)), Sphere(12.0, (35.0, 15.0, 15.0))
    before = voxelize(large, geometry), voxelize(small, geometry)
    after = divide((large, before[0]), (small, before[1]), geometry)
    assert n_shared(*before) > 0
    assert n_shared(*after) == 0
    assert after[0].count + after[1].count == before[0].count + before[1].count - n_shared(*before)
    # on the line between the centers 12 mm and 6 mm balls 15 mm apart part at x = 20 + 15 * 12 / 18 = 30
    assert _owners_on_the_line(after) == {29: 0, 30: 0, 31: 1}


def _owners_on_the_line(parts: tuple[Voxels, Voxels]) -> dict[int, int]:
    owners = {}
    for number, voxels in enumerate(parts):
        i, j, k = (np.argwhere(voxels.mask) + [s.start for s in voxels.box]).T
        owners |= {int(x): number for x in i[(j == 15) & (k == 15) & (i >= 29) & (i <= 31)]}
    return owners


def test_shapes_apart_share_nothing_and_keep_their_voxels():
    geometry = Geometry((40, 10, 10), np.eye(4))
    first, second = Sphere(6.0, (8.0, 5.0, 5.0)), Sphere(6.0, (30.0, 5.0, 5.0))
    voxels = voxelize(first, geometry), voxelize(second, geometry)
    assert n_shared(*voxels) == 0
    assert divide((first, voxels[0]), (second, voxels[1]), geometry) == voxels
