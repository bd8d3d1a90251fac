"""NRRD and MetaImage files written by hand, field by field, so that each field can be left out or spoiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VOXELS = np.arange(60, dtype="<i2").reshape(3, 4, 5)

NRRD_FIELDS = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "3 4 5",
    "space directions": "(1.5,0,0) (0,2,0) (0,0,3)",
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(-40,30,7.5)",
}
META_FIELDS = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "-40 30 7.5",
    "CenterOfRotation": "0 0 0",
    "AnatomicalOrientation": "RAI",
    "ElementSpacing": "1.5 2 3",
    "DimSize": "3 4 5",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}
RAS_AFFINE = np.array([[-1.5, 0, 0, 40], [0, -2, 0, -30], [0, 0, 3, 7.5], [0, 0, 0, 1]])


def payload(array: NDArray[Any] = VOXELS) -> bytes:
    return array.tobytes(order="F")


def write_nrrd(path: Path, data: bytes | None = None, magic: str = "NRRD0005", **fields: str | None) -> Path:
    """Write an NRRD; `space_origin=None` leaves a field out, other values replace or add it."""
    merged = _merged(NRRD_FIELDS, {name.replace("_", " "): value for name, value in fields.items()})
    lines = [magic, *(f"{name}: {value}" for name, value in merged.items())]
    path.write_bytes("\n".join([*lines, "", ""]).encode() + (payload() if data is None else data))
    return path


def write_meta(path: Path, data: bytes | None = None, **fields: str | None) -> Path:
    """Write a MetaImage; None leaves a field out, other values replace or add it."""
    merged = _merged(META_FIELDS, fields)
    last = merged.pop("ElementDataFile", None)
    lines = [f"{name} = {value}" for name, value in merged.items()]
    lines += [f"ElementDataFile = {last}"] if last is not None else []
    path.write_bytes("\n".join([*lines, ""]).encode() + (payload() if data is None else data))
    return path


def _merged(known: dict[str, str], changes: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in {**known, **changes}.items() if value is not None}
