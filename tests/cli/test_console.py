"""Errors as one message, progress and notes on stderr."""

from __future__ import annotations

import errno
import logging
import os
import pty
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner, Result

from medseg.cli import console
from medseg.cli.console import CleanErrors, print_json, show_notes, show_progress
from medseg.errors import InvalidBundle, MedsegError, UnreadableImage, UsageError


def _run_raising(error: BaseException, *options: str) -> Result:
    """Run a program of one command that raises."""
    program = typer.Typer(cls=CleanErrors)

    @program.callback()
    def root(debug: bool = False) -> None:
        """Root."""

    @program.command()
    def fail() -> None:
        raise error

    return CliRunner().invoke(program, [*options, "fail"])


@pytest.mark.parametrize(
    ("error", "exit_code", "message"),
    [
        (MedsegError("it failed"), 1, "Error: it failed\n"),
        (UsageError("not so"), 2, "Error: not so\n"),
        (UnreadableImage("damaged"), 1, "Error: damaged\n"),  # an OSError too
        (InvalidBundle("no plan"), 1, "Error: no plan\n"),
        (OSError(errno.ENOSPC, "No space left on device", "out/x"), 1, "Error: out/x: No space left on device\n"),
        (PermissionError(errno.EACCES, "Permission denied", "out"), 1, "Error: out: Permission denied\n"),
        (OSError("odd"), 1, "Error: odd\n"),
        (MemoryError("1 GiB"), 1, "Error: not enough memory (1 GiB)\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
    ],
)
def test_an_error_is_one_message_and_an_exit_code(error: BaseException, exit_code: int, message: str) -> None:
    result = _run_raising(error)
    assert (result.exit_code, result.stderr, result.stdout) == (exit_code, message, "")


def test_debug_shows_the_traceback_and_keeps_the_exit_code() -> None:
    result = _run_raising(UsageError("not so"), "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("Error: not so\n")


def test_a_bug_is_not_hidden() -> None:
    assert isinstance(_run_raising(ZeroDivisionError("a bug")).exception, ZeroDivisionError)


def test_warnings_and_logs_are_single_lines_on_stderr() -> None:
    program = typer.Typer(cls=CleanErrors)

    @program.callback()
    def root(debug: bool = False) -> None:
        """Root."""

    @program.command()
    def noisy() -> None:
        logging.getLogger("medseg.x").warning("odd header")
        logging.getLogger("medseg.x").info("detail")
        warnings.warn("old function", DeprecationWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        quiet = CliRunner().invoke(program, ["noisy"])
        debug = CliRunner().invoke(program, ["--debug", "noisy"])
    assert quiet.stderr == "WARNING: odd header\nWARNING: DeprecationWarning: old function\n"
    assert "medseg.x: detail" in debug.stderr
    assert logging.getLogger("medseg").level == logging.NOTSET


def test_json_goes_to_stdout_in_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"case_id": "Müller", "n": 1})
    assert capsys.readouterr().out == '{\n  "case_id": "M\\u00fcller",\n  "n": 1\n}\n'


def test_notes_go_to_stderr_unless_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    show_notes(("filled 3 voxels",), quiet=False)
    show_notes(("never seen",), quiet=True)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "Note: filled 3 voxels\n")


def test_quiet_has_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress(quiet=True) as progress:
        assert progress is None
    assert capsys.readouterr().err == ""


def test_without_a_terminal_each_stage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress(quiet=False) as progress:
        assert progress is not None
        for stage in ("read", "network"):
            for done in range(4):
                progress(stage, done, 3)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "read\nnetwork\n")


def test_a_long_stage_tells_windows_done_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_SECONDS_BETWEEN_LINES", 0.05)
    monkeypatch.setattr(console, "_SECONDS_TO_BEGIN", 0.02)
    with show_progress(quiet=False) as progress:
        assert progress is not None
        progress("network", 0, 100)
        time.sleep(0.06)
        progress("network", 25, 100)
        progress("network", 26, 100)
    assert capsys.readouterr().err.splitlines() == ["network", "network: 25/100 windows, about 0 s left"]


def test_what_an_earlier_run_did_is_no_speed_of_this_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 0.0, 0.1, 30.0])
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(now)))
    with show_progress(quiet=False) as progress:
        assert progress is not None
        progress("train", 0, 1)
        progress("train", 0, 1000)
        progress("train", 500, 1000)
        progress("train", 530, 1000)
    assert capsys.readouterr().err.splitlines() == ["train", "train: 530/1000 steps, about 468 s left"]


def test_in_a_terminal_bars_go_to_stderr_and_the_result_to_stdout(tmp_path: Path) -> None:
    screen, terminal = pty.openpty()
    arguments = ["-m", "medseg", "phantom", "-o", str(tmp_path / "p"), "--n-lesions", "1", "--json"]
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=terminal)
    assert process.stdout is not None
    stdout = process.stdout.read()
    process.stdout.close()
    assert process.wait() == 0
    shown = os.read(screen, 100_000).decode()
    os.close(terminal)
    os.close(screen)
    assert stdout.startswith(b"{")
    assert b"\x1b" not in stdout
    assert "make" in shown
    assert "1/1" in shown
