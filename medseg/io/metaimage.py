"""MetaImage headers (.mha, .mhd), read strictly, by the conventions of ITK.

Positions are LPS millimeters. Each line of the TransformMatrix is the direction of one axis; without the field the
axes are those of the patient, as the format's standard says, and an absent Offset is zero: both leave a note. A file
without ElementSpacing is refused. See https://itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

import math
import sys
from os import PathLike
from pathlib import Path

import numpy as np

from medseg.core.geometry import Geometry
from medseg.errors import InvalidGeometry, UnreadableImage, UnsupportedDimensions
from medseg.io.foreign_content import describe_foreign
from medseg.io.text_header import (
    LONGEST_HEADER,
    axis_sizes,
    detached_file,
    finite_numbers,
    grid_of,
    place_numbers,
    read_text_head,
    voxel_type,
    whole_number,
)
from medseg.io.volume_header import VolumeHeader
from medseg.io.voxel_bytes import VoxelSource, check_plain_file, check_promise

__all__ = ["FIRST_KEYS", "read_metaimage_header"]

FIRST_KEYS = (b"ObjectType", b"NDims", b"Comment")
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",  # 4 bytes in MetaIO, whatever the machine's long has
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_OTHER_SPELLINGS = {
    "Position": "Offset",
    "Origin": "Offset",
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
    "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}
_UNIT_TOLERANCE = 1e-3
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

Fields = dict[str, str]


def read_metaimage_header(path: str | PathLike[str]) -> VolumeHeader:
    """Read and check the header of a MetaImage file; no voxels.

    Raises
    ------
    ScanNotFound
        If there is no such file, or not the file of its voxels.
    UnreadableImage
        If it is not MetaImage, damaged, shorter than its header says, or stored in a way that is not read.
    UnsupportedDimensions
        If it is not one 3-D volume of plain numbers (a fourth axis of size 1 is dropped with a note).
    InvalidGeometry
        If its spacing or its axes are unusable.
    """
    file = Path(path)
    check_plain_file(file, "a MetaImage file")
    fields, data_offset = _fields(read_text_head(file), file)
    dtype = _dtype(fields, file)
    sizes = _sizes(fields, file)
    geometry, notes = _geometry(fields, sizes, file)
    source = _source(fields, data_offset, dtype.itemsize * math.prod(sizes), file)
    return VolumeHeader(file, "metaimage", geometry, dtype, source, notes=(*notes, *check_promise(source)))


def _fields(head: bytes, path: Path) -> tuple[Fields, int]:
    """The fields by name, and where the header ends: after the line of ElementDataFile, always the last."""
    if not head.startswith(FIRST_KEYS):
        raise UnreadableImage(f"{path} is not a MetaImage file: it is {describe_foreign(head)}")
    fields: Fields = {}
    start = 0
    while "ElementDataFile" not in fields:
        stop = head.find(b"\n", start)
        if stop < 0 and len(head) > LONGEST_HEADER:
            raise UnreadableImage(f"{path} has a damaged MetaImage header: no end within {LONGEST_HEADER >> 20} MiB")
        line = head[start : stop if stop >= 0 else len(head)].decode("utf-8", "surrogateescape")
        key, equals, value = (part.strip() for part in line.partition("="))
        key = _OTHER_SPELLINGS.get(key, key)
        if not equals and line.strip():
            raise UnreadableImage(f"{path} has a damaged MetaImage header: no field in {line[:80]!r}")
        if key in fields and key != "Comment":
            raise UnreadableImage(f"{path} has a damaged MetaImage header: two fields {key[:80]!r}")
        if equals:
            fields[key] = value
        start = stop + 1 if stop >= 0 else len(head)
        if stop < 0 and "ElementDataFile" not in fields:
            raise UnreadableImage(f"{path} has a damaged MetaImage header: no field ElementDataFile")
    return fields, start


def _required(fields: Fields, name: str, path: Path) -> str:
    if not fields.get(name):
        raise UnreadableImage(f"{path} has a damaged MetaImage header: no field {name}")
    return fields[name]


def _is_true(fields: Fields, name: str, path: Path) -> bool:
    value = fields.get(name, "False")
    if value.lower() not in ("true", "false", "1", "0", "t", "f", "yes", "no"):
        raise UnreadableImage(f"{path} has a damaged MetaImage header: {name} is True or False; got {value[:40]!r}")
    return value.lower() in ("true", "1", "t", "yes")


def _dtype(fields: Fields, path: Path) -> np.dtype[np.generic]:
    if fields.get("ObjectType", "Image").lower() != "image":
        raise UnreadableImage(f"{path} holds a {fields['ObjectType'][:40]!r}, not an image")
    stored = _required(fields, "ElementType", path)
    n_components = fields.get("ElementNumberOfChannels", "1")
    if whole_number(n_components, f"{path}: ElementNumberOfChannels") != 1 or stored.endswith("_ARRAY"):
        raise UnsupportedDimensions(
            f"{path} has {n_components[:20]} components a voxel ({stored[:40]}); medseg reads one"
        )
    is_big = _is_true(fields, "BinaryDataByteOrderMSB", path)
    return voxel_type(_TYPES, stored, path).newbyteorder(">" if is_big else "<")


def _sizes(fields: Fields, path: Path) -> tuple[int, ...]:
    dimension, of_each = (_required(fields, name, path) for name in ("NDims", "DimSize"))
    sizes = axis_sizes(("NDims", dimension), ("DimSize", of_each), path, "MetaImage")
    if not 3 <= len(sizes) <= 4 or max(sizes[3:], default=1) > 1:
        raise UnsupportedDimensions(f"{path} is {len(sizes)}-D with sizes {sizes}; medseg reads 3-D volumes")
    return sizes


def _geometry(fields: Fields, sizes: tuple[int, ...], path: Path) -> tuple[Geometry, tuple[str, ...]]:
    n = len(sizes)
    if "ElementSpacing" not in fields:
        raise InvalidGeometry(f"{path} does not say how large its voxels are: no field ElementSpacing")
    if fields.get("DistanceUnits", "mm").lower() not in ("mm", "?", "unknown"):
        raise InvalidGeometry(f"{path} gives positions in {fields['DistanceUnits'][:40]}; medseg reads millimeters")
    spacing = np.array(_numbers(fields["ElementSpacing"], n, "ElementSpacing", path))
    if (spacing[:3] <= 0).any():
        raise InvalidGeometry(f"{path}: ElementSpacing must be above 0 mm; got {spacing.tolist()}")
    identity = " ".join(str(number) for number in np.eye(n).ravel())
    directions = np.reshape(
        _numbers(fields.get("TransformMatrix", identity), n * n, "TransformMatrix", path), (n, n)
    )  # one axis a line
    if n == 4 and (directions[3, :3].any() or directions[:3, 3].any()):
        raise InvalidGeometry(f"{path}: the TransformMatrix mixes the fourth axis with those of space")
    lengths = np.linalg.norm(directions[:3, :3], axis=1)
    if np.abs(lengths - 1).max() > _UNIT_TOLERANCE:
        raise InvalidGeometry(f"{path}: the TransformMatrix must hold unit vectors; got lengths {lengths.tolist()}")
    lps = np.eye(4)
    lps[:3, :3] = directions[:3, :3].T * spacing[:3]
    lps[:3, 3] = _numbers(fields.get("Offset", " ".join("0" * n)), n, "Offset", path)[:3]
    dropped = (f"{path.name}: dropped 1 single axes of sizes {sizes}",) if n == 4 else ()
    return grid_of((sizes[0], sizes[1], sizes[2]), _LPS_TO_RAS @ lps, path), (*dropped, *_assumed(fields, path))


def _assumed(fields: Fields, path: Path) -> tuple[str, ...]:
    """What the format's standard says of fields that are absent."""
    assumptions = {"TransformMatrix": "axes taken as the patient's", "Offset": "taken as zero"}
    return tuple(f"{path.name}: no {name}; {what}" for name, what in assumptions.items() if name not in fields)


def _numbers(text: str, count: int, name: str, path: Path) -> tuple[float, ...]:
    numbers = place_numbers(text, f"{path}: {name}")
    if len(numbers) != count:
        raise InvalidGeometry(f"{path}: {name} must be {count} numbers; got {len(numbers)}")
    return numbers


def _source(fields: Fields, data_offset: int, n_bytes: int, path: Path) -> VoxelSource:
    if not _is_true(fields, "BinaryData", path):
        raise UnreadableImage(f"{path} has voxels as text (no BinaryData = True); medseg reads binary. Save it anew")
    _check_not_rescaled(fields, path)
    name = fields["ElementDataFile"]
    is_local = name.upper() == "LOCAL"
    file = path if is_local else detached_file(path, name)
    skip = whole_number(fields.get("HeaderSize", "0"), f"{path}: HeaderSize")
    if _is_true(fields, "CompressedData", path):
        if skip != 0:
            raise UnreadableImage(f"{path} has a HeaderSize of {skip} before compressed voxels; medseg reads 0 there")
        return VoxelSource(file, n_bytes, "zlib", data_offset if is_local else 0)
    if skip == -1:  # the standard: the last bytes of the file
        return VoxelSource(file, n_bytes, "none", max(data_offset if is_local else 0, file.stat().st_size - n_bytes))
    if not 0 <= skip <= sys.maxsize or (is_local and skip):
        raise UnreadableImage(f"{path} has a damaged MetaImage header: HeaderSize cannot be {skip}")
    return VoxelSource(file, n_bytes, "none", data_offset if is_local else skip)


def _check_not_rescaled(fields: Fields, path: Path) -> None:
    """ITK passes over the intensity function that the standard has: readers would disagree about the voxels."""
    for name, neutral in (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)):
        if name in fields and finite_numbers(fields[name], f"{path}: {name}") != (neutral,):
            raise UnreadableImage(f"{path} rescales its voxels ({name}), which most readers ignore. Save it rescaled")
    if whole_number(fields.get("HeaderSizePerSlice", "0"), f"{path}: HeaderSizePerSlice") != 0:
        raise UnreadableImage(f"{path} has headers between its slices, which medseg does not skip. Save it anew")
