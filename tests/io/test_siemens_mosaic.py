from __future__ import annotations

import numpy as np
import pytest

from medseg.errors import UnreadableImage
from medseg.io.siemens_mosaic import read_mosaic_layout
from tests.io.dicom_files import loaded
from tests.io.enhanced_files import write_mosaic

TILES = np.arange(5 * 4 * 6, dtype=np.int16).reshape(5, 4, 6)  # five slices of 4 rows and 6 columns: 3 x 3 tiles
ENTRIES = {"NumberOfImagesInMosaic": ["5"], "SliceNormalVector": ["0.0", "0.0", "1.0"]}


def test_mosaic_is_unpacked_about_the_center_of_its_own_position(tmp_path):
    volume = loaded(write_mosaic(tmp_path, TILES, ENTRIES, step=3.0))
    assert volume.geometry.shape == (6, 4, 5)
    np.testing.assert_array_equal(volume.array[0].T, TILES * 2.0 - 1000.0)
    corner = np.array((-10 + 1.5 * 6 * 2 / 2, -20 + 2.0 * 4 * 2 / 2, 30.0))  # (mosaic - tile) / 2 further in, LPS
    np.testing.assert_allclose(volume.geometry.affine[:3, 3], corner * (-1, -1, 1))
    assert volume.geometry.spacing == (1.5, 2.0, 3.0)


def test_slices_go_the_way_that_the_private_header_says(tmp_path):
    entries = {**ENTRIES, "SliceNormalVector": ["0.0", "0.0", "-1.0"]}
    volume = loaded(write_mosaic(tmp_path, TILES, entries, step=3.0))
    assert volume.geometry.affine[2, 3] == 30.0 - 4 * 3.0
    np.testing.assert_array_equal(volume.array[0].T, TILES[::-1] * 2.0 - 1000.0)


@pytest.mark.parametrize("missing", ["NumberOfImagesInMosaic", "SliceNormalVector", None])
def test_mosaic_without_its_private_facts_is_refused(tmp_path, missing):
    entries = {name: value for name, value in ENTRIES.items() if name != missing} if missing else {}
    with pytest.raises(UnreadableImage, match="private headers do not say"):
        loaded(write_mosaic(tmp_path, TILES, entries, step=3.0))


def test_mosaic_that_does_not_say_its_step_is_refused(tmp_path):
    with pytest.raises(UnreadableImage, match="does not say how far apart its slices are"):
        loaded(write_mosaic(tmp_path, TILES, ENTRIES, step=None))


def test_number_of_slices_must_fit_the_size(tmp_path):
    path = write_mosaic(tmp_path, TILES, {**ENTRIES, "NumberOfImagesInMosaic": ["20"]}, step=3.0)
    with pytest.raises(UnreadableImage, match="a mosaic of 20 slices does not fit 12 x 18 pixels"):
        read_mosaic_layout(path, 12, 18)
