from __future__ import annotations

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, NuclearMedicineImageStorage

from medseg.errors import UnreadableImage
from medseg.io.dicom_frames import NoImage, read_frames
from medseg.io.dicom_headers import lenient_parsing
from tests.io.dicom_files import SERIES_UID, STUDY_UID, one_slice, set_tag


def overwrite(path, old: bytes, new: bytes) -> None:
    """Replace bytes of a file, so that a value gets there that pydicom would refuse to write."""
    data = path.read_bytes()
    assert data.count(old) == 1
    assert len(old) == len(new)
    path.write_bytes(data.replace(old, new))


def only_frame(path):
    (frame,) = read_frames(path)
    return frame


def test_classic_file_is_one_frame_with_what_places_it_and_no_identity(tmp_path):
    frame = only_frame(one_slice(tmp_path))
    file = frame.file
    assert (file.study_uid, file.series_uid) == (STUDY_UID, SERIES_UID)
    assert (file.modality, file.series_number, file.series_description) == ("CT", "3", "thin slices")
    assert (frame.rows, frame.columns, file.n_frames, frame.index) == (5, 7, 1, 0)
    assert frame.position == (-10.0, -20.0, 30.0)
    assert frame.orientation == (1, 0, 0, 0, 1, 0)
    assert frame.pixel_spacing == (2.0, 1.5)
    assert (frame.slope, frame.intercept, frame.has_lut) == (2.0, -1000.0, False)
    assert frame.keys.image_type == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert "CANARY" not in repr(frame)


def test_absent_tags_are_none(tmp_path):
    def strip(dataset, _):
        del dataset.ImagePositionPatient, dataset.PixelSpacing, dataset.FrameOfReferenceUID
        dataset.ImageOrientationPatient = None

    frame = only_frame(one_slice(tmp_path, strip))
    assert frame.position is frame.orientation is frame.pixel_spacing is frame.file.frame_of_reference_uid is None


@pytest.mark.parametrize("modality", ["SEG", "RTDOSE", "PR"])
def test_derived_objects_are_no_images_even_with_rows(tmp_path, modality):
    found = read_frames(one_slice(tmp_path, set_tag("Modality", modality)))
    assert isinstance(found, NoImage)
    assert (found.what, found.series_uid) == (f"{modality} object, no image to segment", SERIES_UID)


@pytest.mark.parametrize(
    "tags", [{"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, {"PhotometricInterpretation": "PALETTE COLOR"}]
)
def test_color_is_no_gray_image_and_says_so(tmp_path, tags):
    found = read_frames(one_slice(tmp_path, lambda dataset, _: dataset.update(tags)))
    assert found.what == f"color image ({tags['PhotometricInterpretation']})"


def test_directory_is_no_image(tmp_path):
    path = one_slice(tmp_path, set_tag("SOPClassUID", "1.2.840.10008.1.3.10"))
    assert read_frames(path).what == "a DICOM directory"


@pytest.mark.parametrize("size", [132, 140, 200, 340, 500])
def test_file_cut_off_within_its_header_is_refused(tmp_path, size):
    path = one_slice(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UnreadableImage, match=r"truncated|damaged|lacks|Rows"):
        read_frames(path)


@pytest.mark.parametrize("cut", [1, 30, 69])
def test_pixels_cut_off_are_a_fault_of_the_file(tmp_path, cut):
    path = one_slice(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    assert only_frame(path).file.fault == f"{70 - cut} bytes of pixels; the header promises 70"


def test_file_that_ends_before_its_pixels_has_a_fault(tmp_path):
    path = one_slice(tmp_path)
    path.write_bytes(path.read_bytes()[:-82])
    assert only_frame(path).file.fault == "the file ends before its pixels"


@pytest.mark.parametrize("uid", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_image_without_series_is_refused(tmp_path, uid):
    with pytest.raises(UnreadableImage, match=f"lacks {uid}"):
        read_frames(one_slice(tmp_path, set_tag(uid, None)))


@pytest.mark.parametrize("spacing", [b"2,0\\1.5", b"2.0\\abc", b"2.0\\inf", b"2.0 1.5"])
def test_malformed_number_names_its_tag(tmp_path, spacing):
    path = one_slice(tmp_path)
    overwrite(path, b"2.0\\1.5", spacing)
    with pytest.raises(UnreadableImage, match="PixelSpacing"):
        read_frames(path)


def test_overlong_values_are_read_without_a_warning(tmp_path):
    path = one_slice(tmp_path, set_tag("SeriesDescription", "d" * 64))
    overwrite(path, b"LO\x40\x00" + b"d" * 64, b"SH\x40\x00" + b"d" * 64)  # 64 characters where 16 are allowed
    with lenient_parsing():
        assert only_frame(path).file.series_description == "d" * 64
        assert dcmread(path, stop_before_pixels=True).get_item("SeriesDescription").VR == "SH"


def test_description_in_an_unknown_alphabet_does_no_harm(tmp_path):
    path = one_slice(tmp_path, set_tag("SpecificCharacterSet", "ISO_IR 100"))
    overwrite(path, b"ISO_IR 100", b"ISO_IR 999")
    with lenient_parsing():
        assert only_frame(path).rows == 5


def test_more_frames_than_bytes_are_refused(tmp_path):
    with pytest.raises(UnreadableImage, match="promises 2000000000 frames in"):
        read_frames(one_slice(tmp_path, set_tag("NumberOfFrames", 2_000_000_000)))


def test_few_compressed_bytes_that_promise_gigabytes_are_a_fault(tmp_path):
    def edit(dataset, _):
        dataset.PixelData = encapsulate([bytes(60)])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
        dataset.Rows = dataset.Columns = 60_000

    assert "cannot hold the 7200000000" in only_frame(one_slice(tmp_path, edit)).file.fault


# several frames without functional groups


def nuclear_medicine(dataset: Dataset, _: int) -> None:
    detector = Dataset()
    detector.ImagePositionPatient, detector.ImageOrientationPatient = [1.0, 2.0, 3.0], [1, 0, 0, 0, 1, 0]
    dataset.DetectorInformationSequence = [detector]
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = NuclearMedicineImageStorage
    dataset.Modality, dataset.ImageType = "NM", ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
    dataset.NumberOfFrames, dataset.SpacingBetweenSlices = 3, -4.0
    dataset.PixelData *= 3
    del dataset.ImagePositionPatient, dataset.ImageOrientationPatient


def test_nuclear_medicine_reconstruction_goes_in_steps_along_its_normal(tmp_path):
    frames = read_frames(one_slice(tmp_path, nuclear_medicine))
    assert [frame.position for frame in frames] == [(1, 2, 3), (1, 2, -1), (1, 2, -5)]
    assert [frame.index for frame in frames] == [0, 1, 2]


def test_other_multi_frame_images_have_no_place(tmp_path):
    def edit(dataset, k):
        nuclear_medicine(dataset, k)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "DYNAMIC", "EMISSION"]

    assert {frame.position for frame in read_frames(one_slice(tmp_path, edit))} == {None}
