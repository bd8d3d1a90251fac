"""The first step of every case: from a path to a `Scan`, and from a `Scan` to a `Volume`."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.scan import DicomIdentifiers, Scan, ScanFormat
from medseg.core.volume import Units, Volume
from medseg.errors import (
    AmbiguousSeries,
    ChannelMismatch,
    GridMismatch,
    MedsegError,
    NonFiniteVoxels,
    UnreadableImage,
    UnsupportedDimensions,
    UsageError,
)
from medseg.io.archive import is_archive, unpack_until_exit
from medseg.io.case_ids import dicom_case_id
from medseg.io.dicom_headers import is_dicom, read_tags
from medseg.io.dicom_series import FolderListing, choose_series, list_series, order_slices, read_series_array
from medseg.io.file_tree import walk_files
from medseg.io.foreign_content import describe_foreign
from medseg.io.hashes import sha256_of_files
from medseg.io.memory import check_fits_memory
from medseg.io.suv import suv_scale
from medseg.io.volume_files import (
    SUFFIXES,
    is_volume_file,
    is_volume_name,
    read_volume_array,
    read_volume_header,
    volume_format,
    volume_stem,
)
from medseg.io.voxel_bytes import check_plain_file, read_head

__all__ = ["hash_inputs", "load_volume", "read_scan"]

_FORMAT_NAMES = {"nifti": "NIfTI", "nrrd": "NRRD", "metaimage": "MetaImage"}

PathOrPaths = str | PathLike[str] | Sequence[str | PathLike[str]]
SeriesChoice = str | int | None


@dataclass(frozen=True, eq=False)
class _Channel:
    """One channel on disk, and the name that it would give its case."""

    default_case_id: str
    files: tuple[Path, ...]
    format: ScanFormat
    geometry: Geometry
    modality: str | None = None
    identifiers: DicomIdentifiers | None = None


def read_scan(
    path_or_paths: PathOrPaths,
    series: SeriesChoice | Sequence[SeriesChoice] = None,
    case_id: str | None = None,
    salt: str = "medseg",
) -> Scan:
    """Find the scan at a path and read its headers.

    Parameters
    ----------
    path_or_paths
        A volume file (NIfTI, NRRD, MetaImage), a folder with one, a folder with one DICOM series, or a zip or tar of
        such a folder; several of them are the channels of one case, in the model's order. An archive is unpacked into
        a private temporary folder that is removed when Python ends.
    series
        Which DICOM series, where a folder holds several: UID, number or description; one for all channels, or one a
        channel.
    case_id
        Name of the case. By default the volume file's name without suffix (relative to the folder or archive that was
        given), or a salted hash of the DICOM UIDs; of the first channel, if there are several.
    salt
        What the hash of a DICOM case is salted with.

    Returns
    -------
    The scan; its voxels are still on disk.

    Raises
    ------
    ScanNotFound
        If nothing readable lies there, or no series by that name.
    AmbiguousSeries
        If a folder holds several volume files or series and none was chosen.
    GridMismatch
        If the channels do not share one grid.
    UnreadableImage, UnsupportedDimensions, InvalidGeometry, IncompleteSeries
        If a file or series cannot be used, or an archive has lost a part of it.
    UnsafeArchive
        If an archive goes beyond the limits of `medseg.io.archive.ArchiveLimits`.
    UsageError
        If the channels are of different formats, or there are not as many choices as channels.
    """
    paths = [path_or_paths] if isinstance(path_or_paths, str | PathLike) else list(path_or_paths)
    if not paths:
        raise UsageError("a scan needs at least one path; got an empty list")
    choices = _one_a_channel(series, len(paths), "series")
    channels = [_read_channel(Path(path), choice, salt) for path, choice in zip(paths, choices, strict=True)]
    _check_one_case(channels)
    first = channels[0]
    return Scan(
        case_id=first.default_case_id if case_id is None else case_id,
        files=tuple(channel.files for channel in channels),
        format=first.format,
        geometry=first.geometry,
        modality=first.modality,
        dicom=tuple(channel.identifiers for channel in channels if channel.identifiers is not None),
    )


def load_volume(scan: Scan, units: Units | Sequence[Units] = "stored", nan_as: float | None = None) -> Volume:
    """Load the voxels of a scan.

    Parameters
    ----------
    scan
        What `read_scan` returned.
    units
        "stored": after the rescale slope (HU, Bq/ml, ...); "suv": SUVbw, for PET. One for all channels, or one a
        channel. A volume file does not name its unit, so "suv" takes it on trust and adds a note.
    nan_as
        What to fill NaN and infinite voxels with; None refuses them.

    Returns
    -------
    The volume (C, I, J, K) float32, on the scan's grid.

    Raises
    ------
    NonFiniteVoxels
        If voxels are NaN or infinite and `nan_as` is None.
    UnsupportedUnits
        If a DICOM series has no SUV.
    UnreadableImage, ScanTooLarge
        If a file is damaged, or the voxels do not fit into memory.
    ChannelMismatch
        If there are not as many units as channels.
    UsageError
        If a unit is unknown, or `nan_as` is not a finite number.
    """
    wanted = _checked_units(units, scan)
    if nan_as is not None and not np.isfinite(nan_as):
        raise UsageError(f"nan_as must be a finite number; got {nan_as}")
    check_fits_memory(4 * scan.n_channels * math.prod(scan.geometry.shape), scan.case_id)
    array = np.empty((scan.n_channels, *scan.geometry.shape), dtype=np.float32)
    notes: list[str] = []
    for channel, (files, unit) in enumerate(zip(scan.files, wanted, strict=True)):
        read = _load_dicom if scan.format == "dicom" else _load_file
        array[channel], read_notes = read(scan, channel, unit)
        notes += [*read_notes, *_filled_notes(array[channel], nan_as, files, scan.case_id)]
    return Volume(array, scan.geometry, _channel_names(scan), tuple(notes))


def hash_inputs(scan: Scan) -> tuple[str, ...]:
    """One SHA-256 a channel: of its file, or over the hashes of its slices in slice order."""
    return tuple(sha256_of_files(files) for files in scan.files)


def _read_channel(path: Path, series: SeriesChoice, salt: str) -> _Channel:
    if os.path.isdir(path):  # Path.is_dir fails for names too long
        return _channel_in_folder(path, series, salt)
    check_plain_file(path, "a volume file, an archive or a folder")
    if is_volume_name(path):
        return _named_file_channel(path, series)
    if is_dicom(path):
        raise UnsupportedDimensions(f"{path} is one DICOM file, hence one slice; give the folder of its series")
    if volume_format(path) is not None:
        return _named_file_channel(path, series)
    if is_archive(path):
        return _channel_in_archive(path, series, salt)
    raise UnreadableImage(
        f"{path} is neither a volume ({SUFFIXES}) nor DICOM; it is {describe_foreign(read_head(path, 544))}"
    )


def _named_file_channel(path: Path, series: SeriesChoice) -> _Channel:
    if series is not None:
        raise UsageError(f"{path} is one volume; series {series!r} can be chosen in a DICOM folder only")
    return _file_channel(path, volume_stem(path))


def _channel_in_archive(archive: Path, series: SeriesChoice, salt: str) -> _Channel:
    unpacked = unpack_until_exit(archive)
    lost = [f"{member.name} ({member.reason})" for member in unpacked.damaged]
    more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
    losses = f"{len(lost)} file(s) could not be unpacked: {', '.join(lost[:5])}{more}" if lost else ""
    try:
        channel = _channel_in_folder(unpacked.folder, series, salt)
    except MedsegError as error:
        told = str(error).replace(str(unpacked.folder), str(archive))
        raise type(error)(f"{told}. {losses}" if losses else told) from error
    if lost and (channel.format == "dicom" or any(is_volume_name(member.name) for member in unpacked.damaged)):
        raise UnreadableImage(f"{archive}: {losses}. They may be part of the scan; fetch the archive anew")
    return channel


def _channel_in_folder(folder: Path, series: SeriesChoice, salt: str) -> _Channel:
    volume_files = sorted(path for path in walk_files(folder) if is_volume_file(path))
    listing = list_series(folder)
    if series is None and len(volume_files) == 1 and not listing.series:
        relative = volume_files[0].relative_to(folder)
        return _file_channel(volume_files[0], relative.with_name(volume_stem(relative)).as_posix())
    if series is None and volume_files:
        raise AmbiguousSeries(_describe_choices(folder, volume_files, listing))
    return _dicom_channel(listing, series, salt)


def _describe_choices(folder: Path, volume_files: Sequence[Path], listing: FolderListing) -> str:
    names = [f"  {path.relative_to(folder)}" for path in volume_files[:20]]
    more = [f"  ... and {len(volume_files) - 20} more"] if len(volume_files) > 20 else []
    series = [f"  DICOM series {candidate}" for candidate in listing.series]
    head = f"{folder} holds {len(volume_files)} volume file(s) and {len(listing.series)} DICOM series; name one of them"
    return "\n".join([head, *names, *more, *series])


def _file_channel(path: Path, name: str) -> _Channel:
    header = read_volume_header(path)
    return _Channel(name, header.files, header.format, header.geometry)


def _dicom_channel(listing: FolderListing, choice: SeriesChoice, salt: str) -> _Channel:
    ordered = order_slices(choose_series(listing, choice))
    first = ordered.slices[0]
    return _Channel(
        default_case_id=dicom_case_id(salt, first.study_uid, first.series_uid),
        files=ordered.files,
        format="dicom",
        geometry=ordered.geometry,
        modality=first.modality or None,
        identifiers=DicomIdentifiers(first.study_uid, first.series_uid, first.frame_of_reference_uid, first.units),
    )


def _check_one_case(channels: Sequence[_Channel]) -> None:
    first = channels[0]
    for channel in channels[1:]:
        if channel.format != first.format:
            raise UsageError(f"channels must all be of one format; {first.files[0]} and {channel.files[0]} differ")
        if not first.geometry.matches(channel.geometry):
            distance = first.geometry.largest_displacement_mm(channel.geometry)
            raise GridMismatch(
                f"channels must share one grid; {first.files[0]} is on {first.geometry!r}, {channel.files[0]} on "
                f"{channel.geometry!r}, up to {distance:.3g} mm apart. Resample them to one grid first"
            )


def _one_a_channel(value: SeriesChoice | Sequence[SeriesChoice], n_channels: int, what: str) -> Sequence[SeriesChoice]:
    if value is None or isinstance(value, str | int):
        return [value] * n_channels
    if len(value) != n_channels:
        raise UsageError(f"{n_channels} channel(s) need one {what} for all or one each; got {len(value)}")
    return value


def _checked_units(units: Units | Sequence[Units], scan: Scan) -> Sequence[Units]:
    wanted: Sequence[Units] = [units] * scan.n_channels if isinstance(units, str) else units
    unknown = sorted(set(wanted) - set(get_args(Units)))
    if unknown:
        raise UsageError(f"units are {' or '.join(get_args(Units))}; got {', '.join(map(repr, unknown))}")
    if len(wanted) != scan.n_channels:
        raise ChannelMismatch(f"{scan.case_id} has {scan.n_channels} channel(s); {len(wanted)} unit(s) were asked for")
    return wanted


def _load_file(scan: Scan, channel: int, unit: Units) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    path = scan.files[channel][0]
    array, geometry, notes = read_volume_array(path)
    if not scan.geometry.matches(geometry):
        raise GridMismatch(f"{scan.case_id}: {path} has changed since its header was read; read the scan again")
    on_trust = (
        (f"{path.name}: taken as SUV on trust; {_FORMAT_NAMES[scan.format]} names no unit",) if unit == "suv" else ()
    )
    return array, (*notes, *on_trust)


def _load_dicom(scan: Scan, channel: int, unit: Units) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    files = scan.files[channel]
    scale = suv_scale(files) if unit == "suv" else None
    array = read_series_array(files, scan.geometry.shape)
    if scale is None or scale.note is None:
        return array, ()
    return array / np.float32(scale.stored_per_suv), (scale.note,)


def _filled_notes(
    array: NDArray[np.float32], nan_as: float | None, files: Sequence[Path], case_id: str
) -> tuple[str, ...]:
    """Fill NaN and infinity in place, and say so; or refuse them."""
    bad = ~np.isfinite(array)
    n_bad = int(np.count_nonzero(bad))
    if not n_bad:
        return ()
    where = files[0] if len(files) == 1 else files[0].parent
    if nan_as is None:
        raise NonFiniteVoxels(
            f"{case_id}: {n_bad} of {array.size} voxels of {where} are NaN or infinite; medseg does not guess them "
            "(--nan-as VALUE fills them)"
        )
    array[bad] = nan_as
    return (f"filled {n_bad} NaN or infinite voxels with {nan_as:g}",)


def _channel_names(scan: Scan) -> tuple[str, ...]:
    """The DICOM modality of each channel, or "channel_0", ... where the format names none."""
    if scan.format != "dicom":
        return tuple(f"channel_{number}" for number in range(scan.n_channels))
    modalities = (str(read_tags(files[0], ["Modality"]).get("Modality", "")) for files in scan.files)
    return tuple(modality or f"channel_{number}" for number, modality in enumerate(modalities))
