"""A worker process: loads the model once, then does cases, a few at a time, until its run ends.

Started by `medseg.batch.crew` as `python -m medseg.batch.worker CHANNEL LIFELINE FOLDER N_CASES`, where the first two
are descriptors: a socket for messages, and the reading end of a pipe that closes when the run ends, however it ends.

Each case has a thread. They take turns at the network (`medseg.inference.turn`), so that one is read and another
measured and written while a third one is in the network.
"""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from medseg.batch.case_work import CaseWork
from medseg.batch.locks import hold_as_worker
from medseg.batch.messages import ModelChoice, Ready, Reply, Stage, Task, Unusable
from medseg.errors import MedsegError
from medseg.io.child_process import meet_parent

__all__ = ["main"]


def main() -> None:
    """Serve one run until it ends."""
    run, (folder, n_cases) = meet_parent()  # and when the run is gone, another one may start
    signal.signal(signal.SIGTERM, _end)
    hold_as_worker(Path(folder))
    choice: ModelChoice = run.recv()
    try:
        work = CaseWork(choice)
    except MedsegError as error:
        run.send(Unusable(error))
        return
    run.send(Ready(work.model))
    say = _Voice(run)
    with ThreadPoolExecutor(int(n_cases), thread_name_prefix="medseg-case") as threads:
        while (task := _next_task(run)) is not None:
            threads.submit(_do, work, task, say)


def _do(work: CaseWork, task: Task, say: _Voice) -> None:
    tell = partial(say.stage, task.case_id)
    say(Reply(task.case_id, work.do(task, tell)))


class _Voice:
    """Speaks to the run, one thread at a time."""

    def __init__(self, run: Connection) -> None:
        self._run = run
        self._lock = threading.Lock()

    def __call__(self, reply: Reply) -> None:
        with self._lock:
            self._run.send(reply)

    def stage(self, case_id: str, name: str) -> None:
        self(Reply(case_id, Stage(name)))


def _end(number: int, _frame: FrameType | None) -> None:
    """End at once: results have their names only when they are whole, and the run removes what is half-written."""
    os._exit(128 + number)


def _next_task(run: Connection) -> Task | None:
    try:
        task: Task | None = run.recv()
    except EOFError:
        return None
    return task


if __name__ == "__main__":
    main()
