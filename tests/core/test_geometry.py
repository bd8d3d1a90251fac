"""Geometry: known answers, agreement with nibabel, and to_voxel as the inverse of to_world."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.orientations import aff2axcodes
from scipy.spatial.transform import Rotation

from medseg.core.geometry import Geometry
from medseg.errors import InvalidGeometry

spacings = st.floats(0.2, 10.0)
offsets = st.floats(-1000.0, 1000.0)
shears = st.floats(-0.5, 0.5)
quaternions = st.tuples(*[st.floats(-1.0, 1.0)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)


def _affine(spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), rotation=None) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if rotation is None else rotation) * np.array(spacing)
    affine[:3, 3] = origin
    return affine


@st.composite
def affines(draw) -> np.ndarray:
    """Any rotation, spacing, shear, mirror and origin."""
    shear = np.eye(3)
    shear[0, 1], shear[0, 2], shear[1, 2] = draw(st.tuples(shears, shears, shears))
    spacing = np.array(draw(st.tuples(spacings, spacings, spacings)))
    mirror = np.array(draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3)))
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_quat(draw(quaternions)).as_matrix() @ shear @ np.diag(spacing * mirror)
    affine[:3, 3] = draw(st.tuples(offsets, offsets, offsets))
    return affine


# --- known answers ---


def test_world_of_a_voxel_is_origin_plus_spacing_times_index():
    geometry = Geometry((10, 10, 10), _affine((2.0, 3.0, 4.0), (-10.0, 20.0, 30.0)))
    assert geometry.to_world([1, 2, 3]).tolist() == [-8.0, 26.0, 42.0]
    assert geometry.to_voxel([-8.0, 26.0, 42.0]).tolist() == [1.0, 2.0, 3.0]


def test_many_points_at_once_keep_their_leading_shape():
    geometry = Geometry((4, 4, 4), _affine((2.0, 2.0, 2.0)))
    indices = np.arange(24.0).reshape(2, 4, 3)
    assert np.array_equal(geometry.to_world(indices), 2.0 * indices)
    assert geometry.to_voxel(2.0 * indices).shape == (2, 4, 3)


def test_spacing_is_the_length_of_each_column():
    # a tilted grid: the first axis steps 3 mm in x and 4 mm in y
    affine = np.array([[3.0, -4.0, 0, 0], [4.0, 3.0, 0, 0], [0, 0, 2.5, 0], [0, 0, 0, 1]])
    geometry = Geometry((2, 2, 2), affine)
    assert geometry.spacing == (5.0, 5.0, 2.5)
    assert geometry.voxel_volume_mm3 == 62.5
    assert geometry.voxel_volume_ml == 0.0625


def test_shear_does_not_change_the_voxel_volume():
    affine = _affine((1.0, 1.0, 5.0))
    affine[1, 2] = -1.5  # gantry tilt: each slice is pushed 1.5 mm to the back
    geometry = Geometry((2, 2, 2), affine)
    assert geometry.voxel_volume_mm3 == 5.0
    assert geometry.spacing[2] == pytest.approx(np.hypot(5.0, 1.5))


def test_voxel_volume_of_whole_millimeters_is_exact():
    # np.linalg.det gives 63.99999999999998 and 10.000000000000007
    assert Geometry((2, 2, 2), _affine((4.0, 4.0, 4.0))).voxel_volume_mm3 == 64.0
    assert Geometry((2, 2, 2), _affine((0.1, 10.0, 10.0))).voxel_volume_mm3 == 10.0


@pytest.mark.parametrize(
    ("columns", "axcodes", "axial_axis"),
    [
        (np.diag([1.0, 1.0, 1.0]), "RAS", 2),
        (np.diag([-1.0, -1.0, 1.0]), "LPS", 2),
        (np.diag([1.0, -1.0, -1.0]), "RPI", 2),
        (np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), "ASL", 1),
        (np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]]), "IRA", 0),
    ],
)
def test_axis_codes_name_the_direction_of_growth(columns, axcodes: str, axial_axis: int):
    affine = np.eye(4)
    affine[:3, :3] = columns
    geometry = Geometry((2, 2, 2), affine)
    assert geometry.axcodes == axcodes
    assert geometry.axial_axis == axial_axis


def test_axis_codes_use_each_direction_once_even_where_two_axes_lean_the_same_way():
    columns = np.array([[0.8, 0.7, 0.0], [0.6, -0.1, 0.7], [0.0, 0.7, 0.7]])
    affine = np.eye(4)
    affine[:3, :3] = columns
    assert sorted(Geometry((2, 2, 2), affine).axcodes) in (sorted("RAS"), sorted("RPS"))


def test_repr_says_shape_spacing_orientation_and_origin():
    geometry = Geometry((144, 144, 63), _affine((3.5, 3.5, 3.27), (-250.5, 10.0, -1012.25)))
    assert repr(geometry) == "Geometry(144 x 144 x 63 voxels of 3.5 x 3.5 x 3.27 mm, RAS from (-250.5, 10, -1012.25))"


# --- agreement ---


def test_axis_codes_agree_with_nibabel_on_random_rotations():
    rng = np.random.default_rng(0)
    for rotation in Rotation.random(500, random_state=1).as_matrix():
        affine = _affine(rng.uniform(0.5, 5.0, 3), rotation=rotation * rng.choice([-1.0, 1.0], 3))
        assert Geometry((2, 2, 2), affine).axcodes == "".join(aff2axcodes(affine))


@given(affines())
def test_voxel_volume_agrees_with_the_determinant(affine):
    assert Geometry((2, 2, 2), affine).voxel_volume_mm3 == pytest.approx(abs(np.linalg.det(affine[:3, :3])), rel=1e-9)


# --- symmetries and round trips ---


@given(affines(), st.lists(st.tuples(*[st.floats(-500.0, 500.0)] * 3), min_size=1, max_size=5))
def test_to_voxel_undoes_to_world(affine, indices):
    geometry = Geometry((8, 9, 10), affine)
    assert np.allclose(geometry.to_voxel(geometry.to_world(indices)), indices, atol=1e-6)


@given(affines())
def test_axial_axis_runs_along_s_or_i(affine):
    geometry = Geometry((2, 2, 2), affine)
    assert geometry.axcodes[geometry.axial_axis] in "SI"


@given(affines())
def test_flipping_an_axis_flips_its_letter_and_keeps_spacing_and_volume(affine):
    flipped = affine.copy()
    flipped[:, 0] *= -1.0
    before, after = Geometry((2, 2, 2), affine), Geometry((2, 2, 2), flipped)
    opposite = dict(zip("RLAPSI", "LRPAIS", strict=True))
    assert after.axcodes == opposite[before.axcodes[0]] + before.axcodes[1:]
    assert after.spacing == before.spacing
    assert after.voxel_volume_mm3 == before.voxel_volume_mm3


# --- matches ---


def test_grid_matches_itself_and_a_copy():
    geometry = Geometry((5, 6, 7), _affine((1.0, 2.0, 3.0)))
    assert geometry.matches(geometry)
    assert geometry.matches(Geometry((5, 6, 7), geometry.affine.copy()))


def test_matches_up_to_the_tolerance_and_no_further():
    geometry = Geometry((5, 5, 5), _affine())
    assert geometry.matches(Geometry((5, 5, 5), _affine(origin=(0.009, 0.0, 0.0))))
    assert not geometry.matches(Geometry((5, 5, 5), _affine(origin=(0.011, 0.0, 0.0))))
    assert geometry.matches(Geometry((5, 5, 5), _affine(origin=(0.011, 0.0, 0.0))), tolerance_mm=0.02)


def test_displacement_is_taken_at_the_worst_corner():
    # 0.001 mm a voxel is nothing at the origin, but 0.4 mm at the 400th voxel
    wide, wider = Geometry((401, 2, 2), _affine()), Geometry((401, 2, 2), _affine((1.001, 1.0, 1.0)))
    assert wide.largest_displacement_mm(wider) == pytest.approx(0.4)
    assert not wide.matches(wider)


def test_other_shape_never_matches():
    assert not Geometry((5, 5, 5), np.eye(4)).matches(Geometry((5, 5, 6), np.eye(4)), tolerance_mm=1e9)


def test_single_voxel_grid_is_a_grid():
    geometry = Geometry((1, 1, 1), np.eye(4))
    assert geometry.matches(geometry)
    assert geometry.largest_displacement_mm(Geometry((1, 1, 1), _affine(origin=(3.0, 4.0, 0.0)))) == 5.0


# --- immutability and refusals ---


def test_affine_cannot_be_changed_from_either_side():
    mine = np.eye(4)
    geometry = Geometry((2, 2, 2), mine)
    mine[0, 0] = 7.0
    assert geometry.affine[0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        geometry.affine[0, 0] = 7.0
    with pytest.raises(AttributeError):
        geometry.shape = (3, 3, 3)  # type: ignore[misc]


def test_numpy_integers_become_plain_ones():
    shape = Geometry(np.array([2, 3, 4]), np.eye(4)).shape  # type: ignore[arg-type]
    assert shape == (2, 3, 4)
    assert all(type(n) is int for n in shape)


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 2, 2), (2, 0, 2), (2, -1, 2), (2.5, 2, 2), ("2", 2, 2), 8, None])
def test_shape_that_is_not_three_positive_whole_numbers_is_refused(shape):
    with pytest.raises(InvalidGeometry):
        Geometry(shape, np.eye(4))


def _changed(row: int, column: int, value: float) -> np.ndarray:
    affine = np.eye(4)
    affine[row, column] = value
    return affine


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.eye(3), "4 x 4"),
        (_changed(0, 0, np.nan), "NaN or infinite"),
        (_changed(1, 3, np.inf), "NaN or infinite"),
        (_changed(3, 0, 1.0), "last row"),
        (_changed(3, 3, 2.0), "last row"),
        (_changed(2, 2, 0.0), "spacing must be above 0"),
        (np.array([[1.0, 2.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]), "singular"),
        (np.array([[1.0, 1.0, 0, 0], [0, 1e-8, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1]]), "singular"),
    ],
)
def test_affine_that_cannot_be_is_refused(affine, message: str):
    with pytest.raises(InvalidGeometry, match=message):
        Geometry((2, 2, 2), affine)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_small_or_large_units_are_not_singular(scale: float):
    assert Geometry((2, 2, 2), _affine((scale, scale, scale))).voxel_volume_mm3 == pytest.approx(scale**3)
