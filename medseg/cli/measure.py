"""`medseg measure`: a map of lesions in, a table out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medseg.cli.console import print_json, show_notes, show_progress
from medseg.cli.options import AllowGaps, CaseId, Json, Overwrite, Quiet, Series, WeightKg
from medseg.errors import UsageError

if TYPE_CHECKING:
    from medseg.core.scan import Scan

__all__ = ["measure"]

_Lesions = Annotated[
    Path,
    typer.Argument(
        metavar="LESIONS", show_default=False, help="Map of lesion numbers, 0 for background; DICOM SEG or RTSTRUCT."
    ),
]
_Scan = Annotated[
    Path | None,
    typer.Option("--scan", "-s", help="Volume file, DICOM folder, zip or tar on the same grid, for the intensities."),
]
_Units = Annotated[Literal["stored", "suv"], typer.Option("--units", help="Of the scan's voxels.")]
_Roi = Annotated[
    list[str] | None,
    typer.Option("--roi", help="Measure only the DICOM segment or region of that label; may be given several times."),
]
_Output = Annotated[
    Path, typer.Option("--output", "-o", help="Table to write: .csv, .json or .parquet.", show_default=False)
]


def measure(
    lesions: _Lesions,
    output: _Output,
    scan: _Scan = None,
    series: Series = None,
    case_id: CaseId = None,
    units: _Units = "stored",
    allow_gaps: AllowGaps = False,
    weight_kg: WeightKg = None,
    roi: _Roi = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure the lesions of a lesion map.

    Without a scan the intensity columns are empty. A map with other numbers than 1..n is renumbered, largest first. An
    RTSTRUCT holds contours only and needs the scan.

    \b
    Example:
      medseg measure out/lesions.nii.gz --scan scan.nii.gz -o lesions.csv
    """  # noqa: D301
    from medseg.core.monitor import Monitor
    from medseg.io.atomic import check_output_folder
    from medseg.io.case_ids import new_salt, read_salt, write_salt
    from medseg.io.label_files import read_lesions
    from medseg.io.scan import load_volume
    from medseg.io.tables import write_table
    from medseg.io.volume_files import volume_stem
    from medseg.lesions.measure import measure_lesions

    check_output_folder(output.parent, [output.name], overwrite=overwrite)
    salt = read_salt(output.parent) or new_salt()  # DICOM is named as `medseg segment` names it in the same folder
    source = _open_scan(scan, series, case_id, salt, allow_gaps)
    name = case_id or (source.case_id if source else volume_stem(lesions))
    with show_progress(quiet=quiet) as progress:
        monitor = Monitor(progress)
        with monitor.stage("read"):
            lesion_map = read_lesions(lesions, like=source.geometry if source else None, only=roi or ())
            volume = load_volume(source, units=units, weight_kg=weight_kg) if source else None
        with monitor.stage("measure"):
            table = measure_lesions(lesion_map, volume, case_id=name)
        with monitor.stage("write"):
            write_table(table, output)
    if source and source.format == "dicom":
        write_salt(output.parent, salt)
    renumbered = ("the lesion numbers were not 1..n: renumbered, largest first",) if lesion_map.renumbered else ()
    show_notes((volume.notes if volume else ()) + renumbered, quiet=quiet)
    if as_json:
        print_json(
            {"case_id": name, "n_lesions": len(table), "output": str(output), "lesions": [dict(row) for row in table]}
        )
    else:
        typer.echo(str(table))
        typer.echo(f"\nWritten to {output}")


def _open_scan(path: Path | None, series: str | None, case_id: str | None, salt: str, allow_gaps: bool) -> Scan | None:
    """The scan, if one was given."""
    from medseg.io.scan import read_scan

    if path is None and series is not None:
        raise UsageError(f"--series {series} names a series of a scan; give the scan with --scan")
    if path is None:
        return None
    return read_scan(path, series=series, case_id=case_id, salt=salt, allow_gaps=allow_gaps)
