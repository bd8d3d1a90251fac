"""`medseg demo`."""

from __future__ import annotations

import json
from pathlib import Path

from medseg.demo import DEMO_FILES
from tests.cli.commands import assert_one_clear_error, files_below, run, run_well


def test_the_demo_says_how_many_known_lesions_were_found_and_where_the_pictures_are(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    result = run_well("demo", "-o", tmp_path / "demo", "--model", tiny_bundle, "-q")
    assert sorted(files_below(tmp_path / "demo")) == sorted(DEMO_FILES)
    assert "known lesions (found: at least half" in result.stdout
    assert str(tmp_path / "demo" / "report.html") in result.stdout


def test_a_second_demo_replaces_the_first(tmp_path: Path, tiny_bundle: Path) -> None:
    arguments = ["demo", "-o", tmp_path / "demo", "--model", tiny_bundle, "--json", "-q"]
    first = json.loads(run_well(*arguments).stdout)
    again = json.loads(run_well(*arguments, "--seed", "1").stdout)
    assert first["case_id"] == again["case_id"] == "demo"
    assert first["lesions"] != again["lesions"]
    assert 0 < first["n_found"] <= first["n_known"]
    known = json.loads((tmp_path / "demo" / "phantom.json").read_text())
    assert (known["seed"], len(known["lesions"])) == (1, again["n_known"])


def test_files_that_are_no_demo_are_never_replaced(tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(b"a patient")
    result = run("demo", "-o", tmp_path, "--model", tiny_bundle, "-q")
    assert_one_clear_error(result, 2, "scan.nii.gz")
    assert files_below(tmp_path) == {"scan.nii.gz": b"a patient"}


def test_an_unknown_model_leaves_nothing_behind(tmp_path: Path) -> None:
    assert_one_clear_error(run("demo", "-o", tmp_path / "demo", "--model", "no_such_model", "-q"), 2, "no_such_model")
    assert not (tmp_path / "demo").exists()
