"""What lies under a path: every volume that could be read, and everything else with the reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from os import PathLike
from pathlib import Path

from medseg.core.found import FoundScan
from medseg.errors import AmbiguousSeries, MedsegError, ScanError, ScanNotFound
from medseg.io.dicom_frames import NoImage
from medseg.io.dicom_grid import order_frames
from medseg.io.dicom_series import DamagedFile, FolderListing, StackChoice, choose_stack, list_file, list_series
from medseg.io.nifti import read_header_geometry
from medseg.io.nifti_header import is_nifti_name

__all__ = ["find_scans", "is_visible_nifti"]


def find_scans(path: str | PathLike[str]) -> list[FoundScan]:
    """List every volume under a path, told by content and by headers only.

    A DICOM series is listed stack by stack. What cannot be read is listed with its reason: series with gaps, damaged
    files, objects that are no images. Localizers, derived images and secondary captures are listed but not chosen
    while a primary image is there.

    Parameters
    ----------
    path
        A file, or a folder that is searched deeply.

    Returns
    -------
    One record a volume, DICOM first, by series number; then NIfTI files by name; then what is no volume.

    Raises
    ------
    ScanNotFound
        If nothing lies at the path.

    Examples
    --------
    >>> import medseg
    >>> for found in medseg.find_scans("archive/p07"):  # doctest: +SKIP
    ...     print(found.series, found.modality, found.n_slices, found.reason)
    """
    root = Path(path)
    if not root.exists():
        raise ScanNotFound(f"{root} does not exist; expected a file or a folder")
    if root.is_file() and is_nifti_name(root):
        return [replace(_nifti(root), is_chosen=True, reason="the file that was named")]
    listing = list_series(root) if root.is_dir() else list_file(root)
    nifti_files = [file for file in listing.other_files if is_visible_nifti(file, root)]
    volumes = [*_decided(listing, bool(nifti_files)), *_nifti_in_folder(nifti_files, bool(listing.series))]
    return [*volumes, *_no_images(root, listing.no_images), *(_damaged(file) for file in listing.damaged)]


def is_visible_nifti(path: Path, folder: Path) -> bool:
    """Whether a file is named like NIfTI and not hidden: hidden files are other programs' leftovers."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return is_nifti_name(path) and path.is_file() and not hidden


def _decided(listing: FolderListing, has_nifti: bool) -> list[FoundScan]:
    """Every stack of a listing, with the choice that `read_scan` would make."""
    chosen, why_not = _choice(listing, has_nifti)
    return [_stack(listing.folder, choice, chosen, why_not) for choice in listing.choices]


def _choice(listing: FolderListing, has_nifti: bool) -> tuple[StackChoice | None, str]:
    """The stack that is read if none is named; or why there is none."""
    if has_nifti:
        return None, "NIfTI files lie there too: name one of them or a series"
    try:
        return choose_stack(listing), ""
    except AmbiguousSeries:
        return None, "one of several: name it (--series)"
    except MedsegError as error:
        return None, str(error)


def _stack(folder: Path, choice: StackChoice, chosen: StackChoice | None, why_not: str) -> FoundScan:
    first, stack = choice.series.first, choice.stack
    is_chosen = chosen is not None and (chosen.series.uid, chosen.number) == (choice.series.uid, choice.number)
    found = FoundScan(
        path=folder,
        format="dicom",
        series=choice.name,
        modality=first.modality or None,
        description=" ".join(part for part in (first.series_description, stack.label and f"({stack.label})") if part),
        n_files=len({frame.file.path for frame in stack.frames}),
        n_slices=len(stack.frames),
        geometry=None,
        set_aside=stack.aside,
        is_chosen=is_chosen,
        reason=_reason(choice, is_chosen, why_not),
        series_instance_uid=choice.series.uid,
    )
    try:
        ordered = order_frames(stack.frames, f"series {choice}")
    except ScanError as error:
        return replace(found, problem=str(error))
    return replace(found, geometry=ordered.geometry, n_slices=ordered.geometry.shape[2], notes=ordered.notes)


def _reason(choice: StackChoice, is_chosen: bool, why_not: str) -> str:
    aside = choice.stack.aside
    if is_chosen:
        return f"no primary image is there ({aside})" if aside else "the only primary image"
    return aside if aside else why_not


def _nifti_in_folder(files: list[Path], has_series: bool) -> list[FoundScan]:
    is_only = len(files) == 1 and not has_series
    reason = "the only image" if is_only else "one of several: name the file"
    return [replace(_nifti(file), is_chosen=is_only, reason=reason) for file in files]


def _nifti(path: Path) -> FoundScan:
    found = FoundScan(path, "nifti", None, None, "", 1, 0, None)
    try:
        geometry = read_header_geometry(path)
    except ScanError as error:
        return replace(found, problem=str(error))
    return replace(found, geometry=geometry, n_slices=geometry.shape[2])


def _no_images(folder: Path, objects: Iterable[NoImage]) -> list[FoundScan]:
    """One record for the objects of a series that hold no gray image; DICOM directories are passed over."""
    groups: dict[tuple[str, str], list[NoImage]] = {}
    for entry in objects:
        if entry.series_uid:
            groups.setdefault((entry.series_uid, entry.what), []).append(entry)
    return [
        FoundScan(
            path=folder,
            format="dicom",
            series=None,
            modality=members[0].modality or None,
            description=members[0].series_description,
            n_files=len(members),
            n_slices=0,
            geometry=None,
            problem=what,
            reason=what,
            series_instance_uid=uid,
        )
        for (uid, what), members in groups.items()
    ]


def _damaged(file: DamagedFile) -> FoundScan:
    return FoundScan(file.path, "dicom", None, None, "", 1, 0, None, problem=file.reason, reason="damaged")
