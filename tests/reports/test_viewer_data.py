"""What the viewer holds: the scan as radiologists look at it, whatever its storage, small enough, with every lesion."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.lesions import LesionMap
from medseg.core.volume import Volume
from medseg.reports.viewer_data import ViewerVoxels, viewer_voxels
from tests.reports.cases import ORIENTATIONS, asymmetric_case, make_lesions, spots, stored


def _levels(packed: ViewerVoxels) -> NDArray[np.uint8]:
    """(x, y, z) levels, as the page unpacks them."""
    shape = packed.grid.geometry.shape
    rows = np.frombuffer(gzip.decompress(packed.scan), np.uint8).reshape(shape[::-1])
    return np.cumsum(rows, axis=2, dtype=np.uint8).T


def _numbers(packed: ViewerVoxels) -> NDArray[np.unsignedinteger]:
    kind = np.uint8 if packed.label_bytes == 1 else np.dtype("<u2")
    return np.frombuffer(gzip.decompress(packed.lesions), kind).reshape(packed.grid.geometry.shape[::-1]).T


def _case(order: tuple[int, ...] = (0, 1, 2), flips: tuple[bool, ...] = (False,) * 3) -> tuple[Volume, LesionMap]:
    array, lesions, geometry = asymmetric_case()
    turned, turned_geometry = stored(array, geometry, order, flips)
    volume = Volume(turned[None], turned_geometry, ("pet",))
    return volume, make_lesions(stored(lesions, geometry, order, flips)[0], turned_geometry)


def test_in_all_48_orientations_the_page_holds_the_same() -> None:
    first = viewer_voxels(*_case(), "PT")
    for order, flips in ORIENTATIONS:
        other = viewer_voxels(*_case(order, flips), "PT")
        assert other.scan == first.scan
        assert other.lesions == first.lesions
        np.testing.assert_allclose(other.grid.lps, first.grid.lps, atol=1e-9)


def test_x_runs_to_the_left_y_to_the_back_and_z_to_the_head() -> None:
    volume, lesions = _case((2, 0, 1), (True, False, True))
    packed = viewer_voxels(volume, lesions, "PT")
    assert (np.diag(packed.grid.lps)[:3] > 0).all()
    where = np.argwhere(_numbers(packed) == 1).mean(axis=0)
    assert packed.grid.lps @ (*where, 1.0) == pytest.approx([-65.0 + 0.3, -72.0, 60.0, 1.0], abs=1.0)


def test_levels_stand_for_the_values_of_the_scan_within_half_a_step() -> None:
    volume, lesions = _case()
    packed = viewer_voxels(volume, lesions, "PT")
    shown = packed.levels[_levels(packed)]
    true = packed.grid.turned(volume.array[0])
    half = np.diff(packed.levels).max() / 2
    np.testing.assert_allclose(shown, true, atol=half * 1.05)


def test_ct_is_fine_in_soft_tissue_and_reaches_from_air_to_bone() -> None:
    rng = np.random.default_rng(0)
    array = rng.uniform(-1000, 2500, (30, 30, 20)).astype(np.float32)
    geometry = Geometry(array.shape, np.eye(4))
    packed = viewer_voxels(
        Volume(array[None], geometry, ("ct",)), make_lesions(np.zeros(array.shape, np.uint16), geometry), "CT"
    )
    error = np.abs(packed.levels[_levels(packed)] - packed.grid.turned(array))
    soft = np.abs(packed.grid.turned(array) - 40) < 200
    assert error[soft].max() < 2.2
    assert error.max() < 60


def test_a_scan_that_is_too_large_is_thinned_and_no_lesion_is_lost() -> None:
    array, lesions, geometry = spots(200)
    noisy = array + np.random.default_rng(0).random(array.shape, dtype=np.float32)
    volume = Volume(noisy[None], geometry, ("pet",))
    packed = viewer_voxels(volume, make_lesions(lesions, geometry), "PT", most_bytes=4000)
    assert len(packed.scan) <= 4000
    assert max(packed.grid.factors) > 1
    assert "united into one" in packed.note
    sparse = np.where(lesions % 8 == 1, lesions, 0)
    kept = np.unique(sparse)[1:]
    renumbered = make_lesions(_renumber(sparse, kept), geometry)
    packed = viewer_voxels(volume, renumbered, "PT", most_bytes=4000)
    assert np.unique(_numbers(packed)).size == kept.size + 1


def _renumber(labels: NDArray[np.unsignedinteger], kept: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    table = np.zeros(int(kept.max()) + 1, dtype=labels.dtype)
    table[kept] = np.arange(1, kept.size + 1)
    return table[labels]


def test_the_mean_of_united_voxels_is_shown() -> None:
    array, lesions, geometry = spots(0)
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32)[:, None, None], array.shape).copy()
    noise = np.random.default_rng(1).normal(0, 0.2, array.shape).astype(np.float32)
    volume = Volume((ramp + noise)[None], geometry, ("mr",))
    packed = viewer_voxels(volume, make_lesions(lesions, geometry), None, most_bytes=2000)
    f = packed.grid.factors[0]
    true = packed.grid.turned(ramp)[: f * (packed.grid.turned(ramp).shape[0] // f), 0, 0].reshape(-1, f).mean(axis=1)
    shown = packed.levels[_levels(packed)][: true.size, 0, 0]
    assert f > 1
    np.testing.assert_allclose(shown, true, atol=np.diff(packed.levels).max() + 0.3)


def test_air_around_the_body_is_cut_off_and_lesions_never() -> None:
    array = np.full((60, 60, 40), -1000.0, dtype=np.float32)
    array[20:40, 20:40, 10:30] = 40.0
    lesions = np.zeros(array.shape, np.uint16)
    lesions[58, 1, 39] = 1
    geometry = Geometry(array.shape, np.diag([4.0, 4.0, 4.0, 1.0]))
    volume = Volume(array[None], geometry, ("ct",))
    without = viewer_voxels(volume, make_lesions(lesions * 0, geometry), "CT")
    assert all(size < 30 for size in without.grid.geometry.shape)
    packed = viewer_voxels(volume, make_lesions(lesions, geometry), "CT")
    (where,) = np.argwhere(_numbers(packed) == 1)
    np.testing.assert_allclose(packed.grid.geometry.to_world(where), geometry.to_world((58, 1, 39)))
