"""Trying again: how often, after which waits, who is told, and how it is given up."""

from __future__ import annotations

import threading
import time

import pytest

from medseg.dicom.pacs_access import PacsAccess
from medseg.dicom.patience import Delay, Patience
from medseg.errors import PacsDenied, PacsUnreachable


def failing(n_failures: int, kind: type[Exception] = PacsUnreachable) -> tuple[list[int], object]:
    calls: list[int] = []

    def action() -> str:
        calls.append(len(calls))
        if len(calls) <= n_failures:
            raise kind("gone")
        return "there"

    return calls, action


def test_each_wait_is_told_before_it_and_doubles() -> None:
    delays: list[Delay] = []
    calls, action = failing(3)
    assert Patience(6, 0.01, on_delay=delays.append).run(action) == "there"  # type: ignore[arg-type]
    assert len(calls) == 4
    assert [(delay.attempt, delay.attempts, delay.reason) for delay in delays] == [(n, 6, "gone") for n in (2, 3, 4)]
    for n, delay in enumerate(delays):
        assert 0.005 * 2**n <= delay.wait_s <= 0.01 * 2**n


def test_the_last_failure_is_raised_and_others_at_once() -> None:
    calls, action = failing(9)
    with pytest.raises(PacsUnreachable):
        Patience(3, 0.001).run(action)  # type: ignore[arg-type]
    assert len(calls) == 3
    calls, action = failing(9, PacsDenied)
    with pytest.raises(PacsDenied):
        Patience(3, 0.001).run(action)  # type: ignore[arg-type]
    assert len(calls) == 1


def test_patience_that_is_lost_ends_a_wait_in_another_thread_and_only_its_own() -> None:
    access = PacsAccess("dimse:A@127.0.0.1:104", patience=Patience(2, 30.0))
    own = access.with_own_patience()
    waits, caught = threading.Event(), []
    calls, action = failing(9)
    patience = Patience(2, 30.0, on_delay=lambda _: waits.set())

    def run() -> None:
        try:
            patience.run(action)  # type: ignore[arg-type]
        except PacsUnreachable as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert waits.wait(10.0)
    start = time.monotonic()
    patience.lose()
    thread.join(10.0)
    assert len(caught) == len(calls) == 1
    assert time.monotonic() - start < 10.0
    own.patience.lose()
    assert not access.patience._lost.is_set()
