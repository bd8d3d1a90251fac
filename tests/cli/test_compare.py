"""`medseg compare`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.commands import assert_one_clear_error, run, run_well
from tests.io.nifti_files import save


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path, Path]:
    array = np.zeros((20, 12, 12), dtype=np.uint8)
    array[2:8, 2:8, 2:8], array[8:16, 2:8, 2:8] = 1, 2
    for name, side in (("a", (array > 0).astype(np.uint8)), ("b", array), ("r", array)):
        (tmp_path / name).mkdir()
        for number in range(2):
            save(side, tmp_path / name / f"{number}.nii.gz")
    return tmp_path / "a", tmp_path / "b", tmp_path / "r"


def test_it_prints_the_verdict_and_writes_json_and_page(tmp_path: Path, sides: tuple[Path, Path, Path]) -> None:
    names = ["--name-a", "semantic", "--name-b", "instance", "--input-a", "semantic", "-q"]
    output = ["-o", tmp_path / "out" / "c.json", "--page", tmp_path / "out" / "c.html"]
    result = run_well("compare", *sides, *names, *output)
    written = json.loads((tmp_path / "out" / "c.json").read_text())
    assert result.stdout.startswith("On these 2 scans of 2 patients: instance is better than semantic in")
    assert written["figures"]["count_error"]["a"] == 1.0
    assert written["verdict"][0] in (tmp_path / "out" / "c.html").read_text()


def test_json_on_stdout_is_what_is_written(tmp_path: Path, sides: tuple[Path, Path, Path]) -> None:
    result = run_well("compare", *sides, "-o", tmp_path / "c.json", "--json", "-q")
    assert json.loads(result.stdout) == json.loads((tmp_path / "c.json").read_text())


def test_an_older_result_is_kept(tmp_path: Path, sides: tuple[Path, Path, Path]) -> None:
    (tmp_path / "c.json").write_text("mine")
    assert_one_clear_error(run("compare", *sides, "-o", tmp_path / "c.json", "-q"), 2, "--overwrite")
    assert (tmp_path / "c.json").read_text() == "mine"


def test_two_equal_names_are_wrong_usage(tmp_path: Path, sides: tuple[Path, Path, Path]) -> None:
    result = run("compare", *sides, "-o", tmp_path / "c.json", "--name-a", "B", "-q")
    assert_one_clear_error(result, 2, "two names")
