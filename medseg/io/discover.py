"""What lies under a path: every volume that could be read, and everything else with the reason."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path

from medseg.core.found import FoundScan
from medseg.core.scan import Scan
from medseg.errors import AmbiguousSeries, MedsegError, ScanError, ScanNotFound, UnreadableImage
from medseg.io.archive import is_archive, unpack_until_exit
from medseg.io.channels import (
    Channel,
    file_channel,
    foreign_file,
    lost_members,
    meant_folder,
    name_in_folder,
    stack_channel,
)
from medseg.io.dicom_frames import NoImage
from medseg.io.dicom_grid import order_frames
from medseg.io.dicom_series import (
    DamagedFile,
    FolderListing,
    StackChoice,
    check_whole,
    choose_stack,
    list_file,
    list_series,
)
from medseg.io.scan import scan_of
from medseg.io.volume_files import is_volume_file, is_volume_name, read_volume_header, volume_format, volume_stem
from medseg.io.voxel_bytes import check_plain_file

__all__ = ["ScanAttempt", "find_scans", "list_scans", "try_scans"]

logger = logging.getLogger(__name__)


def find_scans(path: str | PathLike[str], salt: str = "medseg", allow_gaps: bool = False) -> list[Scan]:
    """Every volume under a path that can be loaded, told by content; voxels are not read.

    Each stack of each DICOM series is a scan of its own (localizers and derived images too), and so is each volume
    file. What cannot be loaded is logged with its reason; `list_scans` returns the reasons.

    Parameters
    ----------
    path
        A file, an archive, or a folder that is searched deeply.
    salt
        What the hash that names a DICOM case is salted with.
    allow_gaps
        Interpolate across missing or irregular slices of a DICOM series; by default such a series cannot be loaded.

    Returns
    -------
    The scans, DICOM first, by series number; then volume files by name.

    Raises
    ------
    ScanNotFound
        If nothing lies at the path.
    UnreadableImage
        If it is a file and no image.
    ScanError
        If volumes lie there, but none can be loaded: the first reason.

    Examples
    --------
    >>> import medseg
    >>> for scan in medseg.find_scans("archive/p07"):  # doctest: +SKIP
    ...     print(scan.case_id, scan.geometry)
    """
    place = _look(Path(path))
    scans: list[Scan] = []
    refused: list[ScanError] = []
    for attempt in _attempts(place, salt, allow_gaps):
        try:
            scans.append(scan_of([attempt()]))
        except ScanError as error:
            refused.append(error)
    refused += [ScanError(file.reason) for file in place.listing.damaged]
    for reason in refused:
        logger.warning("not loadable: %s", reason)
    if refused and not scans:
        raise refused[0]
    return scans


def list_scans(path: str | PathLike[str]) -> list[FoundScan]:
    """List every volume under a path, told by content and by headers only, with what `read_scan` would choose and why.

    A DICOM series is listed stack by stack. What cannot be read is listed with its reason: series with gaps, damaged
    files, objects that are no images. Localizers, derived images and secondary captures are listed but not chosen
    while a primary image is there.

    Parameters
    ----------
    path
        A file, an archive, or a folder that is searched deeply.

    Returns
    -------
    One record a volume, DICOM first, by series number; then volume files by name; then what is no volume.

    Raises
    ------
    ScanNotFound
        If nothing lies at the path.
    """
    place = _look(Path(path))
    if place.listing.folder == place.path and place.volume_files == (place.path,):
        return [replace(_file(place.path), is_chosen=True, reason="the file that was named")]
    files = _files_in_folder(place.volume_files, bool(place.listing.series))
    if place.is_archive:  # its files have no path of their own
        files = [replace(file, path=place.path / file.path.relative_to(place.listing.folder)) for file in files]
    volumes = [*_decided(place), *files]
    no_volumes = [*_no_images(place.path, place.listing.no_images), *map(_damaged, place.listing.damaged)]
    lost = [FoundScan(place.path, None, None, None, "", 0, 0, None, problem=place.losses, reason="damaged")]
    return [*volumes, *no_volumes, *(lost if place.losses else [])]


@dataclass(frozen=True, eq=False)
class ScanAttempt:
    """One volume that lies under a path: the scan, or the error why it cannot be loaded.

    Parameters
    ----------
    source
        Where it lies, below the path that was searched.
    scan
        The scan, None if it cannot be loaded.
    error
        Why it cannot be loaded, None if it can.
    description
        The series description; empty where there is none.
    set_aside
        Why it is not segmented unless it is named ("localizer", "derived", ...); None for a primary image.
    """

    source: str
    scan: Scan | None
    error: MedsegError | None = None
    description: str = ""
    set_aside: str | None = None


def try_scans(path: str | PathLike[str], salt: str = "medseg", allow_gaps: bool = False) -> list[ScanAttempt]:
    """Every volume under a path, those that cannot be loaded with their error; voxels are not read.

    Parameters
    ----------
    path, salt, allow_gaps
        As `find_scans`.

    Returns
    -------
    One entry a volume, DICOM first, by series number; then volume files by name; then damaged DICOM files.

    Raises
    ------
    ScanNotFound
        If nothing lies at the path.
    UnreadableImage
        If it is a file and no image.
    """
    place = _look(Path(path))
    root = place.listing.folder
    kinds = [
        (_series_source(choice, root), choice.series.first.series_description, choice.stack.aside)
        for choice in place.listing.choices
    ]
    kinds += [(_below(file, root), "", None) for file in place.volume_files]
    found = [
        _tried(attempt, source, description, aside, place)
        for attempt, (source, description, aside) in zip(_attempts(place, salt, allow_gaps), kinds, strict=True)
    ]
    damaged = [
        ScanAttempt(_below(file.path, root), None, UnreadableImage(file.reason)) for file in place.listing.damaged
    ]
    return [*found, *damaged]


def _tried(
    attempt: Callable[[], Channel], source: str, description: str, aside: str | None, place: _Place
) -> ScanAttempt:
    try:
        return ScanAttempt(source, scan_of([attempt()]), None, description, aside)
    except MedsegError as error:
        told = str(error).replace(str(place.listing.folder), str(place.path))  # an archive is unpacked elsewhere
        return ScanAttempt(source, None, type(error)(told), description, aside)


def _series_source(choice: StackChoice, root: Path) -> str:
    return f"{_below(choice.series.first.path.parent, root)} series {choice.name}".removeprefix(". ")


def _below(path: Path, root: Path) -> str:
    return path.name if path == root else path.relative_to(root).as_posix()


@dataclass(frozen=True, eq=False)
class _Place:
    """What a path leads to; an archive is its unpacked folder."""

    path: Path
    listing: FolderListing
    volume_files: tuple[Path, ...]
    losses: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_archive(self) -> bool:
        """Whether what was found lies in another folder than the one that was named."""
        return self.path != self.listing.folder


def _look(named: Path) -> _Place:
    path = meant_folder(named)
    if path.is_dir():
        return _look_into(path, path)
    if not path.exists():
        raise ScanNotFound(f"{path} does not exist; expected a file, an archive or a folder")
    check_plain_file(path, "a scan")
    if is_volume_name(path) or volume_format(path) is not None:
        return _Place(path, FolderListing(path, ()), (path,))
    if is_archive(path):
        unpacked = unpack_until_exit(path)
        return replace(_look_into(unpacked.folder, path), losses=lost_members(unpacked), notes=unpacked.notes)
    listing = list_file(path)
    if listing.other_files:
        raise foreign_file(path)
    return _Place(path, listing, ())


def _look_into(folder: Path, named: Path) -> _Place:
    listing = list_series(folder)
    return _Place(named, listing, tuple(file for file in listing.other_files if is_volume_file(file)))


def _attempts(place: _Place, salt: str, allow_gaps: bool) -> Iterator[Callable[[], Channel]]:
    """One call for each volume that may be there; each returns its channel or raises."""

    def stack(choice: StackChoice) -> Channel:
        check_whole(place.listing, choice)
        if place.losses:
            raise UnreadableImage(f"{place.path}: {place.losses}. They may be part of the scan; fetch the archive anew")
        return replace(stack_channel(choice, salt, allow_gaps), notes=place.notes)

    def file(path: Path) -> Channel:
        folder = place.listing.folder
        name = volume_stem(path) if path == folder else name_in_folder(path, folder)
        return replace(file_channel(path, name), notes=place.notes)

    yield from (partial(stack, choice) for choice in place.listing.choices)
    yield from (partial(file, path) for path in place.volume_files)


def _decided(place: _Place) -> list[FoundScan]:
    """Every stack that was found, with the choice that `read_scan` would make."""
    chosen, why_not = _choice(place.listing, bool(place.volume_files))
    return [_stack(place.path, choice, chosen, why_not) for choice in place.listing.choices]


def _choice(listing: FolderListing, has_files: bool) -> tuple[StackChoice | None, str]:
    """The stack that is read if none is named; or why there is none."""
    if has_files:
        return None, "volume files lie there too: name one of them or a series"
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
        return replace(found, is_chosen=False, problem=str(error))
    return replace(found, geometry=ordered.geometry, n_slices=ordered.geometry.shape[2], notes=ordered.notes)


def _reason(choice: StackChoice, is_chosen: bool, why_not: str) -> str:
    aside = choice.stack.aside
    if is_chosen:
        return f"no primary image is there ({aside})" if aside else "the only primary image"
    return aside if aside else why_not


def _files_in_folder(files: Sequence[Path], has_series: bool) -> list[FoundScan]:
    is_only = len(files) == 1 and not has_series
    reason = "the only image" if is_only else "one of several: name the file"
    return [replace(_file(file), is_chosen=is_only, reason=reason) for file in files]


def _file(path: Path) -> FoundScan:
    found = FoundScan(path, volume_format(path), None, None, "", 1, 0, None)
    try:
        header = read_volume_header(path)
    except ScanError as error:
        return replace(found, problem=str(error))
    shape = header.geometry.shape
    return replace(found, n_files=len(header.files), geometry=header.geometry, n_slices=shape[2], notes=header.notes)


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
