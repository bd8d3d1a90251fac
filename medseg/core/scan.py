"""Scan: one case on disk, header read, voxels not in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medseg.core.geometry import Geometry
from medseg.errors import ScanError

__all__ = ["DicomIdentifiers", "Scan", "ScanFormat"]

ScanFormat = Literal["nifti", "nrrd", "metaimage", "dicom"]


@dataclass(frozen=True)
class DicomIdentifiers:
    """What names a DICOM series; no patient identity.

    The UIDs stay in memory: tables and file names carry `Scan.case_id`, a salted hash of them.
    """

    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str | None
    units: str | None = None


@dataclass(frozen=True, eq=False)
class Scan:
    """One case on disk.

    Parameters
    ----------
    case_id
        Name of the case in every table and file.
    files
        One entry a channel, in the model's order; each lists that channel's files (one file, or a header and the file
        of its voxels, or the slices of a series ordered along the slice normal).
    format
        "nifti", "nrrd", "metaimage" or "dicom".
    geometry
        The grid that all channels share.
    modality
        DICOM modality code ("CT", "PT", "MR") or None where the format does not say.
    dicom
        One entry a channel for DICOM, empty otherwise.
    layouts
        One entry a channel for DICOM: the reader's own record of where each slice is stored, so that headers are
        parsed once. Empty otherwise.
    notes
        What happened on the way to the files (members of an archive that were passed over, renamed or lost); goes into
        the provenance.
    """

    case_id: str
    files: tuple[tuple[Path, ...], ...]
    format: ScanFormat
    geometry: Geometry
    modality: str | None = None
    dicom: tuple[DicomIdentifiers, ...] = field(default=(), repr=False)
    layouts: tuple[object, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.case_id:
            raise ScanError("a scan needs a case_id that is not empty")
        if not self.files or not all(self.files):
            raise ScanError(f"{self.case_id}: a scan needs at least one file for each channel")

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return len(self.files)

    def __repr__(self) -> str:
        return f"Scan({self.case_id!r}, {self.format}, {self.n_channels} channel(s), {self.geometry!r})"
