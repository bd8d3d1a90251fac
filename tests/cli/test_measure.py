"""`medseg measure`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medseg.io.case_ids import SALT_FILE
from tests.cli.commands import assert_one_clear_error, files_below, run, run_well
from tests.cli.conftest import hot_spots
from tests.io.dicom_files import write_series
from tests.io.nifti_files import AFFINE, save


@pytest.fixture
def lesion_file(tmp_path: Path) -> Path:
    """Two lesions numbered 1 and 2, the smaller one second."""
    array = (hot_spots() > 2).astype(np.uint16)
    array[12:] *= 2
    return save(array, tmp_path / "lesions.nii.gz")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_volumes_and_means_are_those_of_the_boxes(tmp_path: Path, lesion_file: Path, scan_file: Path) -> None:
    result = run_well("measure", lesion_file, "--scan", scan_file, "-o", tmp_path / "out.csv")
    rows = _rows(tmp_path / "out.csv")
    assert [float(row["volume_ml"]) for row in rows] == pytest.approx([240 * 9e-3, 64 * 9e-3])
    assert [row["mean"] for row in rows] == ["12.0", "12.0"]
    assert [row["case_id"] for row in rows] == ["pet", "pet"]
    assert "2.160" in result.stdout


def test_without_a_scan_intensities_are_empty_and_the_map_names_the_case(tmp_path: Path, lesion_file: Path) -> None:
    run_well("measure", lesion_file, "-o", tmp_path / "out.csv")
    rows = _rows(tmp_path / "out.csv")
    assert [(row["case_id"], row["mean"], row["max"]) for row in rows] == [("lesions", "", "")] * 2


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_every_format_holds_the_rows_that_json_prints(tmp_path: Path, lesion_file: Path, suffix: str) -> None:
    output = tmp_path / f"out{suffix}"
    shown = json.loads(run_well("measure", lesion_file, "-o", output, "--json", "-q").stdout)
    assert (shown["n_lesions"], shown["output"]) == (2, str(output))
    volumes = [row["volume_ml"] for row in shown["lesions"]]
    if suffix == ".csv":
        assert [float(row["volume_ml"]) for row in _rows(output)] == volumes
    elif suffix == ".json":
        assert [row["volume_ml"] for row in json.loads(output.read_text())["rows"]] == volumes
    else:
        assert pd.read_parquet(output)["volume_ml"].tolist() == volumes


def test_chosen_columns_alone_are_in_the_table(tmp_path: Path, lesion_file: Path, scan_file: Path) -> None:
    run_well("measure", lesion_file, "--scan", scan_file, "-o", tmp_path / "all.csv")
    chosen = ("--columns", "mean, volume_ml", "--columns", "bbox_?_min")
    result = run_well("measure", lesion_file, "--scan", scan_file, *chosen, "-o", tmp_path / "out.csv")
    rows = _rows(tmp_path / "out.csv")
    assert list(rows[0]) == ["case_id", "lesion_id", "volume_ml", "bbox_i_min", "bbox_j_min", "bbox_k_min", "mean"]
    assert rows == [{name: row[name] for name in rows[0]} for row in _rows(tmp_path / "all.csv")]
    assert "volume_ml" in result.stdout


def test_columns_that_do_not_exist_are_refused(tmp_path: Path, lesion_file: Path) -> None:
    output = tmp_path / "out.csv"
    result = run("measure", lesion_file, "--columns", "volum_ml", "-o", output, "-q")
    assert_one_clear_error(result, 2, "did you mean volume_ml")
    assert_one_clear_error(run("measure", lesion_file, "--columns", ",", "-o", output, "-q"), 2, "--columns")
    assert not output.exists()


def test_another_suffix_is_refused(tmp_path: Path, lesion_file: Path) -> None:
    assert_one_clear_error(run("measure", lesion_file, "-o", tmp_path / "out.xlsx", "-q"), 2, ".parquet")


def test_other_numbers_are_renumbered_and_that_is_told(tmp_path: Path) -> None:
    array = np.zeros((6, 6, 6), dtype=np.uint16)
    array[0, 0, 0], array[3:5, 3:5, 3:5] = 7, 300
    result = run_well("measure", save(array, tmp_path / "odd.nii.gz"), "-o", tmp_path / "out.csv")
    assert "Note: the lesion numbers were not 1..n" in result.stderr
    assert [row["volume_ml"] for row in _rows(tmp_path / "out.csv")] == ["0.072", "0.009"]


def test_an_empty_map_gives_a_header_only(tmp_path: Path) -> None:
    empty = save(np.zeros((4, 4, 4), dtype=np.uint8), tmp_path / "empty.nii.gz")
    run_well("measure", empty, "-o", tmp_path / "out.csv")
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1


def test_a_scan_on_another_grid_is_refused(tmp_path: Path, lesion_file: Path) -> None:
    shifted = AFFINE.copy()
    shifted[0, 3] += 1.0
    scan = save(hot_spots(), tmp_path / "shifted.nii.gz", affine=shifted)
    before = files_below(tmp_path)
    result = run("measure", lesion_file, "--scan", scan, "-o", tmp_path / "new" / "out.csv", "-q")
    assert_one_clear_error(result, 1, "1 mm apart")
    assert files_below(tmp_path) == before


def test_series_without_a_scan_is_wrong_usage(tmp_path: Path, lesion_file: Path) -> None:
    result = run("measure", lesion_file, "--series", "3", "-o", tmp_path / "out.csv")
    assert_one_clear_error(result, 2, "--scan")


def test_a_dicom_scan_is_named_by_a_salted_hash(tmp_path: Path) -> None:
    write_series(tmp_path / "dicom", n_slices=3)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.array([[1.5, 0, 0, -10], [0, 2, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1]])
    array = np.zeros((7, 5, 3), dtype=np.uint8)
    array[2:4, 2, 1] = 1
    lesions = save(array, tmp_path / "lesions.nii.gz", affine=affine)
    arguments = ["measure", lesions, "--scan", tmp_path / "dicom", "-o", tmp_path / "out" / "lesions.csv"]
    run_well(*arguments)
    name = _rows(tmp_path / "out" / "lesions.csv")[0]["case_id"]
    assert len(name) == 16
    assert SALT_FILE in files_below(tmp_path / "out")
    run_well(*arguments, "--overwrite")
    assert _rows(tmp_path / "out" / "lesions.csv")[0]["case_id"] == name


def test_two_scans_and_organs_are_measured(tmp_path: Path, lesion_file: Path, scan_file: Path) -> None:
    organs = np.ones((24, 24, 20), dtype=np.uint8)
    organs[12:] = 5
    ct = save(np.full((24, 24, 20), 40, np.float32), tmp_path / "ct.nii.gz")
    output = tmp_path / "out.json"
    arguments = ["--scan", scan_file, "--scan", ct, "--units", "suv", "--units", "stored", "-o", output]
    run_well("measure", lesion_file, *arguments, "--organs", save(organs, tmp_path / "organs.nii.gz"))
    document = json.loads(output.read_text())
    first, second = document["rows"]
    assert (first["suv_max"], first["ct_mean"], first["organ"], second["organ"]) == (12.0, 40.0, "spleen", "liver")
    assert "ct_suv_max" not in first
    assert document["totals"]["organs"]["liver"]["tlg_suv_ml"] == pytest.approx(64 * 9e-3 * 12)
    unit = {column["name"]: column["unit"] for column in document["columns"]}
    assert (unit["mean"], unit["ct_mean"]) == ("SUV", "scan")


def test_radiomics_need_a_scan(tmp_path: Path, lesion_file: Path) -> None:
    result = run("measure", lesion_file, "--radiomics", "ibsi", "-o", tmp_path / "out.csv")
    assert_one_clear_error(result, 2, "--scan")


def test_radiomics_say_what_they_are(tmp_path: Path, lesion_file: Path, scan_file: Path) -> None:
    result = run_well("measure", lesion_file, "--scan", scan_file, "--radiomics", "ibsi", "-o", tmp_path / "out.csv")
    textures = [name for name in _rows(tmp_path / "out.csv")[0] if name.startswith("texture_")]
    assert textures or "without texture" in result.stderr
