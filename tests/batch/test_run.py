"""Runs over small archives: what they leave, what they skip, and what goes wrong in a case."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import medseg
from medseg.batch.estimate import estimate_run
from medseg.batch.locks import only_run
from medseg.batch.run import plan_archive
from medseg.batch.status import BatchStatus, archive_status
from medseg.errors import InvalidBundle, OutputExists, OutputInUse, ScanNotFound, UsageError
from tests.batch.archives import make_archive, tables, temporary_files
from tests.cli.commands import run as run_command
from tests.io.nifti_files import save

HOW: dict[str, Any] = {"device": "cpu", "engine": "torch", "precision": "float32"}


def run(archive: Path, model: Path, output: Path, **how: Any) -> tuple[BatchStatus, list[Mapping[str, Any]]]:
    """A run, and what it told."""
    events: list[Mapping[str, Any]] = []
    return medseg.run_archive(archive, model, output, on_event=events.append, **{**HOW, **how}), events


def told(events: list[Mapping[str, Any]], kind: str) -> list[str]:
    """The cases of which something was told, by name: several are in work at a time."""
    return sorted(event["case_id"] for event in events if event["event"] == kind)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> tuple[Path, Path, list[Mapping[str, Any]]]:
    """An archive of 4 scans and 3 bad ones, and the output of a run on it."""
    folder = tmp_path_factory.mktemp("batch")
    archive = make_archive(folder / "in", 4, 3)
    _, events = run(archive, tiny_bundle, folder / "out")
    return archive, folder / "out", events


@pytest.fixture
def copied(finished: tuple[Path, Path, list[Mapping[str, Any]]], tmp_path: Path) -> tuple[Path, Path]:
    """A copy of that archive and output that a test may change."""
    for path, name in zip(finished[:2], ("in", "out"), strict=True):
        shutil.copytree(path, tmp_path / name)
    return tmp_path / "in", tmp_path / "out"


def test_good_cases_have_folders_and_bad_ones_rows_in_failures(
    finished: tuple[Path, Path, list[Mapping[str, Any]]],
) -> None:
    _, output, events = finished
    good = ["p0/scan_000", "p1/scan_001", "p2/scan_002", "p3/scan_003"]
    assert told(events, "done") == good
    assert sorted(p.name for p in output.iterdir() if p.is_dir()) == [name.replace("/", "__") for name in good]
    rows = list(csv.DictReader((output / "failures.csv").read_text().splitlines()))
    assert [(row["source"], row["stage"], row["error"]) for row in rows] == [
        ("p0/bad_000.nii", "find", "UnreadableImage"),
        ("p1/bad_001.nii", "find", "UnreadableImage"),
        ("p2/bad_002.nii", "read", "NonFiniteVoxels"),
    ]
    status = archive_status(output)
    assert (status.n_cases, status.n_done, status.n_failed, status.n_pending) == (7, 4, 3, 0)
    assert not status.is_running
    assert temporary_files(output) == []


def test_tables_hold_every_case_and_what_the_cases_own_tables_hold(
    finished: tuple[Path, Path, list[Mapping[str, Any]]],
) -> None:
    _, output, _ = finished
    cases = pq.read_table(output / "cases.parquet").to_pylist()
    assert [case["n_lesions"] for case in cases if case["state"] == "done"] == [0, 1, 2, 0]
    assert sum(case["state"] == "failed" for case in cases) == 3
    lesions = pq.read_table(output / "lesions.parquet").to_pylist()
    single = [
        row
        for case in cases
        if case["state"] == "done"
        for row in csv.DictReader((output / case["folder"] / "lesions.csv").read_text().splitlines())
    ]
    assert len(lesions) == len(single) == 3
    for row, text in zip(lesions, single, strict=True):
        assert row["case_id"] == text["case_id"]
        assert repr(row["volume_ml"]) == text["volume_ml"]
        assert (row["touches_border"] is True) == (text["touches_border"] == "true")
        assert {name for name, value in row.items() if value is None} == {n for n, v in text.items() if v == ""}


def test_the_page_has_a_row_a_case_and_the_failed_ones_with_their_reason(
    finished: tuple[Path, Path, list[Mapping[str, Any]]],
) -> None:
    _, output, _ = finished
    page = (output / "index.html").read_text("utf-8")
    assert page.count("report.html") == 4
    assert page.count("failed (") == 3
    assert "failed (read): NonFiniteVoxels" in page
    again = run_command("report", output, "--json")
    assert (again.exit_code, len(json.loads(again.stdout)["cases"])) == (1, 7)
    assert (output / "index.html").read_text("utf-8") == page


def test_resume_skips_what_is_done_and_whole_and_redoes_what_changed(
    copied: tuple[Path, Path], tiny_bundle: Path
) -> None:
    archive, output = copied
    before = tables(output)
    (output / "p1__scan_001" / "lesions.csv").write_text("")  # a result damaged
    (output / "p0__scan_000" / "report.html").unlink()  # a file of it gone
    (output / "p2__scan_002" / "notes.txt").write_text("mine")
    _, events = run(archive, tiny_bundle, output, resume=True)
    assert told(events, "skipped") == ["p2/scan_002", "p3/scan_003"]
    assert told(events, "done") == ["p0/scan_000", "p1/scan_001"]
    assert tables(output) == before
    scan = archive / "p2" / "scan_002.nii"  # an input that changed: its lesions are gone
    save(np.ones((16, 16, 12), dtype=np.float32), scan)
    _, events = run(archive, tiny_bundle, output, resume=True)
    assert told(events, "done") == ["p2/scan_002"]
    assert (output / "p2__scan_002" / "notes.txt").read_text() == "mine"
    assert pq.read_table(output / "lesions.parquet").num_rows == 1


def test_a_second_run_is_refused_while_the_first_is_at_work_and_without_resume(
    copied: tuple[Path, Path], tiny_bundle: Path
) -> None:
    archive, output = copied
    with pytest.raises(OutputExists, match="--resume"):
        run(archive, tiny_bundle, output)
    with only_run(output):
        assert archive_status(output).is_running
        with pytest.raises(OutputInUse, match=str(os.getpid())):
            run(archive, tiny_bundle, output, resume=True)
    assert not archive_status(output).is_running


def test_a_model_that_cannot_be_loaded_ends_the_run_with_its_error(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "in", 1)
    (tmp_path / "model").mkdir()
    with pytest.raises(InvalidBundle, match="no model there"):
        run(archive, tmp_path / "model", tmp_path / "out")
    assert archive_status(tmp_path / "out").n_pending == 1


def test_nothing_to_do_is_an_error_that_says_what_was_asked_for(copied: tuple[Path, Path], tiny_bundle: Path) -> None:
    archive, output = copied
    before = tables(output)
    with pytest.raises(ScanNotFound, match=r"none of the 7 case\(s\) found is selected by 'slices > 1000'"):
        run(archive, tiny_bundle, output, resume=True, select="slices > 1000")
    shutil.rmtree(archive)
    archive.mkdir()  # as a disk that is not mounted
    with pytest.raises(ScanNotFound, match=r"in holds no scan; medseg inspect .*in tells"):
        run(archive, tiny_bundle, output, resume=True)
    with pytest.raises(ScanNotFound, match="holds no scan"):
        plan_archive(archive, output)
    assert tables(output) == before
    assert archive_status(output).n_cases == 7


def test_what_makes_no_sense_is_said_before_anything_is_written(tmp_path: Path, tiny_bundle: Path) -> None:
    archive = make_archive(tmp_path / "in", 1)
    for how, words in (
        ({"workers": 0}, "workers"),
        ({"time_limit_s": 0.0}, "time limit"),
        ({"select": "slice > 3"}, "no field"),
    ):
        with pytest.raises(UsageError, match=words):
            run(archive, tiny_bundle, tmp_path / "out", **how)
    with pytest.raises(UsageError, match="lies in the archive"):
        run(archive, tiny_bundle, archive / "out")
    with pytest.raises(UsageError, match="no batch"):
        archive_status(tmp_path)
    assert not (tmp_path / "out").exists()


def test_dry_run_says_what_would_be_done_and_writes_nothing(copied: tuple[Path, Path], tmp_path: Path) -> None:
    archive, output = copied
    (output / "p1__scan_001" / "result.json").unlink()
    planned = {case.case_id: case.state for case in plan_archive(archive, output, select="'p1' in source")}
    assert planned == {"p1/bad_001.nii": "unreadable", "p1/scan_001": "to do"}
    assert {case.state for case in plan_archive(archive, output, select="slices == 12")} == {"done before", "to do"}
    assert [c.state for c in plan_archive(archive, tmp_path / "new", select="slices == 12")] == ["to do"] * 5
    assert not (tmp_path / "new").exists()
    with pytest.raises(ScanNotFound):
        plan_archive(tmp_path / "nowhere", output)


def test_dead_and_late_workers_cost_their_case_only(tmp_path: Path, tiny_bundle: Path) -> None:
    archive = make_archive(tmp_path / "in", 5)
    events: list[Mapping[str, Any]] = []

    def disturb(event: Mapping[str, Any]) -> None:
        events.append(event)
        signals = {"p1/scan_001": signal.SIGKILL, "p3/scan_003": signal.SIGSTOP}
        if event["event"] == "start" and event["case_id"] in signals:
            os.kill(event["worker"], signals[event["case_id"]])

    status = medseg.run_archive(archive, tiny_bundle, tmp_path / "out", on_event=disturb, time_limit_s=5, **HOW)
    assert told(events, "done") == ["p0/scan_000", "p2/scan_002", "p4/scan_004"]
    assert told(events, "start").count("p1/scan_001") == told(events, "start").count("p3/scan_003") == 2
    assert [failure.error for failure in status.failures] == [
        "WorkerDied: its worker died twice, the last time by SIGKILL",
        "TimeLimit: took longer than 5 s",
    ]


def test_a_case_that_is_refused_for_want_of_memory_beside_others_is_tried_again_alone(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    archive = make_archive(tmp_path / "in", 2)
    status, events = run(archive, tiny_bundle, tmp_path / "out", max_memory_mib=0.1)
    assert told(events, "start") == ["p0/scan_000", "p0/scan_000", "p1/scan_001", "p1/scan_001"]
    assert {failure.error.split(":")[0] for failure in status.failures} == {"NotEnoughMemory"}
    assert (status.n_failed, status.n_done) == (2, 0)


def test_several_workers_make_the_same_tables(
    finished: tuple[Path, Path, list[Mapping[str, Any]]], tmp_path: Path, tiny_bundle: Path
) -> None:
    archive, output, _ = finished
    workers: list[int] = []

    def hold_the_first(event: Mapping[str, Any]) -> None:
        """Until there is a second one: cases are so small that the first could do them all."""
        if event["event"] == "start" and event["worker"] not in workers:
            workers.append(event["worker"])
            os.kill(workers[0], signal.SIGSTOP if len(workers) == 1 else signal.SIGCONT)

    medseg.run_archive(archive, tiny_bundle, tmp_path / "out", workers=2, on_event=hold_the_first, **HOW)
    assert len(workers) == 2
    assert tables(tmp_path / "out") == tables(output)


def test_interrupt_drops_the_case_in_work_and_leaves_nothing_half_written(tmp_path: Path, tiny_bundle: Path) -> None:
    archive = make_archive(tmp_path / "in", 3)

    def interrupt(event: Mapping[str, Any]) -> None:
        if event["event"] == "done":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        medseg.run_archive(archive, tiny_bundle, tmp_path / "out", on_event=interrupt, **HOW)
    status = archive_status(tmp_path / "out")
    assert (status.n_done, status.n_failed, status.n_pending, status.is_running) == (1, 0, 2, False)
    assert temporary_files(tmp_path / "out") == []


def test_results_are_copied_to_a_url_once(copied: tuple[Path, Path], tmp_path: Path, tiny_bundle: Path) -> None:
    archive, output = copied
    url = f"file://{tmp_path}/elsewhere"
    _, events = run(archive, tiny_bundle, output, resume=True, copy_to=url)
    assert told(events, "stored") == told(events, "skipped")
    there = {path.relative_to(tmp_path / "elsewhere"): path.read_bytes() for path in files_in(tmp_path / "elsewhere")}
    here = {path.relative_to(output): path.read_bytes() for path in files_in(output)}
    assert there == {name: content for name, content in here.items() if name in there}
    assert {len(name.parts) for name in there} == {1, 2}
    assert sum(name.name == "result.json" for name in there) == 4
    assert not [name for name in there if name.name in ("ledger.sqlite", ".medseg-salt")]
    _, events = run(archive, tiny_bundle, output, resume=True, copy_to=url)
    assert told(events, "stored") == []


def test_a_copy_that_fails_is_a_failure_until_it_succeeds(
    copied: tuple[Path, Path], tmp_path: Path, tiny_bundle: Path
) -> None:
    archive, output = copied
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "p1__scan_001").write_text("in the way")
    url = f"file://{tmp_path}/elsewhere"
    status, _ = run(archive, tiny_bundle, output, resume=True, copy_to=url)
    assert [failure.case_id for failure in status.failures if failure.stage == "copy"] == ["p1/scan_001"]
    (tmp_path / "elsewhere" / "p1__scan_001").unlink()
    status, events = run(archive, tiny_bundle, output, resume=True, copy_to=url)
    assert status.n_done == 4
    assert told(events, "start") == ["p2/bad_002"]  # nothing was run again but what failed in itself
    with pytest.raises(UsageError, match="cannot be written"):
        run(archive, tiny_bundle, output, resume=True, copy_to="nosuchthing://bucket")


def test_a_run_is_estimated_by_what_is_done_or_by_a_trial(
    copied: tuple[Path, Path], tmp_path: Path, tiny_bundle: Path
) -> None:
    archive, output = copied
    assert estimate_run(plan_archive(archive, output, select="slices == 12"), tiny_bundle, output, **HOW) is not None
    planned = plan_archive(archive, tmp_path / "new", select="slices == 12 and 'scan' in source")
    by_trial = estimate_run(planned, tiny_bundle, tmp_path / "new", **HOW)
    by_history = estimate_run(planned, tiny_bundle, output, **HOW)
    assert by_trial is not None
    assert by_history is not None
    assert by_trial.basis.startswith("a trial of")
    assert by_history.basis == "4 case(s) that are done"
    size = sum(path.stat().st_size for path in files_in(output) if len(path.relative_to(output).parts) == 2)
    assert by_history.n_bytes == size
    assert by_trial.n_bytes == pytest.approx(size, rel=0.3)
    assert by_trial.seconds > 0
    assert not (tmp_path / "new").exists()
    assert estimate_run([], tiny_bundle, output) is None


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
