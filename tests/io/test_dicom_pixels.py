from __future__ import annotations

import struct

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from medseg.errors import UnreadableImage
from medseg.io.scan import load_volume, read_scan
from tests.io.dicom_files import COLUMNS, ROWS, loaded, set_tag, stored_pixels, without_preamble, write_series
from tests.io.enhanced_files import frame_pixels, write_enhanced

RESCALED = stored_pixels(4) * 2.0 - 1000.0


def enlarge(dataset, k):
    """A slice of 40 x 64 pixels: JPEG 2000 is not written any smaller."""
    dataset.Rows, dataset.Columns = 40, 64
    dataset.PixelData = (np.arange(40 * 64, dtype="<i2") * (k + 1) - 3000).tobytes()


def rewritten(path, syntax):
    """The same file in another transfer syntax."""
    dataset = dcmread(path)
    if syntax.is_compressed and not syntax.is_deflated:
        dataset.compress(syntax, generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
    fresh = Dataset()  # pydicom changes the byte order of elements that it has taken apart only
    fresh.update({element.tag: element for element in dataset})
    fresh.file_meta = dataset.file_meta
    fresh.file_meta.TransferSyntaxUID = syntax
    dcmwrite(path, fresh, enforce_file_format=True)


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        RLELossless,
        JPEG2000Lossless,
        JPEGLSLossless,
    ],
    ids=lambda syntax: syntax.name,
)
def test_every_transfer_syntax_gives_the_same_voxels(tmp_path, syntax):
    paths = write_series(tmp_path, edit=enlarge)
    before = loaded(tmp_path).array[0]
    assert len(np.unique(before)) > 1000
    for path in paths:
        rewritten(path, syntax)
        assert dcmread(path).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(loaded(tmp_path).array[0], before)


def jpeg_lossless(pixels) -> bytes:
    """A JPEG stream of process 14, selection value 1 (the left neighbor predicts), written bit by bit from T.81."""
    values = pixels.astype("<i2").view("<u2").astype(int)
    bits = ""
    for row, column in np.ndindex(*values.shape):
        above = values[row - 1, 0] if row else 1 << 15
        predicted = values[row, column - 1] if column else above
        difference = (int(values[row, column]) - int(predicted) + 32768) % 65536 - 32768
        category = abs(difference).bit_length()
        extra = difference if difference > 0 else difference + (1 << category) - 1
        bits += f"{category:05b}" + (f"{extra:0{category}b}" if 0 < category < 16 else "")
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    rows, columns = values.shape
    frame = b"\xff\xc3" + struct.pack(">HBHHB", 11, 16, rows, columns, 1) + bytes((1, 0x11, 0))
    codes = bytes((0, *(0, 0, 0, 0, 17), *[0] * 11, *range(17)))  # 17 codes of five bits: category n is code n
    huffman = b"\xff\xc4" + struct.pack(">H", 2 + len(codes)) + codes
    start = b"\xff\xda" + struct.pack(">HB", 8, 1) + bytes((1, 0, 1, 0, 0))
    return b"\xff\xd8" + frame + huffman + start + scan + b"\xff\xd9"


def test_jpeg_lossless_is_read(tmp_path):
    def edit(dataset, k):
        dataset.PixelData = encapsulate([jpeg_lossless(stored_pixels(4)[:, :, k].T * 100 - 3000)])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1

    write_series(tmp_path, edit=edit)
    np.testing.assert_array_equal(loaded(tmp_path).array[0], (stored_pixels(4) * 100.0 - 3000) * 2 - 1000)


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_frames_of_one_file_go_to_their_slices(tmp_path, syntax, extended):
    path = write_enhanced(tmp_path, [(0, 0, 9.0), (0, 0, 3.0), (0, 0, 6.0)])
    dataset = dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False)
    if extended:
        frames = list(generate_frames(dataset.PixelData, number_of_frames=3))
        dataset.PixelData, offsets, lengths = encapsulate_extended(frames)
        dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
    dataset.save_as(path)
    np.testing.assert_array_equal(loaded(path).array[0].T, frame_pixels(3)[[1, 2, 0]] * 2.0 - 7.0)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_frames_of_one_stack_are_picked_out_of_a_file_with_several(tmp_path, syntax):
    positions = [(0, 0, 3.0 * k) for k in range(3) for _ in range(2)]

    def edit(groups, n):
        groups.FrameContentSequence[0].TemporalPositionIndex = n % 2 + 1

    path = write_enhanced(tmp_path, positions, edit)
    if syntax.is_compressed:
        dataset = dcmread(path)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)
    np.testing.assert_array_equal(loaded(path, series="3:2").array[0].T, frame_pixels(6)[1::2] * 2.0 - 7.0)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_files_without_preamble_are_read(tmp_path, syntax):
    for path in write_series(tmp_path):
        without_preamble(path, syntax)
    np.testing.assert_array_equal(loaded(tmp_path).array[0], RESCALED)


# from stored numbers to values


def test_each_slice_has_its_own_slope(tmp_path):
    def edit(dataset, k):
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5 + k, 10.0 * k

    write_series(tmp_path, edit=edit)
    slopes, intercepts = 0.5 + np.arange(4), 10.0 * np.arange(4)
    np.testing.assert_array_equal(loaded(tmp_path).array[0], stored_pixels(4) * slopes + intercepts)


def test_missing_slope_and_intercept_mean_one_and_zero(tmp_path):
    def edit(dataset, _):
        del dataset.RescaleSlope, dataset.RescaleIntercept

    write_series(tmp_path, edit=edit)
    np.testing.assert_array_equal(loaded(tmp_path).array[0], stored_pixels(4))


def with_pixels(pixels, **tags):
    """An edit that stores one array in every slice."""

    def edit(dataset, _):
        dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
        dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
        dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(pixels.dtype.kind == "i")
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.update(tags)

    return edit


@pytest.mark.parametrize("dtype", ["<i2", "<u2", "<i4", "<u4"])
@pytest.mark.parametrize("slope", [1.0, 0.1030769495, 3377.522403])
def test_rescale_is_the_nearest_float32_over_the_whole_range(tmp_path, dtype, slope):
    limits = np.iinfo(dtype)
    pixels = np.linspace(limits.min, limits.max, ROWS * COLUMNS).astype(dtype).reshape(ROWS, COLUMNS)
    write_series(tmp_path, n_slices=2, edit=with_pixels(pixels, RescaleSlope=slope, RescaleIntercept=-1024))
    expected = (pixels.astype(np.float64) * slope - 1024).astype(np.float32)
    np.testing.assert_array_equal(loaded(tmp_path).array[0, :, :, 0].T, expected)


def test_bits_beside_the_stored_ones_are_taken_off_and_the_sign_kept(tmp_path):
    values = np.resize(np.arange(-2048, 2048, 119, dtype=np.int16), (ROWS, COLUMNS))
    dirty = (values.view(np.uint16) & 0x0FFF) | 0x5000
    tags = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1}
    write_series(tmp_path, n_slices=2, edit=with_pixels(dirty.astype("<u2"), **tags))
    np.testing.assert_array_equal(loaded(tmp_path).array[0, :, :, 0].T, values)


def test_high_bit_counts(tmp_path):
    values = np.resize(np.arange(0, 4096, 119, dtype=np.uint16), (ROWS, COLUMNS))
    write_series(tmp_path, n_slices=2, edit=with_pixels((values << 4).astype("<u2"), BitsStored=12, HighBit=15))
    np.testing.assert_array_equal(loaded(tmp_path).array[0, :, :, 0].T, values)


def test_padding_keeps_its_stored_value(tmp_path):
    pixels = np.full((ROWS, COLUMNS), -2000, dtype="<i2")
    write_series(tmp_path, n_slices=2, edit=with_pixels(pixels, PixelPaddingValue=-2000))
    assert (loaded(tmp_path).array == -2000).all()


def test_monochrome1_is_not_inverted_and_noted(tmp_path):
    write_series(tmp_path, edit=set_tag("PhotometricInterpretation", "MONOCHROME1"))
    volume = loaded(tmp_path)
    np.testing.assert_array_equal(volume.array[0], RESCALED)
    assert volume.notes == ("MONOCHROME1: shown inverted on a screen; the values are as stored",)


def test_values_go_through_a_modality_lookup_table(tmp_path):
    def edit(dataset, _):
        table = Dataset()
        table.add_new("LUTDescriptor", "US", [200, 0, 16])
        table.add_new("LUTData", "US", [n**2 for n in range(200)])
        table.ModalityLUTType = "HU"
        dataset.ModalityLUTSequence = [table]
        del dataset.RescaleSlope, dataset.RescaleIntercept
        dataset.PixelRepresentation = 0

    write_series(tmp_path, edit=edit)
    np.testing.assert_array_equal(loaded(tmp_path).array[0], stored_pixels(4).astype(float) ** 2)


# what cannot be read


@pytest.mark.parametrize("cut", [1, 30, 70, 100])
def test_file_cut_off_after_its_header_was_read_is_refused(tmp_path, cut):
    files = write_series(tmp_path)
    scan = read_scan(tmp_path)
    files[2].write_bytes(files[2].read_bytes()[:-cut])
    with pytest.raises(UnreadableImage, match="002: the pixels cannot be read"):
        load_volume(scan)


def test_damaged_compressed_pixels_are_refused_by_file(tmp_path):
    files = write_series(tmp_path)
    for path in files:
        rewritten(path, JPEGLSLossless)
    files[1].write_bytes(files[1].read_bytes()[:-60])
    with pytest.raises(UnreadableImage, match="003: the pixels cannot be read"):
        loaded(tmp_path)


def test_missing_codec_names_the_package_and_the_number_of_files(tmp_path, monkeypatch):
    for path in write_series(tmp_path):
        rewritten(path, JPEGLSLossless)
    scan = read_scan(tmp_path)
    monkeypatch.setattr(Decoder, "is_available", False)
    with pytest.raises(UnreadableImage, match="pip install pyjpegls; 4 files of this series are affected"):
        load_volume(scan)


def test_pixels_that_no_decoder_reads_are_refused(tmp_path):
    for path in write_series(tmp_path):
        dataset = dcmread(path)
        dataset.PixelData = encapsulate([b"\0" * 70])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # MPEG2
        dataset.save_as(path)
    with pytest.raises(UnreadableImage, match=r"MPEG2 .* cannot be read; 4 files"):
        loaded(tmp_path)


def test_bits_that_do_not_fit_are_refused(tmp_path):
    write_series(tmp_path, edit=set_tag("HighBit", 20))
    with pytest.raises(UnreadableImage, match="HighBit 20 do not fit"):
        loaded(tmp_path)
