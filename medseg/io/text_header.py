"""Text headers (NRRD, MetaImage): bounded reading, strict numbers, voxel files beside them."""

from __future__ import annotations

import math
import os
from pathlib import Path, PureWindowsPath

from medseg.errors import UnreadableImage
from medseg.io.voxel_bytes import check_plain_file, reading

__all__ = ["LONGEST_HEADER", "detached_file", "finite_numbers", "read_text_head", "whole_number", "whole_numbers"]

LONGEST_HEADER = 2**22  # bytes; the longest seen (segment names and colors of hundreds of structures) have 10^5
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


def detached_file(header: Path, name: str) -> Path:
    """The file of voxels that a header names: a plain file in the header's own folder or below it.

    Raises
    ------
    UnreadableImage
        If the name leads out of the folder, directly or by a link: a header must not make medseg read other files.
    ScanNotFound
        If there is no such plain file.
    """
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
