"""One channel of a case on disk: a volume file, one stack of DICOM slices, or either in a folder or an archive."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.core.geometry import Geometry
from medseg.core.scan import DicomIdentifiers, ScanFormat
from medseg.errors import AmbiguousSeries, MedsegError, UnreadableImage, UsageError
from medseg.io.archive import UnpackedArchive, is_archive, unpack_until_exit
from medseg.io.case_ids import dicom_case_id
from medseg.io.dicom_grid import OrderedStack, order_frames
from medseg.io.dicom_headers import is_dicom
from medseg.io.dicom_pixels import have_same_pixels
from medseg.io.dicom_series import FolderListing, StackChoice, choose_stack, list_file, list_series
from medseg.io.foreign_content import describe_foreign
from medseg.io.volume_files import (
    SUFFIXES,
    is_volume_file,
    is_volume_name,
    read_volume_header,
    volume_format,
    volume_stem,
)
from medseg.io.voxel_bytes import check_plain_file, read_head

__all__ = [
    "Channel",
    "SeriesChoice",
    "file_channel",
    "foreign_file",
    "lost_members",
    "meant_folder",
    "name_in_folder",
    "read_channel",
    "stack_channel",
]

SeriesChoice = str | int | None

_HEAD_BYTES = 544


@dataclass(frozen=True, eq=False)
class Channel:
    """One channel on disk, and the name that it would give its case."""

    default_case_id: str
    files: tuple[Path, ...]
    format: ScanFormat
    geometry: Geometry
    modality: str | None = None
    identifiers: DicomIdentifiers | None = None
    layout: OrderedStack | None = None
    notes: tuple[str, ...] = ()


def read_channel(path: Path, series: SeriesChoice, salt: str, allow_gaps: bool) -> Channel:
    """The one channel at a path; errors as `medseg.read_scan`."""
    path = meant_folder(path)
    if os.path.isdir(path):  # Path.is_dir fails for names too long
        return _channel_in_folder(path, series, salt, allow_gaps)
    check_plain_file(path, "a volume file, an archive or a folder")
    if is_volume_name(path):
        return _named_file_channel(path, series)
    if is_dicom(path):
        return _dicom_channel(list_file(path), series, salt, allow_gaps)
    if volume_format(path) is not None:
        return _named_file_channel(path, series)
    if is_archive(path):
        return _channel_in_archive(path, series, salt, allow_gaps)
    raise foreign_file(path)


def meant_folder(path: Path) -> Path:
    """The folder of a DICOMDIR, which is only a list of its files; any other path itself."""
    return path.parent if path.name.upper() == "DICOMDIR" and os.path.isfile(path) else path


def foreign_file(path: Path) -> UnreadableImage:
    """The error for a file that is no image, saying what it is."""
    what = describe_foreign(read_head(path, _HEAD_BYTES))
    return UnreadableImage(f"{path} is neither a volume ({SUFFIXES}) nor DICOM; it is {what}")


def file_channel(path: Path, name: str) -> Channel:
    """The channel of a volume file, by its header."""
    header = read_volume_header(path)
    return Channel(name, header.files, header.format, header.geometry)


def stack_channel(choice: StackChoice, salt: str, allow_gaps: bool) -> Channel:
    """The channel of one stack of DICOM frames: ordered, and proven to be a volume."""
    name = f"series {choice} in {choice.series.first.path.parent}"
    stack = order_frames(choice.stack.frames, name, are_same=have_same_pixels, allow_gaps=allow_gaps)
    first = stack.frames[0].file
    number = f":{choice.number}" if len(choice.series.stacks) > 1 else ""  # two volumes of one series are two cases
    return Channel(
        default_case_id=dicom_case_id(salt, first.study_uid, f"{first.series_uid}{number}"),
        files=tuple(dict.fromkeys(frame.file.path for frame in stack.frames)),
        format="dicom",
        geometry=stack.geometry,
        modality=first.modality or None,
        identifiers=DicomIdentifiers(first.study_uid, first.series_uid, first.frame_of_reference_uid, first.units),
        layout=stack,
    )


def name_in_folder(path: Path, folder: Path) -> str:
    """What a volume file names its case: its path within the folder, without suffix."""
    relative = path.relative_to(folder)
    return relative.with_name(volume_stem(relative)).as_posix()


def lost_members(unpacked: UnpackedArchive) -> str:
    """What could not be unpacked, as a sentence; empty if nothing was lost."""
    lost = [f"{member.name} ({member.reason})" for member in unpacked.damaged]
    more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
    return f"{len(lost)} file(s) could not be unpacked: {', '.join(lost[:5])}{more}" if lost else ""


def _named_file_channel(path: Path, series: SeriesChoice) -> Channel:
    if series is not None:
        raise UsageError(f"{path} is one volume; series {series!r} can be chosen in a DICOM folder only")
    return file_channel(path, volume_stem(path))


def _channel_in_archive(archive: Path, series: SeriesChoice, salt: str, allow_gaps: bool) -> Channel:
    unpacked = unpack_until_exit(archive)
    losses = lost_members(unpacked)
    try:
        channel = _channel_in_folder(unpacked.folder, series, salt, allow_gaps)
    except MedsegError as error:
        told = str(error).replace(str(unpacked.folder), str(archive))
        raise type(error)(f"{told}. {losses}" if losses else told) from error
    if losses and (channel.format == "dicom" or any(is_volume_name(member.name) for member in unpacked.damaged)):
        raise UnreadableImage(f"{archive}: {losses}. They may be part of the scan; fetch the archive anew")
    return replace(channel, notes=unpacked.notes)


def _channel_in_folder(folder: Path, series: SeriesChoice, salt: str, allow_gaps: bool) -> Channel:
    listing = list_series(folder)
    volume_files = [path for path in listing.other_files if is_volume_file(path)]
    if series is None and len(volume_files) == 1 and not listing.series:
        return file_channel(volume_files[0], name_in_folder(volume_files[0], folder))
    if series is None and volume_files:
        raise AmbiguousSeries(_describe_choices(folder, volume_files, listing))
    return _dicom_channel(listing, series, salt, allow_gaps)


def _describe_choices(folder: Path, volume_files: Sequence[Path], listing: FolderListing) -> str:
    names = [f"  {path.relative_to(folder)}" for path in volume_files[:20]]
    more = [f"  ... and {len(volume_files) - 20} more"] if len(volume_files) > 20 else []
    series = [f"  DICOM series {candidate}" for candidate in listing.choices]
    head = f"{folder} holds {len(volume_files)} volume file(s) and {len(listing.series)} DICOM series; name one of them"
    return "\n".join([head, *names, *more, *series])


def _dicom_channel(listing: FolderListing, series: SeriesChoice, salt: str, allow_gaps: bool) -> Channel:
    return stack_channel(choose_stack(listing, series), salt, allow_gaps)
