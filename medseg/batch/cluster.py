"""Cases on a Dask cluster: workers keep the model, lost cases are done again, the run alone keeps the ledger."""

from __future__ import annotations

import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import distributed

from medseg.batch.cluster_work import CaseAnswer, answer_case, answer_model
from medseg.batch.messages import CaseDone, CaseFailed, CaseShort, CaseStopped, ModelChoice, Outcome, Ready, Task
from medseg.batch.queue import Queue
from medseg.errors import ClusterError, OutputNotWritable, UsageError
from medseg.io.memory import usable_cores

__all__ = ["Cluster"]

_CONNECT_S = 30.0
_MODEL_S = 900.0  # until a first worker has come and has loaded the model
_POLL_S = 0.05
_LOST_S = 20.0  # without a scheduler
_MORE_THAN_THREADS = 2  # cases that lie ready for each worker, so that none waits for the run
_CASES_IN_HAND = 3


class Cluster:
    """A Dask cluster that does cases.

    Parameters
    ----------
    choice
        The model; its path must be the same for every worker.
    scheduler
        The scheduler's address (tcp://HOST:PORT), or "local" for a cluster on this machine.
    n_workers
        Processes of a local cluster.
    time_limit_s
        Most seconds for one case, looked at between two windows of the network; None for no limit.

    Raises
    ------
    ClusterError
        If the scheduler cannot be reached.
    """

    def __init__(
        self, choice: ModelChoice, scheduler: str, n_workers: int = 1, time_limit_s: float | None = None
    ) -> None:
        self._choice, self._time_limit_s = choice, time_limit_s
        self._local = _local_cluster(n_workers) if scheduler == "local" else None
        self._name = scheduler
        try:
            self._client: Any = distributed.Client(  # type: ignore[no-untyped-call]
                self._local or scheduler, timeout=_CONNECT_S, set_as_default=False
            )
        except (OSError, TimeoutError, ValueError) as error:
            self._end_local()
            raise ClusterError(f"scheduler {scheduler} cannot be reached: {error}") from error
        self._run = secrets.token_hex(4)
        self._n_tries = 0
        self._last_seen_s = time.monotonic()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):  # the scheduler may be gone; what it has of ours goes with the connection
            self._client.close(timeout=5)
        self._end_local()

    @property
    def dashboard(self) -> str:
        """Where a browser shows what the cluster does."""
        return str(self._client.dashboard_link)

    def model(self) -> tuple[str, ...]:
        """What identifies the model, once a worker has loaded it.

        Raises
        ------
        ModelError, UsageError
            If it cannot be loaded.
        ClusterError
            If no worker answers.
        """
        future = self._client.submit(
            answer_model, self._choice, key=f"medseg-model-{self._run}", pure=False, **self._restrictions()
        )
        try:
            answer = future.result(timeout=_MODEL_S)
        except TimeoutError as error:
            raise ClusterError(f"no worker of {self._name} has loaded the model within {_MODEL_S:.0f} s") from error
        except distributed.KilledWorker as error:
            raise ClusterError(f"workers of {self._name} die when they load the model; see their logs") from error
        except Exception as error:  # of a worker that has no medseg, or another one
            raise ClusterError(f"a worker of {self._name} cannot load the model: {error}") from error
        if not isinstance(answer, Ready):
            raise answer.error
        return answer.model

    def work(
        self, tasks: Iterable[Task | None], on_start: Callable[[Task, int], None]
    ) -> Iterator[tuple[Task, Outcome]]:
        """Do the tasks; yields what came of each, as it comes. `on_start` is told 0 for the process.

        Raises
        ------
        OutputNotWritable
            If the disk is full, or a worker's files are not in the output folder.
        ClusterError
            If the scheduler is gone.
        """
        queue = Queue(tasks)
        running: dict[Any, Task] = {}
        while queue.is_open or running:
            while len(running) < self._n_wanted() and (task := queue.take(_anyone)) is not None:
                on_start(task, 0)
                running[self._submit(task)] = task
            ended = [future for future in running if future.done()]
            for future in ended:
                task = running.pop(future)
                again, outcome = self._outcome(future, task)
                if again is not None:
                    running[self._submit(again)] = again
                elif outcome is not None:
                    yield task, outcome
            if not ended:
                self._check_scheduler()
                time.sleep(_POLL_S)

    def _submit(self, task: Task) -> Any:
        """A key of its own for each try, so that no try takes the answer of another."""
        self._n_tries += 1
        return self._client.submit(
            answer_case,
            task,
            self._choice,
            self._time_limit_s,
            key=f"medseg-case-{self._run}-{self._n_tries}",
            pure=False,
            **self._restrictions(),
        )

    def _outcome(self, future: Any, task: Task) -> tuple[Task | None, Outcome | None]:
        """What came of a try: a task to do again, or the case's outcome."""
        if future.cancelled() or future.status == "lost":
            self._check_scheduler(at_once=True)
            return task, None
        try:
            answer: CaseAnswer = future.result(timeout=_CONNECT_S)
        except distributed.KilledWorker:
            if task.is_alone:
                return None, CaseFailed("unknown", "WorkerDied", "its worker died each time, also with no other case")
            return replace(task, is_alone=True, is_frugal=True), None
        except Exception as error:  # of a worker's environment; errors of a case come as an answer
            return None, CaseFailed("unknown", type(error).__name__, str(error) or "no details")
        said = answer.said
        if isinstance(said, CaseStopped):
            raise said.error
        if isinstance(said, CaseShort):
            return replace(task, is_alone=True, is_frugal=said.is_frugal), None
        if isinstance(said, CaseDone):
            _install(answer.folder, task.folder)
        if isinstance(said, CaseDone | CaseFailed):
            return None, said
        raise TypeError(f"a worker answers {said!r}")

    def _n_wanted(self) -> int:
        """Cases to hand to the scheduler: enough for every worker, and few enough to keep memory flat."""
        workers = self._workers()
        return sum(worker["nthreads"] + _MORE_THAN_THREADS for worker in workers.values()) or 1

    def _restrictions(self) -> dict[str, Any]:
        """One GPU a case, where the workers say that they have any."""
        has_gpu = any("GPU" in worker.get("resources", {}) for worker in self._workers().values())
        return {"resources": {"GPU": 1}} if has_gpu else {}

    def _workers(self) -> dict[str, Any]:
        try:
            workers: dict[str, Any] = self._client.scheduler_info(n_workers=-1).get("workers", {})
        except (OSError, RuntimeError, TimeoutError):  # the connection is gone; `_check_scheduler` looks after that
            return {}
        return workers

    def _check_scheduler(self, *, at_once: bool = False) -> None:
        if self._client.status == "running":
            self._last_seen_s = time.monotonic()
        elif at_once or time.monotonic() - self._last_seen_s > _LOST_S:
            raise ClusterError(f"scheduler {self._name} is gone; start it again and go on with --resume")

    def _end_local(self) -> None:
        if self._local is not None:
            self._local.close(timeout=10)


def _install(written: Path, folder: Path) -> None:
    """Give the files of a try their place."""
    try:
        folder.mkdir(exist_ok=True)
        for file in [path for path in written.rglob("*") if path.is_file()]:
            place = folder / file.relative_to(written)
            place.parent.mkdir(exist_ok=True)
            file.replace(place)
        shutil.rmtree(written)
    except OSError as error:
        raise OutputNotWritable(
            f"what a worker wrote cannot be put into {folder}: {error}; the output folder must be one for all machines"
        ) from error


def _anyone(*, alone: bool) -> bool:  # noqa: ARG001 (the worker keeps a case alone)
    return True


def _local_cluster(n_workers: int) -> Any:
    """Workers on this machine, reachable from it only."""
    try:
        return distributed.LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=n_workers,
            threads_per_worker=_CASES_IN_HAND,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            env={"OMP_NUM_THREADS": str(max(1, usable_cores() // n_workers))},
        )
    except (OSError, socket.gaierror) as error:
        raise UsageError(f"no cluster can be started here: {error}") from error
