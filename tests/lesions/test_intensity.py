from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from scipy import stats

from medseg.core.volume import Volume
from medseg.lesions.intensity import histogram_entropy, intensity_statistics
from medseg.lesions.measure import measure_lesions

from .scenes import lesion_map, make_grid


@pytest.mark.parametrize("seed", range(3))
def test_statistics_agree_with_numpy_and_scipy(seed):
    values = np.random.default_rng(seed).gamma(2.0, 30.0, 501) - 20.0
    measured = intensity_statistics(values)
    p = {q: np.percentile(values, q) for q in (5, 10, 25, 50, 75, 90, 95)}
    middle = values[(values >= p[10]) & (values <= p[90])]
    expected = {
        "mean": values.mean(),
        "std": values.std(),
        "variance": values.var(),
        "skewness": stats.skew(values),
        "kurtosis": stats.kurtosis(values),
        "median": p[50],
        "p5": p[5],
        "p95": p[95],
        "iqr": p[75] - p[25],
        "mean_absolute_deviation": np.abs(values - values.mean()).mean(),
        "robust_mean_absolute_deviation": np.abs(middle - middle.mean()).mean(),
        "median_absolute_deviation": np.abs(values - p[50]).mean(),
        "coefficient_of_variation": stats.variation(values),
        "quartile_coefficient": (p[75] - p[25]) / (p[75] + p[25]),
        "energy": np.square(values).sum(),
        "rms": np.sqrt(np.square(values).mean()),
    }
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, rel=1e-10), name


def test_equal_voxels_have_no_skewness_and_no_kurtosis():
    measured = intensity_statistics(np.full(7, 3.0))
    assert (measured["std"], measured["iqr"], measured["skewness"], measured["kurtosis"]) == (0.0, 0.0, None, None)


def test_ratios_to_nothing_are_null():
    measured = intensity_statistics(np.array([-1.0, 0.0, 1.0]))
    assert measured["coefficient_of_variation"] is None
    assert measured["quartile_coefficient"] is None


def test_intensities_far_from_0_lose_no_digits():
    values = 1e9 + np.array([0.0, 1.0, 2.0, 3.0])
    assert intensity_statistics(values)["std"] == pytest.approx(np.sqrt(1.25), rel=1e-9)


def test_entropy_counts_bins_that_start_at_multiples_of_their_width():
    assert histogram_entropy(np.array([0.0, 24.9, 25.0, 49.9]), 25.0) == (1.0, 0.5)
    assert histogram_entropy(np.array([-1.0, 1.0]), 25.0) == (1.0, 0.5)
    assert histogram_entropy(np.full(9, 7.0), 0.25) == (0.0, 1.0)
    assert histogram_entropy(np.array([0.0, 1e12]), 0.25) == (1.0, 0.5)  # no histogram of 4e12 bins is made


def test_every_channel_has_its_columns_and_uptake_is_of_the_one_in_suv():
    geometry = make_grid((6, 6, 6))
    labels = np.zeros((6, 6, 6))
    labels[1:5, 1:5, 1:5] = 1
    ct = np.random.default_rng(0).normal(40.0, 10.0, geometry.shape)
    pet = np.random.default_rng(1).uniform(2.0, 9.0, geometry.shape)
    volume = Volume(np.stack([ct, pet]), geometry, ("CT", "PT (AC)"), units=("stored", "suv"))
    table = measure_lesions(lesion_map(labels), volume)
    row = table.rows[0]
    inside = labels == 1
    assert row["mean"] == pytest.approx(ct[inside].mean(), rel=1e-6)
    assert row["pt_ac_mean"] == row["suv_mean"] == pytest.approx(pet[inside].mean(), rel=1e-6)
    assert row["entropy_bin25_bits"] is not None
    assert row["pt_ac_entropy_bin25_bits"] is None
    assert row["pt_ac_entropy_bin0p25_bits"] > 1.0
    units = {column.name: column.unit for column in table.columns}
    assert (units["mean"], units["pt_ac_mean"], units["pt_ac_variance"]) == ("scan", "SUV", "SUV^2")


def test_two_channels_in_suv_both_have_uptake():
    geometry = make_grid((4, 4, 4))
    volume = Volume(
        np.stack([np.full((4, 4, 4), 3.0), np.full((4, 4, 4), 8.0)]), geometry, ("fdg", "psma"), units="suv"
    )
    row = measure_lesions(lesion_map(np.ones((4, 4, 4))), volume).rows[0]
    assert (row["suv_max"], row["psma_suv_max"]) == (3.0, 8.0)


def test_channels_of_one_name_are_told_apart():
    geometry = make_grid((2, 2, 2))
    volume = Volume(np.ones((3, 2, 2, 2)), geometry, ("a", "mr", "MR"))
    names = measure_lesions(lesion_map(np.ones((2, 2, 2))), volume).column_names
    assert {"mr_mean", "mr_2_mean"} <= set(names)
    assert len(set(names)) == len(names)


def test_the_hottest_of_equal_voxels_is_the_first_in_the_world():
    geometry = make_grid((4, 4, 4), (2.0, 2.0, 2.0))
    values = np.zeros((4, 4, 4))
    values[1, 3, 0] = values[1, 0, 3] = values[3, 0, 0] = 5.0
    row = measure_lesions(lesion_map(np.ones((4, 4, 4)), geometry), Volume(values[None], geometry, ("x",))).rows[0]
    assert [row[f"hottest_{axis}_lps_mm"] for axis in "xyz"] == [-2.0, 0.0, 6.0]


def test_the_center_of_mass_shifts_towards_the_bright_side():
    geometry = make_grid((4, 1, 1), (3.0, 1.0, 1.0))
    row = measure_lesions(
        lesion_map(np.ones((4, 1, 1)), geometry),
        Volume(np.array([0.0, 0.0, 0.0, 5.0]).reshape(1, 4, 1, 1), geometry, ("x",)),
    ).rows[0]
    assert row["center_of_mass_shift_mm"] == pytest.approx(4.5)


def test_intensities_and_centroids_agree_with_simpleitk():
    random = np.random.default_rng(4)
    labels = random.integers(0, 6, size=(12, 11, 10)).astype(np.uint16)
    values = random.normal(40.0, 25.0, size=labels.shape).astype(np.float32)
    peer = SimpleITK.LabelIntensityStatisticsImageFilter()
    peer.Execute(SimpleITK.GetImageFromArray(labels.T), SimpleITK.GetImageFromArray(values.T))
    rows = measure_lesions(lesion_map(labels), Volume(values[None], make_grid(labels.shape), ("x",))).rows
    for row in rows:
        number, n_voxels = row["lesion_id"], row["n_voxels"]
        assert row["mean"] == pytest.approx(peer.GetMean(number))
        assert (row["min"], row["max"]) == (peer.GetMinimum(number), peer.GetMaximum(number))
        # ITK divides by N - 1
        assert row["std"] * np.sqrt(n_voxels / (n_voxels - 1)) == pytest.approx(peer.GetStandardDeviation(number))
        assert [row[f"centroid_{axis}"] for axis in "ijk"] == pytest.approx(peer.GetCentroid(number), abs=1e-3)


def test_the_window_of_a_ct_is_named():
    geometry = make_grid((2, 2, 2))
    lesions = lesion_map(np.ones((2, 2, 2)))
    for level, name in ((-800.0, "lung"), (20.0, "soft_tissue"), (900.0, "bone")):
        volume = Volume(np.full((2, 2, 2, 2), level), geometry, ("CT", "mr"))
        row = measure_lesions(lesions, volume).rows[0]
        assert (row["ct_window"], row["mr_ct_window"]) == (name, None)
