"""The line of the longest diameter out of the table, and that it lies in the lesion."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medseg.core.geometry import Geometry
from medseg.core.lesions import Lesion, LesionMap
from medseg.errors import UsageError
from medseg.lesions.long_axis import long_axes
from medseg.lesions.measure import measure_lesions


def _random_lesions(affine: np.ndarray, seed: int) -> LesionMap:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((24, 20, 14)), 1.5)
    labels, n = ndimage.label(noise > np.quantile(noise, 0.8))
    return LesionMap(labels.astype(np.uint16), Geometry(labels.shape, affine), (Lesion("lesion"),) * n)


def test_its_length_is_the_longest_diameter_on_any_grid() -> None:
    turn = np.deg2rad(20.0)
    oblique = np.eye(4)
    oblique[:3, :3] = np.array([[np.cos(turn), -np.sin(turn), 0.3], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    oblique[:3, :3] *= (0.8, 1.1, 3.0)
    for seed, affine in enumerate((np.diag([-0.7, -0.7, 5.0, 1.0]), oblique, np.eye(4)[[2, 0, 1, 3]])):
        lesions = _random_lesions(affine, seed)
        table = measure_lesions(lesions)
        axes = long_axes(table)
        lengths = [row["longest_diameter_mm"] for row in table]
        np.testing.assert_allclose(np.linalg.norm(axes[:, 1] - axes[:, 0], axis=1), lengths, rtol=1e-9)


def test_its_ends_lie_in_one_axial_slice_at_the_edge_of_the_lesion() -> None:
    lesions = _random_lesions(np.diag([2.0, 1.0, 3.0, 1.0]), 5)
    for number, ends in enumerate(long_axes(measure_lesions(lesions)), start=1):
        voxels = lesions.geometry.to_voxel(ends)
        np.testing.assert_allclose(voxels[:, 2], np.rint(voxels[0, 2]), atol=1e-9)
        for voxel in voxels:
            own = np.argwhere(lesions.array[:, :, round(voxel[2])] == number)
            assert np.linalg.norm(own - voxel[:2], axis=1).min() < 1.5  # just outside a center; of a corner, farther


def test_one_voxel_and_no_lesion() -> None:
    array = np.zeros((3, 3, 3), dtype=np.uint16)
    empty = LesionMap(array, Geometry((3, 3, 3), np.eye(4)), ())
    assert long_axes(measure_lesions(empty)).shape == (0, 2, 3)
    array = array.copy()
    array[1, 1, 1] = 1
    (ends,) = long_axes(measure_lesions(LesionMap(array, Geometry((3, 3, 3), np.eye(4)), (Lesion("lesion"),))))
    np.testing.assert_allclose(np.linalg.norm(ends[1] - ends[0]), 0.5)


def test_a_table_without_the_ends_is_refused() -> None:
    table = measure_lesions(_random_lesions(np.eye(4), 1), columns=["volume_ml"])
    with pytest.raises(UsageError, match="lacks longest_end_x_lps_mm"):
        long_axes(table)
