"""The ledger as a reader meets it: not there, not begun, damaged, in use, on a disk that cannot be written."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from medseg.batch.ledger import LEDGER_FILE, Ledger
from medseg.batch.status import archive_status
from tests.cli.commands import assert_one_clear_error
from tests.cli.commands import run as run_command


def entered(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    with Ledger(folder, create=True) as ledger:
        ledger.add([("a", "a", "a.nii"), ("b", "b", "b.nii")])
        ledger.set_failed("b", "read", "Odd", "why")
    return folder


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is missing"),
        (b"", "is empty"),
        (b"hello, no ledger" * 100, "is no ledger, or damaged"),
        ("cut", "is no ledger, or damaged"),
    ],
)
def test_status_of_what_is_no_ledger_says_so_and_leaves_it_alone(
    tmp_path: Path, content: bytes | str | None, words: str
) -> None:
    file = tmp_path / LEDGER_FILE
    if content == "cut":
        content = (entered(tmp_path / "whole") / LEDGER_FILE).read_bytes()[:5000]
    if isinstance(content, bytes):
        file.write_bytes(content)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert_one_clear_error(run_command("status", tmp_path), 2, words)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert not file.exists() or file.read_bytes() == content


def test_a_reader_does_not_begin_a_ledger_that_a_run_is_about_to_begin(tmp_path: Path) -> None:
    for _ in range(20):
        (tmp_path / LEDGER_FILE).write_bytes(b"")
        run_command("status", tmp_path)
        with Ledger(tmp_path, create=True) as ledger:
            ledger.add([("a", "a", "a.nii")])
            assert archive_status(tmp_path).n_pending == 1  # while it is open for writing
        (tmp_path / LEDGER_FILE).unlink()


def test_a_ledger_that_is_locked_cannot_be_read_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered(tmp_path)
    monkeypatch.setattr("medseg.batch.ledger._PATIENCE_S", 0.1)
    holder = sqlite3.connect(tmp_path / LEDGER_FILE, isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    holder.execute("UPDATE cases SET source = 'c'")
    try:
        assert_one_clear_error(run_command("status", tmp_path), 2, "cannot be read", "try again")
    finally:
        holder.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a disk that cannot be written")
def test_a_batch_on_a_read_only_disk_is_shown(tmp_path: Path) -> None:
    folder = entered(tmp_path / "out")
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 77; shift; exec "$@"'
    words = [sys.executable, "-m", "medseg", "status", str(folder)]
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", script, "run", str(folder), *words], capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        pytest.skip("no disk can be mounted here")
    assert done.returncode == 0, done.stderr
    assert "2 case(s): 0 done, 1 failed, 1 to do" in done.stdout
