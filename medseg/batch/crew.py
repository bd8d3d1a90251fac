"""The worker processes of a run: started, given cases, watched, ended, and started anew when they die."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

import medseg
from medseg.batch.messages import CaseDone, CaseFailed, CaseStopped, ModelChoice, Ready, Stage, Task, Unusable
from medseg.errors import WorkerDied
from medseg.io.memory import usable_cores

__all__ = ["Crew", "Outcome"]

Outcome = CaseDone | CaseFailed
_LOG_FILE = "workers.log"
_SECONDS_TO_END = 5.0
_MOST_FALSE_STARTS = 3  # one after another, before the run gives up
_POLL_S = 1.0


class _Worker:
    """One worker process."""

    def __init__(self, choice: ModelChoice, folder: Path, n_threads: int) -> None:
        ours, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        root = str(Path(medseg.__file__).resolve().parents[1])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        with (folder / _LOG_FILE).open("ab") as log:
            # a fresh process: no locks or threads of ours, and no import of the main script
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", "medseg.batch.worker", str(theirs.fileno()), str(lifeline), str(folder)],
                pass_fds=(theirs.fileno(), lifeline),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"OMP_NUM_THREADS": str(n_threads), **os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )
        theirs.close()
        os.close(lifeline)
        self.connection = Connection(ours.detach())
        self.model: tuple[str, ...] | None = None
        self.task: Task | None = None
        self.stage = ""
        self.started_s = 0.0
        with suppress(OSError):  # it may be dead already; that shows when it is listened to
            self.connection.send(choice)

    def give(self, task: Task) -> None:
        self.task, self.stage, self.started_s = task, "read", time.monotonic()
        with suppress(OSError):
            self.connection.send(task)

    def end(self, *, at_once: bool = False) -> int:
        """End the process, however long it takes it to listen; its exit status."""
        if self.process.poll() is None and at_once:
            self.process.kill()
        elif self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_SECONDS_TO_END)
            self.process.kill()
        status = self.process.wait()
        self.connection.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        return status


class Crew:
    """Up to `n_workers` worker processes, none more than there are cases.

    Parameters
    ----------
    choice
        The model.
    folder
        The output folder; what workers say goes to `workers.log` there.
    n_workers
        Most processes at a time.
    time_limit_s
        Most seconds for one case; None for no limit.
    """

    def __init__(self, choice: ModelChoice, folder: Path, n_workers: int, time_limit_s: float | None = None) -> None:
        self._choice, self._folder, self._time_limit_s = choice, folder, time_limit_s
        self._n_workers = n_workers
        self._n_threads = max(1, usable_cores() // n_workers)
        self._workers: list[_Worker] = []
        self._n_false_starts = 0

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.terminate()  # all of them first, so that they end together
        for worker in self._workers:
            worker.end()
        self._workers = []

    def model(self) -> tuple[str, ...]:
        """What identifies the model, once a worker has loaded it.

        Raises
        ------
        ModelError, UsageError
            If it cannot be loaded.
        WorkerDied
            If workers die of it.
        """
        while True:
            self._start(1)
            for worker in self._workers:
                if worker.model is not None:
                    return worker.model
            for _ in self._listen():
                pass

    def work(self, tasks: Iterable[Task], on_start: Callable[[Task, int], None]) -> Iterator[tuple[Task, Outcome]]:
        """Do the tasks, as many at a time as there are workers; yields what came of each, as it comes.

        Parameters
        ----------
        tasks
            Taken one by one, when a worker is free.
        on_start
            Called with case and process id before the case is given to that worker.

        Raises
        ------
        OutputNotWritable
            If the disk is full.
        WorkerDied
            If workers die before they can take a case.
        """
        waiting, again = iter(tasks), list[Task]()
        upcoming = next(waiting, None)
        while upcoming is not None or again or any(worker.task for worker in self._workers):
            n_open = len(again) + (upcoming is not None) + sum(worker.task is not None for worker in self._workers)
            self._start(min(self._n_workers, n_open))
            for worker in self._workers:
                if worker.model is None or worker.task is not None:
                    continue
                task = again.pop() if again else upcoming
                if task is None:
                    break
                if task is upcoming:
                    upcoming = next(waiting, None)
                on_start(task, worker.process.pid)
                worker.give(task)
            for task, outcome in self._listen():
                if outcome is None:
                    again.append(task)
                else:
                    yield task, outcome

    def _start(self, n_wanted: int) -> None:
        while len(self._workers) < n_wanted:
            self._workers.append(_Worker(self._choice, self._folder, self._n_threads))

    def _listen(self) -> Iterator[tuple[Task, Outcome | None]]:
        """Wait for what workers say, or for time to run out; a task without outcome is to be done again."""
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection), timeout=_POLL_S):
            worker = by_connection[connection]  # type: ignore[index]
            try:
                said = worker.connection.recv()
            except (EOFError, OSError):
                yield from self._bury(worker)
                continue
            yield from self._hear(worker, said)
        if self._time_limit_s is not None:
            yield from self._end_late(self._time_limit_s)

    def _hear(self, worker: _Worker, said: object) -> Iterator[tuple[Task, Outcome]]:
        if isinstance(said, Unusable | CaseStopped):
            raise said.error
        if isinstance(said, Ready):
            worker.model, self._n_false_starts = said.model, 0
        elif isinstance(said, Stage):
            worker.stage = said.name
        elif isinstance(said, CaseDone | CaseFailed) and worker.task is not None:
            task, worker.task = worker.task, None
            yield task, said

    def _bury(self, worker: _Worker) -> Iterator[tuple[Task, Outcome | None]]:
        """A worker has died: its case is done again once, by another one, with less memory."""
        self._workers.remove(worker)
        how = _how_it_ended(worker.end())
        task = worker.task
        if task is None:
            self._n_false_starts += 1
            if self._n_false_starts >= _MOST_FALSE_STARTS:
                raise WorkerDied(
                    f"{self._n_false_starts} workers ended before they took a case, the last by {how}; "
                    f"{self._folder / _LOG_FILE} may say why"
                )
        elif task.is_retry:
            yield task, CaseFailed(worker.stage, "WorkerDied", f"its worker died twice, the last time by {how}")
        else:
            yield replace(task, is_retry=True, is_frugal=True), None

    def _end_late(self, limit_s: float) -> Iterator[tuple[Task, Outcome]]:
        now = time.monotonic()
        for worker in [w for w in self._workers if w.task is not None and now - w.started_s > limit_s]:
            task = worker.task
            self._workers.remove(worker)
            worker.end(at_once=True)
            if task is not None:
                yield task, CaseFailed(worker.stage, "TimeLimit", f"took longer than {limit_s:g} s")


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"exit code {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
