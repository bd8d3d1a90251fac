"""Folders after the Brain Imaging Data Structure: raw images, and label maps among the derivatives.

    sub-01/[ses-1/]anat/sub-01_[ses-1_]FLAIR.nii.gz
    derivatives/PIPELINE/sub-01/[ses-1/]anat/sub-01_[ses-1_][space-orig_]label-lesion_mask.nii.gz   (or _dseg.nii.gz)

References
----------
BIDS specification 1.10, Derivatives: Imaging data types (masks, discrete segmentations).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from medseg.errors import InvalidManifest
from medseg.io.layouts import FoundCase, FoundSet, channel_called, read_description

__all__ = ["read_bids_folder"]

_IMAGE_ENDING = re.compile(r"_([A-Za-z0-9]+)\.nii(\.gz)?$")
_NO_IMAGE = {"mask", "dseg", "probseg"}


def read_bids_folder(folder: Path, channels: Sequence[str] = ()) -> FoundSet:
    """One case a subject and session that has a label map.

    Parameters
    ----------
    folder
        The raw data set, with label maps below its `derivatives`.
    channels
        Suffixes of the images ("FLAIR", "T1w"), in order; by default all suffixes that every case has.

    Raises
    ------
    InvalidManifest
        If there is no label map, two for one case, a case lacks an image, or a table of classes is malformed.
    """
    maps: dict[str, Path] = {}
    for label in sorted((folder / "derivatives").rglob("sub-*_*.nii*")):
        if _suffix(label) not in ("mask", "dseg"):
            continue
        case_id = _case_id(label)
        if case_id in maps:
            raise InvalidManifest(f"{case_id}: two label maps, {maps[case_id]} and {label}; keep one")
        maps[case_id] = label
    if not maps:
        raise InvalidManifest(f"{folder}: no label map sub-*_mask.nii.gz or sub-*_dseg.nii.gz among the derivatives")
    images = {case_id: _images(folder, case_id) for case_id in maps}
    wanted = list(channels) or _common(found.keys() for found in images.values())
    cases = []
    for case_id, label in maps.items():
        missing = [name for name in wanted if name not in images[case_id]]
        if missing or not wanted:
            what = " or ".join(missing) or "that all cases have"
            raise InvalidManifest(f"{case_id}: not one image {what} below {folder}, but none or several")
        files = tuple(images[case_id][name] for name in wanted)
        cases.append(FoundCase(case_id, files, label, patient=case_id.split("_")[0]))
    described = read_description(folder / "dataset_description.json")
    about = {"name": described.get("Name"), "licence": described.get("License"), "source": described.get("DatasetDOI")}
    authors = ", ".join(map(str, described.get("Authors", [])))
    found = {key: str(value) for key, value in (*about.items(), ("attribution", authors)) if value}
    without = {path.name for path in folder.glob("sub-*") if path.is_dir()} - {case.patient for case in cases}
    notes = (f"{len(without)} subject(s) have no label map among the derivatives and were left out",) if without else ()
    return FoundSet(tuple(cases), tuple(map(channel_called, wanted)), _labels(maps), {}, found, notes)


def _case_id(path: Path) -> str:
    """Subject and session: "sub-01_ses-1"."""
    entities = dict(re.findall(r"(sub|ses)-([A-Za-z0-9]+)", path.name))
    return "_".join(f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities)


def _suffix(path: Path) -> str:
    match = _IMAGE_ENDING.search(path.name)
    return match[1] if match else ""


def _images(raw: Path, case_id: str) -> dict[str, Path]:
    """The raw images of a subject and session by suffix; of several with one suffix, none."""
    home = raw.joinpath(*case_id.split("_"))
    files = [path for path in sorted(home.glob("*/sub-*.nii*")) if _case_id(path) == case_id]
    by_suffix: dict[str, list[Path]] = {}
    for path in files:
        if _suffix(path) and _suffix(path) not in _NO_IMAGE:
            by_suffix.setdefault(_suffix(path), []).append(path)
    return {suffix: paths[0] for suffix, paths in by_suffix.items() if len(paths) == 1}


def _common(sets: Iterable[Iterable[str]]) -> list[str]:
    each = [set(names) for names in sets]
    return sorted(set.intersection(*each)) if each else []


def _labels(maps: dict[str, Path]) -> dict[int, str] | None:
    """Class names: the entity `label` of masks, or the table `dseg.tsv` of discrete segmentations."""
    names = {match[1] for path in maps.values() if (match := re.search(r"_label-([A-Za-z0-9]+)", path.name))}
    if {_suffix(path) for path in maps.values()} == {"mask"}:
        return {1: names.pop()} if len(names) == 1 else None
    tables = (parent / "dseg.tsv" for parent in next(iter(maps.values())).parents[:6])
    beside = (path.with_name(re.sub(r"\.nii(\.gz)?$", ".tsv", path.name)) for path in maps.values())
    table = next((path for path in (*beside, *tables) if path.is_file()), None)
    if table is None:
        return None
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    try:
        return {int(row["index"]): row["name"] for row in rows if int(row["index"]) > 0}
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidManifest(f"{table}: a table of classes has the columns index (whole numbers) and name") from error
