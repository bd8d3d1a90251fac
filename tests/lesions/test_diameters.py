from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medseg.core.geometry import Geometry
from medseg.lesions.diameters import lesion_diameters

from .scenes import ORIENTATIONS, make_grid, reorient, world_of_voxels


def diameters(mask, geometry=None) -> tuple[float, float]:
    geometry = geometry or make_grid(mask.shape)
    boxes = [tuple(slice(0, size) for size in mask.shape)]
    return tuple(lesion_diameters(mask.astype(np.uint16), boxes, geometry)[0].tolist())


def rotation(axis: int, degrees: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turned = np.eye(3)
    first, second = [other for other in range(3) if other != axis]
    turned[[first, first, second, second], [first, second, first, second]] = c, -s, s, c
    return turned


def rotated(geometry: Geometry, turn: np.ndarray) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = turn
    return Geometry(geometry.shape, affine @ geometry.affine)


def test_one_voxel_measures_half_a_pixel():
    assert diameters(np.ones((1, 1, 1))) == pytest.approx((0.5, 0.5))
    assert diameters(np.ones((1, 1, 1)), make_grid((1, 1, 1), (0.8, 0.8, 5.0))) == pytest.approx((0.4, 0.4))


@pytest.mark.parametrize("shape", [(12, 1, 1), (1, 12, 1)])
def test_a_line_is_as_long_as_its_centers_and_half_a_pixel(shape):
    assert diameters(np.ones(shape)) == pytest.approx((11.5, 0.5), abs=0.02)


def test_a_line_along_the_slices_measures_one_pixel_of_each_slice():
    assert diameters(np.ones((1, 1, 12))) == pytest.approx((0.5, 0.5))


def test_a_diagonal_line_is_measured_along_itself():
    longest, perpendicular = diameters(np.eye(9)[:, :, None])
    assert longest == pytest.approx(np.hypot(8.25, 8.25), abs=0.25)
    assert perpendicular < 0.8


def test_a_rectangle_is_measured_along_its_diagonal():
    longest, _ = diameters(np.ones((10, 4, 1)))
    assert longest == pytest.approx(np.hypot(9.5, 3.0))


def test_an_l_shape_is_measured_from_tip_to_tip():
    mask = np.zeros((20, 20, 1))
    mask[:20, :3] = mask[:3, :20] = 1
    longest, perpendicular = diameters(mask)
    # From half a pixel or nothing beyond the tips' outermost centers: a tip of three pixels may be round or straight.
    assert np.hypot(19.0, 19.0) < longest < np.hypot(20.0, 20.0)
    # Across the corner of the L; the edge cuts both corners, the outer one at -0.125 and the inner one at 2.625.
    assert perpendicular == pytest.approx(np.hypot(2.75, 2.75), abs=0.02)


def test_a_crescent_is_as_thick_as_its_body_not_as_its_bow():
    geometry = make_grid((60, 60, 1))
    world = world_of_voxels(geometry)[..., :2]
    mask = (np.linalg.norm(world - 30, axis=-1) <= 25) & (np.linalg.norm(world - [30, 42], axis=-1) > 25)
    longest, perpendicular = diameters(mask, geometry)
    tip_to_tip = 2 * np.sqrt(25**2 - 6**2)
    assert longest == pytest.approx(tip_to_tip, abs=2.0)  # the tips are thinner than a pixel
    assert perpendicular == pytest.approx(12.0, abs=0.6)


def test_the_longest_slice_counts():
    mask = np.zeros((20, 20, 3))
    mask[5:8, 10, 0] = mask[2:15, 10, 1] = mask[5:9, 10, 2] = 1
    assert diameters(mask)[0] == pytest.approx(12.5)


def test_parts_in_different_slices_are_not_joined():
    mask = np.zeros((20, 5, 2))
    mask[:4, 2, 0] = mask[16:, 2, 1] = 1
    assert diameters(mask)[0] == pytest.approx(3.5)


def test_among_equally_long_slices_the_thicker_one_counts():
    mask = np.zeros((15, 9, 3))
    mask[:, 4, :] = 1
    mask[7, 2:7, 1] = 1
    assert diameters(mask) == pytest.approx((14.5, 4.5), abs=0.01)


@pytest.mark.parametrize("pixel_mm", [0.7, 0.8, 0.9])
@pytest.mark.parametrize("radius_mm", [3.0, 5.0, 10.0, 20.0])
def test_a_disc_is_measured_within_half_a_pixel(pixel_mm, radius_mm):
    """At 20 random positions. No chord between centers is longer than the disc, and each end moves out by a quarter
    pixel: half a pixel too long at most, and nearly that on large discs, whose rim meets a center in some direction.
    The perpendicular diameter cannot choose its direction, so it may also fall short by a pixel.
    """
    random = np.random.default_rng(int(radius_mm * 10))
    size = int(2 * radius_mm / pixel_mm) + 6
    geometry = make_grid((size, size, 1), (pixel_mm, pixel_mm, 1.0))
    errors = []
    for _ in range(20):
        center = (size / 2 + random.uniform(-0.5, 0.5, 2)) * pixel_mm
        mask = np.linalg.norm(world_of_voxels(geometry)[..., :2] - center, axis=-1) <= radius_mm
        errors.append(np.array(diameters(mask, geometry)) - 2 * radius_mm)
    errors = np.array(errors)
    assert np.abs(errors[:, 0]).max() <= 0.5 * pixel_mm
    assert abs(errors[:, 0].mean()) <= 0.4
    assert -1.25 * pixel_mm <= errors[:, 1].min()
    assert errors[:, 1].max() <= 0.5 * pixel_mm


def longest_section(radii, turn, center_z, slices_z) -> float:
    """Longest axis of the ellipses in which planes of constant z cut an ellipsoid."""
    form = turn @ np.diag(1.0 / np.square(radii)) @ turn.T
    inside = form[:2, :2]
    along_z = form[2, 2] - form[:2, 2] @ np.linalg.solve(inside, form[:2, 2])
    share = 1.0 - along_z * np.square(slices_z - center_z)
    return 2.0 * np.sqrt(share.max() / np.linalg.eigvalsh(inside)[0])


@pytest.mark.parametrize("seed", range(8))
def test_a_tilted_ellipsoid_is_measured_along_its_longest_section(seed):
    """Within one pixel (0.8 mm): the tip of a long ellipse may fall between two pixels."""
    random = np.random.default_rng(seed)
    turn = rotation(2, random.uniform(0, 180)) @ rotation(0, random.uniform(0, 60))
    radii, spacing = random.uniform(5.0, 14.0, 3), (0.8, 0.8, 3.0)
    geometry = make_grid((44, 44, 12), spacing)
    center = np.array([17.2, 17.2, 16.5]) + random.uniform(-0.5, 0.5, 3) * spacing
    offsets = (world_of_voxels(geometry) - center) @ turn
    mask = np.square(offsets / radii).sum(axis=-1) <= 1
    expected = longest_section(radii, turn, center[2], np.arange(12) * 3.0)
    assert diameters(mask, geometry)[0] == pytest.approx(expected, abs=0.8)


def blob(seed: int = 3) -> np.ndarray:
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(24, 22, 9)), 2.0) > 0.02


@pytest.mark.parametrize("orientation", ORIENTATIONS[::3])
def test_diameters_do_not_depend_on_how_the_grid_is_stored(orientation):
    geometry = make_grid((24, 22, 9), (0.8, 0.8, 3.0))
    turned, turned_geometry = reorient(blob(), geometry, *orientation)
    assert diameters(turned, turned_geometry) == pytest.approx(diameters(blob(), geometry), abs=1e-9)


@pytest.mark.parametrize(("axis", "degrees"), [(0, 20.0), (1, -25.0), (2, 40.0), (2, 90.0)])
def test_an_oblique_grid_measures_as_a_straight_one(axis, degrees):
    geometry = make_grid((24, 22, 9), (0.8, 0.9, 3.0))
    turned = rotated(geometry, rotation(axis, degrees))
    assert diameters(blob(), turned) == pytest.approx(diameters(blob(), geometry), abs=1e-9)


@pytest.mark.parametrize("scale", [0.5, 2.0, 7.3])
def test_diameters_scale_with_the_spacing(scale):
    spacing = np.array([0.8, 0.8, 3.0])
    before = np.array(diameters(blob(), make_grid((24, 22, 9), tuple(spacing))))
    after = np.array(diameters(blob(), make_grid((24, 22, 9), tuple(spacing * scale))))
    np.testing.assert_allclose(after, before * scale)


def test_a_skewed_grid_is_measured_in_true_millimeters():
    affine = np.eye(4)
    affine[0, 1] = 0.75  # one step along the second axis moves 1.25 mm
    longest, _ = diameters(np.ones((1, 9, 1)), Geometry((1, 9, 1), affine))
    assert longest == pytest.approx(8.5 * 1.25)


def test_one_body_at_two_spacings_measures_alike():
    fine, coarse = make_grid((100, 100, 1), (0.5, 0.5, 1.0)), make_grid((50, 50, 1), (1.0, 1.0, 1.0))
    turn = rotation(2, 30.0)[:2, :2]
    measured = []
    for geometry in (fine, coarse):
        offsets = (world_of_voxels(geometry)[..., :2] - 24.6) @ turn
        measured.append(diameters((offsets[..., 0] / 18) ** 2 + (offsets[..., 1] / 10) ** 2 <= 1, geometry))
    assert measured[0] == pytest.approx(measured[1], abs=1.0)
    assert measured[0] == pytest.approx((36.0, 20.0), abs=0.5)


def brute_force_longest(mask) -> float:
    """Every candidate point of every slice against every other."""
    longest = 0.0
    steps = 0.25 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    for k in range(mask.shape[2]):
        points = (np.argwhere(mask[:, :, k])[:, None] + steps).reshape(-1, 2)
        if points.size:
            longest = max(longest, np.linalg.norm(points[:, None] - points[None], axis=-1).max())
    return longest


@pytest.mark.parametrize("seed", range(10))
def test_skipping_slices_and_points_misses_no_chord(seed, monkeypatch):
    monkeypatch.setattr("medseg.lesions.diameters.outer_ends", lambda pixels, plane, ends: ends)
    mask = blob(seed)
    assert diameters(mask)[0] == pytest.approx(brute_force_longest(mask), abs=1e-9)


def test_specks_of_one_shape_and_others_keep_their_own_diameters():
    labels = np.zeros((9, 9, 2), dtype=np.uint16)
    labels[0, 0, 0], labels[4, 4, 1], labels[7:9, 8, 0] = 1, 2, 3
    boxes = [
        (slice(0, 1), slice(0, 1), slice(0, 1)),
        (slice(4, 5), slice(4, 5), slice(1, 2)),
        (slice(7, 9), slice(8, 9), slice(0, 1)),
    ]
    assert lesion_diameters(labels, boxes, make_grid(labels.shape))[:, 0].tolist() == pytest.approx([0.5, 0.5, 1.5])


def test_no_lesion_gives_no_row():
    assert lesion_diameters(np.zeros((2, 2, 2), dtype=np.uint16), [], make_grid((2, 2, 2))).shape == (0, 2)
