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
_Scans = Annotated[
    list[Path] | None,
    typer.Option(
        "--scan",
        "-s",
        help="Volume file, DICOM folder, zip or tar, for the intensities; the first on the grid of the lesions, others "
        "(CT beside PET) are interpolated onto it. Repeatable.",
    ),
]
_Units = Annotated[
    list[str] | None,
    typer.Option(
        "--units", help="auto, stored or suv, for all scans or each; auto: SUV for a DICOM series of PET. Repeatable."
    ),
]
_Channels = Annotated[
    list[str] | None,
    typer.Option("--channel", help="Name of a channel; one for each [default: modality or file name]. Repeatable."),
]
_Organs = Annotated[
    Path | None,
    typer.Option("--organs", help="Map of organ numbers; on another grid the nearest voxel counts."),
]
_OrganNames = Annotated[
    Path | None,
    typer.Option(
        "--organ-names", help="JSON or CSV of organ numbers and names [default: beside the map, or TotalSegmentator's]."
    ),
]
_Probability = Annotated[
    Path | None,
    typer.Option("--probability", help="Map of probabilities of lesion, for confidence and partial volume."),
]
_Radiomics = Annotated[
    Literal["none", "ibsi"],
    typer.Option("--radiomics", help="ibsi: also the IBSI's texture families of the first scan, if MIRP is installed."),
]
_Roi = Annotated[
    list[str] | None,
    typer.Option("--roi", help="Measure only the DICOM segment or region of that label; may be given several times."),
]
_Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        help="Measure these columns only, separated by commas; names or patterns such as 'suv_*'. Repeatable.",
    ),
]
_Output = Annotated[
    Path, typer.Option("--output", "-o", help="Table to write: .csv, .json or .parquet.", show_default=False)
]


def measure(
    lesions: _Lesions,
    output: _Output,
    scans: _Scans = None,
    units: _Units = None,
    channels: _Channels = None,
    organs: _Organs = None,
    organ_names: _OrganNames = None,
    probability: _Probability = None,
    columns: _Columns = None,
    radiomics: _Radiomics = "none",
    series: Series = None,
    case_id: CaseId = None,
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
      medseg measure out/lesions.nii.gz --scan pet/ --scan ct/ --organs organs.nii.gz -o lesions.csv
    """  # noqa: D301
    from medseg.core.monitor import Monitor
    from medseg.io.atomic import check_output_folder
    from medseg.io.case_ids import new_salt, read_salt, write_salt
    from medseg.io.companions import load_channels, read_organs, read_probabilities
    from medseg.io.label_files import read_lesions
    from medseg.io.tables import write_table
    from medseg.io.volume_files import volume_stem
    from medseg.lesions.measure import measure_lesions
    from medseg.lesions.radiomics import add_textures

    if radiomics == "ibsi" and not scans:
        raise UsageError("--radiomics ibsi measures intensities; give the scan with --scan")
    chosen = _split(columns)
    check_output_folder(output.parent, [output.name], overwrite=overwrite)
    salt = read_salt(output.parent) or new_salt()  # DICOM is named as `medseg segment` names it in the same folder
    sources = _open_scans(scans, series, case_id, salt, allow_gaps)
    name = case_id or (sources[0].case_id if sources else volume_stem(lesions))
    notes: tuple[str, ...] = ()
    with show_progress(quiet=quiet) as progress:
        monitor = Monitor(progress)
        with monitor.stage("read"):
            lesion_map = read_lesions(lesions, like=sources[0].geometry if sources else None, only=roi or ())
            grid = lesion_map.geometry
            volume = load_channels(sources, grid, units or ["auto"], channels or (), weight_kg) if sources else None
            organ_map, notes = read_organs(organs, grid, organ_names) if organs else (None, ())
            probabilities = read_probabilities(probability, grid) if probability else None
        with monitor.stage("measure"):
            table = measure_lesions(
                lesion_map, volume, name, organs=organ_map, probabilities=probabilities, columns=chosen
            )
            if radiomics == "ibsi" and volume is not None:
                table, told = add_textures(table, lesion_map, volume)
                notes += told
        with monitor.stage("write"):
            write_table(table, output)
    if any(source.format == "dicom" for source in sources):
        write_salt(output.parent, salt)
    renumbered = ("the lesion numbers were not 1..n: renumbered, largest first",) if lesion_map.renumbered else ()
    show_notes((*(volume.notes if volume else ()), *notes, *renumbered), quiet=quiet)
    if as_json:
        rows = [dict(row) for row in table]
        head = {"case_id": name, "n_lesions": len(table), "output": str(output), "totals": dict(table.totals)}
        print_json({**head, "lesions": rows})
    else:
        typer.echo(str(table))
        typer.echo(f"\nWritten to {output}")


def _split(columns: list[str] | None) -> list[str] | None:
    """Names and patterns, one by one."""
    if columns is None:
        return None
    names = [name.strip() for text in columns for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError("--columns names no column; leave it out for all columns")
    return names


def _open_scans(
    paths: list[Path] | None, series: str | None, case_id: str | None, salt: str, allow_gaps: bool
) -> list[Scan]:
    """The scans that were given."""
    from medseg.io.scan import read_scan

    if not paths and series is not None:
        raise UsageError(f"--series {series} names a series of a scan; give the scan with --scan")
    return [read_scan(path, series=series, case_id=case_id, salt=salt, allow_gaps=allow_gaps) for path in paths or []]
