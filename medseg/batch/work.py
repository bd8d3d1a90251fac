"""The cases of one run: which are done already, which are to be read or fetched, and what has become of each."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from medseg.batch.ahead import Ahead
from medseg.batch.cases import Case
from medseg.batch.deliver import Delivered, Destination
from medseg.batch.ledger import Entry, Ledger, is_whole, result_key
from medseg.batch.messages import CaseDone, Outcome, Task
from medseg.batch.remote import Fetched, RemoteScans
from medseg.core.scan import Scan
from medseg.errors import MedsegError, OutputNotWritable, PacsDenied, PacsUnreachable
from medseg.io.scan import hash_inputs

__all__ = ["OnEvent", "Work", "Workers"]

OnEvent = Callable[[Mapping[str, Any]], None]
"""Called with what happened: {"event": "found" | "start" | "skipped" | "done" | "failed" | "stored" | ..., ...}."""

_FETCH = "fetch"  # the stage of a case that a PACS does not give
_AHEAD = 4  # cases that are looked up, and fetched, before a worker is free
_NO_ANSWER = (PacsUnreachable, PacsDenied)
_MOST_UNREACHABLE = 3  # cases one after another, before the run gives up


class Workers(Protocol):
    """Who does the cases: processes of this machine, or a cluster."""

    @property
    def dashboard(self) -> str:
        """The address of a page that shows what they do; "" if there is none."""

    def model(self) -> tuple[str, ...]:
        """What identifies the model, once a worker has loaded it."""

    def work(
        self, tasks: Iterable[Task | None], on_start: Callable[[Task, int], None]
    ) -> Iterator[tuple[Task, Outcome]]:
        """Do the tasks; yields what came of each, as it comes."""


@dataclass(frozen=True, eq=False)
class _Looked:
    """A case that was looked at: done before, or ready, or why it cannot be done."""

    case: Case
    is_done: bool = False
    inputs: tuple[str, ...] | None = None
    fetched: Fetched | None = None
    error: Exception | None = None


class Work:
    """The cases of one run.

    Parameters
    ----------
    archive
        Its name is left out of messages, so that tables do not depend on where it lies.
    folder, ledger
        The output folder and its ledger.
    on_event
        Told of what happens.
    remote
        Fetches the cases that lie in a PACS.
    destinations
        Where results go besides: a PACS, another file system.
    """

    def __init__(
        self,
        archive: str,
        folder: Path,
        ledger: Ledger,
        on_event: OnEvent,
        remote: RemoteScans | None = None,
        destinations: Sequence[Destination] = (),
    ) -> None:
        self._folder, self._ledger, self._on_event = folder, ledger, on_event
        self._remote, self._destinations = remote, destinations
        self._cases: dict[str, Case] = {}
        places = "|".join(re.escape(str(place)) for place in (folder.resolve(), folder))
        passing = rf"(?:{places})/\.tmp-(?:archive|fetch)-[^/]*(?:/|$)"
        self._places = re.compile(rf"{passing}|(?<![\w./~-]){re.escape(archive)}{re.escape(os.sep)}")
        self._n_unreachable: Counter[str] = Counter()

    def tell(self, event: str, **details: Any) -> None:
        """Say what happened."""
        self._on_event({"event": event, **details})

    def enter(self, cases: list[Case]) -> None:
        """Enter the cases in the ledger; those that cannot be read fail at once."""
        self._ledger.add([(case.case_id, case.folder, case.source) for case in cases])
        self.tell("found", n_cases=len(cases))
        for case in cases:
            if case.error is not None:
                self._discard(case.case_id)
                self._fail(case.case_id, "find", type(case.error).__name__, str(case.error))
        self._cases = {case.case_id: case for case in cases if case.error is None}

    def do(self, workers: Workers) -> None:
        """Do what is to be done."""
        if workers.dashboard:
            self.tell("cluster", dashboard=workers.dashboard)
        if not self._cases:
            return
        model = workers.model()
        running: set[str] = set()

        def on_start(task: Task, worker: int) -> None:
            running.add(task.case_id)
            self._discard(task.case_id)
            self._ledger.set_state(task.case_id, "running")
            self.tell("start", case_id=task.case_id, worker=worker)

        try:
            with ExitStack() as stack:
                for destination in self._destinations:
                    stack.enter_context(destination)
                with self._quick_to_break_off():
                    for task, outcome in workers.work(self._tasks(model, stack), on_start):
                        running.discard(task.case_id)
                        self._keep(task, outcome, model)
                        self._note_delivered()
                    self._note_delivered(wait=True)
        except BaseException:
            for case_id in running:
                with suppress(MedsegError):  # the disk may be full; it counts as not done all the same
                    self._ledger.set_state(case_id, "pending")
            raise

    @contextmanager
    def _quick_to_break_off(self) -> Iterator[None]:
        """A run that is broken off waits for its threads: let none of them ask a PACS again that does not answer."""
        try:
            yield
        except BaseException:
            for place in (self._remote, *self._destinations):
                if place is not None:
                    place.give_up()
            raise

    def _tasks(self, model: tuple[str, ...], stack: ExitStack) -> Iterator[Task | None]:
        look = _Look(self._folder, model, self._remote)
        known = ((case, self._ledger.entry(case.case_id)) for case in self._cases.values())
        for looked in stack.enter_context(Ahead(known, look, _AHEAD, n_threads=2)):
            if looked is None:
                yield None
                continue
            case, fetched = looked.case, looked.fetched
            scan = case.scan if fetched is None else fetched.scan
            if looked.error is not None:
                self._fail_unread(case, looked.error)
            elif looked.is_done:
                self._skip(case.case_id)
            elif scan is None:
                self._set_aside(looked, model)
            else:
                yield self._task(looked, scan)

    def _task(self, looked: _Looked, scan: Scan) -> Task:
        """The case with the folder that the ledger gave it when it was first entered."""
        self._n_unreachable[_FETCH] = 0
        case = looked.case
        entry = self._ledger.entry(case.case_id)
        place = case.folder if entry is None else entry.folder
        scratch = None if looked.fetched is None else looked.fetched.folder
        return Task(case.case_id, scan, self._folder / place, looked.inputs, scratch)

    def _skip(self, case_id: str) -> None:
        self.tell("skipped", case_id=case_id)
        entry = self._ledger.entry(case_id)
        if entry is None or entry.state == "set aside":
            return
        if entry.failure is not None and entry.failure.stage == _FETCH:  # it could not be asked for, and can now
            self._ledger.set_unfailed(case_id)
        self._deliver(entry)

    def _set_aside(self, looked: _Looked, model: tuple[str, ...]) -> None:
        case_id, fetched = looked.case.case_id, looked.fetched
        if fetched is None or looked.inputs is None:
            return
        shutil.rmtree(fetched.folder, ignore_errors=True)
        self._discard(case_id)
        self._ledger.set_aside(case_id, result_key(looked.inputs, model))
        self.tell("set aside", case_id=case_id, reason=fetched.set_aside)

    def _keep(self, task: Task, outcome: Outcome, model: tuple[str, ...]) -> None:
        if task.scratch is not None:
            shutil.rmtree(task.scratch, ignore_errors=True)
        if isinstance(outcome, CaseDone):
            key = result_key(task.inputs or outcome.inputs_sha256, model)
            self._ledger.set_done(task.case_id, key, outcome.files, outcome.seconds)
            self.tell("done", case_id=task.case_id, seconds=round(outcome.seconds, 3))
            entry = self._ledger.entry(task.case_id)
            if entry is not None:
                self._deliver(entry)
        else:
            self._fail(task.case_id, outcome.stage, outcome.error, outcome.message)

    def _deliver(self, entry: Entry) -> None:
        """Bring a result to where it does not lie yet."""
        for destination in self._destinations:
            if not self._ledger.is_stored(entry.case_id, destination.address, entry.key):
                files = [self._folder / entry.folder / name for name in destination.names(entry)]
                destination.send(entry.case_id, files)

    def _note_delivered(self, *, wait: bool = False) -> None:
        for destination in self._destinations:
            for delivered in destination.ended(wait=wait):
                self._note(delivered, destination)

    def _note(self, delivered: Delivered, destination: Destination) -> None:
        case_id, error = delivered.case_id, delivered.error
        if error is not None:
            self._fail(case_id, destination.stage, type(error).__name__, str(error))
            self._count_unreachable(destination.stage, error)
            return
        self._n_unreachable[destination.stage] = 0
        entry = self._ledger.entry(case_id)
        if entry is not None and entry.key is not None:
            self._ledger.set_stored(case_id, destination.address, entry.key)
            if entry.failure is not None and entry.failure.stage == destination.stage:  # of an earlier run
                self._ledger.set_unfailed(case_id)
        self.tell("stored", case_id=case_id, place=destination.address, n_new=delivered.n_new)

    def _fail_unread(self, case: Case, error: Exception) -> None:
        if isinstance(error, OSError) and not isinstance(error, MedsegError):  # the input went away
            message = f"{case.source}: {error.strerror}"
        else:
            message = str(error)
        stage = "read" if case.remote is None else _FETCH
        if not isinstance(error, _NO_ANSWER):  # nothing is known of the input then: what is there may hold still
            self._discard(case.case_id)
        self._fail(case.case_id, stage, type(error).__name__, message)
        self._count_unreachable(stage, error)

    def _count_unreachable(self, stage: str, error: Exception) -> None:
        """End the run when the PACS is gone or lets us not in: it is of no use to let every case fail."""
        self._n_unreachable[stage] = self._n_unreachable[stage] + 1 if isinstance(error, _NO_ANSWER) else 0
        if isinstance(error, _NO_ANSWER) and self._n_unreachable[stage] >= _MOST_UNREACHABLE:
            raise type(error)(f"{error}; the run ends here, --resume goes on with it") from error

    def _fail(self, case_id: str, stage: str, error: str, message: str) -> None:
        message = self._places.sub("", message)  # tables do not depend on where an archive lies or is unpacked
        self._ledger.set_failed(case_id, stage, error, message)
        self.tell("failed", case_id=case_id, stage=stage, error=error, message=message)

    def _discard(self, case_id: str) -> None:
        """Take away the files of a result that does not hold any more; others in its folder stay."""
        entry = self._ledger.entry(case_id)
        if entry is None or not entry.files:
            return
        self._ledger.set_state(case_id, "pending")
        folder = self._folder / entry.folder
        for name in entry.files:
            (folder / name).unlink(missing_ok=True)
        for place in {(folder / name).parent for name in entry.files} - {folder}:
            with suppress(OSError):  # it holds something else too, or is gone
                place.rmdir()


class _Look:
    """Looks at a case in a thread: whether it is done, by input and model; if not, a case in a PACS is fetched."""

    def __init__(self, folder: Path, model: tuple[str, ...], remote: RemoteScans | None) -> None:
        self._folder, self._model, self._remote = folder, model, remote

    def __call__(self, known: tuple[Case, Entry | None]) -> _Looked:
        case, entry = known
        try:
            inputs = None
            if case.remote is not None and self._remote is not None:
                inputs = self._remote.fingerprint(case.remote)
            if self._is_done(case, entry, inputs):
                return _Looked(case, is_done=True)
            if case.remote is None or self._remote is None:
                return _Looked(case)
            return _Looked(case, inputs=inputs, fetched=self._remote.fetch(case.case_id, case.remote))
        except OutputNotWritable:
            raise
        except Exception as error:  # whatever it is, it stays with this case
            if case.remote is not None and isinstance(error, OSError) and not isinstance(error, MedsegError):
                raise OutputNotWritable(f"{self._folder} cannot be written: {error.strerror}") from error
            return _Looked(case, error=error)

    def _is_done(self, case: Case, entry: Entry | None, inputs: tuple[str, ...] | None) -> bool:
        """Whether the ledger holds a result of the same input and model, and its files are there as they were."""
        if entry is None or entry.key is None:
            return False
        if inputs is None:
            inputs = hash_inputs(case.scan) if case.scan is not None else ()
        if entry.key != result_key(inputs, self._model):
            return False
        return entry.state == "set aside" or is_whole(self._folder / entry.folder, entry.files)
