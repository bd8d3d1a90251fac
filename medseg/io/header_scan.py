"""A quick look through a plain DICOM header: the wanted elements, and where the pixels begin.

Most files are explicit or implicit little endian with a preamble and a short header. For these, one read and one walk
over the element headers find everything, several times faster than a general parser. Whatever is out of the ordinary
(big endian, deflated, no preamble, a long header, a wanted sequence of undefined length, a length that runs out of the
file) is left to pydicom: the answer is None, never a guess.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Set
from dataclasses import dataclass
from struct import Struct, error
from typing import IO

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import BaseTag

__all__ = ["ScannedHeader", "scan_header"]

_WINDOW_BYTES = 1 << 16
_PREAMBLE_BYTES = 128
_UNDEFINED = 0xFFFFFFFF
_META_SOP_CLASS, _TRANSFER_SYNTAX, _CHARACTER_SET = 0x00020002, 0x00020010, 0x00080005
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_FIRST_PIXEL_TAG, _LAST_PIXEL_TAG = 0x7FE00008, 0x7FE00010
_IMPLICIT = "1.2.840.10008.1.2"
_NOT_PLAIN = ("", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")  # unknown, big endian, deflated
_DEEPEST = 16

_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_EXPLICIT_HEAD, _IMPLICIT_HEAD, _LENGTH = Struct("<HH2sH"), Struct("<HHI"), Struct("<I")


@dataclass(frozen=True, slots=True)
class ScannedHeader:
    """Wanted elements by tag, the encoding, and the pixel element: (tag, offset of its value, length)."""

    elements: MutableMapping[BaseTag, DataElement | RawDataElement]
    transfer_syntax: str
    meta_sop_class: str
    pixels: tuple[int, int, int] | None


class _OutOfTheOrdinary(Exception):
    """The walk cannot go on."""


def scan_header(file: IO[bytes], wanted: Set[int], file_bytes: int) -> ScannedHeader | None:
    """Look through the header of a file at its start; None if it is out of the ordinary."""
    window = file.read(_WINDOW_BYTES)
    if window[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] != b"DICM":
        return None
    try:
        syntax, sop_class, start = _file_meta(window)
        if syntax in _NOT_PLAIN:
            return None
        elements, pixels = _elements(window, start, syntax == _IMPLICIT, wanted, file_bytes)
    except (_OutOfTheOrdinary, error):
        return None
    return ScannedHeader(elements, syntax, sop_class, pixels)


def _file_meta(window: bytes) -> tuple[str, str, int]:
    """Transfer syntax, SOP class, and where the data set begins."""
    at, found = _PREAMBLE_BYTES + 4, {_TRANSFER_SYNTAX: "", _META_SOP_CLASS: ""}
    while window[at : at + 2] == b"\x02\x00":
        tag, _, value_at, length = _head(window, at, is_implicit=False)
        if tag in found:
            found[tag] = window[value_at : value_at + length].decode("ascii", "replace").rstrip("\0 ")
        at = value_at + length
    return found[_TRANSFER_SYNTAX], found[_META_SOP_CLASS], at


def _head(window: bytes, at: int, is_implicit: bool) -> tuple[int, bytes, int, int]:
    """Tag, VR, where the value begins, and its length."""
    if is_implicit:
        group, element, length = _IMPLICIT_HEAD.unpack_from(window, at)
        return group << 16 | element, b"", at + 8, length
    group, element, vr, length = _EXPLICIT_HEAD.unpack_from(window, at)
    if vr in _SHORT_VRS:
        return group << 16 | element, vr, at + 8, length
    if vr in _LONG_VRS:
        return group << 16 | element, vr, at + 12, _LENGTH.unpack_from(window, at + 8)[0]
    if group == 0xFFFE:  # items have no VR
        return group << 16 | element, b"", at + 8, _LENGTH.unpack_from(window, at + 4)[0]
    raise _OutOfTheOrdinary


def _elements(
    window: bytes, at: int, is_implicit: bool, wanted: Set[int], file_bytes: int
) -> tuple[MutableMapping[BaseTag, DataElement | RawDataElement], tuple[int, int, int] | None]:
    found: MutableMapping[BaseTag, DataElement | RawDataElement] = {}
    while at != file_bytes:
        tag, vr, value_at, length = _head(window, at, is_implicit)
        if _FIRST_PIXEL_TAG <= tag <= _LAST_PIXEL_TAG:
            return found, (tag, value_at, length)
        is_wanted = tag in wanted or tag == _CHARACTER_SET
        if length == _UNDEFINED:
            if is_wanted or vr not in (b"", b"SQ"):
                raise _OutOfTheOrdinary
            at = _after_sequence(window, value_at, is_implicit, 0)
            continue
        if value_at + length > len(window):
            raise _OutOfTheOrdinary
        if is_wanted:
            value = window[value_at : value_at + length]
            name = vr.decode() if vr else None
            found[BaseTag(tag)] = RawDataElement(BaseTag(tag), name, length, value, value_at, is_implicit, True)
        at = value_at + length
    return found, None


def _after_sequence(window: bytes, at: int, is_implicit: bool, depth: int) -> int:
    """Where a sequence of undefined length ends; items of undefined length are walked through."""
    if depth > _DEEPEST:
        raise _OutOfTheOrdinary
    while True:
        tag, _, value_at, length = _head(window, at, is_implicit)
        if tag == _SEQUENCE_END:
            return value_at
        if tag != _ITEM:
            raise _OutOfTheOrdinary
        at = value_at + length if length != _UNDEFINED else _after_item(window, value_at, is_implicit, depth)


def _after_item(window: bytes, at: int, is_implicit: bool, depth: int) -> int:
    while True:
        tag, vr, value_at, length = _head(window, at, is_implicit)
        if tag == _ITEM_END:
            return value_at
        if length != _UNDEFINED:
            at = value_at + length
        elif vr in (b"", b"SQ"):
            at = _after_sequence(window, value_at, is_implicit, depth + 1)
        else:
            raise _OutOfTheOrdinary
