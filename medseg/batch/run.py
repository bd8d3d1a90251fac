"""One run over an archive: which cases are to be done, done, entered in the ledger, tables at the end."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.batch.cases import FIELDS, Case, find_cases
from medseg.batch.copies import Copies
from medseg.batch.crew import Crew
from medseg.batch.deliver import into_pacs
from medseg.batch.ledger import LEDGER_FILE, Ledger, is_whole
from medseg.batch.locks import only_run
from medseg.batch.messages import ModelChoice
from medseg.batch.remote import PacsSource, RemoteScans, find_remote_cases
from medseg.batch.select import read_rule
from medseg.batch.status import BatchStatus, archive_status
from medseg.batch.tables import write_tables
from medseg.batch.work import OnEvent, Work
from medseg.core.scan import Scan
from medseg.dicom.pacs_access import PacsAccess
from medseg.errors import OutputExists, ScanNotFound, UsageError
from medseg.io.archive import unpacking_into
from medseg.io.atomic import check_output_folder
from medseg.io.case_ids import new_salt, read_salt, write_salt

if TYPE_CHECKING:
    from medseg.batch.cluster import Cluster

__all__ = ["Archive", "PlannedCase", "plan_archive", "run_archive"]

Archive = str | PathLike[str] | PacsSource
"""Where the cases are: on disk, or in a PACS."""


@dataclass(frozen=True)
class PlannedCase:
    """What a run would do with a case: `state` is "to do", "done before", or "unreadable" with its `problem`.

    `scan` is what was found; None for what cannot be read or lies in a PACS.
    """

    case_id: str
    source: str
    state: str
    problem: str = ""
    scan: Scan | None = field(default=None, repr=False, compare=False)


def plan_archive(
    archive: Archive, output: str | PathLike[str], *, select: str | None = None, allow_gaps: bool = False
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
    ScanNotFound, UnreadableImage, UnsafeArchive, InvalidManifest, PacsError, UsageError
        As `run_archive`.
    """
    folder = _checked_output(archive, output)
    cases = _selected(_found(archive, read_salt(folder) or new_salt(), allow_gaps), select)
    whole: set[str] = set()
    if (folder / LEDGER_FILE).is_file():
        with Ledger(folder) as ledger:
            done = [entry for entry in ledger.entries(with_files=True) if entry.state == "done"]
        whole = {entry.case_id for entry in done if is_whole(folder / entry.folder, entry.files)}
    return [_planned(case, case.case_id in whole) for case in cases]


def run_archive(
    archive: Archive,
    model: str | PathLike[str],
    output: str | PathLike[str],
    *,
    resume: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    select: str | None = None,
    time_limit_s: float | None = None,
    allow_gaps: bool = False,
    deliver_to: PacsAccess | None = None,
    copy_to: str | None = None,
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
        A folder that is searched deeply, a zip or tar, a list file (.txt, .lst, .tsv), a data manifest (.json), or a
        query to a PACS. A series of a PACS is fetched shortly before its turn and removed after.
    model
        As `load_segmenter`.
    output
        The output folder. Besides one folder a case: `cases.parquet`, `lesions.parquet`, `failures.csv`, `index.html`.
    resume
        Go on with the batch that lies there: cases are skipped whose input and model are the same as in the ledger
        and whose files are there with the recorded bytes; all others are done, failed ones again.
    workers
        Most processes at a time, each with a model of its own.
    scheduler
        Do the cases on a Dask cluster (extra `cluster`): its address, as tcp://HOST:8786, or "local" for one of
        `workers` processes on this machine. Archive, model and output must have the same paths for every worker.
    select
        A rule over the fields of a case ("modality == 'PT' and slices > 40"), or a YAML file with a list of rules.
    time_limit_s
        Most seconds for one case.
    allow_gaps
        Interpolate across missing slices of DICOM series.
    deliver_to
        A PACS in which the DICOM objects of each case are stored, with the identity of the patient in them; those that
        it holds already are left as they are.
    copy_to
        A URL that fsspec knows (s3://bucket/run): the files of each case are copied there as it ends, tables at last.
    on_event
        Called with what happens, in this process.
    **how
        Fields of `medseg.batch.messages.ModelChoice`: device, engine, precision, trust, classes, mirror, skip_air,
        max_memory_mib, nan_as, seg_kind, rtstruct, mesh, viewer.

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
        If the rule, the number of workers, the time limit or an address makes no sense, or the output lies in the
        archive.
    ScanNotFound, UnreadableImage, UnsafeArchive, InvalidManifest
        If there is no such archive, or nothing in it, or nothing that was selected.
    ClusterError
        If a cluster cannot be reached; a later run with `resume` goes on.
    PacsError
        If a PACS refuses the query, or cannot be reached; a later run with `resume` goes on.
    ModelError, UnknownModel
        If the model cannot be loaded.
    WorkerDied
        If worker processes end before they can take a case.
    """
    if scheduler is not None:  # workers stand in folders of their own
        output, model = Path(output).resolve(), _resolved(model)
        archive = archive if isinstance(archive, PacsSource) else Path(archive).resolve()
    folder = _checked_output(archive, output)
    _check_numbers(workers, time_limit_s)
    _selected([], select)  # a misspelled rule need not wait for the archive to be searched
    copies = None if copy_to is None else Copies(copy_to, folder)
    destinations = [] if copies is None else [copies.destination]
    destinations += [] if deliver_to is None else [into_pacs(deliver_to)]
    check_output_folder(folder, [LEDGER_FILE], overwrite=True)
    folder.mkdir(parents=True, exist_ok=True)
    with only_run(folder):
        if (folder / LEDGER_FILE).exists() and not resume:
            raise OutputExists(f"{folder} already holds a batch; --resume goes on with it")
        _sweep(folder)
        salt = read_salt(folder) or new_salt()
        remote = RemoteScans(archive.access, folder, salt, allow_gaps) if isinstance(archive, PacsSource) else None
        with unpacking_into(folder):
            found = _found(archive, salt, allow_gaps)
        cases = _selected(found, select)
        write_salt(folder, salt)
        choice = ModelChoice(str(model), for_pacs=deliver_to is not None, **how)
        try:
            with Ledger(folder, create=True) as ledger:
                ledger.forget_gone({case.case_id for case in found})
                work = Work(_name(archive), folder, ledger, on_event or (lambda _: None), remote, destinations)
                work.enter(cases)
                with _team(choice, folder, workers, scheduler, time_limit_s) as team:
                    work.do(team)
        finally:
            _sweep(folder)
        tables = write_tables(folder)
        if copies is not None:
            copies.put_all(tables)
    status = archive_status(folder)
    work.tell("end", n_done=status.n_done, n_failed=status.n_failed)
    return status


def _team(
    choice: ModelChoice, folder: Path, workers: int, scheduler: str | None, time_limit_s: float | None
) -> Crew | Cluster:
    if scheduler is None:
        return Crew(choice, folder, workers, time_limit_s)
    try:
        from medseg.batch.cluster import Cluster
    except ModuleNotFoundError as error:
        raise UsageError(f"a cluster needs {error.name}: pip install 'medseg[cluster]'") from error
    return Cluster(choice, scheduler, workers, time_limit_s)


def _found(archive: Archive, salt: str, allow_gaps: bool) -> list[Case]:
    """The cases; none are an error: a disk that is not mounted looks like that, and so does a mistyped query."""
    if isinstance(archive, PacsSource):
        return find_remote_cases(archive, salt)
    cases = find_cases(archive, salt, allow_gaps)
    if not cases:
        raise ScanNotFound(f"archive {archive} holds no scan; medseg inspect {archive} tells what lies there")
    return cases


def _resolved(model: str | PathLike[str]) -> str | Path:
    """A model's full path; the name of a shipped one stays."""
    return Path(model).resolve() if Path(model).exists() else str(model)


def _name(archive: Archive) -> str:
    return archive.access.address if isinstance(archive, PacsSource) else str(Path(archive))


def _checked_output(archive: Archive, output: str | PathLike[str]) -> Path:
    folder = Path(output)
    if isinstance(archive, PacsSource):
        return folder
    source = Path(archive)
    if not source.exists():  # a misspelled one leaves no output folder behind
        raise ScanNotFound(f"archive {source} does not exist; expected a folder, an archive file, a list or a manifest")
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
    rule = read_rule(select, FIELDS)
    selected = [case for case in cases if rule(case.fields)]
    if cases and not selected:
        raise ScanNotFound(f"none of the {len(cases)} case(s) found is selected by {select!r}")
    return selected


def _planned(case: Case, is_whole_before: bool) -> PlannedCase:
    if case.error is not None:
        return PlannedCase(case.case_id, case.source, "unreadable", str(case.error))
    return PlannedCase(case.case_id, case.source, "done before" if is_whole_before else "to do", scan=case.scan)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left: everything is written under such a name first."""
    for pattern in (".tmp-*", "*/.tmp-*"):
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
