"""`medseg inspect`: what lies under a path, what would be segmented and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.console import print_json, show_notes
from medseg.cli.options import Json, Quiet

if TYPE_CHECKING:
    from medseg.core.found import FoundScan

__all__ = ["inspect"]

_Path = Annotated[
    Path,
    typer.Argument(metavar="PATH", show_default=False, help="File, archive or folder; folders are searched deeply."),
]
_HEADINGS = ("", "series", "modality", "slices", "grid", "spacing (mm)", "description", "remarks")


def inspect(path: _Path, as_json: Json = False, quiet: Quiet = False) -> None:
    """List the scans under a path, and which one would be read.

    Headers are read, voxels are not. "*" marks what is read if nothing is named; the series column is what --series
    takes. What cannot be read is listed with the reason.

    \b
    Example:
      medseg inspect archive/p07
    """  # noqa: D301
    from medseg.io.discover import list_scans

    found = list_scans(path)
    n_readable = sum(scan.is_readable for scan in found)
    if as_json:
        print_json({"path": str(path), "n_readable": n_readable, "scans": [_as_json(scan) for scan in found]})
        return
    rows = [_HEADINGS, *(_as_row(scan, path) for scan in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    show_notes((f"{n_readable} of {len(found)} can be read",), quiet=quiet)


def _as_row(scan: FoundScan, root: Path) -> tuple[str, ...]:
    """One line for people."""
    name = scan.series or ("-" if scan.path.is_dir() else _shown_path(scan.path, root))
    grid = spacing = "-"
    if scan.geometry is not None:
        grid = " x ".join(map(str, scan.geometry.shape))
        spacing = " x ".join(f"{length:.4g}" for length in scan.geometry.spacing)
    remarks = "; ".join([scan.problem or scan.reason, *scan.notes])
    mark = "*" if scan.is_chosen else ""
    slices = str(scan.n_slices) if scan.n_slices else "-"
    return (mark, name, scan.modality or "-", slices, grid, spacing, scan.description or "-", remarks)


def _shown_path(path: Path, root: Path) -> str:
    return path.name if path == root else str(path.relative_to(root))


def _as_json(scan: FoundScan) -> dict[str, Any]:
    """One record for programs; no UID and no identity."""
    geometry = scan.geometry
    return {
        "path": str(scan.path),
        "format": scan.format,
        "series": scan.series,
        "modality": scan.modality,
        "description": scan.description,
        "n_files": scan.n_files,
        "n_slices": scan.n_slices,
        "shape": None if geometry is None else list(geometry.shape),
        "spacing_mm": None if geometry is None else list(geometry.spacing),
        "affine_ras": None if geometry is None else geometry.affine.tolist(),
        "problem": scan.problem,
        "set_aside": scan.set_aside,
        "is_chosen": scan.is_chosen,
        "reason": scan.reason,
        "notes": list(scan.notes),
    }
