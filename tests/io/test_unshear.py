from __future__ import annotations

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.io.scan import load_volume, read_scan
from medseg.io.unshear import is_sheared, unshear


def leaning(shift_mm=(0.0, 0.0), n_slices=6):
    """Slices 3 mm apart, each further by `shift_mm`, holding f = 2 x + 3 y + z of their world position."""
    affine = np.diag([1.5, 2.0, 3.0, 1.0])
    affine[:2, 2] = shift_mm
    affine[:3, 3] = (5.0, -7.0, 11.0)
    geometry = Geometry((9, 8, n_slices), affine)
    return Volume(plane(geometry)[None], geometry, ("CT",))


def plane(geometry):
    world = geometry.to_world(np.moveaxis(np.indices(geometry.shape), 0, -1))
    return (world @ (2.0, 3.0, 1.0)).astype(np.float32)


@pytest.mark.parametrize("shift_mm", [(0.0, 0.7), (0.0, -1.3), (0.4, 2.0), (-3.0, 0.0)])
def test_values_stay_where_they_are_in_the_world(shift_mm):
    volume = leaning(shift_mm)
    upright = unshear(volume)
    assert is_sheared(volume.geometry)
    assert not is_sheared(upright.geometry)
    np.testing.assert_allclose(np.abs(upright.geometry.affine[:3, :3]), np.diag([1.5, 2.0, 3.0]), atol=1e-12)
    inside = volume.geometry.to_voxel(upright.geometry.to_world(np.moveaxis(np.indices(upright.geometry.shape), 0, -1)))
    held = ((inside > 0.01) & (inside < np.array(volume.geometry.shape) - 1.01)).all(axis=-1)
    assert held.sum() > 100
    np.testing.assert_allclose(upright.array[0][held], plane(upright.geometry)[held], rtol=1e-5)


def test_whole_voxel_shifts_move_every_voxel_exactly():
    volume = leaning((1.5, -2.0))
    upright = unshear(volume)
    assert upright.geometry.shape == (14, 13, 6)
    for k in range(6):
        np.testing.assert_array_equal(upright.array[0, k : k + 9, 5 - k : 13 - k, k], volume.array[0, :, :, k])
    assert np.count_nonzero(upright.array[0] == volume.array[0].min()) >= upright.array[0].size - volume.array[0].size


def test_volume_and_note_say_what_was_done():
    volume = leaning((0.0, 0.7))
    upright = unshear(volume)
    assert upright.geometry.voxel_volume_mm3 == pytest.approx(volume.geometry.voxel_volume_mm3)
    assert upright.notes == ("un-sheared: each slice shifted within its plane by (0, 0.35) voxels a slice",)


def test_volume_without_shear_is_left_alone():
    volume = leaning()
    assert unshear(volume) is volume


@pytest.mark.real_data
def test_tilted_gantry_keeps_its_first_slice(real_data):
    volume = load_volume(read_scan(real_data / "dicom" / "ct_gantry_tilt4"))
    upright = unshear(volume)
    assert is_sheared(volume.geometry)
    corner = upright.geometry.to_voxel(volume.geometry.to_world((0, 0, 0)))
    np.testing.assert_allclose(corner, np.rint(corner), atol=1e-6)
    i, j, _ = np.rint(corner).astype(int)
    np.testing.assert_array_equal(upright.array[0, i : i + 512, j : j + 512, 0], volume.array[0, :, :, 0])
