"""What objects take over from a series: enough to be valid, and who the patient is only if asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.config import disable_value_validation

import medseg
from medseg.errors import UsageError
from medseg.io.dicom_source import read_source
from tests.dicom.results import series
from tests.io.dicom_files import all_edits, set_tag
from tests.io.nifti_files import save


def test_the_patient_is_named_only_if_asked(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct", edit=all_edits(set_tag("PatientBirthDate", "19700101"), set_tag("PatientSex", "F")))
    plain = read_source(scan).header
    assert (plain.PatientName, plain.PatientID, plain.PatientBirthDate, plain.PatientSex) == ("", "", "", "")
    named = read_source(scan, keep_identifiers=True).header
    assert (str(named.PatientName), named.PatientID) == ("CANARY^NAME", "CANARYID")
    assert (str(named.PatientBirthDate), named.PatientSex) == ("19700101", "F")


def test_slices_know_their_frames_and_places(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct", orientation=(1, 0, 0, 0, 0, -1), step=(0.0, 3.0, 0.5))
    source = read_source(scan)
    assert source.step_mm == pytest.approx(3.0)  # along the normal; the shear is no distance
    for k, position in enumerate(source.positions):
        world = scan.geometry.to_world((0, 0, k)) * [-1, -1, 1]
        np.testing.assert_allclose(position, world, atol=1e-9)
    assert all(reference is not None and reference.frame is None for reference in source.slices)
    assert len(source.references) == 4


def test_tags_that_break_the_standard_are_cut_or_left_out(tmp_path: Path) -> None:
    odd = {"StudyTime": "12:30:00", "StudyDate": "20240229", "PatientSex": "far too long for a code"}
    with disable_value_validation():
        scan = series(tmp_path / "ct", edit=all_edits(*(set_tag(*pair) for pair in odd.items())))
    header = read_source(scan, keep_identifiers=True).header
    assert (header.StudyTime, header.PatientSex) == ("", "")
    assert str(header.StudyDate) == "20240229"
    assert read_source(scan).content_date == "20240229"
    assert read_source(scan).content_time == "000000"


def test_a_volume_file_is_no_series(tmp_path: Path) -> None:
    path = save(np.zeros((4, 4, 4), dtype=np.float32), tmp_path / "scan.nii.gz")
    with pytest.raises(UsageError, match="medseg convert"):
        read_source(medseg.read_scan(path))
