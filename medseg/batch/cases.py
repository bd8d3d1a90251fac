"""The cases of an archive: a folder tree, a zip or tar, a list file, or a data manifest."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path, PurePosixPath

from medseg.batch.select import Field
from medseg.core.scan import Scan
from medseg.dicom.pacs import RemoteSeries
from medseg.errors import InvalidManifest, MedsegError, ScanNotFound, UsageError
from medseg.io.discover import ScanAttempt, try_scans
from medseg.io.manifest import read_manifest
from medseg.io.scan import read_scan
from medseg.io.volume_files import volume_stem

__all__ = ["Case", "FIELDS", "find_cases"]

FIELDS = (
    "case_id",
    "source",
    "format",
    "modality",
    "description",
    "slices",
    "columns",
    "rows",
    "channels",
    "spacing_i_mm",
    "spacing_j_mm",
    "spacing_k_mm",
)
"""What a selection rule can ask."""

_LIST_SUFFIXES = {".txt", ".lst", ".tsv"}
_LONGEST_FOLDER_NAME = 120


@dataclass(frozen=True, eq=False)
class Case:
    """One unit of work: a scan, or something that should be one and cannot be read.

    Parameters
    ----------
    case_id
        Its name; no two cases of an archive have the same.
    folder
        Name of its folder in the output folder.
    source
        Where it lies, below the archive.
    scan
        Its scan, headers read; None if it cannot be read, or lies in a PACS.
    error
        Why it cannot be read; None if it can.
    description
        The series description.
    remote
        The series in a PACS that it is; None for a case on disk.
    """

    case_id: str
    folder: str
    source: str
    scan: Scan | None
    error: MedsegError | None = None
    description: str = ""
    remote: RemoteSeries | None = None

    @property
    def fields(self) -> dict[str, Field]:
        """What a selection rule can ask: of an unreadable case its name, of one in a PACS what the PACS tells."""
        known: dict[str, Field] = {**dict.fromkeys(FIELDS), "case_id": self.case_id, "source": self.source}
        if self.remote is not None:
            told = self.remote
            return known | {
                "format": "dicom",
                "modality": told.modality or None,
                "description": told.description,
                "slices": told.n_instances,
                "channels": 1,
            }
        if self.scan is None:
            return known
        geometry = self.scan.geometry
        columns, rows, slices = geometry.shape
        spacing = {f"spacing_{axis}_mm": float(mm) for axis, mm in zip("ijk", geometry.spacing, strict=True)}
        return (
            known
            | spacing
            | {
                "format": self.scan.format,
                "modality": self.scan.modality,
                "description": self.description,
                "slices": slices,
                "columns": columns,
                "rows": rows,
                "channels": self.scan.n_channels,
            }
        )


def find_cases(archive: str | PathLike[str], salt: str, allow_gaps: bool = False) -> list[Case]:
    """The cases of an archive; headers are read, voxels are not.

    Parameters
    ----------
    archive
        A folder that is searched deeply, a zip or tar, a single scan; a list file (.txt, .lst, .tsv: one case a line,
        its channels separated by tabs, paths relative to the list); or a data manifest (.json).
    salt
        What the hash that names a DICOM case is salted with.
    allow_gaps
        Interpolate across missing slices of a DICOM series.

    Returns
    -------
    The cases by name. Localizers and derived images of a DICOM archive are left out.

    Raises
    ------
    ScanNotFound
        If nothing lies there.
    UnreadableImage, UnsafeArchive
        If it is a file of another kind, or an archive beyond the limits.
    InvalidManifest
        If the manifest is malformed.
    """
    path = Path(archive)
    if path.is_file() and path.suffix.lower() in _LIST_SUFFIXES:
        attempts = _listed(path, salt, allow_gaps)
    elif path.is_file() and path.suffix.lower() == ".json":
        attempts = _in_manifest(path, salt, allow_gaps)
    else:
        attempts = [attempt for attempt in try_scans(path, salt, allow_gaps) if attempt.set_aside is None]
    return _named(attempts)


def _listed(path: Path, salt: str, allow_gaps: bool) -> list[ScanAttempt]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"list {path} cannot be read: {error}") from error
    entries = [[part.strip() for part in line.split("\t")] for line in lines if line.strip() and line[0] != "#"]
    return [_read(entry[0], [path.parent / part for part in entry], None, salt, allow_gaps) for entry in entries]


def _in_manifest(path: Path, salt: str, allow_gaps: bool) -> list[ScanAttempt]:
    manifest, root = read_manifest(path)
    if not root.is_dir():
        raise InvalidManifest(f"{path}: its root {root} is no folder; fetch the data, or correct the manifest")
    return [
        _read(case.case_id, [root / image.path for image in case.images], case.case_id, salt, allow_gaps)
        for case in manifest.cases
    ]


def _read(source: str, paths: Sequence[Path], case_id: str | None, salt: str, allow_gaps: bool) -> ScanAttempt:
    try:
        scan = read_scan(paths, salt=salt, case_id=case_id, allow_gaps=allow_gaps)
    except MedsegError as error:
        return ScanAttempt(source, None, error)
    except OSError as error:
        return ScanAttempt(source, None, ScanNotFound(f"{source}: {error.strerror}"))
    if case_id is None and scan.format != "dicom":  # files of one name in many folders are the usual list
        name = PurePosixPath(source.lstrip("/"))
        scan = replace(scan, case_id=name.with_name(volume_stem(Path(name.name))).as_posix())
    return ScanAttempt(source, scan)


def _named(attempts: Sequence[ScanAttempt]) -> list[Case]:
    """Cases with names and folders of their own: those that share one get a hash of their source behind it."""
    names = [attempt.source if attempt.scan is None else attempt.scan.case_id for attempt in attempts]
    names = _distinct(names, [attempt.source for attempt in attempts])
    folders = _distinct([_folder_name(name) for name in names], names)
    cases = [
        Case(
            name,
            folder,
            attempt.source,
            None if attempt.scan is None else replace(attempt.scan, case_id=name),
            attempt.error,
            attempt.description,
        )
        for name, folder, attempt in zip(names, folders, attempts, strict=True)
    ]
    return sorted(cases, key=lambda case: case.case_id)


def _distinct(names: Sequence[str], told_apart_by: Sequence[str]) -> list[str]:
    counts = Counter(name.casefold() for name in names)
    marked = [
        name if counts[name.casefold()] == 1 else f"{name}~{hashlib.sha256(other.encode()).hexdigest()[:8]}"
        for name, other in zip(names, told_apart_by, strict=True)
    ]
    doubled = sorted(name for name, n in Counter(marked).items() if n > 1)
    if doubled:
        raise UsageError(f"the archive names the same scan more than once: {', '.join(doubled[:5])}; list each once")
    return marked


def _folder_name(case_id: str) -> str:
    name = re.sub(r"[^\w.~-]+", "_", case_id.replace("/", "__"))
    name = f"_{name}" if name.startswith(".") else name
    if len(name) <= _LONGEST_FOLDER_NAME:
        return name
    return f"{name[:_LONGEST_FOLDER_NAME]}~{hashlib.sha256(case_id.encode()).hexdigest()[:8]}"
