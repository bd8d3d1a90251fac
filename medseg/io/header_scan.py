"""A quick look through a plain DICOM header: the wanted elements, and where the pixels begin.

Most files are explicit or implicit little endian with a preamble and a short header. For these, one read and one walk
over the element headers find everything, several times faster than a general parser. Whatever is out of the ordinary
(big endian, deflated, no preamble, a long header, a wanted sequence of undefined length, a length that runs out of the
file) is left to pydicom: the answer is None, never a guess.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Set
from dataclasses import dataclass
from functools import cached_property, lru_cache
from struct import Struct, error

from pydicom import Dataset
from pydicom.charset import convert_encodings
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import BaseTag

__all__ = ["ScannedHeader", "ScannedTags", "scan_header"]

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


@dataclass(frozen=True)
class ScannedTags:
    """Elements as they lie in the file, little endian, by tag; `representations` names their VR where the file does.

    A data set of pydicom is made of them only where one is asked for: most values need none.
    """

    values: dict[int, bytes]
    representations: dict[int, bytes]
    is_implicit: bool

    def __contains__(self, keyword: str) -> bool:
        return tag_for_keyword(keyword) in self.values

    @cached_property
    def dataset(self) -> Dataset:
        """The same as a data set."""
        elements: MutableMapping[BaseTag, DataElement | RawDataElement] = {}
        for number, value in self.values.items():
            tag, vr = BaseTag(number), self.representations.get(number, b"").decode() or None
            elements[tag] = RawDataElement(tag, vr, len(value), value, 0, self.is_implicit, True)
        dataset = Dataset(elements)
        if _CHARACTER_SET in self.values:
            alphabets = self.values[_CHARACTER_SET].decode("latin-1").rstrip("\0 ").split("\\")
            dataset.set_original_encoding(
                self.is_implicit, True, convert_encodings([alphabet.strip() for alphabet in alphabets])
            )
        return dataset


@dataclass(frozen=True, slots=True)
class ScannedHeader:
    """The wanted tags, the encoding, and the pixel element: (tag, offset of its value, length)."""

    tags: ScannedTags
    transfer_syntax: str
    meta_sop_class: str
    pixels: tuple[int, int, int] | None


class _OutOfTheOrdinary(Exception):
    """The walk cannot go on."""


def scan_header(window: bytes, wanted: Set[int], file_bytes: int) -> ScannedHeader | None:
    """Look through the first bytes of a file for its header; None if it is out of the ordinary."""
    if window[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] != b"DICM":
        return None
    try:
        syntax, sop_class, start = _file_meta(window)
        if syntax in _NOT_PLAIN:
            return None
        tags, pixels = _elements(window, start, syntax == _IMPLICIT, wanted, file_bytes)
    except (_OutOfTheOrdinary, error):
        return None
    return ScannedHeader(tags, syntax, sop_class, pixels)


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
    tag, vr, n_bytes, length = _first_eight(window[at : at + 8], is_implicit)
    if length is None:
        (length,) = _LENGTH.unpack_from(window, at + 8)
    return tag, vr, at + n_bytes, length


@lru_cache(maxsize=8192)
def _first_eight(head: bytes, is_implicit: bool) -> tuple[int, bytes, int, int | None]:
    """Tag, VR, bytes before the value, and its length, None if that comes later.

    The files of a series begin their elements alike: most are found here, and not taken apart again.
    """
    if is_implicit:
        group, element, length = _IMPLICIT_HEAD.unpack(head)
        return group << 16 | element, b"", 8, length
    group, element, vr, length = _EXPLICIT_HEAD.unpack(head)
    if vr in _SHORT_VRS:
        return group << 16 | element, vr, 8, length
    if vr in _LONG_VRS:
        return group << 16 | element, vr, 12, None
    if group == 0xFFFE:  # items have no VR
        return group << 16 | element, b"", 8, _LENGTH.unpack_from(head, 4)[0]
    raise _OutOfTheOrdinary


def _elements(
    window: bytes, at: int, is_implicit: bool, wanted: Set[int], file_bytes: int
) -> tuple[ScannedTags, tuple[int, int, int] | None]:
    found = ScannedTags({}, {}, is_implicit)
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
            found.values[tag], found.representations[tag] = window[value_at : value_at + length], vr
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
