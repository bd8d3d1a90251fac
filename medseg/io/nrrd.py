"""NRRD headers (.nrrd, .nhdr), read strictly: where the file does not say where it lies, it is refused.

The position is that of `space directions` and `space origin` in one of the spaces RAS, LAS and LPS. A file with
`spacings` alone has no place in the patient. See https://teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import math
import re
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
    grid_of,
    place_numbers,
    read_text_head,
    voxel_type,
    whole_number,
)
from medseg.io.volume_header import VolumeHeader
from medseg.io.voxel_bytes import Packing, VoxelSource, check_plain_file, check_promise

__all__ = ["read_nrrd_header"]

_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(
        ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"), "i8"
    ),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
_PACKINGS: dict[str, Packing] = {
    "raw": "none",
    "gz": "gzip",
    "gzip": "gzip",
    "bz2": "bzip2",
    "bzip2": "bzip2",
}
_TO_RAS = {
    **dict.fromkeys(("right-anterior-superior", "ras"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-posterior-superior", "lps"), (-1.0, -1.0, 1.0)),
}
_OTHER_SPELLINGS = {
    "datafile": "data file",
    "byteskip": "byte skip",
    "lineskip": "line skip",
    "centerings": "centers",
}
_VOXEL_KINDS = {"domain", "space", "???", "none"}
_MILLIMETERS = {"mm", "millimeter", "millimeters", "millimetre", "millimetres", "", "???"}
_MOST_DIMENSIONS = 16  # of the format

Fields = dict[str, str]


def read_nrrd_header(path: str | PathLike[str]) -> VolumeHeader:
    """Read and check the header of an NRRD file; no voxels.

    Raises
    ------
    ScanNotFound
        If there is no such file, or not the file of its voxels.
    UnreadableImage
        If it is not NRRD, damaged, shorter than its header says, or packed in a way that is not read.
    UnsupportedDimensions
        If it is not one 3-D volume of plain numbers (single axes besides are dropped with a note).
    InvalidGeometry
        If it does not say where it lies, or its place is unusable.
    """
    file = Path(path)
    check_plain_file(file, "an NRRD file")
    fields, data_offset = _fields(read_text_head(file), file)
    dtype = _dtype(fields, file)
    sizes = _sizes(fields, file)
    geometry, notes = _geometry(fields, sizes, file)
    source = _source(fields, data_offset, dtype.itemsize * math.prod(sizes), file)
    return VolumeHeader(file, "nrrd", geometry, dtype, source, notes=(*notes, *check_promise(source)))


def _fields(head: bytes, path: Path) -> tuple[Fields, int]:
    """The fields by name in small letters, and where the header ends."""
    if re.match(rb"NRRD000[1-5]\r?\n", head) is None:
        raise UnreadableImage(f"{path} is not an NRRD file: it is {describe_foreign(head)}")
    end = re.search(rb"\n\r?\n", head)
    if end is None and len(head) > LONGEST_HEADER:
        raise UnreadableImage(f"{path} has a damaged NRRD header: it does not end within {LONGEST_HEADER >> 20} MiB")
    text = head[: end.start() if end else len(head)].decode("utf-8", "surrogateescape")
    fields: Fields = {}
    for line in text.split("\n")[1:]:
        name, colon, value = line.partition(":")
        if line.startswith("#") or not line.strip() or value.startswith("="):
            continue  # comments, and key:=value pairs, which say nothing of the grid
        if not colon:
            raise UnreadableImage(f"{path} has a damaged NRRD header: no field in {line[:80]!r}")
        known = _OTHER_SPELLINGS.get(name.strip().lower(), name.strip().lower())
        if known in fields:
            raise UnreadableImage(f"{path} has a damaged NRRD header: two fields {known!r}")
        fields[known] = value.strip()
        if known == "data file" and fields[known].startswith("LIST"):
            break  # the names of the files follow, to the end
    return fields, end.end() if end else len(head)


def _required(fields: Fields, name: str, path: Path) -> str:
    if name not in fields:
        raise UnreadableImage(f"{path} has a damaged NRRD header: no field {name!r}")
    return fields[name]


def _dtype(fields: Fields, path: Path) -> np.dtype[np.generic]:
    dtype = voxel_type(_TYPES, _required(fields, "type", path).lower(), path)
    if dtype.itemsize == 1:
        return dtype
    order = _required(fields, "endian", path).lower()
    if order not in ("little", "big"):
        raise UnreadableImage(f"{path} has a damaged NRRD header: endian is 'little' or 'big'; got {order[:40]!r}")
    return dtype.newbyteorder("<" if order == "little" else ">")


def _sizes(fields: Fields, path: Path) -> tuple[int, ...]:
    dimension, of_each = (_required(fields, name, path) for name in ("dimension", "sizes"))
    return axis_sizes(("the field 'dimension'", dimension), ("the field 'sizes'", of_each), path, "NRRD")


def _geometry(fields: Fields, sizes: tuple[int, ...], path: Path) -> tuple[Geometry, tuple[str, ...]]:
    if len(sizes) < 3:
        raise UnsupportedDimensions(f"{path} is {len(sizes)}-D with sizes {sizes}; medseg reads 3-D volumes")
    to_ras = _space(fields, path)
    directions = _vectors(_located(fields, "space directions", path), "space directions", path)
    if len(directions) != len(sizes):
        raise InvalidGeometry(f"{path}: {len(sizes)} axes need as many space directions; got {len(directions)}")
    _check_kinds(fields, sizes, path)
    spatial = [axis for axis, direction in enumerate(directions) if direction is not None]
    others = [axis for axis, direction in enumerate(directions) if direction is None]
    if len(spatial) != 3 or any(sizes[axis] > 1 for axis in others):
        raise UnsupportedDimensions(
            f"{path} has sizes {sizes} of which {len(spatial)} are in space; medseg reads one 3-D volume"
        )
    origin = _vectors(_located(fields, "space origin", path), "space origin", path)
    if len(origin) != 1 or origin[0] is None:
        raise InvalidGeometry(f"{path}: the field 'space origin' must be one position")
    affine = np.eye(4)
    affine[:3, :3] = np.array([directions[axis] for axis in spatial]).T
    affine[:3, 3] = origin[0]
    affine[:3] *= np.array(to_ras)[:, None]
    dropped = (f"{path.name}: dropped {len(others)} single axes of sizes {sizes}",) if others else ()
    return grid_of((sizes[spatial[0]], sizes[spatial[1]], sizes[spatial[2]]), affine, path), dropped


def _located(fields: Fields, name: str, path: Path) -> str:
    if name not in fields:
        raise InvalidGeometry(f"{path} does not say where it lies: no field {name!r}")
    return fields[name]


def _space(fields: Fields, path: Path) -> tuple[float, float, float]:
    space = _located(fields, "space", path).lower()
    if space not in _TO_RAS:
        raise InvalidGeometry(
            f"{path} lies in the space {space[:60]!r}; medseg reads right-anterior-superior, "
            "left-anterior-superior and left-posterior-superior"
        )
    units = re.findall(r'"([^"]*)"', fields.get("space units", ""))
    if not {unit.strip().lower() for unit in units} <= _MILLIMETERS:
        raise InvalidGeometry(f"{path} gives positions in {', '.join(units)[:80]}; medseg reads millimeters")
    return _TO_RAS[space]


def _vectors(text: str, name: str, path: Path) -> list[tuple[float, ...] | None]:
    """Vectors as "(1,0,0) (0,1,0) none"; None for none."""
    words = re.findall(r"\([^()]*\)|[^\s()]+", text)
    if "".join(words).replace(" ", "") != "".join(text.split()):
        raise InvalidGeometry(f"{path}: the field {name!r} is malformed: {text[:80]!r}")
    return [_vector(word, name, path) for word in words[: _MOST_DIMENSIONS + 1]]


def _vector(word: str, name: str, path: Path) -> tuple[float, ...] | None:
    if word.lower() == "none":
        return None
    parts = word.removeprefix("(").removesuffix(")").split(",") if word.startswith("(") else []
    if len(parts) != 3 or any(len(part.split()) != 1 for part in parts):
        raise InvalidGeometry(f"{path}: the field {name!r} must hold vectors (x,y,z); got {word[:80]!r}")
    return place_numbers(" ".join(parts), f"{path}: the field {name!r}")


def _check_kinds(fields: Fields, sizes: tuple[int, ...], path: Path) -> None:
    """Colors, vectors and tensors are no intensities, even where they claim a direction."""
    kinds = fields.get("kinds", "").lower().split()
    for kind, size in zip(kinds, sizes, strict=False):
        if kind not in _VOXEL_KINDS and size > 1:
            raise UnsupportedDimensions(
                f"{path} has an axis of kind {kind[:40]!r} with size {size}; medseg reads one number a voxel"
            )


def _source(fields: Fields, data_offset: int, n_bytes: int, path: Path) -> VoxelSource:
    encoding = _required(fields, "encoding", path).lower()
    if encoding not in _PACKINGS:
        known = "raw, gzip, bzip2"
        raise UnreadableImage(f"{path} has voxels in encoding {encoding[:40]!r}; medseg reads {known}. Save it as gzip")
    packing = _PACKINGS[encoding]
    file, offset = (detached_file(path, fields["data file"]), 0) if "data file" in fields else (path, data_offset)
    if whole_number(fields.get("line skip", "0"), f"{path}: the field 'line skip'") != 0:
        raise UnreadableImage(f"{path} skips lines before its voxels, which medseg does not do. Save it anew")
    skip = whole_number(fields.get("byte skip", "0"), f"{path}: the field 'byte skip'")
    if skip == -1 and packing == "none":
        offset, skip = max(offset, file.stat().st_size - n_bytes), 0  # the standard: the last bytes of the file
    if not 0 <= skip <= sys.maxsize:
        raise UnreadableImage(f"{path} has a damaged NRRD header: it cannot skip {skip} bytes")
    return (
        VoxelSource(file, n_bytes, "none", offset + skip)
        if packing == "none"
        else VoxelSource(file, n_bytes, packing, offset, skip)
    )
