from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medseg.errors import MedsegError
from medseg.io.dicom_frames import read_frames
from medseg.io.dicom_headers import lenient_parsing
from medseg.io.header_scan import scan_header
from tests.io.dicom_files import one_slice, without_preamble

WANTED = frozenset((0x00080016, 0x00080060, 0x00200032, 0x00280010, 0x00280030))


def scan(path, wanted=WANTED):
    data = path.read_bytes()
    return scan_header(data[: 1 << 16], wanted, len(data))


def nested(dataset, _):
    """Sequences of undefined length, within each other, before the wanted tags."""
    inner = Dataset()
    inner.PatientID, inner.Rows = "CANARY", 99
    middle = Dataset()
    middle.ReferencedSOPSequence = [inner, Dataset()]
    middle["ReferencedSOPSequence"].is_undefined_length = True
    middle.is_undefined_length_sequence_item = True
    dataset.ReferencedImageSequence = [middle, middle]
    dataset["ReferencedImageSequence"].is_undefined_length = True


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("edit", [None, nested])
def test_elements_and_pixels_are_those_that_pydicom_finds(tmp_path, syntax, edit):
    path = one_slice(tmp_path, edit)
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian)
    header = scan(path)
    told = dcmread(path, specific_tags=list(WANTED))
    assert header.tags.values == {int(tag): told.get_item(tag).value for tag in WANTED}
    assert header.tags.dataset == told
    assert (header.transfer_syntax, header.meta_sop_class) == (syntax, told.SOPClassUID)
    tag, offset, length = header.pixels
    assert (tag, path.read_bytes()[offset : offset + length]) == (0x7FE00010, dataset.PixelData)


@pytest.mark.parametrize("size", [0, 100, 132, 200, 340, 600])
def test_file_cut_off_is_left_to_pydicom(tmp_path, size):
    path = one_slice(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    assert scan(path) is None


def test_what_is_out_of_the_ordinary_is_left_to_pydicom(tmp_path):
    long = one_slice(tmp_path, lambda dataset, _: dataset.update({"PixelDataProviderURL": "c" * (1 << 16)}))
    assert scan(long) is None
    assert scan(without_preamble(one_slice(tmp_path), ExplicitVRLittleEndian)) is None
    undefined = one_slice(tmp_path, nested)
    assert scan(undefined, frozenset((0x00081140,))) is None


def test_sequences_nested_without_end_are_left_to_pydicom():
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    sequence = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    meta = struct.pack("<HH2sH", 0x0002, 0x0010, b"UI", 20) + b"1.2.840.10008.1.2.1\0"
    data = b"\0" * 128 + b"DICM" + meta + (sequence + item) * 3000
    assert scan_header(data, WANTED, len(data)) is None


@pytest.mark.parametrize("text", ["Thorax dünn", "Thorax", "a\\b "])
@pytest.mark.parametrize("alphabet", ["ISO_IR 192", "ISO_IR 100", ["", "ISO 2022 IR 87"]])
def test_description_is_read_in_its_own_alphabet(tmp_path, alphabet, text):
    if isinstance(alphabet, list):
        text = text.replace("dünn", "薄い")

    def edit(dataset, _):
        dataset.SpecificCharacterSet = alphabet
        dataset.SeriesDescription = text

    path = one_slice(tmp_path, edit)
    (frame,) = read_frames(path)
    assert frame.file.series_description == str(dcmread(path).SeriesDescription)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 1100), st.integers(0, 255)), min_size=1, max_size=12), st.integers(0, 1200))
def test_damaged_headers_are_read_or_refused_and_nothing_else(tmp_path_factory, changes, n_cut):
    path = tmp_path_factory.mktemp("fuzz") / "slice"
    data = bytearray(SLICE)
    for at, value in changes:
        data[at % len(data)] = value
    path.write_bytes(data[: len(data) - n_cut] if n_cut < len(data) // 4 else data)
    try:
        with lenient_parsing():
            frames = read_frames(path)
    except MedsegError:
        return
    assert frames is None or frames


def _slice_bytes() -> bytes:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        return one_slice(Path(folder), nested).read_bytes()


SLICE = _slice_bytes()
