from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medseg.core.volume import count_non_finite
from medseg.errors import NonFiniteVoxels
from medseg.io.dicom_frames import read_frames
from medseg.io.dicom_rescale import rescale_into
from medseg.io.scan import load_volume, read_scan
from tests.io.dicom_files import add_pet_tags, loaded, one_slice, set_tag, write_series

EXTREMES = np.array([[-32768, 32767], [0, 1]], dtype=np.int16)


@pytest.fixture
def frame(tmp_path):
    (found,) = read_frames(one_slice(tmp_path))
    return found


@pytest.mark.parametrize("divisor", [None, np.float32(2500.0)])
@pytest.mark.parametrize(
    ("slope", "intercept"), [(1.0, 0.0), (1.0, -1024.0), (1.0, 0.5), (2.0, -1000.0), (0.37, 3.25), (1.0, 2.0**23 + 1)]
)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32])
def test_rescaled_pixels_are_those_of_double_precision(frame, dtype, slope, intercept, divisor):
    limits = np.iinfo(dtype)
    stored = np.array([[limits.min, limits.max], [limits.max // 3, 1]], dtype=dtype)
    out = np.empty(stored.shape, np.float32)
    assert rescale_into(replace(frame, slope=slope, intercept=intercept), stored, out, divisor) == 0
    expected = (stored * np.float64(slope) + intercept).astype(np.float32)
    np.testing.assert_array_equal(out, expected if divisor is None else expected / divisor)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:divide:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid:RuntimeWarning")
@pytest.mark.parametrize(
    ("slope", "divisor"), [(1e37, None), (1.0, np.float32(1e-36)), (1.0, np.float32(0.0)), (-1e37, np.float32(0.1))]
)
def test_whole_numbers_that_leave_float32_are_counted(frame, slope, divisor):
    out = np.empty(EXTREMES.shape, np.float32)
    n_bad = rescale_into(replace(frame, slope=slope, intercept=0.0), EXTREMES, out, divisor)
    assert n_bad == np.count_nonzero(~np.isfinite(out)) > 0


def test_stored_fractions_are_looked_through(frame):
    stored = np.array([[np.nan, 1.0], [np.inf, 2.0]], dtype=np.float32)
    out = np.empty(stored.shape, np.float32)
    assert rescale_into(frame, stored, out) == 2


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_series_whose_slope_leaves_float32_is_refused_or_filled(tmp_path):
    write_series(tmp_path, edit=set_tag("RescaleSlope", "1e38"))
    with pytest.raises(NonFiniteVoxels, match="NaN or infinite"):
        loaded(tmp_path)
    filled = load_volume(read_scan(tmp_path), nan_as=-1.0)
    assert count_non_finite(filled.array) == 0
    assert np.count_nonzero(filled.array == -1.0) == filled.array.size - 4  # 0 to 3 times 1e38 stay below the limit


def test_suv_is_what_is_stored_over_the_factor(tmp_path):
    write_series(tmp_path, n_slices=3, modality="PT", edit=lambda dataset, _: add_pet_tags(dataset))
    scan = read_scan(tmp_path)
    stored = load_volume(scan)
    np.testing.assert_array_equal(load_volume(scan, "suv").array, stored.array / np.float32(2500.0))
