from __future__ import annotations

import numpy as np
import pytest
import SimpleITK

from medseg.lesions.foreground import find_foreground
from medseg.lesions.intensity import intensity_statistics


def statistics_of(labels, intensities):
    return intensity_statistics(find_foreground(labels), int(labels.max()), intensities.astype(np.float32))


def test_known_numbers():
    labels = np.array([1, 1, 1, 1, 0, 2]).reshape(6, 1, 1)
    found = statistics_of(labels, np.array([2.0, 4.0, 4.0, 6.0, 99.0, -3.0]).reshape(6, 1, 1))
    assert found.mean.tolist() == [4.0, -3.0]
    assert found.std.tolist() == pytest.approx([np.sqrt(2.0), 0.0])
    assert found.minimum.tolist() == [2.0, -3.0]
    assert found.maximum.tolist() == [6.0, -3.0]


def test_deviation_survives_a_large_offset():
    labels = np.ones((1000, 1, 1), dtype=np.uint16)
    values = 1e6 + np.tile([0.0, 1.0], 500).reshape(labels.shape)
    assert statistics_of(labels, values).std[0] == pytest.approx(0.5, rel=1e-9)


def test_a_constant_lesion_deviates_by_exactly_zero():
    labels = np.ones((7, 11, 13), dtype=np.uint16)
    assert statistics_of(labels, np.full(labels.shape, 0.1)).std[0] == 0.0


def test_intensities_agree_with_simpleitk():
    random = np.random.default_rng(4)
    labels = random.integers(0, 6, size=(12, 11, 10)).astype(np.uint16)
    intensities = (random.normal(40.0, 25.0, size=labels.shape)).astype(np.float32)
    peer = SimpleITK.LabelIntensityStatisticsImageFilter()
    peer.Execute(SimpleITK.GetImageFromArray(labels), SimpleITK.GetImageFromArray(intensities))
    found = statistics_of(labels, intensities)
    for number in peer.GetLabels():
        n_voxels = peer.GetNumberOfPixels(number)
        assert found.mean[number - 1] == pytest.approx(peer.GetMean(number))
        assert found.mean[number - 1] * n_voxels == pytest.approx(peer.GetSum(number))
        assert found.minimum[number - 1] == peer.GetMinimum(number)
        assert found.maximum[number - 1] == peer.GetMaximum(number)
        # ITK divides by N - 1
        assert found.std[number - 1] * np.sqrt(n_voxels / (n_voxels - 1)) == pytest.approx(
            peer.GetStandardDeviation(number)
        )
