from __future__ import annotations

import numpy as np
import pytest

from medseg.errors import IncompleteSeries
from medseg.io.dicom_series import list_series
from tests.io.dicom_files import all_edits, loaded, set_tag, stored_pixels, write_series


def labels(folder):
    return [(choice.stack.label, len(choice.stack.frames)) for choice in list_series(folder).choices]


def asides(folder):
    return [choice.stack.aside for choice in list_series(folder).choices]


def move(dataset, by_mm):
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y, z + by_mm]


# a regular series stays whole


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("AcquisitionNumber", (1, 2)),
        ("ImageType", (["ORIGINAL", "PRIMARY"], ["DERIVED", "PRIMARY"])),
        ("EchoTime", (5.0, 6.0)),
        ("TemporalPositionIdentifier", (1, 2)),
        ("AcquisitionTime", ("101010", "101011")),
    ],
)
def test_tag_that_changes_half_way_does_not_split_a_regular_series(tmp_path, keyword, values):
    write_series(tmp_path, edit=lambda dataset, k: setattr(dataset, keyword, values[k // 2]))
    assert labels(tmp_path) == [("", 4)]
    np.testing.assert_array_equal(loaded(tmp_path).array[0], stored_pixels(4) * 2.0 - 1000.0)


def test_rounding_of_decimal_strings_does_not_split_a_series(tmp_path):
    def edit(dataset, k):
        dataset.ImageOrientationPatient = [1, 0.00001 * k, 0, 0, 1, 0]
        dataset.PixelSpacing = [2.0, 1.5 + 0.00001 * k]

    write_series(tmp_path, edit=edit)
    assert labels(tmp_path) == [("", 4)]


# what comes apart


@pytest.mark.parametrize(
    ("keyword", "values", "label"),
    [
        ("EchoTime", (5.0, 10.0), ["echo time 5", "echo time 10"]),
        ("EchoNumbers", (1, 2), ["echo number 1", "echo number 2"]),
        ("ImageType", (["O", "P", "M"], ["O", "P", "P"]), [r"image type O\P\M", r"image type O\P\P"]),
        ("TemporalPositionIdentifier", (1, 2), ["temporal position 1", "temporal position 2"]),
        ("DiffusionBValue", (0.0, 800.0), ["b value 0", "b value 800"]),
        ("AcquisitionNumber", (1, 2), ["acquisition number 1", "acquisition number 2"]),
        ("ConvolutionKernel", ("B30", "B70"), ["kernel B30", "kernel B70"]),
        ("KVP", (80, 140), ["kvp 80", "kvp 140"]),
        ("FrameOfReferenceUID", ("1.1", "1.2"), ["frame of reference 1.1", "frame of reference 1.2"]),
    ],
)
def test_frames_of_one_place_come_apart_by_what_tells_them_apart(tmp_path, keyword, values, label):
    for name, value in zip("ab", values, strict=True):
        write_series(tmp_path / name, edit=set_tag(keyword, value))
    assert labels(tmp_path) == [(label[0], 4), (label[1], 4)]


def test_echo_and_phase_give_four_stacks(tmp_path):
    for name, echo, kind in (("a", 5.0, "M"), ("b", 5.0, "P"), ("c", 10.0, "M"), ("d", 10.0, "P")):
        tags = {"EchoTime": echo, "ImageType": ["ORIGINAL", "PRIMARY", kind]}
        write_series(tmp_path / name, edit=lambda dataset, _, tags=tags: dataset.update(tags))
    assert len(labels(tmp_path)) == 4
    assert labels(tmp_path)[0] == (r"image type ORIGINAL\PRIMARY\M, echo time 5", 4)


def test_trigger_times_count_by_their_order_at_each_place(tmp_path):
    """A cine series: each slice has its own times, and the first of each is one phase of the heart."""
    for phase, name in enumerate("ab"):
        write_series(tmp_path / name, edit=lambda d, k, phase=phase: setattr(d, "TriggerTime", 10.0 * k + 500 * phase))
    assert labels(tmp_path) == [("trigger time rank 1", 4), ("trigger time rank 2", 4)]


def test_acquisitions_that_only_overlap_are_not_taken_apart(tmp_path):
    write_series(tmp_path / "a", edit=set_tag("AcquisitionNumber", 1))
    write_series(tmp_path / "b", n_slices=2, edit=set_tag("AcquisitionNumber", 2))
    assert labels(tmp_path) == [("", 6)]


def test_halves_of_a_volume_that_overlap_in_a_slice_are_not_two_volumes(tmp_path):
    """Else the derived half would be set aside and the other half read as if it were all."""
    write_series(tmp_path / "a", n_slices=6, edit=set_tag("ImageType", ["ORIGINAL", "PRIMARY"]))
    derived = all_edits(set_tag("ImageType", ["DERIVED", "PRIMARY"]), lambda d, k: move(d, 15.0))
    write_series(tmp_path / "b", n_slices=6, edit=derived)
    assert labels(tmp_path) == [("", 12)]
    with pytest.raises(IncompleteSeries, match="nothing in the headers tells them apart"):
        loaded(tmp_path)


def test_stacks_that_are_said_to_be_two_may_overlap(tmp_path):
    write_series(tmp_path / "a", n_slices=6, edit=set_tag("StackID", "1"))
    write_series(tmp_path / "b", n_slices=6, edit=all_edits(set_tag("StackID", "2"), lambda d, k: move(d, 15.0)))
    assert labels(tmp_path) == [("stack id 1", 6), ("stack id 2", 6)]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("ImageOrientationPatient", [0, 1, 0, 0, 0, -1]), ("PixelSpacing", [2.0, 1.6]), ("Rows", 4)],
)
def test_another_grid_is_another_stack(tmp_path, keyword, value):
    write_series(tmp_path, n_slices=6, edit=set_tag(keyword, value, slices=[4, 5]))
    assert sorted(n for _, n in labels(tmp_path)) == [2, 4]


# what is set aside


@pytest.mark.parametrize(
    ("image_type", "aside"),
    [
        (["ORIGINAL", "PRIMARY", "LOCALIZER"], "localizer"),
        (["DERIVED", "SECONDARY", "LOCALIZER"], "localizer"),
        (["DERIVED", "SECONDARY", "MPR"], "derived"),
        (["ORIGINAL", "SECONDARY", "AXIAL"], None),
        (["ORIGINAL", "PRIMARY"], None),
    ],
)
def test_image_type_sets_localizers_and_derived_images_aside(tmp_path, image_type, aside):
    write_series(tmp_path, edit=set_tag("ImageType", image_type))
    assert asides(tmp_path) == [aside]


def test_series_derived_in_part_is_not_set_aside(tmp_path):
    write_series(tmp_path, edit=set_tag("ImageType", ["DERIVED", "PRIMARY"], slices=[1]))
    assert asides(tmp_path) == [None]


def test_few_slices_in_several_orientations_are_a_localizer(tmp_path):
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", orientation=(0, 1, 0, 0, 0, -1), step=(-3, 0, 0))
    assert asides(tmp_path) == ["localizer (few slices in several orientations)"] * 2


def test_one_scout_beside_many_slices_is_a_localizer_and_the_stack_is_not(tmp_path):
    write_series(tmp_path / "a", n_slices=24)
    write_series(tmp_path / "b", n_slices=1, orientation=(0, 1, 0, 0, 0, -1))
    assert asides(tmp_path) == [None, "localizer (few slices in several orientations)"]


def test_secondary_capture_is_set_aside(tmp_path):
    write_series(tmp_path, edit=set_tag("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"))
    assert asides(tmp_path) == ["secondary capture"]
