from __future__ import annotations

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.lesions.bodies import list_voxels
from medseg.lesions.measure import measure_lesions
from medseg.lesions.peak import BALL_RADIUS_MM, ball_mean, highest_ball_mean, peak_ball

from .scenes import ball, grid_over, lesion_map, make_grid, world_of_voxels


def row_of(labels, suv, geometry):
    volume = Volume(np.asarray(suv, np.float32)[None], geometry, ("pet",), units="suv")
    return measure_lesions(lesion_map(labels, geometry), volume).rows[0]


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2, 2, 2), (4.07, 4.07, 3.0), (0.8, 0.8, 5.0)])
def test_the_ball_holds_a_milliliter(spacing):
    shares = peak_ball(make_grid((1, 1, 1), spacing)).shares
    assert shares.sum() * np.prod(spacing) == pytest.approx(1000.0, rel=5e-3)
    assert pytest.approx(6.2035, abs=1e-4) == BALL_RADIUS_MM


def test_a_skewed_grid_has_the_same_ball():
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[0, 1] = 0.8
    assert peak_ball(Geometry((1, 1, 1), affine)).shares.sum() * 12.0 == pytest.approx(1000.0, rel=1e-2)


def test_the_peak_of_a_linear_field_is_its_value_at_the_last_center():
    """A mean over a ball of a linear field is the field at the center, wherever the ball leaves the lesion."""
    geometry = make_grid((30, 30, 30), (2.0, 2.0, 2.0))
    field = world_of_voxels(geometry)[..., 0]
    labels = np.zeros(geometry.shape)
    labels[10:15, 13:17, 13:17] = 1
    row = row_of(labels, field, geometry)
    assert row["suv_peak"] == pytest.approx(28.0, rel=1e-6)
    assert row["suv_peak_x_lps_mm"] == -28.0
    assert row["suv_max"] == row["suv_peak_at_max"] == pytest.approx(28.0)


def test_the_peak_of_a_hot_voxel_is_spread_over_the_ball():
    geometry = make_grid((20, 20, 20), (2.0, 2.0, 2.0))
    suv = np.zeros(geometry.shape)
    suv[10, 10, 10] = 100.0
    labels = np.zeros(geometry.shape)
    labels[8:13, 8:13, 8:13] = 1
    row = row_of(labels, suv, geometry)
    assert row["suv_peak"] == pytest.approx(100.0 * 8.0 / 1000.0, rel=5e-3)
    assert row["suv_max"] == 100.0


def test_the_part_of_the_ball_beyond_the_scan_does_not_count():
    geometry = make_grid((6, 6, 6), (4.0, 4.0, 4.0))
    labels = np.zeros(geometry.shape)
    labels[0, 0, 0] = 1
    assert row_of(labels, np.full(geometry.shape, 3.0), geometry)["suv_peak"] == pytest.approx(3.0)


@pytest.mark.parametrize("plateau", [False, True])
def test_the_search_by_fft_finds_what_all_balls_show(plateau):
    geometry = make_grid((40, 36, 20), (1.0, 1.0, 2.0))
    suv = np.random.default_rng(0).normal(5.0, 1.0, geometry.shape).astype(np.float32)
    if plateau:
        suv = np.full(geometry.shape, 7.0, np.float32)
    labels = np.zeros(geometry.shape)
    labels[0:30, 3:30, 2:18] = 1
    voxels = list_voxels(lesion_map(labels, geometry))
    kernel = peak_ball(geometry)
    centers = np.stack(voxels.of(1), axis=-1)
    means = np.concatenate([ball_mean(suv, part, kernel) for part in np.array_split(centers, 40)])
    value, center = highest_ball_mean(voxels, 1, suv, kernel)
    assert value == pytest.approx(means.max(), abs=1e-8)
    expected = (0, 3, 2) if plateau else tuple(centers[means.argmax()])
    assert tuple(center) == expected


def test_volume_and_glycolysis_at_thresholds():
    geometry = make_grid((10, 1, 1), (10.0, 10.0, 10.0))  # a milliliter a voxel
    suv = np.array([1.0, 2.4, 2.5, 3.9, 4.0, 4.2, 5.0, 6.0, 8.0, 10.0]).reshape(10, 1, 1)
    row = row_of(np.ones((10, 1, 1)), suv, geometry)
    assert (row["mtv_ml"], row["tlg_suv_ml"]) == (pytest.approx(10.0), pytest.approx(suv.sum(), rel=1e-6))
    assert [row[f"mtv_{name}_ml"] for name in ("41pct", "50pct", "suv2p5", "suv4")] == pytest.approx(
        [5.0, 4.0, 8.0, 6.0]
    )
    assert row["tlg_50pct_suv_ml"] == pytest.approx(5.0 + 6.0 + 8.0 + 10.0)


def test_a_cold_lesion_has_no_glycolysis_above_a_threshold():
    row = row_of(np.ones((3, 3, 3)), np.full((3, 3, 3), 1.0), make_grid((3, 3, 3)))
    assert (row["mtv_suv4_ml"], row["tlg_suv4_suv_ml"]) == (0.0, None)


def test_uptake_is_null_where_no_channel_is_in_suv():
    geometry = make_grid((3, 3, 3))
    table = measure_lesions(lesion_map(np.ones((3, 3, 3))), Volume(np.ones((1, 3, 3, 3)), geometry, ("ct",)))
    row = table.rows[0]
    assert {row[name] for name in row if name.startswith(("suv", "mtv", "tlg"))} == {None}
    assert table.totals["mtv_ml"] is table.totals["suv_max"] is None
    assert row["entropy_bin25_bits"] == 0.0
    assert row["entropy_bin0p25_bits"] is None


def test_a_ball_of_uptake_has_its_analytic_figures():
    geometry = grid_over(60.0, (2.0, 2.0, 3.0))
    lesion = ball(geometry, (30.0, 30.0, 30.0), 15.0)
    row = row_of(lesion, 1.0 + 7.0 * lesion, geometry)
    assert (row["suv_max"], row["suv_mean"], row["suv_peak"]) == pytest.approx((8.0, 8.0, 8.0))
    assert row["tlg_suv_ml"] == pytest.approx(8.0 * 4 / 3 * np.pi * 15**3 / 1000, rel=0.02)
