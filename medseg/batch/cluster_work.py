"""What a Dask worker does: it keeps the model of the run from case to case, and answers with an outcome.

Nothing here imports Dask: the functions are called by a worker in any of its threads.
"""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.batch.case_work import CaseOutcome, CaseWork
from medseg.batch.messages import CaseDone, ModelChoice, Ready, Task, Unusable
from medseg.errors import MedsegError

__all__ = ["CaseAnswer", "answer_case", "answer_model"]


@dataclass(frozen=True)
class CaseAnswer:
    """What came of one try at a case, and the folder of what it wrote."""

    case_id: str
    said: CaseOutcome
    folder: Path


def answer_model(choice: ModelChoice) -> Ready | Unusable:
    """Load the model, or say why it cannot be used."""
    try:
        return Ready(_models.work(choice).model)
    except MedsegError as error:
        return Unusable(error)


def answer_case(task: Task, choice: ModelChoice, time_limit_s: float | None = None) -> CaseAnswer:
    """One try at a case; a task that must be alone waits for the others of this process, and they wait for it.

    Each try writes into a folder of its own, for Dask repeats a finished task whose worker dies before the task is
    forgotten: that must not touch a result that the run has entered in its ledger.
    """
    work = _models.work(choice)
    folder = task.folder.with_name(f".tmp-try-{secrets.token_hex(8)}")
    with _gate.held(alone=task.is_alone):
        said = work.do(replace(task, folder=folder), lambda _: None, time_limit_s)
    if not isinstance(said, CaseDone):
        shutil.rmtree(folder, ignore_errors=True)
    return CaseAnswer(task.case_id, said, folder)


class _Models:
    """The model of the last run that came; one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._choice: ModelChoice | None = None
        self._work: CaseWork | None = None

    def work(self, choice: ModelChoice) -> CaseWork:
        with self._lock:
            if self._work is None or self._choice != choice:
                self._work = None  # two models may not fit beside each other
                self._work, self._choice = CaseWork(choice), choice
            return self._work


class _Gate:
    """Any number of cases at a time, or one alone."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._n_within = 0
        self._n_alone = 0

    @contextmanager
    def held(self, *, alone: bool) -> Iterator[None]:
        with self._condition:
            self._n_alone += alone
            self._condition.wait_for(lambda: self._n_within == 0 if alone else self._n_alone == 0)
            self._n_within += 1
        try:
            yield
        finally:
            with self._condition:
                self._n_within -= 1
                self._n_alone -= alone
                self._condition.notify_all()


_models, _gate = _Models(), _Gate()
