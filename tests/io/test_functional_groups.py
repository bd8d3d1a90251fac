from __future__ import annotations

import numpy as np
import pytest
from pydicom import dcmread

from medseg.errors import IncompleteSeries, InvalidGeometry, UnreadableImage
from medseg.io.dicom_frames import read_frames
from medseg.io.dicom_series import list_series
from tests.io.dicom_files import loaded
from tests.io.enhanced_files import frame_pixels, item, write_enhanced

POSITIONS = [(-10.0, -20.0, 36.0), (-10.0, -20.0, 30.0), (-10.0, -20.0, 33.0)]  # in no order


def test_frames_are_ordered_by_position_and_rescaled_by_the_shared_groups(tmp_path):
    volume = loaded(write_enhanced(tmp_path, POSITIONS))
    assert volume.geometry.shape == (7, 5, 3)
    np.testing.assert_allclose(volume.geometry.affine[:3, 3], (10, 20, 30))
    assert volume.geometry.spacing == (1.5, 2.0, 3.0)
    np.testing.assert_array_equal(volume.array[0].T, frame_pixels(3)[[1, 2, 0]] * 2.0 - 7.0)


def test_groups_of_a_frame_go_before_the_shared_ones(tmp_path):
    def edit(groups, n):
        groups.PixelValueTransformationSequence = item(RescaleSlope=0.5 + n, RescaleIntercept=n)

    volume = loaded(write_enhanced(tmp_path, POSITIONS, edit))
    scaled = frame_pixels(3) * (0.5 + np.arange(3))[:, None, None] + np.arange(3)[:, None, None]
    np.testing.assert_array_equal(volume.array[0].T, scaled[[1, 2, 0]])


KEYS = [
    ("temporal position", lambda n: {"FrameContentSequence": item(TemporalPositionIndex=n + 1)}),
    ("stack id", lambda n: {"FrameContentSequence": item(StackID=str(n))}),
    ("dimension 2", lambda n: {"FrameContentSequence": item(DimensionIndexValues=[1, n + 1])}),
    ("echo time", lambda n: {"MREchoSequence": item(EffectiveEchoTime=float(n + 1))}),
    ("b value", lambda n: {"MRDiffusionSequence": item(DiffusionBValue=500.0 * n)}),
    ("component", lambda n: {"MRImageFrameTypeSequence": item(ComplexImageComponent=("MAGNITUDE", "PHASE")[n])}),
    ("image type", lambda n: {"MRImageFrameTypeSequence": item(FrameType=["ORIGINAL", "PRIMARY", "MP"[n]])}),
]


@pytest.mark.parametrize(("label", "groups_of"), KEYS)
def test_volumes_in_one_file_come_apart(tmp_path, label, groups_of):
    path = write_enhanced(tmp_path, POSITIONS * 2, lambda groups, n: groups.update(groups_of(n // 3)))
    choices = list_series(path.parent).choices
    assert [choice.stack.label.startswith(label) for choice in choices] == [True, True]
    for number in (1, 2):
        volume = loaded(path, series=f"3:{number}")
        order = np.array([1, 2, 0]) + 3 * (number - 1)
        np.testing.assert_array_equal(volume.array[0].T, frame_pixels(6)[order] * 2.0 - 7.0)


def test_two_orientations_in_one_file_are_two_stacks(tmp_path):
    def edit(groups, n):
        if n >= 3:
            groups.PlaneOrientationSequence = item(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
            groups.PlanePositionSequence = item(ImagePositionPatient=[10.0 * n, 0, 0])

    path = write_enhanced(tmp_path, POSITIONS * 2, edit)
    assert [len(choice.stack.frames) for choice in list_series(path.parent).choices] == [3, 3]


def test_frames_of_one_place_that_nothing_tells_apart_are_refused(tmp_path):
    with pytest.raises(IncompleteSeries, match="nothing in the headers tells them apart"):
        loaded(write_enhanced(tmp_path, POSITIONS * 2))


def test_frames_without_a_place_are_refused(tmp_path):
    def edit(groups, _):
        del groups.PlanePositionSequence

    with pytest.raises(InvalidGeometry, match="ImagePositionPatient is missing"):
        loaded(write_enhanced(tmp_path, POSITIONS, edit))


def test_number_of_frames_must_be_that_of_the_groups(tmp_path):
    path = write_enhanced(tmp_path, POSITIONS)
    dataset = dcmread(path)
    dataset.NumberOfFrames = 2
    dataset.save_as(path)
    with pytest.raises(UnreadableImage, match="2 frames and 3 items"):
        read_frames(path)
