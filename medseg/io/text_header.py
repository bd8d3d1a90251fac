"""Text headers (NRRD, MetaImage): bounded reading, strict numbers, types and sizes, voxel files beside them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.errors import InvalidGeometry, UnreadableImage
from medseg.io.voxel_bytes import check_plain_file, reading

__all__ = [
    "LONGEST_HEADER",
    "axis_sizes",
    "detached_file",
    "finite_numbers",
    "grid_of",
    "place_numbers",
    "read_text_head",
    "voxel_type",
    "whole_number",
    "whole_numbers",
]

LONGEST_HEADER = 2**22  # bytes; the longest seen (segment names and colors of hundreds of structures) have 10^5
_MOST_DIMENSIONS = 16  # of NRRD; MetaImage has 10
_PRINTF_NUMBER = re.compile(r"%[-+ #0-9.]*[diu]")
_MOST_DIGITS = 30  # of a number; Python's own limit is 4300, and quadratic below it


def read_text_head(path: Path) -> bytes:
    """As much of a file as a text header may take, and one byte more."""
    with reading(path), path.open("rb") as stream:
        return stream.read(LONGEST_HEADER + 1)


def finite_numbers(text: str, what: str) -> tuple[float, ...]:
    """Numbers between blanks.

    Raises
    ------
    UnreadableImage
        If one is no number, or not finite; `what` begins the message.
    """
    try:
        numbers = tuple(float(word) for word in text.split())
    except ValueError as error:
        raise UnreadableImage(f"{what} must be numbers; got {text[:80]!r}") from error
    if not all(math.isfinite(number) for number in numbers):
        raise UnreadableImage(f"{what} must be finite numbers; got {text[:80]!r}")
    return numbers


def whole_numbers(text: str, what: str) -> tuple[int, ...]:
    """Whole numbers between blanks.

    Raises
    ------
    UnreadableImage
        If one is not whole; `what` begins the message.
    """
    words = text.split()
    digits = [word.removeprefix("-").removeprefix("+") for word in words]
    if not all(word.isascii() and word.isdigit() and len(word) <= _MOST_DIGITS for word in digits):
        raise UnreadableImage(f"{what} must be whole numbers; got {text[:80]!r}")
    return tuple(int(word) for word in words)


def whole_number(text: str, what: str) -> int:
    """One whole number."""
    numbers = whole_numbers(text, what)
    if len(numbers) != 1:
        raise UnreadableImage(f"{what} must be one whole number; got {text[:80]!r}")
    return numbers[0]


def place_numbers(text: str, what: str) -> tuple[float, ...]:
    """`finite_numbers` that say where a volume lies: InvalidGeometry if they are none."""
    try:
        return finite_numbers(text, what)
    except UnreadableImage as error:
        raise InvalidGeometry(str(error)) from error


def voxel_type(types: Mapping[str, str], name: str, path: Path) -> np.dtype[Any]:
    """The type of number that a format's name stands for, in no byte order yet.

    Raises
    ------
    UnreadableImage
        If the name is none of them.
    """
    if name not in types:
        raise UnreadableImage(f"{path} holds voxels of type {name[:40]!r}; medseg reads plain numbers")
    return np.dtype(types[name])


def axis_sizes(dimension: tuple[str, str], sizes: tuple[str, str], path: Path, kind: str) -> tuple[int, ...]:
    """The size of each axis from two fields, each (name, text): how many axes there are, and their sizes.

    Raises
    ------
    UnreadableImage
        If they do not agree, or a size is below 1.
    """
    n_axes = whole_number(dimension[1], f"{path}: {dimension[0]}")
    found = whole_numbers(sizes[1], f"{path}: {sizes[0]}")
    if not 1 <= n_axes <= _MOST_DIMENSIONS or len(found) != n_axes or min(found) < 1:
        raise UnreadableImage(f"{path} has a damaged {kind} header: {n_axes} dimensions of sizes {found[:20]}")
    return found


def grid_of(shape: tuple[int, int, int], affine: NDArray[np.float64], path: Path) -> Geometry:
    """The grid of a file; InvalidGeometry names the file."""
    try:
        return Geometry(shape, affine)
    except InvalidGeometry as error:
        raise InvalidGeometry(f"{path}: {error}") from error


def detached_file(header: Path, name: str) -> Path:
    """The file of voxels that a header names: a plain file in the header's own folder or below it.

    Raises
    ------
    UnreadableImage
        If the header names several, by a list or a pattern with a number, or if the name leads out of the folder,
        directly or by a link: a header must not make medseg read other files.
    ScanNotFound
        If there is no such plain file.
    """
    if name.split(maxsplit=1)[:1] == ["LIST"] or _PRINTF_NUMBER.search(name):
        raise UnreadableImage(
            f"{header} has its voxels in several files ({name[:80]!r}), which medseg does not join. Save it as one file"
        )
    windows = PureWindowsPath(name)
    if not name or "\0" in name or windows.drive or windows.root or ".." in windows.parts:
        raise UnreadableImage(f"{header} names {name[:200]!r} for its voxels; only files in its own folder are read")
    folder = header.parent
    file = folder / name
    with reading(file):
        inside = Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder))
    if not inside:
        raise UnreadableImage(f"{header} names {name[:200]!r} for its voxels, a link that leads out of its folder")
    check_plain_file(file, f"the voxels of {header.name}")
    return file
