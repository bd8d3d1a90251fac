"""`medseg evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medseg.core.lesions import Lesion, LesionMap
from medseg.dicom.rtstruct import structure_set
from medseg.dicom.seg import lesion_seg
from medseg.lesions.numbering import number_lesions
from tests.cli.commands import assert_one_clear_error, run, run_well
from tests.dicom.results import ALGORITHM, COLORS, saved, series, some_lesions, source_of
from tests.io.nifti_files import AFFINE, save


def lesions() -> NDArray[np.uint8]:
    """Two lesions, of 36 and of 8 voxels, numbered 1 and 2."""
    array = np.zeros((16, 12, 10), dtype=np.uint8)
    array[2:6, 2:5, 2:5], array[9:11, 8:10, 6:8] = 1, 2
    return array


def folders(tmp_path: Path, cases: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> tuple[Path, Path]:
    prediction, reference = tmp_path / "prediction", tmp_path / "reference"
    for name, sides in cases.items():
        for folder, array in zip((prediction, reference), sides, strict=True):
            path = folder / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            save(array, path)
    return prediction, reference


def test_a_folder_gives_each_case_and_the_cohort(tmp_path: Path) -> None:
    half = np.where(lesions() == 1, lesions(), 0).astype(np.uint8)
    sides = folders(tmp_path, {"a": (lesions(), lesions()), "sub/b": (half, lesions())})
    result = run_well("evaluate", *sides, "-o", tmp_path / "scores.json", "--preset", "kirillov", "-q")
    written = json.loads((tmp_path / "scores.json").read_text())
    assert [(case["case_id"], case["tp"], case["fn"], case["f1"]) for case in written["cases"]] == [
        ("a", 2, 0, 1.0),
        ("sub/b", 1, 1, pytest.approx(2 / 3)),
    ]
    assert written["cohort"]["micro"]["sensitivity"]["value"] == 0.75
    assert written["convention"]["matching"]["threshold"] == 0.5
    assert written["edge_cases"]["both_empty"]
    assert "3 found, 1 missed, 0 false" in result.stdout


@pytest.fixture
def dicom_sides(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two cases, both sides as SEG and both as RTSTRUCT, and a folder of their scans."""
    for number, kinds in enumerate([(".seg.dcm", ".seg.dcm"), (".rtstruct.dcm", ".rtstruct.dcm")]):
        scan = series(tmp_path / "scans" / f"c{number}")
        lesions = some_lesions(scan.geometry)
        for side, kind, low in zip(("prediction", "reference"), kinds, (0, 1), strict=True):
            array = lesions.array.copy()
            array[:, :, :low] = 0  # what a side stores: slices 0, 1 and 3; 1 and 3
            (tmp_path / side).mkdir(exist_ok=True)
            numbered, old = number_lesions(array, scan.geometry)
            part = LesionMap(numbered, scan.geometry, (Lesion("lesion"),) * len(old))
            write = structure_set if "rt" in kind else lesion_seg
            saved(write(part, source_of(scan), ALGORITHM, COLORS), tmp_path / side / f"c{number}{kind}")
    return tmp_path / "prediction", tmp_path / "reference", tmp_path / "scans"


def test_seg_and_rtstruct_on_both_sides_are_scored_on_the_grid_of_the_scan(
    tmp_path: Path, dicom_sides: tuple[Path, Path, Path]
) -> None:
    *sides, scans = dicom_sides
    run_well("evaluate", *sides, "--like", scans, "-o", tmp_path / "scores.json", "-q")
    cases = json.loads((tmp_path / "scores.json").read_text())["cases"]
    assert [(case["case_id"], case["n_prediction"], case["n_reference"], case["tp"]) for case in cases] == [
        ("c0", 4, 3, 2),
        ("c1", 4, 3, 2),
    ]
    assert {case["dice"] for case in cases} == {cases[0]["dice"]}
    one = [side / "c1.rtstruct.dcm" for side in sides]
    run_well("evaluate", *one, "--like", scans / "c1", "-o", tmp_path / "one.json", "-q")
    assert json.loads((tmp_path / "one.json").read_text())["cases"][0]["dice"] == cases[0]["dice"]
    run_well("compare", one[0], one[1], one[1], "--like", scans / "c1", "-o", tmp_path / "two.json", "-q")


def test_what_lacks_the_scan_says_so(tmp_path: Path, dicom_sides: tuple[Path, Path, Path]) -> None:
    *sides, scans = dicom_sides
    output = ("-o", tmp_path / "scores.json", "-q")
    assert_one_clear_error(run("evaluate", *(s / "c1.rtstruct.dcm" for s in sides), *output), 2, "--like")
    segs = [side / "c0.seg.dcm" for side in reversed(sides)]  # the reference has a slice that the prediction lacks
    assert_one_clear_error(run("evaluate", *segs, *output), 1, "lie outside", "give the scan itself")
    (scans / "c1").rename(scans / "other")
    assert_one_clear_error(run("evaluate", *sides, "--like", scans, *output), 2, "holds no scan(s) of case c1")


def test_json_on_stdout_is_what_is_written(tmp_path: Path) -> None:
    sides = folders(tmp_path, {"a": (lesions(), lesions())})
    result = run_well("evaluate", *sides, "-o", tmp_path / "scores.json", "--json", "-q")
    assert json.loads(result.stdout) == json.loads((tmp_path / "scores.json").read_text())


def test_a_missing_pair_is_an_error_that_names_the_case(tmp_path: Path) -> None:
    prediction, reference = folders(tmp_path, {"a": (lesions(), lesions()), "b": (lesions(), lesions())})
    (prediction / "b.nii.gz").unlink()
    result = run("evaluate", prediction, reference, "-o", tmp_path / "scores.json", "-q")
    assert_one_clear_error(result, 2, "lacks 1 of 2 case(s): b")


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    _, reference = folders(tmp_path, {"a": (lesions(), lesions())})
    empty = tmp_path / "empty"
    empty.mkdir()
    result = run("evaluate", empty, reference, "-o", tmp_path / "scores.json", "-q")
    assert_one_clear_error(result, 2, "holds no map")


@pytest.mark.parametrize("shift_mm", [-100.0, 100.0, 0.5])
def test_maps_on_shifted_grids_are_refused_in_both_directions(tmp_path: Path, shift_mm: float) -> None:
    affine = AFFINE.copy()
    affine[0, 3] += shift_mm
    sides = save(lesions(), tmp_path / "p.nii.gz", affine=affine), save(lesions(), tmp_path / "r.nii.gz")
    result = run("evaluate", *sides, "-o", tmp_path / "scores.json", "-q")
    assert_one_clear_error(result, 1, f"{abs(shift_mm):.4g} mm apart")


def test_a_map_of_fractions_is_refused(tmp_path: Path) -> None:
    sides = save(lesions() * np.float32(0.5), tmp_path / "p.nii.gz"), save(lesions(), tmp_path / "r.nii.gz")
    result = run("evaluate", *sides, "-o", tmp_path / "scores.json", "-q")
    assert_one_clear_error(result, 1, "whole numbers", "p.nii.gz")


def test_a_class_outside_the_scheme_is_refused(tmp_path: Path) -> None:
    sides = save(lesions() * np.uint8(4), tmp_path / "p.nii.gz"), save(lesions(), tmp_path / "r.nii.gz")
    result = run("evaluate", *sides, "-o", tmp_path / "scores.json", "--preset", "brats2023-gli", "-q")
    assert_one_clear_error(result, 1, "[4, 8]", "r, prediction")


def test_an_unknown_preset_names_the_nearest(tmp_path: Path) -> None:
    sides = folders(tmp_path, {"a": (lesions(), lesions())})
    result = run("evaluate", *sides, "-o", tmp_path / "scores.json", "--preset", "brats2023-gly", "-q")
    assert_one_clear_error(result, 2, "did you mean brats2023-gli?")


def test_a_changed_preset_does_not_keep_its_name(tmp_path: Path) -> None:
    sides = folders(tmp_path, {"a": (lesions(), lesions())})
    options = ["--preset", "panoptica", "--match", "optimal", "--by", "dice", "--threshold", "0.3", "--overlap-only"]
    run_well("evaluate", *sides, "-o", tmp_path / "scores.json", *options, "-q")
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["preset"] == "panoptica, changed"
    assert written["cases"][0]["values"] == {}
    assert written["cases"][0]["hd95_mm"] is None


def test_other_numbers_are_renumbered_and_recorded(tmp_path: Path) -> None:
    odd = np.where(lesions() == 2, 200, lesions()).astype(np.uint8)
    sides = save(odd, tmp_path / "p.nii.gz"), save(lesions(), tmp_path / "r.nii.gz")
    run_well("evaluate", *sides, "-o", tmp_path / "scores.json", "-q")
    case = json.loads((tmp_path / "scores.json").read_text())["cases"][0]
    assert (case["prediction_renumbered"], case["reference_renumbered"], case["tp"]) == (True, False, 2)


def test_groups_give_patients_and_strata(tmp_path: Path) -> None:
    sides = folders(tmp_path, {name: (lesions(), lesions()) for name in ("a", "b", "c")})
    table = tmp_path / "groups.csv"
    table.write_text("case_id,patient_id,site\na,1,north\nb,1,south\nc,2,south\n")
    run_well("evaluate", *sides, "-o", tmp_path / "scores.json", "--groups", table, "-q")
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["cohort"]["n_patients"] == 2
    assert {name: part["n_cases"] for name, part in written["strata"]["site"].items()} == {"north": 1, "south": 2}


def test_a_detection_map_gives_scores(tmp_path: Path) -> None:
    confidence = np.where(lesions() == 1, 0.9, np.where(lesions() == 2, 0.4, 0.0)).astype(np.float32)
    reference = (lesions() == 1).astype(np.uint8)
    sides = save(confidence, tmp_path / "p.nii.gz"), save(reference, tmp_path / "r.nii.gz")
    run_well("evaluate", *sides, "-o", tmp_path / "scores.json", "--preset", "picai", "-q")
    written = json.loads((tmp_path / "scores.json").read_text())
    assert [(row["outcome"], round(row["score"], 3)) for row in written["cases"][0]["lesions"]] == [
        ("tp", 0.9),
        ("fp", 0.4),
    ]
    assert written["cohort"]["detection"]["ap"]["value"] == 1.0


def test_a_probability_and_excluded_findings_come_by_the_same_path(tmp_path: Path) -> None:
    """The prediction has a file name of another format; pairs go by the path without the suffix."""
    folders(tmp_path, {"a": (lesions(), (lesions() == 1).astype(np.uint8))})
    (tmp_path / "probability").mkdir()
    save(np.where(lesions() > 0, 0.75, 0.0).astype(np.float32), tmp_path / "probability" / "a.nii")
    (tmp_path / "excluded").mkdir()
    save((lesions() == 2).astype(np.uint8), tmp_path / "excluded" / "a.nii.gz")
    options = ["--probability", tmp_path / "probability", "--exclude", tmp_path / "excluded", "--preset", "luna16"]
    sides = (tmp_path / "prediction", tmp_path / "reference")
    run_well("evaluate", *sides, "-o", tmp_path / "scores.json", *options, "-q")
    case = json.loads((tmp_path / "scores.json").read_text())["cases"][0]
    assert (case["case_id"], case["tp"], case["fp"], case["n_ignored"]) == ("a", 1, 0, 1)
    assert case["lesions"][0]["score"] == 0.75
    assert case["calibration"]["ece"] == pytest.approx(abs(0.75 - 36 / 44))


def test_a_probability_above_one_is_refused(tmp_path: Path) -> None:
    sides = save(lesions(), tmp_path / "p.nii.gz"), save(lesions(), tmp_path / "r.nii.gz")
    wrong = save(lesions() * np.float32(1.5), tmp_path / "q.nii.gz")
    result = run("evaluate", *sides, "-o", tmp_path / "scores.json", "--probability", wrong, "-q")
    assert_one_clear_error(result, 2, "0..1", "q.nii.gz")


def test_a_file_and_a_folder_are_no_pair(tmp_path: Path) -> None:
    prediction, _ = folders(tmp_path, {"a": (lesions(), lesions())})
    result = run("evaluate", prediction, prediction / "a.nii.gz", "-o", tmp_path / "scores.json", "-q")
    assert_one_clear_error(result, 2, "files only or folders only")


def test_a_page_is_written_beside_the_scores(tmp_path: Path) -> None:
    sides = folders(tmp_path, {"a": (lesions(), lesions())})
    run_well("evaluate", *sides, "-o", tmp_path / "scores.json", "--page", tmp_path / "page.html", "-q")
    assert "<svg" in (tmp_path / "page.html").read_text()
