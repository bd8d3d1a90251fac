"""The first step of every case: from a path to a `Scan`, and from a `Scan` to a `Volume`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from medseg.core.scan import Scan
from medseg.core.volume import Units, Volume, count_non_finite
from medseg.errors import ChannelMismatch, GridMismatch, NonFiniteVoxels, UsageError
from medseg.io.channels import Channel, SeriesChoice, read_channel
from medseg.io.dicom_grid import OrderedStack
from medseg.io.dicom_pixels import read_stack_into
from medseg.io.hashes import sha256_of_files
from medseg.io.memory import check_fits_memory
from medseg.io.slice_memory import empty_slices
from medseg.io.suv import SuvScale, suv_scale
from medseg.io.suv_enhanced import enhanced_suv_scale, is_enhanced_pet
from medseg.io.volume_files import read_volume_header
from medseg.io.volume_header import read_float_voxels_into

__all__ = ["hash_inputs", "load_volume", "read_scan", "scan_of"]

_FORMAT_NAMES = {"nifti": "NIfTI", "nrrd": "NRRD", "metaimage": "MetaImage"}

PathOrPaths = str | PathLike[str] | Sequence[str | PathLike[str]]


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
        A volume file (NIfTI, NRRD, MetaImage), a folder with one, a folder with one DICOM series, a single DICOM file,
        or a zip or tar of such a folder; several of them are the channels of one case, in the model's order. An
        archive is unpacked into a private temporary folder that is removed when Python ends.
    series
        Which DICOM series, where a folder holds several: UID, number or description, or "number:stack" where a series
        holds several volumes (`find_scans` lists them); one for all channels, or one a channel.
    case_id
        Name of the case. By default the volume file's name without suffix (relative to the folder or archive that was
        given), or a salted hash of the DICOM UIDs; of the first channel, if there are several.
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
    return scan_of(
        [read_channel(Path(path), choice, salt, allow_gaps) for path, choice in zip(paths, choices, strict=True)],
        case_id,
    )


def scan_of(channels: Sequence[Channel], case_id: str | None = None) -> Scan:
    """The case that channels make, named by the first of them unless a name is given.

    Raises
    ------
    GridMismatch
        If the channels do not share one grid.
    UsageError
        If they are of different formats.
    """
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
        notes=tuple(dict.fromkeys(note for channel in channels for note in channel.notes)),
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
        channel. A volume file does not name its unit, so "suv" takes it on trust and adds a note.
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
    array = _empty_array(scan)
    notes = list(scan.notes)
    for channel, (files, unit) in enumerate(zip(scan.files, wanted, strict=True)):
        if scan.format == "dicom":
            n_bad, read_notes = _load_dicom_into(array[channel], scan, channel, unit, weight_kg)
        else:
            read_notes = _load_file_into(array[channel], scan, channel, unit)
            n_bad = count_non_finite(array[channel])
        notes += [*read_notes, *_filled_notes(array[channel], n_bad, nan_as, files, scan.case_id)]
    return Volume(array, scan.geometry, _channel_names(scan), tuple(notes), check_finite=False, units=wanted)


def hash_inputs(scan: Scan) -> tuple[str, ...]:
    """One SHA-256 a channel: of its file, or over the hashes of its slices in slice order."""
    return tuple(sha256_of_files(files) for files in scan.files)


def _check_one_case(channels: Sequence[Channel]) -> None:
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


def _load_file_into(array: NDArray[np.float32], scan: Scan, channel: int, unit: Units) -> tuple[str, ...]:
    path = scan.files[channel][0]
    header = read_volume_header(path)
    if not scan.geometry.matches(header.geometry):
        raise GridMismatch(f"{scan.case_id}: {path} has changed since its header was read; read the scan again")
    notes = read_float_voxels_into(header, array)
    on_trust = (
        (f"{path.name}: taken as SUV on trust; {_FORMAT_NAMES[scan.format]} names no unit",) if unit == "suv" else ()
    )
    return (*header.notes, *(note for note in notes if note not in header.notes), *on_trust)


def _empty_array(scan: Scan) -> NDArray[np.float32]:
    """(C, I, J, K) float32, laid out in memory as all formats store their voxels: slice by slice, I running fastest."""
    return empty_slices((scan.n_channels, *scan.geometry.shape[::-1])).transpose(0, 3, 2, 1)


def _load_dicom_into(
    array: NDArray[np.float32], scan: Scan, channel: int, unit: Units, weight_kg: float | None
) -> tuple[int, tuple[str, ...]]:
    """Fill one channel: how many voxels are NaN or infinite, and what was done beside reading and rescaling."""
    stack = _layout(scan, channel)
    scale = _suv_scale(stack, scan.files[channel], weight_kg) if unit == "suv" else None
    if scale is None or scale.note is None:
        return read_stack_into(stack, array), stack.notes
    n_bad = read_stack_into(stack, array, divisor=np.float32(scale.stored_per_suv))
    return n_bad, (*stack.notes, scale.note)


def _suv_scale(stack: OrderedStack, files: Sequence[Path], weight_kg: float | None) -> SuvScale:
    if is_enhanced_pet(stack.frames[0]):
        return enhanced_suv_scale(stack.frames, weight_kg)
    return suv_scale(files, weight_kg)


def _layout(scan: Scan, channel: int) -> OrderedStack:
    layout = scan.layouts[channel] if channel < len(scan.layouts) else None
    if not isinstance(layout, OrderedStack):
        raise UsageError(f"{scan.case_id} does not say where its slices are stored; read it with read_scan")
    return layout


def _filled_notes(
    array: NDArray[np.float32], n_bad: int, nan_as: float | None, files: Sequence[Path], case_id: str
) -> tuple[str, ...]:
    """Fill the NaN and infinite voxels, `n_bad` of them, in place, and say so; or refuse them."""
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
    if scan.format != "dicom":
        return tuple(f"channel_{number}" for number in range(scan.n_channels))
    modalities = (_layout(scan, number).frames[0].file.modality for number in range(scan.n_channels))
    return tuple(modality or f"channel_{number}" for number, modality in enumerate(modalities))
