"""`medseg batch` and `medseg status`: what they print, write and return."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from tests.batch.archives import make_archive
from tests.cli.commands import assert_one_clear_error, files_below, run, run_well


def test_a_zip_is_done_and_its_bad_scan_is_exit_code_1(tmp_path: Path, tiny_bundle: Path) -> None:
    folder = make_archive(tmp_path / "in", 2, 1)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for path in folder.rglob("*.nii"):
            archive.write(path, path.relative_to(folder))
    out = tmp_path / "out"
    result = run("batch", tmp_path / "in.zip", "-m", tiny_bundle, "-o", out, "--json", "--engine", "torch")
    assert result.exit_code == 1
    shown = json.loads(result.stdout)
    assert (shown["n_cases"], shown["n_done"], shown["n_failed"]) == (3, 2, 1)
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert [event["event"] for event in events] == ["found", "failed", "start", "done", "start", "done", "end"]
    (out / "cases.parquet").unlink()
    told = run_well("status", out, "--tables").stdout
    assert "3 case(s): 2 done, 1 failed, 0 to do" in told
    assert (out / "cases.parquet").is_file()


def test_dry_run_prints_the_cases_and_writes_nothing(tmp_path: Path, tiny_bundle: Path) -> None:
    archive = make_archive(tmp_path / "in", 2, 1)
    before = files_below(tmp_path)
    rule = "slices == 12 and not case_id in ('p1/scan_001', 'x')"
    result = run_well("batch", archive, "-m", tiny_bundle, "-o", tmp_path / "out", "--select", rule, "--dry-run")
    assert result.stdout.splitlines() == ["to do        p0/scan_000", "1 of 1 case(s) to do"]
    assert files_below(tmp_path) == before


def test_wrong_use_is_one_clear_error(tmp_path: Path, tiny_bundle: Path) -> None:
    archive = make_archive(tmp_path / "in", 1)
    asked = ("batch", archive, "-m", tiny_bundle, "-o", tmp_path / "out")
    assert_one_clear_error(run(*asked, "--select", "slices.real > 1"), 2, "slices.real")
    assert_one_clear_error(run(*asked, "--time-limit-s", -1), 2, "time limit")
    assert_one_clear_error(run("batch", tmp_path / "none", "-m", tiny_bundle, "-o", tmp_path / "out"), 2, "none")
    assert_one_clear_error(run("status", tmp_path), 2, "no batch")
