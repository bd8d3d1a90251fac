"""DICOM headers: named tags of a file, each checked as it is read, and where the pixels begin.

Only the tags that are asked for are parsed; names, birth dates and comments are never touched.
"""

from __future__ import annotations

import math
import os
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

from pydicom import Dataset, config, dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medseg.errors import UnreadableImage
from medseg.io.header_scan import ScannedHeader, ScannedTags, scan_header

__all__ = [
    "Header",
    "PixelElement",
    "Tags",
    "find_header",
    "is_dicom",
    "lenient_parsing",
    "number_tag",
    "numbers_tag",
    "read_header",
    "read_tags",
    "tag_value",
    "text_tag",
    "texts_tag",
]

_DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
_PREAMBLE_BYTES = 128
_WINDOW_BYTES = 1 << 16  # what is looked through; longer headers are parsed
_ASCII_VRS = ("AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI")  # whatever SpecificCharacterSet says
_TEXT_VRS = ("LO", "SH")  # by SpecificCharacterSet, but plain characters are the same in all of them
_ESCAPE = b"\x1b"  # to another alphabet
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_META_BYTES = 4096
_INFLATE_BYTES = 1 << 20
_MOST_INFLATED_BYTES = 1 << 30
_UNDEFINED_LENGTH = 0xFFFFFFFF
_LONG_LENGTH_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT")
_LONGEST_FIRST_ELEMENT = 1 << 16  # bytes; the first element of a real header is a length, a version or an image type


Tags = Dataset | ScannedTags


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the value of the pixel element lies in its file; `n_bytes` is None where the pixels are encapsulated."""

    tag: int
    offset: int
    n_bytes: int | None


@dataclass(frozen=True)
class Header:
    """The tags of a file, how it is encoded, and where its pixels are (None: it has none).

    `meta_sop_class` is what the file meta information says of the kind of object.
    """

    path: Path
    tags: Tags
    transfer_syntax: str
    meta_sop_class: str
    pixels: PixelElement | None
    file_bytes: int

    @property
    def dataset(self) -> Dataset:
        """The tags as a data set of pydicom."""
        return self.tags.dataset if isinstance(self.tags, ScannedTags) else self.tags


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by content; UnreadableImage if it is not but is named like it.

    A file that lacks the preamble and the file meta information is told by its first element.
    """
    with path.open("rb") as file:
        return _is_dicom(path, file.read(_PREAMBLE_BYTES + 4))


def _is_dicom(path: Path, head: bytes) -> bool:
    found = _starts_like_dicom(head[: _PREAMBLE_BYTES + 4])
    if not found and path.suffix.lower() in _DICOM_SUFFIXES and not path.name.startswith("."):
        raise UnreadableImage(f"{path} is named like a DICOM file but is none")
    return found


@contextmanager
def lenient_parsing() -> Iterator[None]:
    """Read what can be read: overlong texts and unknown alphabets are common and do no harm; numbers are checked here.

    The setting is global: it holds until the last thread that is within has left.
    """
    with _lenience.lock:
        if _lenience.n_within == 0:
            _lenience.stack.enter_context(config.disable_value_validation())
            _lenience.stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        _lenience.n_within += 1
    try:
        yield
    finally:
        with _lenience.lock:
            _lenience.n_within -= 1
            if _lenience.n_within == 0:
                _lenience.stack.close()


class _Lenience:
    """How many are within `lenient_parsing`, and what undoes it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stack = ExitStack()
        self.n_within = 0


_lenience = _Lenience()


def read_header(path: Path, keywords: Sequence[str | int]) -> Header:
    """The named tags of a DICOM file, its encoding, and the place of its pixels.

    Raises
    ------
    UnreadableImage
        If the header is damaged.
    """
    with path.open("rb") as file:
        return _header(path, file, file.read(_WINDOW_BYTES), keywords)


def find_header(path: Path, keywords: Sequence[str | int]) -> Header | None:
    """`read_header` of a DICOM file, None for any other file, which is opened once.

    Raises
    ------
    UnreadableImage
        If the header is damaged, or the file is named like DICOM but is none.
    """
    with path.open("rb") as file:
        window = file.read(_WINDOW_BYTES)
        return _header(path, file, window, keywords) if _is_dicom(path, window) else None


def _header(path: Path, file: BufferedReader, window: bytes, keywords: Sequence[str | int]) -> Header:
    wanted = _tags_of(tuple(keywords))
    try:
        file_bytes = os.fstat(file.fileno()).st_size
        scanned = scan_header(window, wanted, file_bytes)
        if scanned is not None:
            return _from_scan(path, scanned, file_bytes)
        _check_deflated(file, path)
        file.seek(0)
        return _from_parse(path, file, wanted, file_bytes)
    except UnreadableImage:
        raise
    except Exception as error:  # a damaged header makes pydicom raise almost anything
        raise UnreadableImage(f"{path} has a damaged DICOM header: {error}. Fetch it anew") from error


def _check_deflated(file: BufferedReader, path: Path) -> None:
    """Refuse a deflated file that swells beyond any image: the parser would hold all of it in memory."""
    file.seek(0)
    head = file.read(_META_BYTES)
    at = head.find(DeflatedExplicitVRLittleEndian.encode())
    if at < 0 or head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] != b"DICM":
        return
    group_bytes = int.from_bytes(head[_PREAMBLE_BYTES + 12 : _PREAMBLE_BYTES + 16], "little")
    file.seek(_PREAMBLE_BYTES + 16 + group_bytes)
    inflater, n_bytes, chunk = zlib.decompressobj(-zlib.MAX_WBITS), 0, b"start"
    while chunk and not inflater.eof:
        chunk = inflater.unconsumed_tail or file.read(_INFLATE_BYTES)
        n_bytes += len(inflater.decompress(chunk, _INFLATE_BYTES))
        if n_bytes > _MOST_INFLATED_BYTES:
            raise UnreadableImage(f"{path} inflates to more than {_MOST_INFLATED_BYTES >> 20} MiB; not read")


def _from_scan(path: Path, scanned: ScannedHeader, file_bytes: int) -> Header:
    pixels = None
    if scanned.pixels is not None:
        tag, offset, length = scanned.pixels
        pixels = PixelElement(tag, offset, None if length == _UNDEFINED_LENGTH else length)
    return Header(path, scanned.tags, scanned.transfer_syntax, scanned.meta_sop_class, pixels, file_bytes)


def _from_parse(path: Path, file: BufferedReader, wanted: frozenset[int], file_bytes: int) -> Header:
    tags = dcmread(file, stop_before_pixels=True, specific_tags=list(wanted), force=True)
    syntax = _transfer_syntax(tags)
    pixels = None if syntax == DeflatedExplicitVRLittleEndian else _pixel_element(file, tags, path)
    meta = getattr(tags, "file_meta", None) or {}
    return Header(path, tags, syntax, str(meta.get("MediaStorageSOPClassUID", "")), pixels, file_bytes)


def read_tags(path: Path, keywords: Sequence[str | int]) -> Dataset:
    """The named tags of a DICOM file, with its file meta information; no pixels.

    Raises
    ------
    UnreadableImage
        If the header is damaged.
    """
    with lenient_parsing():
        return read_header(path, keywords).dataset


def number_tag(tags: Tags, keyword: str, path: Path) -> float | None:
    """One finite number, or None where the tag is absent or empty; UnreadableImage names a malformed one."""
    numbers = numbers_tag(tags, keyword, 1, path)
    return None if numbers is None else numbers[0]


def numbers_tag(tags: Tags, keyword: str, count: int, path: Path) -> tuple[float, ...] | None:
    """`count` finite numbers, or None where the tag is absent or empty; UnreadableImage names a malformed one."""
    value = tag_value(tags, keyword, path)
    if value is None or value == "":
        return None
    try:
        numbers = tuple(map(float, value if count > 1 and not isinstance(value, str) else (value,)))
    except (TypeError, ValueError) as error:
        raise UnreadableImage(f"{path}: {keyword} is malformed: {value!r}") from error
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise UnreadableImage(f"{path}: {keyword} must be {count} finite number(s); got {value!r}")
    return numbers


def text_tag(tags: Tags, keyword: str, path: Path, required: bool = False) -> str:
    """A text, empty where the tag is absent; UnreadableImage if it is required."""
    value = tag_value(tags, keyword, path)
    text = "" if value is None else str(value).strip()
    if required and not text:
        raise UnreadableImage(f"{path} lacks {keyword}: it cannot be told which series it belongs to")
    return text


def texts_tag(tags: Tags, keyword: str, path: Path) -> tuple[str, ...]:
    """All values of a text tag, none where it is absent."""
    value = tag_value(tags, keyword, path)
    if value is None or value == "":
        return ()
    return (value.strip(),) if isinstance(value, str) else tuple(str(part).strip() for part in value)


def tag_value(tags: Tags, keyword: str, path: Path) -> Any:
    """A tag's value, None where it is absent; what cannot be converted fails here."""
    tag, vr = _tag_and_vr(keyword)
    try:
        if isinstance(tags, ScannedTags):
            return _scanned_value(tags, tag, vr)
        element = tags.get_item(tag)
        if element is None:
            return None
        if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
            if vr in _ASCII_VRS:
                return _ascii_value(element.value)
            if vr == "US" and len(element.value) == 2:
                return int.from_bytes(element.value, "little" if element.is_little_endian else "big")
        return tags.get(keyword)
    except Exception as error:
        raise UnreadableImage(f"{path}: {keyword} is malformed: {error}") from error


def _scanned_value(tags: ScannedTags, tag: int, vr: str) -> Any:
    value = tags.values.get(tag)
    if value is None:
        return None
    if vr in _ASCII_VRS or (vr in _TEXT_VRS and value.isascii() and _ESCAPE not in value):
        return _ascii_value(value)
    return int.from_bytes(value, "little") if vr == "US" and len(value) == 2 else tags.dataset[tag].value


@lru_cache(maxsize=256)
def _tag_and_vr(keyword: str) -> tuple[int, str]:
    tag = Tag(keyword)
    return int(tag), dictionary_VR(tag)  # a plain number: pydicom's are slow to compare


@lru_cache(maxsize=4096)
def _ascii_value(value: bytes) -> str | list[str]:
    """The text or texts of a value in plain characters: most are the same in every file of a series."""
    text = value.decode("latin-1").rstrip("\0 ")
    parts = [part.strip() for part in text.split("\\")]
    return parts[0] if len(parts) == 1 else parts


@lru_cache(maxsize=64)
def _tags_of(keywords: tuple[str | int, ...]) -> frozenset[int]:
    """Tags of keywords; private tags are given as numbers."""
    return frozenset(keyword if isinstance(keyword, int) else tag_for_keyword(keyword) or 0 for keyword in keywords)


def _starts_like_dicom(head: bytes) -> bool:
    """DICM after the preamble, or a plausible first element of group 0002 or 0008, explicit or implicit."""
    if head[_PREAMBLE_BYTES:] == b"DICM":
        return True
    if len(head) < 12 or head[:2] not in (b"\x02\x00", b"\x08\x00", b"\x00\x08"):
        return False
    order: Literal["big", "little"] = "big" if head[0] == 0 else "little"
    if head[4:6].isalpha() and head[4:6].isupper():
        return int.from_bytes(head[6:8], order) < _LONGEST_FIRST_ELEMENT and int.from_bytes(head[2:4], order) < 0x2000
    length = int.from_bytes(head[4:8], order)
    return order == "little" and head[2:4] < b"\x20" and length < _LONGEST_FIRST_ELEMENT and length % 2 == 0


def _transfer_syntax(tags: Dataset) -> str:
    """What the file says, or, without file meta information, how pydicom found it to be encoded."""
    told = str(tags.file_meta.get("TransferSyntaxUID", "")) if hasattr(tags, "file_meta") else ""
    if told:
        return told
    is_implicit, is_little_endian = tags.original_encoding
    if is_implicit:
        return str(ImplicitVRLittleEndian)
    return str(ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian)


def _pixel_element(file: BufferedReader, tags: Dataset, path: Path) -> PixelElement | None:
    """The element at which the parser stopped, if it is that of the pixels."""
    is_implicit, is_little_endian = tags.original_encoding
    order: Literal["big", "little"] = "little" if is_little_endian else "big"
    head = file.read(12)
    if len(head) < 8:
        return None
    tag = int.from_bytes(head[:2], order) << 16 | int.from_bytes(head[2:4], order)
    if tag not in _PIXEL_TAGS:
        raise UnreadableImage(f"{path} has a damaged DICOM header: it ends before the pixels. Fetch it anew")
    is_long = not is_implicit and head[4:6] in _LONG_LENGTH_VRS
    if is_implicit:
        length, n_head = int.from_bytes(head[4:8], order), 8
    elif is_long:
        length, n_head = int.from_bytes(head[8:12], order), 12
    else:
        length, n_head = int.from_bytes(head[6:8], order), 8
    offset = file.tell() - len(head) + n_head
    return PixelElement(tag, offset, None if length == _UNDEFINED_LENGTH else length)
