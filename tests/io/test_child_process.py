"""Processes of medseg's own beside this one."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from medseg.io.child_process import ChildProcess, how_it_ended

CHILD = """
import os, sys, time
from medseg.io.child_process import meet_parent

parent, words = meet_parent()
parent.send((words, parent.recv(), os.environ["OMP_NUM_THREADS"], os.environ["COLOR"]))
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="inherits descriptors, as POSIX has them")
def test_a_child_hears_answers_and_ends_when_it_is_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    child = ChildProcess("a_child", ("one", 2), tmp_path / "log", n_threads=3, environment={"COLOR": "red"})
    child.tell({"three": 3})
    assert child.hear() == (["one", "2"], {"three": 3}, "3", "red")
    child.ask_to_end()
    assert how_it_ended(child.end(30.0)) == "SIGTERM"


def test_a_child_that_is_gone_says_nothing_and_takes_nothing_amiss(tmp_path: Path) -> None:
    child = ChildProcess("no_such_module", (), tmp_path / "log", n_threads=1)
    assert child.hear() is None
    child.tell("anything")
    assert how_it_ended(child.end(30.0)) == "exit code 1"
    assert "no_such_module" in (tmp_path / "log").read_text()


def test_an_exit_status_in_words() -> None:
    assert how_it_ended(-signal.SIGKILL) == "SIGKILL"
    assert how_it_ended(0) == "exit code 0"
    assert how_it_ended(-1000) == "signal 1000"
