"""`medseg batch` and `medseg status`: an archive in, one folder a case out; how it stands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.batch_progress import print_plan, print_status, show_batch, tell_delays
from medseg.cli.model import Classes, Trust, split_classes
from medseg.cli.options import (
    AllowGaps,
    Device,
    Engine,
    Json,
    MaxMemory,
    Mesh,
    NanAs,
    OutputFolder,
    Precision,
    Quiet,
    RtStruct,
    SegKind,
    SkipAir,
    TestTimeFlips,
    Viewer,
    memory_mib,
)
from medseg.errors import UsageError

if TYPE_CHECKING:
    from medseg.batch.remote import PacsSource
    from medseg.dicom.pacs_access import PacsAccess
    from medseg.dicom.patience import OnDelay

__all__ = ["batch", "status"]

_Archive = Annotated[
    Path | None,
    typer.Argument(
        metavar="ARCHIVE",
        show_default=False,
        help="Folder that is searched deeply, zip, tar, list of paths (.txt, .lst, .tsv) or data manifest (.json).",
    ),
]
_Model = Annotated[
    str,
    typer.Option("--model", "-m", help="Name of a shipped model, or a model's folder or file.", show_default=False),
]
_Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the batch in the output folder: skip what is done and whole.")
]
_Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes at a time, each with a model of its own.")]
_Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="Do the cases on a Dask cluster: tcp://HOST:PORT, or local for --workers processes of this machine.",
        show_default=False,
    ),
]
_Select = Annotated[
    str | None,
    typer.Option(
        "--select",
        metavar="RULE",
        help="Only cases for which this holds, as \"modality == 'PT' and slices > 40\", or a YAML list of such.",
        show_default=False,
    ),
]
_DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be done and about what it takes; write nothing.")
]
_TimeLimit = Annotated[
    float | None, typer.Option("--time-limit-s", help="Most seconds for one case; it fails after that.")
]
_Events = Annotated[
    bool, typer.Option("--json", help="Print the outcome as JSON; and on stderr what happens, one JSON object a line.")
]
_From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="PACS",
        help="Series of a PACS in place of ARCHIVE: dicomweb:URL, dimse:TITLE@HOST:PORT or dimse:tls:...",
        show_default=False,
    ),
]
_To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="PACS",
        help="Store the DICOM objects of each case, with the patient's identity, in a PACS; what it holds stays.",
        show_default=False,
    ),
]
_CopyTo = Annotated[
    str | None,
    typer.Option(
        "--copy-to",
        metavar="URL",
        help="Copy results to another file system as well, such as s3://bucket/run (any that fsspec knows).",
        show_default=False,
    ),
]
_Modality = Annotated[str, typer.Option("--modality", help="Of the series in a PACS, as PT.", show_default=False)]
_StudyDate = Annotated[
    str, typer.Option("--study-date", help="In a PACS, as 20240131 or 20240101-20240131.", show_default=False)
]
_Description = Annotated[
    str, typer.Option("--series-description", help="In a PACS; * and ? stand for anything.", show_default=False)
]
_Accession = Annotated[
    list[str] | None,
    typer.Option(
        "--accession", help="Accession number in a PACS, or @FILE with one a line; may be repeated.", show_default=False
    ),
]
_Credentials = Annotated[
    str | None,
    typer.Option(
        "--credentials",
        metavar="FILE",
        help="How a PACS is entered: a YAML file that only you can read, or the word keyring.",
        show_default=False,
    ),
]
_OwnTitle = Annotated[str, typer.Option("--own-title", help="Our application entity title (dimse).")]
_ReceivePort = Annotated[int, typer.Option("--receive-port", help="Where a PACS sends what we ask for (dimse).")]
_Output = Annotated[Path, typer.Argument(metavar="DIR", show_default=False, help="Output folder of a batch.")]
_Tables = Annotated[bool, typer.Option("--tables", help="Also write its tables and page as it stands.")]
_EXIT_SOME_FAILED = 1


def batch(
    model: _Model,
    output: OutputFolder,
    archive: _Archive = None,
    from_pacs: _From = None,
    to_pacs: _To = None,
    modality: _Modality = "",
    study_date: _StudyDate = "",
    series_description: _Description = "",
    accession: _Accession = None,
    credentials: _Credentials = None,
    own_title: _OwnTitle = "MEDSEG",
    receive_port: _ReceivePort = 11112,
    copy_to: _CopyTo = None,
    resume: _Resume = False,
    workers: _Workers = 1,
    scheduler: _Scheduler = None,
    select: _Select = None,
    dry_run: _DryRun = False,
    time_limit_s: _TimeLimit = None,
    device: Device = "auto",
    engine: Engine = "auto",
    precision: Precision = "auto",
    test_time_flips: TestTimeFlips = None,
    skip_air: SkipAir = False,
    max_memory: MaxMemory = None,
    nan_as: NanAs = None,
    allow_gaps: AllowGaps = False,
    seg_kind: SegKind = "binary",
    rtstruct: RtStruct = False,
    mesh: Mesh = None,
    viewer: Viewer = "canvas",
    classes: Classes = None,
    trust: Trust = False,
    as_json: _Events = False,
    quiet: Quiet = False,
) -> None:
    """Segment every scan of an archive, one folder a case.

    Also writes cases.parquet, lesions.parquet and failures.csv. A case that fails is listed and the others go on; a run
    that was ended goes on with --resume. Exit code 1 if some case failed.

    \b
    Example:
      medseg batch archive --model sarcoma_pet -o out --select "modality == 'PT' and slices > 40"
      medseg batch --from dicomweb:https://pacs.example.org/dicom-web --modality PT --model sarcoma_pet -o out
    """  # noqa: D301
    max_memory_mib = memory_mib(max_memory)
    from medseg.batch.run import plan_archive, run_archive

    enter = _Entrance(credentials, own_title, receive_port, tell_delays(quiet=quiet, as_json=as_json))
    query = (modality, study_date, series_description, tuple(accession or ()))
    source = _source(archive, None if from_pacs is None else enter(from_pacs), query)
    how: dict[str, Any] = {
        "device": device,
        "engine": engine,
        "precision": precision,
        "trust": trust or None,
        "classes": split_classes(classes),
        "mirror": test_time_flips,
        "skip_air": skip_air,
        "max_memory_mib": max_memory_mib,
        "nan_as": nan_as,
        "seg_kind": seg_kind,
        "rtstruct": rtstruct,
        "mesh": mesh,
        "viewer": viewer,
    }
    if dry_run:
        from medseg.batch.estimate import estimate_run

        planned = plan_archive(source, output, select=select, allow_gaps=allow_gaps)
        print_plan(planned, estimate_run(planned, model, output, **how), as_json=as_json)
        return
    with show_batch(quiet=quiet, as_json=as_json) as on_event:
        state = run_archive(
            source,
            model,
            output,
            resume=resume,
            workers=workers,
            scheduler=scheduler,
            select=select,
            time_limit_s=time_limit_s,
            allow_gaps=allow_gaps,
            deliver_to=None if to_pacs is None else enter(to_pacs),
            copy_to=copy_to,
            on_event=on_event,
            **how,
        )
    print_status(state, as_json=as_json)
    if state.n_failed:
        raise typer.Exit(_EXIT_SOME_FAILED)


@dataclass(frozen=True)
class _Entrance:
    """How an address is entered."""

    credentials: str | None
    own_title: str
    receive_port: int
    on_delay: OnDelay | None

    def __call__(self, address: str) -> PacsAccess:
        from medseg.dicom.pacs_access import PacsAccess
        from medseg.dicom.patience import Patience

        patience = Patience(on_delay=self.on_delay)
        return PacsAccess(address, self.credentials, self.own_title, self.receive_port, patience)


def _source(
    archive: Path | None, access: PacsAccess | None, query: tuple[str, str, str, tuple[str, ...]]
) -> Path | PacsSource:
    """Where the cases are: in an archive on disk, or in a PACS."""
    if archive is not None and access is not None:
        raise UsageError("name an ARCHIVE, or a PACS by --from; not both")
    if archive is not None and any(query):
        raise UsageError("a query (--modality, --study-date, ...) is for --from; for an ARCHIVE there is --select")
    if archive is not None:
        return archive
    from medseg.batch.remote import PacsSource
    from medseg.dicom.pacs import PacsQuery

    if access is None:
        raise UsageError("name an ARCHIVE, or a PACS by --from")
    modality, study_date, description, accession = query
    return PacsSource(access, PacsQuery(modality, study_date, description, _numbers(accession)))


def _numbers(accession: tuple[str, ...]) -> tuple[str, ...]:
    """Accession numbers, those of files among them."""
    numbers: list[str] = []
    for word in accession:
        if not word.startswith("@"):
            numbers.append(word)
            continue
        try:
            lines = Path(word[1:]).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--accession {word}: the file cannot be read: {error}") from error
        numbers += [line.strip() for line in lines if line.strip()]
    return tuple(dict.fromkeys(numbers))


def status(output: _Output, tables: _Tables = False, as_json: Json = False, quiet: Quiet = False) -> None:
    """Show how a batch stands; also while it runs.

    \b
    Example:
      medseg status out
    """  # noqa: D301
    from medseg.batch.status import archive_status
    from medseg.batch.tables import write_tables

    print_status(archive_status(output), as_json=as_json)
    if tables:
        write_tables(output)
        if not quiet:
            typer.echo(f"tables written to {output}", err=True)
