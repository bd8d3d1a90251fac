"""FoundScan: one volume that lies under a path, or something there that is none, with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from medseg.core.geometry import Geometry
from medseg.core.scan import ScanFormat

__all__ = ["FoundScan"]


@dataclass(frozen=True, eq=False)
class FoundScan:
    """What `read_scan(path, series=series)` would read, as far as the headers tell; voxels are not looked at.

    Parameters
    ----------
    path
        What to give to `read_scan`: a file, or the folder that was searched.
    format
        Format of the image, or None for what is none.
    series
        What chooses it there: series number, or number:stack, or UID; None for a file.
    modality
        DICOM modality code, or None where the format does not say.
    description
        The series description; empty where there is none.
    n_files
        Files that it is stored in.
    n_slices
        Slices of the grid, or, where there is no grid, frames that were found.
    geometry
        The grid, or None if it has a problem.
    problem
        Why it cannot be read; None if it can.
    set_aside
        Why it is not chosen by itself ("localizer", "derived", ...); None for a primary image.
    is_chosen
        Whether `read_scan(path)` would read it without being told.
    reason
        Why it is chosen, or why not.
    notes
        What reading it would leave out, make up or round.
    series_instance_uid
        Kept in memory only: no table shows it.
    """

    path: Path
    format: ScanFormat | None
    series: str | None
    modality: str | None
    description: str
    n_files: int
    n_slices: int
    geometry: Geometry | None
    problem: str | None = None
    set_aside: str | None = None
    is_chosen: bool = False
    reason: str = ""
    notes: tuple[str, ...] = ()
    series_instance_uid: str | None = field(default=None, repr=False)

    @property
    def is_readable(self) -> bool:
        """Whether there is a grid."""
        return self.problem is None
