"""`medseg convert`: lesions from one form to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.console import print_json, show_notes
from medseg.cli.options import AllowGaps, Json, Overwrite, Quiet, SegKind, Series
from medseg.errors import UsageError

__all__ = ["convert"]

_Lesions = Annotated[
    Path,
    typer.Argument(
        metavar="LESIONS", show_default=False, help="Lesion map (NIfTI, NRRD, MetaImage), DICOM SEG or RTSTRUCT."
    ),
]
_Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        show_default=False,
        help="File to write; the suffix says what: .nii.gz, .seg.dcm, .rtstruct.dcm, .stl, .obj, .ctbl (names for 3D "
        "Slicer) or .label.txt (for ITK-SNAP).",
    ),
]
_Like = Annotated[
    Path | None,
    typer.Option("--like", help="The scan that the lesions lie in: volume file, DICOM folder, zip or tar."),
]
_Roi = Annotated[
    list[str] | None,
    typer.Option("--roi", help="Read only the segment or region of that label; may be given several times."),
]
_KeepIdentifiers = Annotated[
    bool,
    typer.Option("--keep-identifiers", help="Write the patient's name, ID and birth date into DICOM, for an archive."),
]


def convert(
    lesions: _Lesions,
    output: _Output,
    like: _Like = None,
    series: Series = None,
    kind: SegKind = "binary",
    roi: _Roi = None,
    allow_gaps: AllowGaps = False,
    keep_identifiers: _KeepIdentifiers = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Convert lesions between NIfTI, DICOM SEG, RTSTRUCT and meshes.

    Voxel for voxel: nothing is resampled. With --like the result lies on the grid of that scan, whichever way its axes
    run; a DICOM object refers to that series.

    \b
    Example:
      medseg convert lesions.nii.gz --like dicom_folder -o lesions.seg.dcm
    """  # noqa: D301
    from medseg.io.atomic import check_output_folder
    from medseg.io.convert import convert_lesions
    from medseg.io.scan import read_scan

    check_output_folder(output.parent, [output.name], overwrite=overwrite)
    if like is None and series is not None:
        raise UsageError(f"--series {series} names a series of a scan; give the scan with --like")
    scan = read_scan(like, series=series, allow_gaps=allow_gaps) if like else None
    written = convert_lesions(lesions, output, scan, only=roi or (), kind=kind, keep_identifiers=keep_identifiers)
    renumbered = ("the lesion numbers were not 1..n: renumbered, largest first",) if written.renumbered else ()
    show_notes((*(scan.notes if scan else ()), *renumbered), quiet=quiet)
    if as_json:
        print_json({"n_lesions": written.n_lesions, "output": str(output)})
    else:
        typer.echo(f"{written.n_lesions} lesion(s) written to {output}")
