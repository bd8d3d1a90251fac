"""Volume: finite float32 intensities, read-only, on their grid."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.errors import GridMismatch, NonFiniteVoxels, UsageError

GRID = Geometry((2, 3, 4), np.eye(4))


def _volume(array, channels=("ct",)) -> Volume:
    return Volume(array, GRID, channels)


def test_volume_is_float32_whatever_came_in():
    for dtype in (np.int16, np.uint8, np.float64, np.float32):
        volume = _volume(np.full((1, 2, 3, 4), 7, dtype=dtype))
        assert volume.array.dtype == np.float32
        assert (volume.array == 7.0).all()


def test_volume_is_read_only():
    volume = _volume(np.zeros((1, 2, 3, 4), dtype=np.float32))
    with pytest.raises(ValueError, match="read-only"):
        volume.array[0, 0, 0, 0] = 1.0


def test_float32_array_is_not_copied_and_stays_writable_for_its_owner():
    mine = np.zeros((1, 2, 3, 4), dtype=np.float32)
    volume = _volume(mine)
    assert np.shares_memory(volume.array, mine)
    assert mine.flags.writeable


def test_channels_become_a_tuple():
    assert _volume(np.zeros((2, 2, 3, 4)), ["pet", "ct"]).channels == ("pet", "ct")


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 2, 3, 5), (1, 4, 3, 2), (1, 1, 2, 3, 4)])
def test_array_of_another_shape_is_refused(shape):
    with pytest.raises(GridMismatch, match="needs an array"):
        _volume(np.zeros(shape))


@pytest.mark.parametrize("channels", [(), ("a", "b")])
def test_every_channel_needs_a_name(channels):
    with pytest.raises(GridMismatch, match="names"):
        _volume(np.zeros((1, 2, 3, 4)), channels)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite_voxels_are_refused_and_counted(value: float):
    array = np.zeros((1, 2, 3, 4))
    array[0, 0, 0, :3] = value
    with pytest.raises(NonFiniteVoxels, match=r"3 of 24 voxels .*--nan-as"):
        _volume(array)


def test_repr_names_the_channels_and_not_the_voxels():
    assert repr(_volume(np.zeros((1, 2, 3, 4)))) == f"Volume(ct; {GRID!r})"


def test_units_are_one_a_channel_and_stored_unless_said():
    two = np.zeros((2, 2, 3, 4))
    assert Volume(two, GRID, ("pet", "ct")).units == ("stored", "stored")
    assert Volume(two, GRID, ("pet", "ct"), units="suv").units == ("suv", "suv")
    assert Volume(two, GRID, ("pet", "ct"), units=["suv", "stored"]).units == ("suv", "stored")


def test_other_units_and_other_numbers_of_them_are_refused():
    with pytest.raises(UsageError, match="stored or suv; got 'hu'"):
        Volume(np.zeros((1, 2, 3, 4)), GRID, ("ct",), units="hu")  # type: ignore[arg-type]
    with pytest.raises(GridMismatch, match="1 channel"):
        Volume(np.zeros((1, 2, 3, 4)), GRID, ("ct",), units=("suv", "suv"))
