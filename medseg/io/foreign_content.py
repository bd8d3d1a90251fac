"""What a file is that is named like an image and is none: told from its first bytes."""

from __future__ import annotations

__all__ = ["describe_foreign"]

_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the image; 'git lfs pull' fetches the image"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "packed by gzip twice, or not where gzip is expected"),
    (b"BZh", "packed by bzip2"),
    (b"\xfd7zXZ\x00", "packed by xz"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array file"),
    (b"NRRD000", "an NRRD file; name it .nrrd"),
    (b"{", "JSON text"),
)
_LAST_PICKLE_PROTOCOL = 5


def describe_foreign(head: bytes) -> str:
    """What the first bytes of a file say that it is, as the end of a sentence "it is ..."."""
    if not head:
        return "empty"
    if not head.strip(b"\0"):
        return "nothing but zeros"
    known = next((what for magic, what in _BEGINNINGS if head.startswith(magic)), None)
    if known is not None:
        return known
    if head[128:132] == b"DICM":
        return "a DICOM file; give the folder of its series"
    if head.lstrip()[:15].lower().startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return "a web page (HTML or XML), perhaps the answer of a failed download"
    if head[0] == 0x80 and len(head) > 1 and 2 <= head[1] <= _LAST_PICKLE_PROTOCOL:
        return "a Python pickle, which is never loaded: it could run any code"
    return f"something that begins with {head[:16]!r}"
