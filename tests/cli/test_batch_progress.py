"""What `medseg batch` says while it runs: lines in a log, a live bar in a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from medseg.cli import batch_progress

EVENTS = [
    {"event": "found", "n_cases": 4},
    {"event": "start", "case_id": "a", "worker": 1},
    {"event": "done", "case_id": "a", "seconds": 1.0},
    {"event": "skipped", "case_id": "b"},
    {"event": "failed", "case_id": "c", "stage": "read", "error": "E", "message": "[odd] damaged"},
    {"event": "end", "n_done": 2, "n_failed": 1},
]


def test_lines_tell_what_ended_what_failed_the_pace_and_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    with batch_progress.show_batch(quiet=False, as_json=False) as tell:
        assert tell is not None
        for event in EVENTS:
            tell(event)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "4 case(s) found"
    assert lines[1].startswith("1/4 done a (")
    assert "cases an hour, about" in lines[1]
    assert lines[1].endswith("left)")
    assert lines[2].startswith("3/4 failed c (1 failed, ")
    assert lines[2].endswith(": [odd] damaged")
    assert len(lines) == 3


def test_a_case_that_is_done_and_cannot_be_stored_counts_once(capsys: pytest.CaptureFixture[str]) -> None:
    with batch_progress.show_batch(quiet=False, as_json=False) as tell:
        assert tell is not None
        for event in [*EVENTS[:3], {"event": "failed", "case_id": "a", "stage": "store", "message": "refused"}]:
            tell(event)
    assert capsys.readouterr().err.splitlines()[-1].startswith("1/4 failed a (1 failed, ")


def test_a_terminal_has_a_bar_with_failures_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(
        "rich.console.Console", lambda **_: Console(file=shown, force_terminal=True, width=120, color_system=None)
    )
    with batch_progress.show_batch(quiet=False, as_json=False) as tell:
        assert tell is not None
        for event in EVENTS:
            tell(event)
    text = shown.getvalue()
    assert "failed c: [odd] damaged" in text
    assert "3/4" in text
    assert "1 failed" in text
    assert "cases an hour" in text


def test_quiet_says_nothing_and_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with batch_progress.show_batch(quiet=True, as_json=True) as tell:
        assert tell is None
    with batch_progress.show_batch(quiet=False, as_json=True) as tell:
        assert tell is not None
        tell(EVENTS[0])
    assert capsys.readouterr().err == '{"event": "found", "n_cases": 4}\n'
