from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from medseg.errors import UnreadableImage
from medseg.io.codestream import codestream_size
from tests.io.dicom_files import loaded, one_slice, write_series
from tests.io.test_dicom_pixels import enlarge, jpeg_lossless


@pytest.mark.parametrize(
    ("syntax", "size"), [(JPEG2000Lossless, (40, 64)), (JPEGLSLossless, (40, 64)), (RLELossless, None)]
)
def test_stream_says_its_rows_and_columns(tmp_path, syntax, size):
    dataset = dcmread(one_slice(tmp_path, enlarge))
    dataset.compress(syntax)
    assert codestream_size(next(generate_frames(dataset.PixelData, number_of_frames=1))) == size


def test_lossless_jpeg_says_its_rows_and_columns():
    assert codestream_size(jpeg_lossless(np.zeros((3, 9), dtype=np.int16))) == (3, 9)


@given(st.binary(max_size=60), st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff\xff\xff", b"\xff\x4f\xff\x51"]))
def test_any_bytes_have_a_size_or_none(rest, start):
    size = codestream_size(start + rest)
    assert size is None or len(size) == 2


def test_stream_of_another_size_than_the_header_is_refused_before_it_is_decoded(tmp_path):
    def edit(dataset, k):
        enlarge(dataset, k)
        dataset.compress(JPEGLSLossless, generate_instance_uid=False)
        frame = bytearray(next(generate_frames(dataset.PixelData, number_of_frames=1)))
        at = frame.index(b"\xff\xf7")
        frame[at + 5 : at + 9] = b"\xff\xff\xff\xff"  # 65,535 x 65,535
        dataset.PixelData = encapsulate([bytes(frame)])

    write_series(tmp_path, edit=edit)
    with pytest.raises(
        UnreadableImage, match=r"a compressed frame of \(65535, 65535\) pixels; the header said \(40, 64\)"
    ):
        loaded(tmp_path)
