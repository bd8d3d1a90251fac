"""What goes wrong from outside: signals, a full disk, no memory; through the command where users meet it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import medseg
from medseg.batch.case_work import CaseWork
from medseg.batch.cluster_work import answer_case
from medseg.batch.messages import CaseDone, CaseFailed, CaseShort, CaseStopped, ModelChoice, Task
from medseg.batch.status import archive_status
from medseg.errors import NotEnoughMemory, OutputNotWritable
from tests.batch.archives import make_archive, tables, temporary_files
from tests.io.nifti_files import save

HOW: dict[str, Any] = {"device": "cpu", "engine": "torch", "precision": "float32"}
WORDS = ("--device", "cpu", "--engine", "torch", "--precision", "float32", "--json")


def command(archive: Path, model: Path, output: Path, *more: str) -> list[str]:
    words = [sys.executable, "-m", "medseg", "batch", archive, "--model", model, "-o", output, *WORDS, *more]
    return [str(word) for word in words]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> tuple[Path, Path]:
    """A tar of 8 scans, and the output of a run on it that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with tarfile.open(folder / "in.tar", "w") as archive:
        archive.add(make_archive(folder / "in", 8), ".")
    medseg.run_archive(folder / "in.tar", tiny_bundle, folder / "out", **HOW)
    return folder / "in.tar", folder / "out"


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_signal_ends_the_command_leaves_nothing_half_written_and_resume_makes_up_for_it(
    tmp_path: Path, tiny_bundle: Path, undisturbed: tuple[Path, Path], number: signal.Signals, exit_code: int
) -> None:
    archive, whole = undisturbed
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    words = command(archive, tiny_bundle, tmp_path / "out")
    run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    assert run.stderr is not None
    for line in run.stderr:
        if json.loads(line)["event"] == "done":
            break
    run.send_signal(number)
    said = run.stderr.read()
    run.stderr.close()
    assert run.wait(timeout=60) == exit_code
    assert "Traceback" not in said
    state = archive_status(tmp_path / "out")
    assert 1 <= state.n_done < 8
    assert (state.n_failed, state.is_running) == (0, False)
    assert [path.name for path in (tmp_path / "tmp").iterdir() if path.name.startswith("medseg")] == []
    if number != signal.SIGKILL:  # after a kill it is the next run that clears up
        assert temporary_files(tmp_path / "out") == []
    resumed = subprocess.run([*words, "--resume"], capture_output=True, text=True, check=False)
    assert (resumed.returncode, json.loads(resumed.stdout)["n_done"]) == (0, 8)
    assert len([line for line in resumed.stderr.splitlines() if '"skipped"' in line]) == state.n_done
    assert tables(tmp_path / "out") == tables(whole)
    assert temporary_files(tmp_path / "out") == []


@pytest.mark.parametrize("moment", ["found", "start, twice"])  # the model is loaded after the first
def test_a_signal_early_or_twice_ends_the_command_too(
    tmp_path: Path, tiny_bundle: Path, undisturbed: tuple[Path, Path], moment: str
) -> None:
    archive, whole = undisturbed
    words = command(archive, tiny_bundle, tmp_path / "out")
    run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    for line in run.stderr:
        if json.loads(line)["event"] == moment.split(",")[0]:
            break
    run.send_signal(signal.SIGINT)
    if "twice" in moment:
        time.sleep(0.05)
        run.send_signal(signal.SIGINT)
    said = run.stderr.read()
    run.stderr.close()
    # a second signal may find the command on its way out, where it ends it at once: a shell shows 130 for both
    assert run.wait(timeout=60) in ({130, -signal.SIGINT} if "twice" in moment else {130})
    assert "Traceback" not in said
    assert temporary_files(tmp_path / "out") == []
    resumed = subprocess.run([*words, "--resume"], capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert tables(tmp_path / "out") == tables(whole)


def test_a_failure_in_a_tar_is_told_without_where_it_was_unpacked(tmp_path: Path, tiny_bundle: Path) -> None:
    make_archive(tmp_path / "in", 1, 3)
    with tarfile.open(tmp_path / "in.tar", "w") as archive:
        archive.add(tmp_path / "in", ".")
    for name in ("first", "second"):
        medseg.run_archive(tmp_path / "in.tar", tiny_bundle, tmp_path / name, **HOW)
    assert tables(tmp_path / "first")["failures.csv"] == tables(tmp_path / "second")["failures.csv"]
    assert ".tmp-" not in (tmp_path / "first" / "failures.csv").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk of its own")
def test_a_full_disk_stops_the_run_and_a_larger_one_lets_it_go_on(tmp_path: Path, tiny_bundle: Path) -> None:
    archive = make_archive(tmp_path / "in", 6)
    words = command(archive, tiny_bundle, tmp_path / "out", "--resume")
    script = (
        f"mkdir -p {tmp_path}/out && mount -t tmpfs -o size=400k tmpfs {tmp_path}/out && cd {tmp_path} || exit 77; "
        f'"$@" >first.json 2>first.txt; echo $? >first.code; ls -A out | grep -c tmp- >first.left; '
        f"mount -o remount,size=64m {tmp_path}/out; "
        f'"$@" >second.json 2>second.txt; echo $? >second.code; ls -A out | grep -c tmp- >second.left; true'
    )
    done = subprocess.run(["unshare", "-m", "bash", "-c", script, "run", *words], check=False, capture_output=True)
    if done.returncode == 77:
        pytest.skip("no disk can be mounted here")
    read = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert read["first.code"].strip() == "2"
    assert "No space left on device" in read["first.txt"] or "full" in read["first.txt"]
    assert "Traceback" not in read["first.txt"]
    assert "--resume goes on with it" in read["first.txt"]
    assert (read["first.left"].strip(), read["second.left"].strip()) == ("0", "0")
    assert read["second.code"].strip() == "0", read["second.txt"]
    assert json.loads(read["second.json"])["n_done"] == 6


@pytest.fixture
def one_case(tmp_path: Path, tiny_bundle: Path) -> tuple[CaseWork, Task]:
    """The tiny model, and a scan."""
    array = np.ones((16, 16, 12), dtype=np.float32)
    array[4:8, 4:8, 4:8] = 12.0
    save(array, tmp_path / "scan.nii.gz")
    work = CaseWork(ModelChoice(str(tiny_bundle), device="cpu", engine="torch", precision="float32"))
    return work, Task("scan", medseg.read_scan(tmp_path / "scan.nii.gz"), tmp_path / "out")


def test_an_allocation_that_fails_asks_for_a_second_try_within_less_memory(
    one_case: tuple[CaseWork, Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, task = one_case
    limits: list[float | None] = []
    segmenter = work._segmenter
    segment = segmenter.segment

    def short(*arguments: Any) -> Any:
        limits.append(segmenter.options.max_memory_mib)
        if len(limits) == 1:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return segment(*arguments)

    monkeypatch.setattr(segmenter, "segment", short)
    first = work.do(task, lambda _: None)
    assert first == CaseShort(is_frugal=True)
    second = work.do(replace(task, is_frugal=True, is_alone=True), lambda _: None)
    assert isinstance(second, CaseDone)
    assert limits[0] is None
    assert limits[1] is not None
    assert segmenter.options.max_memory_mib is None


def test_errors_of_a_case_become_its_outcome(one_case: tuple[CaseWork, Task], monkeypatch: pytest.MonkeyPatch) -> None:
    work, task = one_case

    def run_with(error: Exception) -> object:
        def fail(*_: Any) -> Any:
            raise error

        monkeypatch.setattr(work._segmenter, "segment", fail)
        return work.do(task, lambda _: None)

    assert run_with(ValueError("odd")) == CaseFailed("read", "ValueError", "odd")
    assert run_with(NotEnoughMemory("too large")) == CaseShort(is_frugal=False)
    full = OutputNotWritable("full")
    full.__cause__ = OSError(28, "No space left on device")
    assert isinstance(run_with(full), CaseStopped)


def test_a_try_that_a_cluster_repeats_touches_nothing_of_an_earlier_one(
    one_case: tuple[CaseWork, Task], tiny_bundle: Path
) -> None:
    _, task = one_case
    choice = ModelChoice(str(tiny_bundle), device="cpu", engine="torch", precision="float32")
    first, again = answer_case(task, choice), answer_case(task, choice)
    assert first.folder != again.folder
    assert not task.folder.exists()  # it is the run that gives a result its place
    for answer in (first, again):
        assert isinstance(answer.said, CaseDone)
        assert sorted(path.name for path in answer.folder.iterdir()) == sorted(answer.said.files)


def test_a_time_limit_ends_a_case_between_windows(one_case: tuple[CaseWork, Task]) -> None:
    work, task = one_case
    outcome = work.do(task, lambda _: None, time_limit_s=1e-9)
    assert isinstance(outcome, CaseFailed)
    assert outcome.error == "TimeLimit"
