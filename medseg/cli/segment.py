"""`medseg segment`: one scan in, its lesions out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.console import print_json, show_notes, show_progress
from medseg.cli.model import Classes, Trust, split_classes
from medseg.cli.options import (
    AllowGaps,
    CaseId,
    Connectivity,
    Device,
    Engine,
    Json,
    MaxMemory,
    Mesh,
    Method,
    MinimumVolume,
    NanAs,
    OutputFolder,
    Overwrite,
    Precision,
    Quiet,
    RtStruct,
    SegKind,
    Series,
    SkipAir,
    TestTimeFlips,
    Viewer,
    WeightKg,
    memory_mib,
    separation_changes,
)
from medseg.errors import UsageError

if TYPE_CHECKING:
    from medseg.core.result import CaseResult
    from medseg.core.scan import Scan

__all__ = ["case_as_json", "print_case", "segment"]

_Scans = Annotated[
    list[Path],
    typer.Argument(
        metavar="SCAN...",
        show_default=False,
        help="Volume file (NIfTI, NRRD, MetaImage), DICOM folder, zip or tar; several are the channels of one case, "
        "in the model's order.",
    ),
]
_Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Name of a shipped model; or a medseg or MONAI bundle, nnU-Net model folder or export.",
        show_default=False,
    ),
]
_KeepIdentifiers = Annotated[
    bool,
    typer.Option(
        "--keep-identifiers",
        help="Write patient ID, study date, UIDs and path of the scan into result.json, and who the patient is into "
        "DICOM objects, as an archive needs it.",
    ),
]
_Dicom = Annotated[
    bool | None,
    typer.Option(
        "--dicom/--no-dicom",
        help="Write DICOM SEG and SR, which refer to the series [default: for a DICOM series].",
        show_default=False,
    ),
]
_CHECKED_WINDOWS = 3  # of those that --skip-air leaves out
_SaveEvidence = Annotated[
    bool,
    typer.Option(
        "--save-evidence",
        help="Also write probability.nii.gz and, from a model with instance heads, evidence.nii.gz.",
    ),
]


def segment(
    scans: _Scans,
    model: _Model,
    output: OutputFolder,
    series: Series = None,
    case_id: CaseId = None,
    device: Device = "auto",
    engine: Engine = "auto",
    precision: Precision = "auto",
    test_time_flips: TestTimeFlips = None,
    skip_air: SkipAir = False,
    max_memory: MaxMemory = None,
    method: Method = None,
    connectivity: Connectivity = None,
    minimum_volume_ml: MinimumVolume = None,
    nan_as: NanAs = None,
    allow_gaps: AllowGaps = False,
    weight_kg: WeightKg = None,
    save_evidence: _SaveEvidence = False,
    keep_identifiers: _KeepIdentifiers = False,
    dicom: _Dicom = None,
    seg_kind: SegKind = "binary",
    rtstruct: RtStruct = False,
    mesh: Mesh = None,
    viewer: Viewer = "canvas",
    classes: Classes = None,
    trust: Trust = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find, separate and measure the lesions of one scan.

    Writes semantic.nii.gz and lesions.nii.gz on the scan's own grid, names of the lesions for ITK-SNAP and 3D Slicer,
    lesions.csv, result.json and report.html; for a DICOM series also lesions.seg.dcm, semantic.seg.dcm, lesions.sr.dcm.
    What is not given about separation is as the model's plan says.

    \b
    Example:
      medseg segment scan.nii.gz --model sarcoma_pet -o out
    """  # noqa: D301
    from medseg.io.atomic import check_output_folder
    from medseg.io.case_ids import new_salt, read_salt, write_salt
    from medseg.io.scan import read_scan
    from medseg.pipeline import RESULT_FILES, segment_case, write_case

    max_memory_mib = memory_mib(max_memory)
    check_output_folder(output, RESULT_FILES, overwrite=overwrite)
    salt = read_salt(output) or new_salt()
    scan = read_scan(scans, series=series, case_id=case_id, salt=salt, allow_gaps=allow_gaps)
    _check_dicom(scan, wanted=bool(dicom) or rtstruct)
    from medseg.inference.options import RunOptions
    from medseg.models.load import load_segmenter  # loads torch: seconds that a misspelled path need not take

    options = RunOptions(
        mirror=test_time_flips,
        skip_air=skip_air,
        check_skipped=_CHECKED_WINDOWS if skip_air else 0,
        max_memory_mib=max_memory_mib,
    )
    segmenter = load_segmenter(
        model,
        device=device,
        engine=engine,
        precision=precision,
        trust=trust or None,
        classes=split_classes(classes),
        options=options,
    )
    changes = separation_changes(method, connectivity, minimum_volume_ml)
    separation = segmenter.recipe.separation.model_copy(update=changes)
    with show_progress(quiet=quiet) as progress:
        result = segment_case(
            scan, segmenter, separation=separation, nan_as=nan_as, weight_kg=weight_kg, progress=progress
        )
        write_case(
            result,
            output,
            overwrite=overwrite,
            save_probability=save_evidence,
            save_evidence=save_evidence,
            keep_identifiers=keep_identifiers,
            dicom=dicom,
            seg_kind=seg_kind,
            rtstruct=rtstruct,
            mesh=mesh,
            viewer=viewer,
        )
    if scan.format == "dicom":
        write_salt(output, salt)
    _tell(result, output, as_json=as_json, quiet=quiet)


def _tell(result: CaseResult, output: Path, *, as_json: bool, quiet: bool) -> None:
    """Say on stdout what was found and written, and on stderr what is to be noted."""
    from medseg.pipeline import OPTIONAL_FILES, RESULT_FILES

    files = [*RESULT_FILES, *(name for name in OPTIONAL_FILES if (output / name).exists())]
    show_notes(result.provenance.notes, quiet=quiet)
    if as_json:
        print_json(case_as_json(result, output, files))
    else:
        print_case(result, output, files)


def _check_dicom(scan: Scan, *, wanted: bool) -> None:
    """Refuse before the network runs what could not be written after it."""
    if wanted and scan.format != "dicom":
        raise UsageError(
            f"--dicom and --rtstruct write objects that refer to a DICOM series; {scan.files[0][0]} is none. Where "
            "there is a series that it was made from: medseg convert lesions.nii.gz --like SERIES -o lesions.seg.dcm"
        )


def case_as_json(result: CaseResult, folder: Path, files: list[str]) -> dict[str, Any]:
    """A case for programs: rows of the table, where the files are, seconds a stage."""
    return {
        "case_id": result.case_id,
        "n_lesions": result.lesions.n_lesions,
        "output": str(folder),
        "files": [str(folder / name) for name in files],
        "lesions": [dict(row) for row in result.table],
        "seconds": {stage: round(seconds, 3) for stage, seconds in result.seconds.items()},
    }


def print_case(result: CaseResult, folder: Path, files: list[str]) -> None:
    """A case for people: the table, and where the files are."""
    typer.echo(str(result.table))
    if not result.lesions.n_lesions:
        typer.echo("No lesion found.")
    typer.echo(f"\nWritten to {folder}: {', '.join(files)}")
