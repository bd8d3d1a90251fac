from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from medseg.core.geometry import Geometry
from medseg.core.plan import SeparationPlan
from medseg.core.table import COLUMNS
from medseg.core.volume import Volume
from medseg.errors import GridMismatch
from medseg.lesions.measure import measure_lesions
from medseg.lesions.separate import separate_lesions

from .scenes import ORIENTATIONS, ball, grid_over, lesion_map, make_grid, reorient, semantic_map

OBLIQUE = np.array(
    [
        [-0.78, 0.05, 0.35, 110.0],
        [0.06, -0.77, 0.50, 95.5],
        [0.12, 0.18, 2.90, -310.25],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


def rows_of(lesions, volume=None):
    return list(measure_lesions(lesions, volume, "p07"))


def one_channel(array, geometry) -> Volume:
    return Volume(np.asarray(array, dtype=np.float32)[None], geometry, ("CT",))


def cloud_lesions(geometry: Geometry, seed: int = 0):
    mask = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=geometry.shape), 1.5) > 0.12
    return separate_lesions(semantic_map(mask, geometry))


def test_a_block_has_known_measurements():
    array = np.zeros((10, 10, 10))
    array[2:6, 3:5, 4:9] = 1
    geometry = make_grid(array.shape, (2.0, 3.0, 5.0))
    (row,) = rows_of(lesion_map(array, geometry), one_channel(np.full(array.shape, 7.5), geometry))
    assert row["case_id"] == "p07"
    assert (row["lesion_id"], row["class_name"]) == (1, "lesion")
    assert row["volume_ml"] == pytest.approx(40 * 30.0 / 1000)
    lps = [row[f"centroid_{axis}_lps_mm"] for axis in "xyz"]
    assert lps == pytest.approx([-3.5 * 2, -3.5 * 3, 6.0 * 5])
    assert [row[f"bbox_{axis}_{end}"] for axis in "ijk" for end in ("min", "max")] == [2, 6, 3, 5, 4, 9]
    assert (row["mean"], row["std"], row["min"], row["max"]) == (7.5, 0.0, 7.5, 7.5)
    assert row["touches_border"] is False
    assert row["longest_diameter_mm"] == pytest.approx(np.hypot(7.0, 3.0))  # 3.5 pixels of 2 mm, 1 pixel of 3 mm


def test_a_ball_has_its_analytic_volume_and_diameters():
    geometry = grid_over(40.0, (0.8, 0.8, 1.0))
    (row,) = rows_of(lesion_map(ball(geometry, (20.1, 19.7, 20.0), 12.0), geometry))
    assert row["volume_ml"] == pytest.approx(4 / 3 * np.pi * 12**3 / 1000, rel=0.01)
    assert row["longest_diameter_mm"] == pytest.approx(24.0, abs=0.5)
    assert row["perpendicular_diameter_mm"] == pytest.approx(24.0, abs=1.0)
    assert row["centroid_x_lps_mm"] == pytest.approx(-20.1, abs=0.1)


@pytest.mark.parametrize("corner", [(0, 3, 3), (3, 0, 3), (3, 3, 0), (8, 3, 3), (3, 8, 3), (3, 3, 8)])
def test_a_block_at_any_face_touches_the_border(corner):
    array = np.zeros((10, 10, 10))
    array[tuple(slice(start, start + 2) for start in corner)] = 1
    assert rows_of(lesion_map(array))[0]["touches_border"] is True


def test_a_block_one_voxel_from_every_face_does_not():
    array = np.zeros((10, 10, 10))
    array[1:9, 1:9, 1:9] = 1
    assert rows_of(lesion_map(array))[0]["touches_border"] is False


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 1, 1), (6, 5, 1), (1, 5, 6)])
def test_flat_lesions_have_every_measurement(shape):
    (row,) = rows_of(lesion_map(np.ones(shape)), one_channel(np.ones(shape), make_grid(shape)))
    always = [column.name for column in COLUMNS if column.null in ("never", "no scan")]
    assert len(always) > 90
    assert {name for name in always if row[name] is None} == set()


def test_no_lesion_gives_an_empty_table():
    table = measure_lesions(lesion_map(np.zeros((4, 4, 4))))
    assert len(table) == 0
    assert table.column_names == tuple(column.name for column in COLUMNS)
    geometry = make_grid((4, 4, 4))
    assert len(measure_lesions(lesion_map(np.zeros((4, 4, 4))), one_channel(np.zeros((4, 4, 4)), geometry))) == 0


def test_values_are_plain_python_in_column_order():
    geometry = make_grid((12, 12, 12))
    lesions = cloud_lesions(geometry)
    kinds = {"text": str, "integer": int, "number": float, "flag": bool}
    for row in rows_of(lesions, one_channel(np.random.default_rng(0).normal(size=geometry.shape), geometry)):
        assert list(row) == [column.name for column in COLUMNS]
        for column in COLUMNS:
            assert type(row[column.name]) is kinds[column.kind] or (row[column.name] is None and column.null != "never")


def test_intensities_are_null_without_a_scan():
    (row,) = rows_of(lesion_map(np.ones((2, 2, 2))))
    assert [row[name] for name in ("mean", "std", "min", "max")] == [None] * 4


def test_the_first_channel_is_measured():
    geometry = make_grid((2, 2, 2))
    volume = Volume(np.stack([np.full((2, 2, 2), 3.0), np.full((2, 2, 2), 8.0)]), geometry, ("PET", "CT"))
    assert rows_of(lesion_map(np.ones((2, 2, 2))), volume)[0]["mean"] == 3.0


def test_a_scan_on_another_grid_is_refused_with_the_distance():
    shifted = Geometry((2, 2, 2), np.array([[1, 0, 0, 4.0], [0, 1, 0, 3.0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    with pytest.raises(GridMismatch, match=r"p07: .* up to 5 mm apart"):
        rows_of(lesion_map(np.ones((2, 2, 2))), one_channel(np.zeros((2, 2, 2)), shifted))


def test_a_scan_of_another_shape_is_refused():
    with pytest.raises(GridMismatch, match="3 x 2 x 2"):
        rows_of(lesion_map(np.ones((2, 2, 2))), one_channel(np.zeros((3, 2, 2)), make_grid((3, 2, 2))))


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 0.7), (0.8, 0.8, 3.0), (4.07, 4.07, 3.0)])
def test_volumes_add_up_to_the_foreground(spacing):
    geometry = make_grid((20, 18, 16), spacing)
    lesions = cloud_lesions(geometry)
    total = sum(row["volume_ml"] for row in rows_of(lesions))
    assert lesions.n_lesions > 5
    assert total == pytest.approx(np.count_nonzero(lesions.array) * geometry.voxel_volume_mm3 / 1000, rel=1e-12)


@pytest.mark.parametrize("orientation", ORIENTATIONS[1::6])
def test_measurements_do_not_depend_on_orientation(orientation):
    geometry = make_grid((16, 15, 14), (0.8, 0.9, 3.0))
    lesions = cloud_lesions(geometry, seed=2)
    intensities = np.random.default_rng(3).normal(size=geometry.shape)
    turned_mask, turned_geometry = reorient(lesions.array > 0, geometry, *orientation)
    turned = separate_lesions(semantic_map(turned_mask, turned_geometry))
    here = rows_of(lesions, one_channel(intensities, geometry))
    there = rows_of(turned, one_channel(reorient(intensities, geometry, *orientation)[0], turned_geometry))
    assert len(here) == len(there) > 3
    for name in (column.name for column in COLUMNS if column.unit != "voxel"):  # indices follow the axes
        assert [row[name] for row in there] == pytest.approx([row[name] for row in here], abs=1e-6), name


def to_sitk(array, geometry) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T))
    lps = np.diag([-1.0, -1.0, 1.0])
    image.SetSpacing(geometry.spacing)
    image.SetDirection((lps @ geometry.affine[:3, :3] / geometry.spacing).ravel().tolist())
    image.SetOrigin((lps @ geometry.affine[:3, 3]).tolist())
    return image


def orthogonal(affine: np.ndarray) -> np.ndarray:
    """The nearest affine without skew, as ITK wants it."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    u, _, vt = np.linalg.svd(affine[:3, :3] / spacing)
    straight = affine.copy()
    straight[:3, :3] = u @ vt * spacing
    return straight


def test_volume_and_centroid_agree_with_simpleitk_on_an_oblique_grid():
    geometry = Geometry((20, 18, 16), orthogonal(OBLIQUE))
    lesions = cloud_lesions(geometry)
    peer = SimpleITK.LabelShapeStatisticsImageFilter()
    peer.Execute(to_sitk(lesions.array, geometry))
    rows = rows_of(lesions)
    assert len(rows) == len(peer.GetLabels()) > 5
    for row in rows:
        number = row["lesion_id"]
        assert row["volume_ml"] == pytest.approx(peer.GetPhysicalSize(number) / 1000, rel=1e-9)
        lps = [row[f"centroid_{axis}_lps_mm"] for axis in "xyz"]
        assert lps == pytest.approx(peer.GetCentroid(number), abs=1e-6)
        start, size = np.split(np.array(peer.GetBoundingBox(number)), 2)
        assert [row[f"bbox_{axis}_min"] for axis in "ijk"] == start.tolist()
        assert [row[f"bbox_{axis}_max"] for axis in "ijk"] == (start + size).tolist()


def test_a_skewed_grid_gives_its_true_volume():
    geometry = Geometry((6, 6, 6), OBLIQUE)
    (row,) = rows_of(lesion_map(np.ones((6, 6, 6)), geometry))
    assert row["volume_ml"] == pytest.approx(216 * abs(np.linalg.det(OBLIQUE[:3, :3])) / 1000)


def test_five_thousand_lesions_are_measured():
    array = np.zeros((40, 50, 20), dtype=np.uint8)
    array[::2, ::2, ::2] = 1
    lesions = separate_lesions(semantic_map(array), SeparationPlan(method="components"))
    table = measure_lesions(lesions, one_channel(np.ones(array.shape), lesions.geometry))
    assert len(table) == 5000
    assert {row["nearest_lesion_distance_mm"] for row in table} == {2.0}
    assert table.totals["dissemination_mm"] == pytest.approx(np.sqrt(38**2 + 48**2 + 18**2))


@pytest.mark.slow
def test_seventy_thousand_one_voxel_lesions_are_measured():
    array = np.zeros((100, 100, 56), dtype=np.uint8)
    array[::2, ::2, ::2] = 1
    lesions = separate_lesions(semantic_map(array), SeparationPlan(method="components"))
    table = measure_lesions(lesions)
    assert len(table) == 70_000
    assert [row["lesion_id"] for row in table] == list(range(1, 70_001))
    assert {row["longest_diameter_mm"] for row in table} == {0.5}
