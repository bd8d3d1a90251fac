"""One run over an archive: which cases are to be done, done, entered in the ledger, tables at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from medseg.batch.cases import FIELDS, Case, find_cases
from medseg.batch.crew import Crew, Outcome
from medseg.batch.ledger import LEDGER_FILE, Ledger, is_whole, result_key
from medseg.batch.locks import only_run
from medseg.batch.messages import CaseDone, ModelChoice, Task
from medseg.batch.select import parse_rule
from medseg.batch.status import BatchStatus, archive_status
from medseg.batch.tables import write_tables
from medseg.errors import MedsegError, OutputExists, UsageError
from medseg.io.atomic import check_output_folder
from medseg.io.case_ids import new_salt, read_salt, write_salt
from medseg.io.scan import hash_inputs

__all__ = ["OnEvent", "PlannedCase", "plan_archive", "run_archive"]

OnEvent = Callable[[Mapping[str, Any]], None]
"""Called with what happened: {"event": "found" | "start" | "skipped" | "done" | "failed" | "end", ...}."""


@dataclass(frozen=True)
class PlannedCase:
    """What a run would do with a case: `state` is "to do", "done before", or "unreadable" with its `problem`."""

    case_id: str
    source: str
    state: str
    problem: str = ""


def plan_archive(
    archive: str | PathLike[str], output: str | PathLike[str], *, select: str | None = None, allow_gaps: bool = False
) -> list[PlannedCase]:
    """What `run_archive` would do, by headers and the ledger alone; nothing is written.

    Parameters
    ----------
    archive, output, select, allow_gaps
        As `run_archive`.

    Returns
    -------
    The selected cases by name. "done before" holds if model and input are still those that made the result.

    Raises
    ------
    ScanNotFound, UnreadableImage, UnsafeArchive, InvalidManifest, UsageError
        As `run_archive`.
    """
    folder = _checked_output(archive, output)
    cases = _selected(find_cases(archive, read_salt(folder) or new_salt(), allow_gaps), select)
    whole: set[str] = set()
    if (folder / LEDGER_FILE).is_file():
        with Ledger(folder) as ledger:
            done = [entry for entry in ledger.entries() if entry.state == "done"]
        whole = {entry.case_id for entry in done if is_whole(folder / entry.folder, entry.files)}
    return [_planned(case, case.case_id in whole) for case in cases]


def run_archive(
    archive: str | PathLike[str],
    model: str | PathLike[str],
    output: str | PathLike[str],
    *,
    resume: bool = False,
    workers: int = 1,
    select: str | None = None,
    time_limit_s: float | None = None,
    allow_gaps: bool = False,
    on_event: OnEvent | None = None,
    **how: Any,
) -> BatchStatus:
    """Segment every scan of an archive, one folder a case; what goes wrong in a case stays in that case.

    Cases run in worker processes that load the model once. A case whose worker dies, or that runs out of memory, is
    tried a second time with less memory. The output folder keeps a ledger, by which a run that was ended by anything
    goes on with `resume`.

    Parameters
    ----------
    archive
        A folder that is searched deeply, a zip or tar, a list file (.txt, .lst, .tsv) or a data manifest (.json).
    model
        As `load_segmenter`.
    output
        The output folder. Besides one folder a case: `cases.parquet`, `lesions.parquet`, `failures.csv`, `index.html`.
    resume
        Go on with the batch that lies there: cases are skipped whose input and model are the same as in the ledger
        and whose files are there with the recorded bytes; all others are done, failed ones again.
    workers
        Most processes at a time, each with a model of its own.
    select
        A rule over the fields of a case: "modality == 'PT' and slices > 40".
    time_limit_s
        Most seconds for one case.
    allow_gaps
        Interpolate across missing slices of DICOM series.
    on_event
        Called with what happens, in this process.
    **how
        Fields of `medseg.batch.messages.ModelChoice`: device, engine, precision, trust, mirror, skip_air,
        max_memory_mib, nan_as.

    Returns
    -------
    How the batch stands at the end; failed cases are listed.

    Raises
    ------
    OutputExists
        If a batch lies there and `resume` is False.
    OutputInUse
        If another run is at work there.
    OutputNotWritable
        If the folder cannot be written, or the disk is full; a later run with `resume` goes on.
    UsageError
        If the rule, the number of workers or the time limit makes no sense, or the output lies in the archive.
    ScanNotFound, UnreadableImage, UnsafeArchive, InvalidManifest
        If there is no such archive.
    ModelError, UnknownModel
        If the model cannot be loaded.
    WorkerDied
        If worker processes end before they can take a case.
    """
    folder = _checked_output(archive, output)
    _check_numbers(workers, time_limit_s)
    _selected([], select)  # a misspelled rule need not wait for the archive to be searched
    check_output_folder(folder, [LEDGER_FILE], overwrite=True)
    folder.mkdir(parents=True, exist_ok=True)
    with only_run(folder):
        if (folder / LEDGER_FILE).exists() and not resume:
            raise OutputExists(f"{folder} already holds a batch; --resume goes on with it")
        _sweep(folder)
        salt = read_salt(folder) or new_salt()
        found = find_cases(archive, salt, allow_gaps)
        cases = _selected(found, select)
        write_salt(folder, salt)
        choice = ModelChoice(str(model), **how)
        try:
            with Ledger(folder, create=True) as ledger:
                ledger.forget_unfinished({case.case_id for case in found})
                run = _Run(Path(archive), folder, ledger, on_event or (lambda _: None))
                run.enter(cases)
                with Crew(choice, folder, workers, time_limit_s) as crew:
                    run.work(crew)
        finally:
            _sweep(folder)
        write_tables(folder)
    status = archive_status(folder)
    run.tell("end", n_done=status.n_done, n_failed=status.n_failed)
    return status


class _Run:
    """The cases of one run, and what has become of them."""

    def __init__(self, archive: Path, folder: Path, ledger: Ledger, on_event: OnEvent) -> None:
        self._archive = archive
        self._folder, self._ledger, self._on_event = folder, ledger, on_event
        self._cases: dict[str, Case] = {}

    def tell(self, event: str, **details: Any) -> None:
        self._on_event({"event": event, **details})

    def enter(self, cases: list[Case]) -> None:
        """Enter the cases in the ledger; those that cannot be read fail at once."""
        self._ledger.add([(case.case_id, case.folder, case.source) for case in cases])
        self.tell("found", n_cases=len(cases))
        for case in cases:
            if case.error is not None:
                self._discard(case.case_id)
                self._fail(case.case_id, "find", type(case.error).__name__, str(case.error))
        self._cases = {case.case_id: case for case in cases if case.scan is not None}

    def work(self, crew: Crew) -> None:
        """Do what is to be done."""
        if not self._cases:
            return
        model = crew.model()
        running: set[str] = set()

        def on_start(task: Task, worker: int) -> None:
            running.add(task.case_id)
            self._discard(task.case_id)
            self._ledger.set_state(task.case_id, "running")
            self.tell("start", case_id=task.case_id, worker=worker)

        try:
            for task, outcome in crew.work(self._tasks(model), on_start):
                self._keep(task.case_id, outcome, model)
                running.discard(task.case_id)
        except BaseException:
            for case_id in running:
                with suppress(MedsegError):  # the disk may be full; it counts as not done all the same
                    self._ledger.set_state(case_id, "pending")
            raise

    def _tasks(self, model: tuple[str, ...]) -> Iterator[Task]:
        for case in self._cases.values():
            if case.scan is None:
                continue
            try:
                is_done = self._is_done(case, model)
            except OSError as error:  # the input went away since it was found
                self._fail(case.case_id, "read", type(error).__name__, f"{case.source}: {error.strerror}")
                continue
            if is_done:
                self.tell("skipped", case_id=case.case_id)
            else:
                yield Task(case.case_id, case.scan, self._folder / self._place(case))

    def _place(self, case: Case) -> str:
        """The folder that the ledger gave the case when it was first entered."""
        entry = self._ledger.entry(case.case_id)
        return case.folder if entry is None else entry.folder

    def _is_done(self, case: Case, model: tuple[str, ...]) -> bool:
        entry = self._ledger.entry(case.case_id)
        if entry is None or entry.state != "done" or case.scan is None:
            return False
        same = entry.key == result_key(hash_inputs(case.scan), model)
        return same and is_whole(self._folder / entry.folder, entry.files)

    def _keep(self, case_id: str, outcome: Outcome, model: tuple[str, ...]) -> None:
        if isinstance(outcome, CaseDone):
            key = result_key(outcome.inputs_sha256, model)
            self._ledger.set_done(case_id, key, outcome.files, outcome.seconds)
            self.tell("done", case_id=case_id, seconds=round(outcome.seconds, 3))
        else:
            self._fail(case_id, outcome.stage, outcome.error, outcome.message)

    def _fail(self, case_id: str, stage: str, error: str, message: str) -> None:
        message = message.replace(f"{self._archive}{os.sep}", "")  # tables do not depend on where the archive lies
        self._ledger.set_failed(case_id, stage, error, message)
        self.tell("failed", case_id=case_id, stage=stage, error=error, message=message)

    def _discard(self, case_id: str) -> None:
        """Take away the files of a result that does not hold any more; others in its folder stay."""
        entry = self._ledger.entry(case_id)
        if entry is None or not entry.files:
            return
        self._ledger.set_state(case_id, "pending")
        for name in entry.files:
            (self._folder / entry.folder / name).unlink(missing_ok=True)


def _checked_output(archive: str | PathLike[str], output: str | PathLike[str]) -> Path:
    folder, source = Path(output), Path(archive)
    if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"output {folder} lies in the archive {source}; its maps would be taken for scans")
    return folder


def _check_numbers(workers: int, time_limit_s: float | None) -> None:
    if workers < 1:
        raise UsageError(f"workers must be at least 1; got {workers}")
    if time_limit_s is not None and not time_limit_s > 0:
        raise UsageError(f"the time limit must be above 0 s; got {time_limit_s:g}")


def _selected(cases: list[Case], select: str | None) -> list[Case]:
    if select is None:
        return cases
    rule = parse_rule(select, FIELDS)
    return [case for case in cases if rule(case.fields)]


def _planned(case: Case, is_whole_before: bool) -> PlannedCase:
    if case.error is not None:
        return PlannedCase(case.case_id, case.source, "unreadable", str(case.error))
    return PlannedCase(case.case_id, case.source, "done before" if is_whole_before else "to do")


def _sweep(folder: Path) -> None:
    """Remove what killed processes left: everything is written under such a name first."""
    for pattern in (".tmp-*", "*/.tmp-*"):
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
