"""The size that a compressed frame says of itself, read before any codec allocates it.

References
----------
.. [1] ITU-T T.81 (JPEG) B.2.2, T.87 (JPEG-LS) C.2.2, T.800 (JPEG 2000) A.5.1
"""

from __future__ import annotations

__all__ = ["codestream_size"]

_NO_FRAME_HEADERS = (0xC4, 0xC8, 0xCC)  # within the range of frame headers: Huffman tables, reserved, arithmetic coding
_JPEG_LS_FRAME = 0xF7
_JPEG_2000_START = b"\xff\x4f\xff\x51"


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG, JPEG-LS or JPEG 2000 stream; None where it does not say or is none of these."""
    if frame[:2] == b"\xff\xd8":
        return _jpeg_size(frame)
    start = frame.find(_JPEG_2000_START, 0, 1024)
    if start < 0 or len(frame) < start + 24:
        return None
    width, height, left, top = (_number(frame, start + at, 4) for at in (8, 12, 16, 20))
    return height - top, width - left


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        is_frame = (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME_HEADERS) or marker == _JPEG_LS_FRAME
        if is_frame:
            return _number(frame, at + 5, 2), _number(frame, at + 7, 2)
        at += 1 if marker == 0xFF else 2 + _number(frame, at + 2, 2)  # 0xFF alone fills up
    return None


def _number(frame: bytes, at: int, n_bytes: int) -> int:
    return int.from_bytes(frame[at : at + n_bytes], "big")
