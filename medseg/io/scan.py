"""The first step of every case: from a path to a `Scan`, and from a `Scan` to a `Volume`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.scan import DicomIdentifiers, Scan, ScanFormat
from medseg.core.volume import Units, Volume, count_non_finite
from medseg.errors import (
    AmbiguousSeries,
    ChannelMismatch,
    GridMismatch,
    NonFiniteVoxels,
    ScanNotFound,
    UnreadableImage,
    UsageError,
)
from medseg.io.case_ids import dicom_case_id
from medseg.io.dicom_grid import OrderedStack, order_frames
from medseg.io.dicom_headers import is_dicom
from medseg.io.dicom_pixels import empty_slices, have_same_pixels, read_stack_into
from medseg.io.dicom_series import FolderListing, choose_stack, list_file, list_series
from medseg.io.discover import is_visible_nifti
from medseg.io.hashes import sha256_of_files
from medseg.io.nifti import read_header_geometry, read_nifti_array
from medseg.io.nifti_header import is_nifti_name, nifti_stem
from medseg.io.suv import suv_scale

__all__ = ["hash_inputs", "load_volume", "read_scan"]

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
    layout: OrderedStack | None = None


def read_scan(
    path_or_paths: PathOrPaths,
    series: SeriesChoice | Sequence[SeriesChoice] = None,
    case_id: str | None = None,
    salt: str = "medseg",
    allow_gaps: bool = False,
) -> Scan:
    """Find the scan at a path and read its headers.

    Parameters
    ----------
    path_or_paths
        A NIfTI file, a folder with one NIfTI file, a folder with one DICOM series, or a single DICOM file; several of
        them are the channels of one case, in the model's order.
    series
        Which DICOM series, where a folder holds several: UID, number or description, or "number:stack" where a series
        holds several volumes (`find_scans` lists them); one for all channels, or one a channel.
    case_id
        Name of the case. By default the NIfTI file's name without suffix (relative to the folder that was given), or
        a salted hash of the DICOM UIDs; of the first channel, if there are several.
    salt
        What the hash of a DICOM case is salted with.
    allow_gaps
        Interpolate across missing or irregular slices of a DICOM series, and note it; by default they are refused.

    Returns
    -------
    The scan; its voxels are still on disk.

    Raises
    ------
    ScanNotFound
        If nothing readable lies there, or no series by that name.
    AmbiguousSeries
        If a folder holds several NIfTI files or series and none was chosen.
    GridMismatch
        If the channels do not share one grid.
    UnreadableImage, UnsupportedDimensions, InvalidGeometry, IncompleteSeries
        If a file or series cannot be used.
    UsageError
        If the channels are of different formats, or there are not as many choices as channels.
    """
    paths = [path_or_paths] if isinstance(path_or_paths, str | PathLike) else list(path_or_paths)
    if not paths:
        raise UsageError("a scan needs at least one path; got an empty list")
    choices = _one_a_channel(series, len(paths), "series")
    channels = [
        _read_channel(Path(path), choice, salt, allow_gaps) for path, choice in zip(paths, choices, strict=True)
    ]
    _check_one_case(channels)
    first = channels[0]
    return Scan(
        case_id=first.default_case_id if case_id is None else case_id,
        files=tuple(channel.files for channel in channels),
        format=first.format,
        geometry=first.geometry,
        modality=first.modality,
        dicom=tuple(channel.identifiers for channel in channels if channel.identifiers is not None),
        layouts=tuple(channel.layout for channel in channels if channel.layout is not None),
    )


def load_volume(
    scan: Scan,
    units: Units | Sequence[Units] = "stored",
    nan_as: float | None = None,
    weight_kg: float | None = None,
) -> Volume:
    """Load the voxels of a scan.

    Parameters
    ----------
    scan
        What `read_scan` returned.
    units
        "stored": after the rescale slope (HU, Bq/ml, ...); "suv": SUVbw, for PET. One for all channels, or one a
        channel. A NIfTI file does not name its unit, so "suv" takes it on trust and adds a note.
    nan_as
        What to fill NaN and infinite voxels with; None refuses them.
    weight_kg
        The patient's weight for SUV, where the series does not say it, or says it wrongly.

    Returns
    -------
    The volume (C, I, J, K) float32, on the scan's grid.

    Raises
    ------
    NonFiniteVoxels
        If voxels are NaN or infinite and `nan_as` is None.
    UnsupportedUnits
        If a DICOM series has no SUV.
    UnreadableImage
        If a file is damaged.
    ChannelMismatch
        If there are not as many units as channels.
    UsageError
        If a unit is unknown, or `nan_as` is not a finite number.
    """
    wanted = _checked_units(units, scan)
    if nan_as is not None and not np.isfinite(nan_as):
        raise UsageError(f"nan_as must be a finite number; got {nan_as}")
    array = _empty_array(scan)
    notes: list[str] = []
    for channel, (files, unit) in enumerate(zip(scan.files, wanted, strict=True)):
        if scan.format == "nifti":
            array[channel], read_notes = _load_nifti(scan, channel, unit)
        else:
            read_notes = _load_dicom_into(array[channel], scan, channel, unit, weight_kg)
        notes += [*read_notes, *_filled_notes(array[channel], nan_as, files, scan.case_id)]
    return Volume(array, scan.geometry, _channel_names(scan), tuple(notes))


def hash_inputs(scan: Scan) -> tuple[str, ...]:
    """One SHA-256 a channel: of its file, or over the hashes of its slices in slice order."""
    return tuple(sha256_of_files(files) for files in scan.files)


def _read_channel(path: Path, series: SeriesChoice, salt: str, allow_gaps: bool) -> _Channel:
    if path.is_dir():
        return _channel_in_folder(path, series, salt, allow_gaps)
    if not path.exists():
        raise ScanNotFound(f"{path} does not exist; expected a NIfTI file or a folder")
    if is_nifti_name(path):
        if series is not None:
            raise UsageError(f"{path} is a NIfTI file; series {series!r} can be chosen in a DICOM folder only")
        return _nifti_channel(path, nifti_stem(path))
    if is_dicom(path):
        return _dicom_channel(list_file(path), series, salt, allow_gaps)
    raise UnreadableImage(
        f"{path} is neither NIfTI (.nii, .nii.gz) nor DICOM; medseg reads NIfTI files and DICOM folders"
    )


def _channel_in_folder(folder: Path, series: SeriesChoice, salt: str, allow_gaps: bool) -> _Channel:
    listing = list_series(folder)
    nifti_files = [path for path in listing.other_files if is_visible_nifti(path, folder)]
    if series is None and len(nifti_files) == 1 and not listing.series:
        relative = nifti_files[0].relative_to(folder)
        return _nifti_channel(nifti_files[0], relative.with_name(nifti_stem(relative)).as_posix())
    if series is None and nifti_files:
        raise AmbiguousSeries(_describe_choices(folder, nifti_files, listing))
    return _dicom_channel(listing, series, salt, allow_gaps)


def _describe_choices(folder: Path, nifti_files: Sequence[Path], listing: FolderListing) -> str:
    names = [f"  {path.relative_to(folder)}" for path in nifti_files[:20]]
    more = [f"  ... and {len(nifti_files) - 20} more"] if len(nifti_files) > 20 else []
    series = [f"  DICOM series {candidate}" for candidate in listing.choices]
    head = f"{folder} holds {len(nifti_files)} NIfTI file(s) and {len(listing.series)} DICOM series; name one of them"
    return "\n".join([head, *names, *more, *series])


def _nifti_channel(path: Path, name: str) -> _Channel:
    return _Channel(name, (path,), "nifti", read_header_geometry(path))


def _dicom_channel(listing: FolderListing, series: SeriesChoice, salt: str, allow_gaps: bool) -> _Channel:
    choice = choose_stack(listing, series)
    name = f"series {choice} in {choice.series.first.path.parent}"
    stack = order_frames(choice.stack.frames, name, are_same=have_same_pixels, allow_gaps=allow_gaps)
    first = stack.frames[0].file
    number = f":{choice.number}" if len(choice.series.stacks) > 1 else ""  # two volumes of one series are two cases
    return _Channel(
        default_case_id=dicom_case_id(salt, first.study_uid, f"{first.series_uid}{number}"),
        files=tuple(dict.fromkeys(frame.file.path for frame in stack.frames)),
        format="dicom",
        geometry=stack.geometry,
        modality=first.modality or None,
        identifiers=DicomIdentifiers(first.study_uid, first.series_uid, first.frame_of_reference_uid, first.units),
        layout=stack,
    )


def _check_one_case(channels: Sequence[_Channel]) -> None:
    first = channels[0]
    for channel in channels[1:]:
        if channel.format != first.format:
            raise UsageError(f"channels must all be NIfTI or all DICOM; {first.files[0]} and {channel.files[0]} differ")
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


def _load_nifti(scan: Scan, channel: int, unit: Units) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    path = scan.files[channel][0]
    array, geometry, notes = read_nifti_array(path)
    if not scan.geometry.matches(geometry):
        raise GridMismatch(f"{scan.case_id}: {path} has changed since its header was read; read the scan again")
    on_trust = (f"{path.name}: taken as SUV on trust; NIfTI names no unit",) if unit == "suv" else ()
    return array, (*notes, *on_trust)


def _empty_array(scan: Scan) -> NDArray[np.float32]:
    """(C, I, J, K) float32, laid out in memory as the format stores its voxels: DICOM slice by slice."""
    if scan.format == "nifti":
        return np.empty((scan.n_channels, *scan.geometry.shape), dtype=np.float32)
    return empty_slices((scan.n_channels, *scan.geometry.shape[::-1])).transpose(0, 3, 2, 1)


def _load_dicom_into(
    array: NDArray[np.float32], scan: Scan, channel: int, unit: Units, weight_kg: float | None
) -> tuple[str, ...]:
    """Fill one channel, and say what was done beside reading and rescaling it."""
    stack = _layout(scan, channel)
    scale = suv_scale(scan.files[channel], weight_kg) if unit == "suv" else None
    read_stack_into(stack, array)
    if scale is None or scale.note is None:
        return stack.notes
    array /= np.float32(scale.stored_per_suv)
    return (*stack.notes, scale.note)


def _layout(scan: Scan, channel: int) -> OrderedStack:
    layout = scan.layouts[channel] if channel < len(scan.layouts) else None
    if not isinstance(layout, OrderedStack):
        raise UsageError(f"{scan.case_id} does not say where its slices are stored; read it with read_scan")
    return layout


def _filled_notes(
    array: NDArray[np.float32], nan_as: float | None, files: Sequence[Path], case_id: str
) -> tuple[str, ...]:
    """Fill NaN and infinity in place, and say so; or refuse them."""
    n_bad = count_non_finite(array)
    if not n_bad:
        return ()
    where = files[0] if len(files) == 1 else files[0].parent
    if nan_as is None:
        raise NonFiniteVoxels(
            f"{case_id}: {n_bad} of {array.size} voxels of {where} are NaN or infinite; medseg does not guess them "
            "(--nan-as VALUE fills them)"
        )
    array[~np.isfinite(array)] = nan_as
    return (f"filled {n_bad} NaN or infinite voxels with {nan_as:g}",)


def _channel_names(scan: Scan) -> tuple[str, ...]:
    """The DICOM modality of each channel, or "channel_0", ... where the format names none."""
    if scan.format == "nifti":
        return tuple(f"channel_{number}" for number in range(scan.n_channels))
    modalities = (_layout(scan, number).frames[0].file.modality for number in range(scan.n_channels))
    return tuple(modality or f"channel_{number}" for number, modality in enumerate(modalities))
