"""What goes with a lesion map: scans of one or several modalities, organs and probabilities, brought onto its grid."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.core.organs import TOTALSEGMENTATOR
from medseg.core.scan import Scan
from medseg.core.semantic import SemanticMap
from medseg.core.volume import Units, Volume
from medseg.errors import ChannelMismatch, GridMismatch, InvalidLabelMap, UnsupportedUnits, UsageError
from medseg.io.json_files import read_json
from medseg.io.label_files import read_semantic
from medseg.io.resample import resample_linear
from medseg.io.scan import load_volume
from medseg.io.volume_files import read_volume_array, volume_stem

__all__ = ["load_channels", "read_organs", "read_probabilities"]

_SLAB_ROWS = 16


def load_channels(
    scans: Sequence[Scan],
    geometry: Geometry,
    units: Sequence[str] = ("auto",),
    names: Sequence[str] = (),
    weight_kg: float | None = None,
) -> Volume:
    """Load scans as the channels of one volume on the grid of a lesion map.

    Parameters
    ----------
    scans
        One or several, each of one channel or more. The first lies on the grid; the others may lie on grids of their
        own and are interpolated linearly, which is noted: a highest value is then that of the interpolated scan.
    geometry
        The grid.
    units
        "auto", "stored" or "suv": one for all scans, or one a scan. "auto": SUV for a DICOM series of PET from which it
        can be had, else as stored.
    names
        Names of the channels, as many as there are, or none: the modality of DICOM, the name of other files.
    weight_kg
        As in `load_volume`.

    Raises
    ------
    GridMismatch
        If the first scan lies on another grid, or another scan does not cover any of it.
    ChannelMismatch
        If there are not as many names as channels.
    UsageError
        If there are not as many units as scans.
    """
    wanted = list(units) * len(scans) if len(units) == 1 else list(units)
    if len(wanted) != len(scans):
        raise UsageError(f"{len(scans)} scan(s) need one unit for all or one each; got {len(wanted)}")
    volumes = [_load(scan, unit, weight_kg) for scan, unit in zip(scans, wanted, strict=True)]
    if not volumes[0].geometry.matches(geometry):
        apart = geometry.largest_displacement_mm(volumes[0].geometry)
        raise GridMismatch(
            f"{scans[0].case_id}: the lesions lie on {geometry!r} and the first scan on {volumes[0].geometry!r}, up to "
            f"{apart:.3g} mm apart; give the scan first that the lesions were found in"
        )
    own_names = [_names_of(scan, volume) for scan, volume in zip(scans, volumes, strict=True)]
    chosen = list(names) if names else [name for each in own_names for name in each]
    n_channels = sum(len(volume.array) for volume in volumes)
    if len(chosen) != n_channels:
        raise ChannelMismatch(f"{n_channels} channel(s) need as many names; got {', '.join(chosen)}")
    if len(volumes) == 1:
        only = volumes[0]
        return Volume(only.array, only.geometry, tuple(chosen), only.notes, check_finite=False, units=only.units)
    placed = [_on_grid(volume, geometry, name[0]) for volume, name in zip(volumes, own_names, strict=True)]
    return Volume(
        np.concatenate([array for array, _ in placed]),
        geometry,
        tuple(chosen),
        tuple(dict.fromkeys(note for _, notes in placed for note in notes)),
        check_finite=False,
        units=tuple(unit for volume in volumes for unit in _units_of(volume)),
    )


def _units_of(volume: Volume) -> list[Units]:
    return ["suv" if unit == "suv" else "stored" for unit in volume.units]


def _load(scan: Scan, unit: str, weight_kg: float | None) -> Volume:
    if unit in get_args(Units):
        return load_volume(scan, units="suv" if unit == "suv" else "stored", weight_kg=weight_kg)
    if unit != "auto":
        raise UsageError(f"units are auto, {' or '.join(get_args(Units))}; got {unit!r}")
    if scan.format != "dicom" or scan.modality != "PT":
        return load_volume(scan, units="stored", weight_kg=weight_kg)
    try:
        return load_volume(scan, units="suv", weight_kg=weight_kg)
    except UnsupportedUnits as error:
        stored = load_volume(scan, units="stored", weight_kg=weight_kg)
        note = f"measured as stored, not in SUV: {error}"
        return Volume(stored.array, stored.geometry, stored.channels, (*stored.notes, note), check_finite=False)


def _names_of(scan: Scan, volume: Volume) -> tuple[str, ...]:
    """Modalities of DICOM; file names of other formats, whose channels have no name."""
    if scan.format == "dicom":
        return volume.channels
    return tuple(volume_stem(files[0]) for files in scan.files)


def _on_grid(volume: Volume, geometry: Geometry, name: str) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    if volume.geometry.matches(geometry):
        return volume.array, volume.notes
    corners = volume.geometry.to_voxel(geometry.to_world(np.array([[0, 0, 0], np.array(geometry.shape) - 1])))
    low, high = corners.min(axis=0), corners.max(axis=0)
    if (high < -0.5).any() or (low > np.array(volume.geometry.shape) - 0.5).any():
        raise GridMismatch(f"{name}: the scan on {volume.geometry!r} covers nothing of the lesions' grid {geometry!r}")
    note = f"{name}: interpolated linearly from {volume.geometry!r} onto the grid of the lesions"
    return resample_linear(volume.array, volume.geometry, geometry), (*volume.notes, note)


def read_organs(
    path: str | PathLike[str], geometry: Geometry, names: str | PathLike[str] | None = None
) -> tuple[SemanticMap, tuple[str, ...]]:
    """Read a map of organs and bring it onto a grid by its nearest voxels.

    Parameters
    ----------
    path
        A volume file of whole numbers.
    geometry
        The grid.
    names
        A JSON file, `{"1": "liver"}` or `{"liver": 1}`, or a CSV file of numbers and names. Without one, the file
        beside the map with its name and .json or .csv; without that, the names of TotalSegmentator version 2.

    Returns
    -------
    The map, and notes on what was done.

    Raises
    ------
    UsageError
        If the file of names cannot be read.
    ScanNotFound, UnreadableImage, InvalidLabelMap, InvalidGeometry
        As `medseg.read_semantic`.
    """
    scheme, notes = _organ_scheme(Path(path), None if names is None else Path(names))
    organs = read_semantic(path, scheme)
    if organs.geometry.matches(geometry):
        return organs, notes
    array = _nearest(organs.array, organs.geometry, geometry)
    note = f"{Path(path).name}: organs taken by nearest voxel from {organs.geometry!r}"
    return SemanticMap(array, geometry, scheme), (*notes, note)


def _organ_scheme(path: Path, names: Path | None) -> tuple[LabelScheme, tuple[str, ...]]:
    beside = [path.parent / f"{volume_stem(path)}{suffix}" for suffix in (".json", ".csv")]
    source = names or next((file for file in beside if file.is_file()), None)
    if source is None:
        return TOTALSEGMENTATOR, (f"{path.name}: organs named as TotalSegmentator 2 numbers them",)
    classes = _names_in_csv(source) if source.suffix.lower() == ".csv" else _names_in_json(source)
    try:
        return LabelScheme(classes=classes), ()
    except ValueError as error:
        raise UsageError(f"{source}: organ names are numbers from 1 and names: {error}") from error


def _names_in_json(path: Path) -> dict[int, str]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UsageError(f'{path}: organ names are an object such as {{"1": "liver"}}; got {type(content).__name__}')
    try:
        return {int(key): str(value) for key, value in content.items()}
    except ValueError:
        pass
    try:
        return {int(value): str(key) for key, value in content.items()}
    except (ValueError, TypeError) as error:
        raise UsageError(f'{path}: organ names are an object such as {{"1": "liver"}} or {{"liver": 1}}') from error


def _names_in_csv(path: Path) -> dict[int, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    body = rows if rows and rows[0][0].strip().isdigit() else rows[1:]
    try:
        return {int(row[0]): row[1].strip() for row in body}
    except (ValueError, IndexError) as error:
        raise UsageError(f"{path}: organ names are lines of a number and a name, as 5,liver") from error


def _nearest(array: NDArray[np.unsignedinteger], source: Geometry, target: Geometry) -> NDArray[np.unsignedinteger]:
    """Numbers at the voxel centers of another grid, 0 beyond the source's voxels."""
    to_source = np.linalg.inv(source.affine) @ target.affine
    result = np.zeros(target.shape, dtype=array.dtype)
    second, third = np.meshgrid(np.arange(target.shape[1]), np.arange(target.shape[2]), indexing="ij")
    for start in range(0, target.shape[0], _SLAB_ROWS):
        first = np.arange(start, min(start + _SLAB_ROWS, target.shape[0]))[:, None, None]
        places = [
            np.rint(row[0] * first + row[1] * second + row[2] * third + row[3]).astype(np.int64)
            for row in to_source[:3]
        ]
        inside = np.logical_and.reduce([(p >= 0) & (p < n) for p, n in zip(places, source.shape, strict=True)])
        i, j, k = (place[inside] for place in places)
        result[start : start + len(first)][inside] = array[i, j, k]
    return result


def read_probabilities(path: str | PathLike[str], geometry: Geometry) -> NDArray[np.float32]:
    """Read a map of probabilities (I, J, K) in 0..1 on a grid, as `medseg segment --save-evidence` writes it.

    Raises
    ------
    GridMismatch
        If it lies on another grid.
    InvalidLabelMap
        If a value is not in 0..1.
    """
    array, own, _ = read_volume_array(Path(path))
    if not own.matches(geometry):
        raise GridMismatch(f"{path}: the probabilities lie on {own!r}, the lesions on {geometry!r}")
    if not (array.min() >= 0.0 and array.max() <= 1.0):
        raise InvalidLabelMap(f"{path}: probabilities lie in 0..1; found {array.min():g}..{array.max():g}")
    return array
