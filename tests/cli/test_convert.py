"""`medseg convert` and DICOM objects on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

import medseg
from tests.cli.commands import assert_one_clear_error, run, run_well
from tests.dicom.results import result_on, series, some_lesions


def test_a_map_becomes_dicom_and_comes_back(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    lesions = some_lesions(scan.geometry)
    medseg.write_case(result_on(scan, lesions), tmp_path / "out", dicom=False)
    for suffix in (".seg.dcm", ".rtstruct.dcm"):
        there, back = tmp_path / f"lesions{suffix}", tmp_path / f"back{suffix}.nii.gz"
        shown = run_well("convert", tmp_path / "out" / "lesions.nii.gz", "--like", tmp_path / "ct", "-o", there)
        assert "4 lesion(s) written" in shown.stdout
        run_well("convert", there, "--like", tmp_path / "ct", "-o", back)
        np.testing.assert_array_equal(np.asarray(nib.load(back).dataobj), lesions.array)


def test_every_suffix_of_the_help_is_written(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    medseg.write_case(result_on(scan, some_lesions(scan.geometry)), tmp_path / "out", dicom=False)
    for suffix in (".nii", ".nii.gz", ".dcm", ".seg.dcm", ".rtstruct.dcm", ".stl", ".obj", ".ctbl", ".label.txt"):
        made = tmp_path / f"made{suffix}"
        shown = run_well(
            *("convert", tmp_path / "out" / "lesions.nii.gz", "--like", tmp_path / "ct"), "-o", made, "--json", "-q"
        )
        assert json.loads(shown.stdout) == {"n_lesions": 4, "output": str(made)}
        assert made.stat().st_size > 80


def test_what_cannot_be_is_one_clear_error(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    lesions = medseg.write_case(result_on(scan, some_lesions(scan.geometry)), tmp_path / "out") / "lesions.nii.gz"
    convert = ("convert", lesions, "-q")
    assert_one_clear_error(run(*convert, "-o", tmp_path / "a.docx"), 2, ".seg.dcm", ".stl")
    assert_one_clear_error(run(*convert, "-o", tmp_path / "a.seg.dcm"), 2, "--like SERIES")
    assert_one_clear_error(run(*convert, "-o", tmp_path / "a.seg.dcm", "--like", lesions), 2, "not a DICOM series")
    assert_one_clear_error(run(*convert, "-o", tmp_path / "a.stl", "--series", "3"), 2, "--like")
    assert_one_clear_error(run(*convert, "-o", lesions), 2, "--overwrite")
    assert_one_clear_error(run("convert", scan.files[0][0], "-q", "-o", tmp_path / "a.nii"), 1, "holds no lesions")


def test_measure_takes_a_segmentation_and_a_structure_set(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    out = medseg.write_case(result_on(scan, some_lesions(scan.geometry)), tmp_path / "out", rtstruct=True)
    tables = []
    for name in ("lesions.nii.gz", "lesions.seg.dcm", "lesions.rtstruct.dcm"):
        table = tmp_path / f"{name}.csv"
        run_well("measure", out / name, "--scan", tmp_path / "ct", "-o", table, "--case-id", "a", "-q")
        tables.append(table.read_text())
    assert tables[1] == tables[2]
    assert tables[0].count("\n") == tables[1].count("\n") == 5
    one = run_well(
        *("measure", out / "lesions.seg.dcm", "--roi", "Lesion 3"), "-o", tmp_path / "one.csv", "--json", "-q"
    )
    assert json.loads(one.stdout)["n_lesions"] == 1


def test_dicom_for_a_volume_file_is_refused_before_the_model_is_loaded(tmp_path: Path, scan_file: Path) -> None:
    result = run("segment", scan_file, "--model", "nosuch", "-o", tmp_path / "out", "--dicom", "-q")
    assert_one_clear_error(result, 2, "--dicom", "medseg convert")
    assert not (tmp_path / "out").exists()


def test_evaluate_takes_a_segmentation_and_a_structure_set(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    lesions = some_lesions(scan.geometry)
    medseg.write_case(result_on(scan, lesions), tmp_path / "out", dicom=False)
    for folder, suffix in (("references", ".nii.gz"), ("seg", ".seg.dcm"), ("contours", ".rtstruct.dcm")):
        there = tmp_path / folder / f"case{suffix}"
        there.parent.mkdir()
        run_well("convert", tmp_path / "out" / "lesions.nii.gz", "--like", tmp_path / "ct", "-o", there)
    for folder in ("seg", "contours"):
        scores = tmp_path / f"{folder}.json"
        run_well("evaluate", tmp_path / folder, tmp_path / "references", "-o", scores, "-q")
        (case,) = json.loads(scores.read_text())["cases"]
        assert (case["case_id"], case["tp"], case["fp"], case["fn"], case["dice"]) == ("case", 4, 0, 0, 1.0)
    run_well(
        *("compare", tmp_path / "seg", tmp_path / "contours", tmp_path / "references"),
        *("-o", tmp_path / "comparison.json", "-q"),
    )
