from __future__ import annotations

import json
from pathlib import Path

from tests.cli.commands import assert_one_clear_error, run, run_well
from tests.io.dicom_files import set_tag, write_series


def two_series(folder: Path) -> Path:
    write_series(folder / "a")
    tags = {"SeriesInstanceUID": "1.2.9", "SeriesNumber": 12, "ImageType": ["DERIVED", "SECONDARY"]}
    write_series(folder / "b", edit=lambda dataset, _: dataset.update(tags))
    return folder


def test_table_marks_what_would_be_read_and_says_why(tmp_path: Path) -> None:
    result = run_well("inspect", two_series(tmp_path))
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["series", "modality", "slices", "grid", "spacing", "(mm)", "description", "remarks"]
    assert lines[1].startswith("*  3 ")
    assert "7 x 5 x 4" in lines[1]
    assert "1.5 x 2 x 3" in lines[1]
    assert lines[1].endswith("the only primary image")
    assert lines[2].startswith("   12 ")
    assert lines[2].endswith("derived")
    assert result.stderr == "Note: 2 of 2 can be read\n"
    assert "CANARY" not in result.output


def test_json_holds_the_same_for_programs_and_no_uid(tmp_path: Path) -> None:
    result = run_well("inspect", two_series(tmp_path), "--json")
    shown = json.loads(result.stdout)
    assert shown["n_readable"] == 2
    assert [(scan["series"], scan["is_chosen"], scan["set_aside"]) for scan in shown["scans"]] == [
        ("3", True, None),
        ("12", False, "derived"),
    ]
    assert shown["scans"][0]["shape"] == [7, 5, 4]
    assert "1.2.826" not in result.stdout


def test_quiet_leaves_the_table_alone(tmp_path: Path) -> None:
    result = run_well("inspect", two_series(tmp_path), "--quiet")
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 3


def test_problem_is_listed_and_exit_code_is_0(tmp_path: Path) -> None:
    write_series(tmp_path, edit=set_tag("PixelSpacing", None))
    assert "PixelSpacing is missing" in run_well("inspect", tmp_path).stdout


def test_missing_path_is_wrong_usage(tmp_path: Path) -> None:
    assert_one_clear_error(run("inspect", tmp_path / "none"), 2, "does not exist")
