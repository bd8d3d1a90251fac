"""The DICOM objects of a case as they lie on disk."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.config import disable_value_validation

import medseg
from medseg.core.lesions import LesionMap
from medseg.errors import UsageError
from medseg.io.convert import convert_lesions
from medseg.pipeline import OPTIONAL_FILES, RESULT_FILES
from medseg.reports.index_page import write_index
from tests.canary import CANARY, NAMING, told_of
from tests.dicom.results import complaints, result_on, series, some_lesions
from tests.io.dicom_files import all_edits, set_tag
from tests.io.nifti_files import save

DICOM = ("lesions.seg.dcm", "semantic.seg.dcm", "lesions.sr.dcm")


def test_a_dicom_case_has_its_objects_and_they_agree(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    lesions = some_lesions(scan.geometry)
    folder = medseg.write_case(result_on(scan, lesions), tmp_path / "out", rtstruct=True, mesh="stl")
    names = {path.name for path in folder.iterdir()}
    assert names == {*RESULT_FILES, *DICOM, "lesions.rtstruct.dcm", "meshes"}
    assert len(list((folder / "meshes").iterdir())) == 4
    for name in (*DICOM, "lesions.rtstruct.dcm"):
        assert complaints(folder / name) == []
    for name in ("lesions.seg.dcm", "lesions.rtstruct.dcm", "lesions.nii.gz"):
        np.testing.assert_array_equal(medseg.read_lesions(folder / name, like=scan.geometry).array, lesions.array)
    seg, report = dcmread(folder / "lesions.seg.dcm"), dcmread(folder / "lesions.sr.dcm")
    assert seg.StudyInstanceUID == report.StudyInstanceUID == scan.dicom[0].study_instance_uid
    weights = "ab" * 32
    assert weights in seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    result = result_on(scan, some_lesions(scan.geometry))
    folders = [medseg.write_case(result, tmp_path / n, rtstruct=True) for n in "ab"]
    for path in folders[0].iterdir():
        assert path.read_bytes() == (folders[1] / path.name).read_bytes(), path.name


def test_no_lesion_leaves_the_report_and_takes_older_objects_away(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    medseg.write_case(result_on(scan, some_lesions(scan.geometry)), tmp_path / "out", mesh="obj", rtstruct=True)
    empty = LesionMap(np.zeros(scan.geometry.shape, dtype=np.uint16), scan.geometry, ())
    folder = medseg.write_case(result_on(scan, empty), tmp_path / "out", overwrite=True)
    assert {path.name for path in folder.iterdir()} == {*RESULT_FILES, "lesions.sr.dcm"}


def test_dicom_can_be_left_out_and_is_refused_for_other_scans(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    result = result_on(scan, some_lesions(scan.geometry))
    folder = medseg.write_case(result, tmp_path / "out", dicom=False)
    assert not {path.name for path in folder.iterdir()} & set(OPTIONAL_FILES)
    nifti = medseg.read_scan(save(np.zeros(scan.geometry.shape, dtype=np.float32), tmp_path / "scan.nii"))
    lesions = LesionMap(result.lesions.array, nifti.geometry, result.lesions.lesions)
    with pytest.raises(UsageError, match="not a DICOM series"):
        medseg.write_case(result_on(nifti, lesions), tmp_path / "other", dicom=True)
    assert not (tmp_path / "other").exists()


def test_the_result_is_not_lost_with_an_object_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("no such luck")

    monkeypatch.setattr("medseg.dicom.seg.lesion_seg", fail)
    scan = series(tmp_path / "ct")
    result = result_on(scan, some_lesions(scan.geometry))
    folder = medseg.write_case(result, tmp_path / "out")
    assert (folder / "lesions.csv").is_file()
    assert "DICOM objects could not be written: no such luck" in caplog.text
    with pytest.raises(ValueError, match="no such luck"):
        medseg.write_case(result, tmp_path / "asked", dicom=True)
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("mesh", ["stl", "obj"])
def test_a_canary_name_is_in_no_output_unless_asked_for(
    mesh: Literal["stl", "obj"], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with disable_value_validation():
        scan = series(tmp_path / "ct", edit=all_edits(*(set_tag(*pair) for pair in NAMING.items())))
    result = result_on(scan, some_lesions(scan.geometry))
    out = tmp_path / "out"
    with caplog.at_level("DEBUG"):
        medseg.write_case(result, out / "case", rtstruct=True, mesh=mesh, viewer="niivue", save_probability=True)
        write_index(out)
    assert len(list((out / "case" / "meshes").iterdir())) == 4
    assert told_of(out) == []
    assert told_of(tmp_path / "ct") != []  # the search finds it where it is
    assert CANARY not in caplog.text
    named = medseg.write_case(result, tmp_path / "named", rtstruct=True, keep_identifiers=True)
    for name in (*DICOM, "lesions.rtstruct.dcm"):
        dataset = dcmread(named / name)
        assert (str(dataset.PatientName), dataset.PatientID) == ("CANARY^NAME", "CANARYID")
        assert complaints(named / name) == []
    assert CANARY in json.dumps(json.loads((named / "result.json").read_text())["identifiers"])


HOSTILE = '<script>alert("x")</script>&amp;\u75c5\u4eba\U0001f600'


def test_hostile_text_stays_text_and_objects_stay_valid(tmp_path: Path) -> None:
    edits = [
        set_tag("SpecificCharacterSet", "ISO_IR 192"),
        set_tag("PatientName", HOSTILE + "x" * 300 + "^" + "y" * 100 + "=a=b=c=d"),
        set_tag("PatientID", HOSTILE + "\\second" + "z" * 300),
        set_tag("StudyDescription", HOSTILE * 30),
        set_tag("StudyID", HOSTILE),
        set_tag("AccessionNumber", HOSTILE),
        set_tag("SeriesDescription", HOSTILE * 10),
        set_tag("PatientBirthDate", "<b>1970"),
        set_tag("PatientSex", "<i>"),
        set_tag("StudyDate", "yesterday"),
    ]
    with disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scan = series(tmp_path / "ct", edit=all_edits(*edits))
    result = result_on(scan, some_lesions(scan.geometry))
    folder = medseg.write_case(result, tmp_path / "out", rtstruct=True, keep_identifiers=True, dicom=True)
    for name in (*DICOM, "lesions.rtstruct.dcm"):
        assert complaints(folder / name) == [], name
        dataset = dcmread(folder / name)
        assert str(dataset.PatientName).startswith("<script>alert")
        assert "\u75c5\u4eba" in str(dataset.PatientName)


@pytest.mark.parametrize(
    "keyword",
    [
        *("PatientName", "PatientID", "SeriesNumber", "SeriesDescription", "ImageType", "RescaleSlope"),
        *("FrameOfReferenceUID", "InstanceNumber", "RescaleIntercept"),
    ],
)
def test_a_missing_tag_does_not_lose_the_segmentation(keyword: str, tmp_path: Path) -> None:
    scan = series(tmp_path / "ct", edit=set_tag(keyword, None))
    lesions = some_lesions(scan.geometry)
    folder = medseg.write_case(result_on(scan, lesions), tmp_path / "out", dicom=True)
    for name in DICOM:
        assert complaints(folder / name) == []
    np.testing.assert_array_equal(
        medseg.read_lesions(folder / "lesions.seg.dcm", like=scan.geometry).array, lesions.array
    )


@pytest.mark.parametrize("modality", ["", "CT"])
def test_a_series_of_an_unknown_kind_is_referred_to_all_the_same(modality: str, tmp_path: Path) -> None:
    scan = series(
        tmp_path / "ct", edit=all_edits(set_tag("SOPClassUID", "1.2.999.7"), set_tag("Modality", modality or None))
    )
    lesions = some_lesions(scan.geometry)
    folder = medseg.write_case(result_on(scan, lesions), tmp_path / "out", dicom=True)
    seg = dcmread(folder / "lesions.seg.dcm")
    classes = {item.ReferencedSOPClassUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert classes == {"1.2.999.7"}


def test_a_label_map_becomes_a_binary_object_that_old_readers_know(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    lesions = some_lesions(scan.geometry)
    folder = medseg.write_case(result_on(scan, lesions), tmp_path / "out", seg_kind="labelmap")
    convert_lesions(folder / "lesions.seg.dcm", tmp_path / "binary.seg.dcm", scan)
    binary = dcmread(tmp_path / "binary.seg.dcm")
    assert (dcmread(folder / "lesions.seg.dcm").SegmentationType, binary.SegmentationType) == ("LABELMAP", "BINARY")
    assert sitk.ReadImage(str(tmp_path / "binary.seg.dcm")).GetSize()[:2] == (7, 5)
    np.testing.assert_array_equal(
        medseg.read_lesions(tmp_path / "binary.seg.dcm", like=scan.geometry).array, lesions.array
    )
