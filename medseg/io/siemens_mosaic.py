"""Siemens mosaics: a volume stored as tiles of one large frame, taken apart by the private headers.

ImagePositionPatient of a mosaic is the corner that a single frame of the mosaic's size would have about the same
center; the first tile's corner lies half the difference in size further in. The direction of the slices is in the
CSA header only: where it is missing, the mosaic is refused.

References
----------
.. [1] nibabel, "Siemens mosaic format" and "Siemens CSA header", https://nipy.org/nibabel/dicom/
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset

from medseg.errors import UnreadableImage
from medseg.io.dicom_headers import read_header

__all__ = ["MosaicLayout", "read_mosaic_layout"]

_CSA_CREATOR, _MR_CREATOR = "SIEMENS CSA HEADER", "SIEMENS MR HEADER"
_PRIVATE_TAGS = [
    *(0x00190010, *range(0x00191000, 0x00191100), 0x00290010, 0x00290011, 0x00290012),
    *(0x00290000 | block << 8 | element for block in (0x10, 0x11, 0x12) for element in (0x10, 0x20)),
]
_MOST_CSA_ENTRIES = 1000
_MOST_SLICES = 4096
_SLICE_POSITION = re.compile(rb"sSliceArray\.asSlice\[(\d+)\]\.sPosition\.d(Sag|Cor|Tra)\s*=\s*([-+.\deE]+)")


@dataclass(frozen=True, slots=True)
class MosaicLayout:
    """How many tiles of which size lie in a mosaic, and the way that their slices go (LPS)."""

    n_slices: int
    tiles_a_row: int
    rows: int
    columns: int
    normal: tuple[float, ...]
    planned_step_mm: float | None

    def tile(self, number: int) -> tuple[int, int]:
        """First row and column of a tile."""
        row, column = divmod(number, self.tiles_a_row)
        return row * self.rows, column * self.columns

    def positions(
        self,
        corner: tuple[float, ...],
        orientation: tuple[float, ...],
        pixel_spacing: tuple[float, ...],
        step_mm: float,
    ) -> list[tuple[float, ...]]:
        """LPS millimeters of the center of the first pixel of each tile, from the mosaic's own position."""
        along_row = np.array(orientation[:3]) * pixel_spacing[1] * self.columns * (self.tiles_a_row - 1) / 2
        n_down = self.tiles_a_row  # mosaics are square
        along_column = np.array(orientation[3:]) * pixel_spacing[0] * self.rows * (n_down - 1) / 2
        first = np.array(corner) + along_row + along_column
        return [tuple((first + number * step_mm * np.array(self.normal)).tolist()) for number in range(self.n_slices)]


def read_mosaic_layout(path: Path, rows: int, columns: int) -> MosaicLayout:
    """The layout of a mosaic of so many rows and columns, from its private headers.

    Raises
    ------
    UnreadableImage
        If the number of slices or their direction is not in the file, or does not fit the mosaic's size.
    """
    tags = read_header(path, _PRIVATE_TAGS).dataset
    image_header = _csa_entries(_csa_bytes(tags, 0x10))
    n_slices = _number_of_slices(tags, image_header)
    normal = _vector(image_header, "SliceNormalVector")
    if not n_slices or normal is None:
        raise UnreadableImage(
            f"{path} is a mosaic whose private headers do not say how many slices it holds and which way they go; "
            "fetch the series with its private tags, or as single slices"
        )
    side = math.ceil(math.sqrt(n_slices))
    if rows % side or columns % side:
        raise UnreadableImage(f"{path}: a mosaic of {n_slices} slices does not fit {rows} x {columns} pixels")
    return MosaicLayout(n_slices, side, rows // side, columns // side, normal, _step_mm(tags))


def _number_of_slices(tags: Dataset, image_header: dict[str, list[str]]) -> int | None:
    told = image_header.get("NumberOfImagesInMosaic") or [""]
    try:
        value = tags.private_block(0x0019, _MR_CREATOR)[0x0A].value
        number = int(value if not isinstance(value, bytes) else int.from_bytes(value[:2], "little"))
    except (KeyError, TypeError, ValueError, NotImplementedError):
        number = int(told[0]) if told[0].isdecimal() else 0
    return number if 0 < number <= _MOST_SLICES else None


def _csa_entries(content: bytes) -> dict[str, list[str]]:
    """The entries of a CSA header by name, their items as texts; none if it is damaged.

    Layout: [SV10 and 4 bytes in the newer form], number of entries, 77; each entry: name, multiplicity, VR, type,
    number of items, 77; each item: four numbers of which one is the length, and the text, filled to 4 bytes.
    """
    is_new = content.startswith(b"SV10")
    at = 8 if is_new else 0
    entries: dict[str, list[str]] = {}
    try:
        (n_entries,) = struct.unpack_from("<I", content, at)
        at += 8
        first_item_count = 0
        for _ in range(min(n_entries, _MOST_CSA_ENTRIES)):
            name, _vm, _vr, _type, n_items, _mark = struct.unpack_from("<64si4siii", content, at)
            at += 84
            first_item_count = first_item_count or n_items
            items = []
            for _ in range(n_items):
                numbers = struct.unpack_from("<4i", content, at)
                length = numbers[1] if is_new else numbers[0] - first_item_count
                if length < 0 or at + 16 + length > len(content):
                    return entries
                items.append(content[at + 16 : at + 16 + length].split(b"\0")[0].decode("latin-1").strip())
                at += 16 + (length + 3) // 4 * 4
            entries[name.split(b"\0")[0].decode("latin-1")] = [item for item in items if item]
    except struct.error:
        return entries
    return entries


def _csa_bytes(tags: Dataset, element: int) -> bytes:
    try:
        value = tags.private_block(0x0029, _CSA_CREATOR)[element].value
    except (KeyError, TypeError, ValueError, NotImplementedError):
        return b""
    return value if isinstance(value, bytes) else b""


def _vector(header: dict[str, list[str]], name: str) -> tuple[float, ...] | None:
    try:
        vector = tuple(float(item) for item in header.get(name, [])[:3])
    except ValueError:
        return None
    is_unit = len(vector) == 3 and abs(math.hypot(*vector) - 1) < 1e-3
    return vector if is_unit else None


def _step_mm(tags: Dataset) -> float | None:
    """Millimeters between the first two slices as the protocol planned them; None where it does not say."""
    planned: dict[int, dict[bytes, float]] = {}
    for number, axis, value in _SLICE_POSITION.findall(_csa_bytes(tags, 0x20)):
        planned.setdefault(int(number), {})[axis] = float(value)
    if 0 not in planned or 1 not in planned:
        return None
    # an absent coordinate is 0: the protocol leaves it out
    first, second = ([planned[number].get(axis, 0.0) for axis in (b"Sag", b"Cor", b"Tra")] for number in (0, 1))
    distance = math.dist(first, second)
    return distance if distance > 0 else None
