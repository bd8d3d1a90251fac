from __future__ import annotations

import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medseg.errors import UnreadableImage
from medseg.io import dicom_headers
from medseg.io.dicom_headers import is_dicom, numbers_tag, read_header, read_tags, texts_tag
from tests.io.dicom_files import one_slice, without_preamble


def test_dicom_is_told_by_content(tmp_path):
    path = one_slice(tmp_path)
    (tmp_path / "note.txt").write_text("no DICOM")
    assert is_dicom(path)
    assert not is_dicom(tmp_path / "note.txt")


def test_file_named_like_dicom_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.dcm").write_text("<html>404</html>")
    with pytest.raises(UnreadableImage, match=r"a\.dcm is named like a DICOM file but is none"):
        is_dicom(tmp_path / "a.dcm")


def test_hidden_leftovers_named_like_dicom_are_passed_over(tmp_path):
    (tmp_path / "._a.dcm").write_bytes(b"a Mac's leftover")
    assert not is_dicom(tmp_path / "._a.dcm")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_file_without_preamble_and_meta_is_told_by_its_first_element(tmp_path, syntax):
    path = without_preamble(one_slice(tmp_path), syntax)
    assert path.read_bytes()[:2] == b"\x08\x00"
    assert is_dicom(path)
    header = read_header(path, ["Rows"])
    assert (header.dataset.Rows, header.transfer_syntax) == (5, syntax)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x08\x00", b"\x08\x00" + b"\xff" * 20, b"\x08\x00\x05\x99CS\x00\x00rubbish", b"\x89PNG\r\n\x1a\n" * 30],
)
def test_other_files_are_no_dicom(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert not is_dicom(tmp_path / "file")


def test_pixels_are_found_where_they_lie(tmp_path):
    path = one_slice(tmp_path)
    element = read_header(path, ["Rows"]).pixels
    stored = path.read_bytes()[element.offset : element.offset + element.n_bytes]
    assert stored == dcmread(path).PixelData


def test_only_the_named_tags_are_read(tmp_path):
    tags = read_tags(one_slice(tmp_path), ["Rows", "Columns"])
    assert [element.keyword for element in tags] == ["Rows", "Columns"]
    assert "CANARY" not in str(tags)


def test_numbers_and_texts_are_as_stored_and_absent_is_none(tmp_path):
    path = one_slice(tmp_path)
    tags = read_tags(path, ["PixelSpacing", "ImageType"])
    assert numbers_tag(tags, "PixelSpacing", 2, path) == (2.0, 1.5)
    assert numbers_tag(tags, "SliceThickness", 1, path) is None
    assert texts_tag(tags, "ImageType", path) == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert texts_tag(tags, "StackID", path) == ()


def test_numbers_of_another_count_are_refused(tmp_path):
    path = one_slice(tmp_path)
    with pytest.raises(UnreadableImage, match=r"PixelSpacing must be 3 finite number\(s\)"):
        numbers_tag(read_tags(path, ["PixelSpacing"]), "PixelSpacing", 3, path)


def test_deflated_file_that_swells_beyond_any_image_is_refused(tmp_path, monkeypatch):
    path = one_slice(tmp_path)
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    assert read_header(path, ["Rows"]).dataset.Rows == 5
    monkeypatch.setattr(dicom_headers, "_MOST_INFLATED_BYTES", 300)
    with pytest.raises(UnreadableImage, match="inflates to more than"):
        read_header(path, ["Rows"])
