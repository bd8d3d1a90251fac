"""The worker processes of a run: started, given cases, watched, ended, and started anew when they die."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path

from medseg.batch.messages import (
    CaseFailed,
    CaseShort,
    CaseStopped,
    ModelChoice,
    Outcome,
    Ready,
    Reply,
    Stage,
    Task,
    Unusable,
)
from medseg.batch.queue import Queue
from medseg.errors import WorkerDied
from medseg.io.child_process import ChildProcess, how_it_ended
from medseg.io.memory import usable_cores

__all__ = ["Crew"]

_LOG_FILE = "workers.log"
_SECONDS_TO_END = 5.0
_MOST_FALSE_STARTS = 3  # one after another, before the run gives up
_POLL_S = 1.0
_POLL_WHILE_READING_S = 0.02
_CASES_IN_HAND = 3  # one is read, one is in the network, one is measured and written


class _Charge:
    """A case that a worker has, and how long it has been at work on it."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.stage = "read"
        self._since_s, self._worked_s = time.monotonic(), 0.0

    def enter(self, stage: str) -> None:
        """The case has reached a stage."""
        self._worked_s, self._since_s = self.worked_s(), time.monotonic()
        self.stage = stage

    def worked_s(self) -> float:
        """Seconds so far, without those in which it waited for other cases."""
        return self._worked_s + (0.0 if self.stage == "wait" else time.monotonic() - self._since_s)


class _Worker:
    """One worker process."""

    def __init__(self, choice: ModelChoice, folder: Path, n_threads: int, n_in_hand: int) -> None:
        self.process = ChildProcess("medseg.batch.worker", (folder, n_in_hand), folder / _LOG_FILE, n_threads=n_threads)
        self.model: tuple[str, ...] | None = None
        self.charges: dict[str, _Charge] = {}
        self._n_in_hand = n_in_hand
        self.process.tell(choice)

    def can_take(self, *, alone: bool) -> bool:
        """Whether it can be given one more case, or one that must be alone."""
        if self.model is None or any(charge.task.is_alone for charge in self.charges.values()):
            return False
        return not self.charges if alone else len(self.charges) < self._n_in_hand

    def give(self, task: Task) -> None:
        self.charges[task.case_id] = _Charge(task)
        self.process.tell(task)

    def end(self, *, at_once: bool = False) -> int:
        """End the process, however long it takes it to listen; its exit status."""
        if not at_once:
            self.process.ask_to_end()
        return self.process.end(0.0 if at_once else _SECONDS_TO_END)


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
    n_in_hand
        Most cases that a process has at a time.
    """

    dashboard = ""

    def __init__(
        self,
        choice: ModelChoice,
        folder: Path,
        n_workers: int,
        time_limit_s: float | None = None,
        n_in_hand: int = _CASES_IN_HAND,
    ) -> None:
        self._choice, self._folder, self._time_limit_s = choice, folder, time_limit_s
        self._n_workers, self._n_in_hand = n_workers, n_in_hand
        self._n_threads = max(1, usable_cores() // n_workers)
        self._workers: list[_Worker] = []
        self._n_false_starts = 0

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.ask_to_end()  # all of them first, so that they end together
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
            for _ in self._listen(_POLL_S):
                pass

    def work(
        self, tasks: Iterable[Task | None], on_start: Callable[[Task, int], None]
    ) -> Iterator[tuple[Task, Outcome]]:
        """Do the tasks; yields what came of each, as it comes.

        Parameters
        ----------
        tasks
            Taken one by one, when a worker can take one more; None says that the next one is not ready yet.
        on_start
            Called with case and process id before the case is given to that worker.

        Raises
        ------
        OutputNotWritable
            If the disk is full.
        WorkerDied
            If workers die before they can take a case.
        """
        queue = Queue(tasks)
        while queue.is_open or any(worker.charges for worker in self._workers):
            n_charges = sum(len(worker.charges) for worker in self._workers)
            self._start(min(self._n_workers, n_charges + queue.n_known))
            self._give_out(queue, on_start)
            for task, outcome in self._listen(_POLL_WHILE_READING_S if queue.is_late else _POLL_S):
                if outcome is None:
                    queue.put_back(task)
                else:
                    yield task, outcome

    def _give_out(self, queue: Queue, on_start: Callable[[Task, int], None]) -> None:
        """Give every worker what it can take, the one with the fewest cases first."""
        for worker in sorted(self._workers, key=lambda worker: len(worker.charges)):
            while (task := queue.take(worker.can_take)) is not None:
                on_start(task, worker.process.pid)
                worker.give(task)

    def _start(self, n_wanted: int) -> None:
        while len(self._workers) < n_wanted:
            self._workers.append(_Worker(self._choice, self._folder, self._n_threads, self._n_in_hand))

    def _listen(self, timeout_s: float) -> Iterator[tuple[Task, Outcome | None]]:
        """Wait for what workers say, or for time to run out; a task without outcome is to be done again."""
        by_connection = {worker.process.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection), timeout=timeout_s):
            worker = by_connection[connection]  # type: ignore[index]
            said = worker.process.hear()
            yield from self._bury(worker) if said is None else self._hear(worker, said)
        if self._time_limit_s is not None:
            yield from self._end_late(self._time_limit_s)

    def _hear(self, worker: _Worker, heard: object) -> Iterator[tuple[Task, Outcome | None]]:
        if isinstance(heard, Unusable):
            raise heard.error
        if isinstance(heard, Ready):
            worker.model, self._n_false_starts = heard.model, 0
        if not isinstance(heard, Reply) or heard.case_id not in worker.charges:
            return
        said, charge = heard.said, worker.charges[heard.case_id]
        if isinstance(said, CaseStopped):
            raise said.error
        if isinstance(said, Stage):
            charge.enter(said.name)
            return
        del worker.charges[heard.case_id]
        if isinstance(said, CaseShort):
            yield replace(charge.task, is_alone=True, is_frugal=said.is_frugal), None
        else:
            yield charge.task, said

    def _bury(self, worker: _Worker) -> Iterator[tuple[Task, Outcome | None]]:
        """A worker has died: each of its cases is done again, alone and with less memory; one that was alone fails."""
        self._workers.remove(worker)
        how = how_it_ended(worker.end())
        if worker.model is None or not worker.charges:
            self._n_false_starts += 1
            if self._n_false_starts >= _MOST_FALSE_STARTS:
                raise WorkerDied(
                    f"{self._n_false_starts} workers ended before they took a case, the last by {how}; "
                    f"{self._folder / _LOG_FILE} may say why"
                )
        for charge in worker.charges.values():
            if charge.task.is_alone:
                yield (
                    charge.task,
                    CaseFailed(charge.stage, "WorkerDied", f"its worker died twice, the last time by {how}"),
                )
            else:
                yield replace(charge.task, is_alone=True, is_frugal=True), None

    def _end_late(self, limit_s: float) -> Iterator[tuple[Task, Outcome | None]]:
        """End workers with a case that takes too long; a case that was not alone may have waited for another."""
        for worker in list(self._workers):
            late = [charge for charge in worker.charges.values() if charge.worked_s() > limit_s]
            if not late:
                continue
            self._workers.remove(worker)
            worker.end(at_once=True)
            is_alone = len(worker.charges) == 1
            for charge in worker.charges.values():
                if charge in late and is_alone:
                    yield charge.task, CaseFailed(charge.stage, "TimeLimit", f"took longer than {limit_s:g} s")
                else:
                    yield replace(charge.task, is_alone=charge in late or charge.task.is_alone), None
