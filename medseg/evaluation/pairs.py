"""Which prediction belongs to which reference, on disk."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.labels import BINARY_LESION
from medseg.core.lesions import LesionMap
from medseg.core.semantic import SemanticMap
from medseg.errors import GridMismatch, ScanNotFound, UsageError
from medseg.io.dicom_labels import is_dicom_file
from medseg.io.file_tree import walk_files
from medseg.io.label_files import read_lesions, read_semantic
from medseg.io.scan import read_scan
from medseg.io.volume_files import is_volume_name, read_volume_array, volume_stem
from medseg.metrics.presets import InputKind

__all__ = ["CaseFiles", "Groups", "grid_of", "pair_files", "read_groups", "read_probability", "read_sides"]


_DICOM_SUFFIXES = (".seg.dcm", ".rtstruct.dcm", ".dcm")


@dataclass(frozen=True)
class CaseFiles:
    """One case: its id and a file of each side, in the order in which the sides were given.

    `is_alone` if files were given and not folders.
    """

    case_id: str
    files: tuple[Path, ...]
    is_alone: bool = False


def pair_files(*sides: str | PathLike[str], case_id: str | None = None) -> list[CaseFiles]:
    """Pair files by case id: the path below the folder, without the suffix.

    Parameters
    ----------
    sides
        All files (one case), or all folders.
    case_id
        Name of the case, for files; None: the name of the last one.

    Returns
    -------
    Cases in the order of their ids.

    Raises
    ------
    ScanNotFound
        If a path does not exist, or a folder holds no volume.
    UsageError
        If files and folders are mixed, two files of a folder have one case id, or a case is missing on a side.
    """
    paths = [Path(side) for side in sides]
    for path in paths:
        if not path.exists():
            raise ScanNotFound(f"{path}: there is no such file or folder")
    folders = [path for path in paths if path.is_dir()]
    if not folders:
        return [CaseFiles(case_id or volume_stem(paths[-1]), tuple(paths), is_alone=True)]
    if len(folders) < len(paths):
        raise UsageError(f"give files only or folders only; {folders[0]} is a folder and the others are not all")
    found = [_files_of(folder) for folder in paths]
    _check_complete(paths, found)
    return [CaseFiles(name, tuple(files[name] for files in found)) for name in sorted(found[0])]


def _files_of(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in walk_files(folder):
        stem = _stem(path)
        if stem is None:
            continue
        name = path.relative_to(folder).with_name(stem).as_posix()
        if name in files:
            raise UsageError(f"{folder}: {files[name].name} and {path.name} are both case {name}; keep one")
        files[name] = path
    if not files:
        raise ScanNotFound(f"{folder} holds no map (.nii, .nii.gz, .nrrd, .mha, .dcm, ...); nothing to evaluate")
    return files


def _stem(path: Path) -> str | None:
    """A map's name without its suffix; None for other files, and for the second file of a NIfTI pair."""
    name = path.name.lower()
    for suffix in _DICOM_SUFFIXES:
        if name.endswith(suffix):
            return path.name[: -len(suffix)]
    return volume_stem(path) if is_volume_name(path) and not name.endswith((".img", ".img.gz")) else None


def _check_complete(folders: Sequence[Path], found: Sequence[Mapping[str, Path]]) -> None:
    everything = set().union(*found)
    for folder, files in zip(folders, found, strict=True):
        missing = sorted(everything - set(files))
        if missing:
            shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise UsageError(
                f"{folder} lacks {len(missing)} of {len(everything)} case(s): {shown}. A pair is the same path below "
                "each folder; a missing prediction is not scored as an empty one"
            )


def grid_of(case: CaseFiles, like: str | PathLike[str] | None) -> Geometry | None:
    """The grid of the scan of a case, by its header; None if no scan is given.

    Parameters
    ----------
    case
        The case.
    like
        Its scan, if it is alone; otherwise a folder that holds a folder or file of its name.

    Raises
    ------
    ScanNotFound
        If there is none for the case.
    ScanError
        If it cannot be read.
    """
    if like is None or case.is_alone:
        return None if like is None else read_scan(like).geometry
    place = Path(like) / case.case_id
    if place.is_dir():
        return read_scan(place).geometry
    files = [path for path in sorted(place.parent.glob(f"{escape(place.name)}.*")) if volume_stem(path) == place.name]
    if len(files) != 1:
        n = len(files) or "no"
        raise ScanNotFound(f"{like} holds {n} scan(s) of case {case.case_id}; expected a folder or file of that name")
    return read_scan(files[0]).geometry


def read_sides(
    paths: Sequence[Path], kinds: Sequence[InputKind], grid: Geometry | None = None
) -> list[LesionMap | SemanticMap]:
    """Read the maps of a case, the reference last.

    A DICOM SEG or RTSTRUCT is put on the grid given, or else that of the first other map; a SEG alone lies on that of
    the slices it stores.
    """
    found: dict[int, LesionMap | SemanticMap] = {}
    for number in sorted(range(len(paths)), key=lambda n: is_dicom_file(paths[n])):
        is_reference = number == len(paths) - 1
        found[number] = _read_side(paths[number], kinds[number], grid, is_reference=is_reference)
        grid = grid or found[number].geometry
    return [found[number] for number in range(len(paths))]


def _read_side(path: Path, kind: InputKind, grid: Geometry | None, *, is_reference: bool) -> LesionMap | SemanticMap:
    """Read a map of lesion numbers or of classes; of a detection map, where it is above 0."""
    if kind == "lesions":
        return read_lesions(path, grid)
    if kind == "detection-map" and not is_reference:
        array, geometry, _ = read_volume_array(path)
        return SemanticMap((array > 0).astype(np.uint8), geometry, BINARY_LESION)
    return read_semantic(path, like=grid)


def read_probability(path: Path, like: LesionMap | SemanticMap, case_id: str) -> NDArray[np.float32]:
    """Read a map of probabilities on the grid of another map.

    Raises
    ------
    GridMismatch
        If it lies on another grid.
    UsageError
        If a value is not within 0..1.
    """
    array, geometry, _ = read_volume_array(path)
    if not geometry.matches(like.geometry):
        raise GridMismatch(f"{case_id}: {path} lies on {geometry!r}; expected the grid of the maps, {like.geometry!r}")
    if not (array.min() >= 0 and array.max() <= 1):
        raise UsageError(f"{path}: probabilities lie within 0..1; got {array.min():g}..{array.max():g}")
    return array


@dataclass(frozen=True)
class Groups:
    """The patient of each case, and its stratum by each further column of a table."""

    patients: Mapping[str, str]
    strata: Mapping[str, Mapping[str, str]]


def read_groups(path: str | PathLike[str], case_ids: Sequence[str]) -> Groups:
    """Read a CSV table with `case_id`, optionally `patient_id`, and one column a stratum.

    Raises
    ------
    UsageError
        If there is no such file or column, or a case is missing in it.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if not rows or "case_id" not in rows[0]:
        raise UsageError(f"{path} needs a column case_id, and may have patient_id and columns of strata")
    by_case = {row["case_id"]: row for row in rows}
    missing = [name for name in case_ids if name not in by_case]
    if missing:
        raise UsageError(f"{path} lacks {len(missing)} case(s): {', '.join(missing[:5])}")
    columns = [name for name in rows[0] if name not in ("case_id", "patient_id")]
    return Groups(
        patients={name: by_case[name].get("patient_id") or name for name in case_ids},
        strata={column: {name: by_case[name][column] for name in case_ids} for column in columns},
    )
