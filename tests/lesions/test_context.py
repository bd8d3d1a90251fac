"""Position, confidence, quality flags and totals."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.core.lesions import Lesion, LesionMap
from medseg.core.table import COLUMNS
from medseg.core.volume import Volume
from medseg.errors import GridMismatch, UsageError
from medseg.lesions.measure import measure_lesions
from medseg.lesions.totals import longest_separation

from .scenes import ball, grid_over, lesion_map, make_grid, world_of_voxels

OBLIQUE = np.array([[-0.76, 0.1, 0.6, 110.0], [0.12, -0.79, 0.4, 95.5], [0.15, 0.11, 2.9, -310.25], [0, 0, 0, 1.0]])


def one_row(labels, geometry=None, **more):
    return measure_lesions(lesion_map(labels, geometry), **more).rows[0]


def random_blob(geometry: Geometry) -> np.ndarray:
    random = np.random.default_rng(5)
    return sum(ball(geometry, geometry.to_world(random.uniform(6, 12, 3)), 4.0) for _ in range(4)) > 0


def test_world_boxes_hold_every_corner_of_every_voxel_on_an_oblique_grid():
    geometry = Geometry((20, 20, 20), OBLIQUE)
    labels = random_blob(geometry)
    row = one_row(labels, geometry)
    corners = np.argwhere(labels)[:, None] + (np.indices((2, 2, 2)).reshape(3, -1).T - 0.5)
    lps = geometry.to_world(corners.reshape(-1, 3)) * [-1, -1, 1]
    for axis, name in enumerate("xyz"):
        assert row[f"bbox_{name}_min_lps_mm"] == pytest.approx(lps[:, axis].min())
        assert row[f"bbox_{name}_max_lps_mm"] == pytest.approx(lps[:, axis].max())


def test_lps_ras_and_voxel_are_one_place():
    geometry = Geometry((20, 20, 20), OBLIQUE)
    row = one_row(random_blob(geometry), geometry)
    ras = geometry.to_world([row[f"centroid_{axis}"] for axis in "ijk"])
    assert [row[f"centroid_{axis}_ras_mm"] for axis in "xyz"] == pytest.approx(ras.tolist())
    assert [row[f"centroid_{axis}_lps_mm"] for axis in "xyz"] == pytest.approx([-ras[0], -ras[1], ras[2]])


def test_the_inner_voxel_of_a_ring_lies_in_the_ring():
    geometry = make_grid((21, 21, 3))
    distance = np.linalg.norm(world_of_voxels(geometry)[..., :2] - 10, axis=-1)
    labels = (distance > 6) & (distance < 9)
    row = one_row(labels, geometry)
    assert labels[row["inner_i"], row["inner_j"], row["inner_k"]]
    assert np.hypot(row["inner_i"] - 10, row["inner_j"] - 10) < 7.1
    assert row["centroid_i"] == pytest.approx(10.0)


def test_the_ends_of_the_diameters_are_as_far_apart_as_the_diameters_are_long():
    geometry = Geometry((20, 20, 20), OBLIQUE)
    row = one_row(random_blob(geometry), geometry)
    vectors = {}
    for of in ("longest", "perpendicular"):
        start, end = (np.array([row[f"{of}_{which}_{axis}_lps_mm"] for axis in "xyz"]) for which in ("start", "end"))
        assert np.linalg.norm(end - start) == pytest.approx(row[f"{of}_diameter_mm"], abs=1e-9)
        vectors[of] = (end - start) / np.linalg.norm(end - start)
        places = geometry.to_voxel(np.stack([start, end]) * [-1, -1, 1])
        assert places[:, 2] == pytest.approx(row["diameter_slice"])
        for place in places:  # next to a voxel of the lesion
            assert np.abs(np.argwhere(random_blob(geometry)) - place).max(axis=1).min() < 1.0
    assert abs(vectors["longest"] @ vectors["perpendicular"]) < np.sin(np.deg2rad(2.5))
    assert row["who_product_mm2"] == pytest.approx(row["longest_diameter_mm"] * row["perpendicular_diameter_mm"])
    assert row["largest_product_mm2"] >= row["who_product_mm2"]


def test_the_largest_product_may_lie_in_another_slice_than_the_longest_diameter():
    labels = np.zeros((30, 20, 2))
    labels[2:28, 9:11, 0] = labels[5:25, 3:17, 1] = 1
    row = one_row(labels)
    assert row["diameter_slice"] == 0
    assert row["largest_product_mm2"] > 4 * row["who_product_mm2"]


def test_quality_flags():
    labels = np.zeros((20, 20, 8))
    labels[2:9, 2:9, 1:7] = 1
    labels[5, 5, 4] = 0  # enclosed
    labels[12:14, 12:14, 3] = 2
    labels[14, 14, 4], labels[16:18, 3, 3] = 2, 2
    first, second = measure_lesions(lesion_map(labels, make_grid((20, 20, 8), (2.0, 2.0, 4.0)))).rows
    assert (first["has_hole"], first["hole_volume_ml"], first["n_components"]) == (True, pytest.approx(0.016), 1)
    assert (first["is_one_slice"], first["is_thinner_than_slice"], first["has_few_voxels"]) == (False, False, False)
    assert first["is_below_recist"] is False
    assert (second["has_hole"], second["n_components"], second["has_few_voxels"]) == (False, 2, True)
    assert first["n_slices"] == 6
    assert first["axial_extent_mm"] == pytest.approx(24.0)
    assert (first["largest_slice"], first["largest_slice_area_mm2"]) == (1, 49 * 4.0)


@pytest.mark.parametrize(("slice_mm", "least_mm"), [(3.0, 10.0), (5.0, 10.0), (8.0, 16.0)])
def test_recist_asks_for_two_slices_where_they_lie_far_apart(slice_mm, least_mm):
    for length, is_below in ((least_mm - 1.0, True), (least_mm + 1.0, False)):
        labels = np.zeros((30, 5, 5))
        labels[2 : 2 + int(length), 2, 2] = 1
        assert one_row(labels, make_grid((30, 5, 5), (1.0, 1.0, slice_mm)))["is_below_recist"] is is_below


def test_probabilities_tell_confidence_and_partial_volume():
    geometry = grid_over(40.0, (2.0, 2.0, 2.0))
    distance = np.linalg.norm(world_of_voxels(geometry) - 20.3, axis=-1)
    probability = np.clip((12.0 - distance) / 2.0 + 0.5, 0.0, 1.0).astype(np.float32)  # blurred over one voxel
    row = one_row(probability >= 0.5, geometry, probabilities=probability)
    truth = 4 / 3 * np.pi * 12.0**3 / 1000
    assert abs(row["partial_volume_ml"] - truth) < 0.02 * truth
    assert 0 < row["partial_volume_std_ml"] < 0.1
    assert (row["probability_min"], row["probability_max"]) == (pytest.approx(0.5, abs=0.05), 1.0)
    assert 0.5 < row["probability_mean"] < row["probability_median"] <= 1.0
    assert 0.0 < row["probability_entropy_bits"] < 1.0


def test_certain_voxels_have_no_entropy():
    row = one_row(np.ones((2, 2, 2)), probabilities=np.ones((2, 2, 2), np.float32))
    assert row["probability_entropy_bits"] == 0.0
    assert row["partial_volume_std_ml"] == 0.0


def test_totals_are_sums_over_the_rows():
    labels = np.zeros((40, 20, 8))
    labels[2:14, 2:9, 1:7], labels[30:34, 12:16, 3:5] = 1, 2
    volume = Volume(np.full((1, 40, 20, 8), 5.0), make_grid((40, 20, 8)), ("pet",), units="suv")
    table = measure_lesions(lesion_map(labels), volume)
    first, second = table.rows
    totals = table.totals
    assert (totals["n_lesions"], totals["n_recist_measurable"]) == (2, 1)
    for total, column in {
        "volume_ml": "volume_ml",
        "longest_diameter_sum_mm": "longest_diameter_mm",
        "who_product_sum_mm2": "who_product_mm2",
        "mtv_ml": "mtv_ml",
        "tlg_suv_ml": "tlg_suv_ml",
    }.items():
        assert totals[total] == pytest.approx(first[column] + second[column])
    assert totals["dissemination_mm"] == pytest.approx(np.linalg.norm([24.0, 8.5, 0.0]))
    assert totals["dissemination_mm"] == pytest.approx(first["nearest_centroid_distance_mm"])


def test_totals_without_lesions_are_0_where_sums_are_and_null_elsewhere():
    totals = measure_lesions(lesion_map(np.zeros((3, 3, 3)))).totals
    assert (totals["n_lesions"], totals["volume_ml"], totals["longest_diameter_sum_mm"]) == (0, 0.0, 0.0)
    assert totals["largest_longest_diameter_mm"] is totals["dissemination_mm"] is totals["mtv_ml"] is None


@pytest.mark.parametrize("kind", ["cloud", "plane", "line", "point"])
def test_the_longest_separation_of_many_points(kind):
    points = np.random.default_rng(0).normal(size=(700, 3))
    points[:, {"cloud": 3, "plane": 2, "line": 1, "point": 0}[kind] :] = 4.0
    expected = np.sqrt(np.square(points[:, None] - points[None]).sum(axis=-1).max())
    assert longest_separation(points) == pytest.approx(expected, abs=1e-9)


def test_padding_the_scan_and_renumbering_lesions_changes_no_figure():
    geometry = make_grid((20, 18, 10), (0.8, 0.9, 3.0))
    labels = np.zeros(geometry.shape)
    labels[3:9, 4:9, 2:6], labels[12:15, 4:9, 2:8] = 1, 2
    values = np.random.default_rng(0).normal(5.0, 2.0, geometry.shape).astype(np.float32)
    affine = geometry.affine.copy()
    affine[:3, 3] -= geometry.affine[:3, :3] @ [3, 3, 3]
    padded = Geometry(tuple(n + 6 for n in geometry.shape), affine)
    swapped = np.array([0, 2, 1])[labels.astype(int)]

    def rows(array, grid, scan):
        return measure_lesions(lesion_map(array, grid), Volume(scan[None], grid, ("x",), units="suv")).rows

    here = rows(labels, geometry, values)
    there = rows(np.pad(swapped, 3), padded, np.pad(values, 3))[::-1]
    moved = {"lesion_id", "nearest_lesion_id"}
    touching_outside = {"suv_peak", "suv_peak_at_max"} | {f"suv_peak_{axis}_lps_mm" for axis in "xyz"}
    for column in COLUMNS:
        if column.unit != "voxel" and column.name not in moved | touching_outside:
            for one, other in zip(here, there, strict=True):
                value = one[column.name]
                expected = pytest.approx(value, rel=1e-6, abs=1e-6) if isinstance(value, float) else value
                assert other[column.name] == expected, column.name


def test_fields_of_the_lesions_are_columns():
    array = np.ones((2, 2, 2), dtype=np.uint16)
    row = measure_lesions(LesionMap(array, make_grid((2, 2, 2)), (Lesion("metastasis", 0.8),))).rows[0]
    assert (row["class_name"], row["score"]) == ("metastasis", 0.8)


def test_organs_in_the_place_of_the_name_are_refused():
    with pytest.raises(UsageError, match="organs="):
        measure_lesions(lesion_map(np.ones((2, 2, 2))), None, np.ones((2, 2, 2)))


def test_probabilities_of_another_shape_are_refused():
    with pytest.raises(GridMismatch, match="probabilities have shape"):
        measure_lesions(lesion_map(np.ones((2, 2, 2))), probabilities=np.ones((3, 2, 2), np.float32))
