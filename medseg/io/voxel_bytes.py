"""The bytes of voxels in a file: what a header promises is compared with the file's size before anything is made.

Packed voxels are unpacked as a stream, and no further than promised, so that a small file never becomes a large one.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError, ScanNotFound, UnreadableImage

__all__ = [
    "Packing",
    "VoxelSource",
    "check_plain_file",
    "check_promise",
    "is_gzip",
    "read_head",
    "read_voxel_bytes",
    "read_voxel_parts",
    "reading",
]

Packing = Literal["none", "gzip", "zlib", "bzip2"]

_GZIP_MAGIC = b"\x1f\x8b"
_LARGEST_DEFLATE_RATIO = 1032  # deflate cannot do better: zlib's own technical note
_LARGEST_BZIP2_BYTES = 2**30  # bzip2 packs zeros a millionfold; a file this large needs no tighter packing than deflate
_MOST_TRAILING_BYTES = 2**26  # beyond the last voxel; more is no sloppy writer but a bomb
_CHUNK = 2**22


@dataclass(frozen=True)
class VoxelSource:
    """Where the voxels of a volume lie.

    Parameters
    ----------
    path
        The file; for a detached header another one than the header's.
    n_bytes
        Bytes of voxels, unpacked.
    packing
        How they are packed.
    file_offset
        Bytes of the file before the voxels, or before the packed stream.
    skipped_bytes
        Bytes of the unpacked stream before the first voxel.
    """

    path: Path
    n_bytes: int
    packing: Packing = "none"
    file_offset: int = 0
    skipped_bytes: int = 0


@contextmanager
def reading(path: str | PathLike[str]) -> Iterator[None]:
    """Whatever the system or a decoder says against a file becomes an `UnreadableImage` that names it."""
    try:
        yield
    except MedsegError:
        raise
    except (OSError, EOFError, zlib.error, lzma.LZMAError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error  # the whole text of an OSError names the file again
        raise UnreadableImage(f"{path} is damaged or cannot be read: {reason}. Fetch or make it anew") from error


def check_plain_file(path: Path, expected: str) -> None:
    """Refuse what is no plain file, before it is opened: opening a named pipe waits forever.

    Raises
    ------
    ScanNotFound
        If it is a folder, a pipe or a device, or does not exist.
    """
    with reading(path):
        if path.is_file():
            return
        what = "is a folder" if path.is_dir() else "is no plain file" if path.exists() else "does not exist"
    raise ScanNotFound(f"{path} {what}; expected {expected}")


def is_gzip(path: Path) -> bool:
    """Whether a file is packed by gzip, by content."""
    with reading(path), path.open("rb") as stream:
        return stream.read(2) == _GZIP_MAGIC


def read_head(path: Path, n_bytes: int) -> bytes:
    """The first bytes of a file, unpacked if it is gzip."""
    with reading(path), path.open("rb") as stream:
        head = stream.read(n_bytes)
        if not head.startswith(_GZIP_MAGIC):
            return head
        stream.seek(0)
        return gzip.GzipFile(fileobj=stream).read(n_bytes)


def check_promise(source: VoxelSource) -> tuple[str, ...]:
    """Compare what the header promises with the size of the file; no voxel is read.

    Returns
    -------
    A note if bytes follow the last voxel, as far as that shows without unpacking.

    Raises
    ------
    UnreadableImage
        If the file cannot hold that much.
    """
    with reading(source.path):
        on_disk = source.path.stat().st_size - source.file_offset
    promised = source.skipped_bytes + source.n_bytes
    if promised > _most_bytes(on_disk, source.packing):
        packed = f" (packed by {source.packing})" if source.packing != "none" else ""
        raise UnreadableImage(
            f"{source.path} is truncated: its header promises {promised} bytes, the file has {max(on_disk, 0)}{packed}"
            ". Fetch or make it anew"
        )
    return _trailing_note(source, on_disk - promised) if source.packing == "none" else ()


def read_voxel_bytes(source: VoxelSource) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """All bytes of the voxels, unpacked; checksums of the packing are verified.

    Returns
    -------
    voxels
        (n_bytes,) uint8.
    notes
        What is odd about the file.

    Raises
    ------
    UnreadableImage
        If the file ends early, its packed stream is damaged, or it goes on far beyond the last voxel.
    """
    check_promise(source)  # before there is memory for them
    voxels = np.empty(source.n_bytes, np.uint8)
    return voxels, read_voxel_parts(source, [voxels])


def read_voxel_parts(source: VoxelSource, parts: Iterable[NDArray[np.uint8]]) -> tuple[str, ...]:
    """The same, part after part: each array is filled before the next one is asked for, so that one may serve for all.

    Parameters
    ----------
    source
        Where the voxels lie.
    parts
        (n,) uint8, of `source.n_bytes` bytes all together.

    Returns
    -------
    What is odd about the file.

    Raises
    ------
    UnreadableImage
        As `read_voxel_bytes`; parts that were filled before the damage hold what was read.
    """
    notes = check_promise(source)
    with reading(source.path), source.path.open("rb") as file:
        file.seek(source.file_offset)
        stream = _unpacked(file, source.packing)
        n_read = _skip(stream, source.skipped_bytes)
        for part in parts:
            filled = _fill(stream, part.data) if n_read >= source.skipped_bytes else 0
            n_read += filled
            if filled < part.size:
                raise UnreadableImage(
                    f"{source.path} is truncated: its header promises {source.skipped_bytes + source.n_bytes} bytes, "
                    f"it holds {n_read}. Fetch or make it anew"
                )
        if source.packing != "none":
            notes = _trailing_note(source, _skip(stream, _MOST_TRAILING_BYTES + 1))  # checksums come last
    return notes


def _most_bytes(on_disk: int, packing: Packing) -> int:
    """How much a file of that size can hold."""
    if packing == "none":
        return on_disk
    deflated = on_disk * _LARGEST_DEFLATE_RATIO
    return max(deflated, _LARGEST_BZIP2_BYTES) if packing == "bzip2" else deflated


def _trailing_note(source: VoxelSource, n_bytes: int) -> tuple[str, ...]:
    if n_bytes > _MOST_TRAILING_BYTES and source.packing != "none":
        raise UnreadableImage(
            f"{source.path} goes on for more than {_MOST_TRAILING_BYTES >> 20} MiB after its last voxel; it is "
            "damaged, or made to fill the memory"
        )
    return (f"{source.path.name}: ignored {n_bytes} bytes after the last voxel",) if n_bytes > 0 else ()


def _unpacked(file: BinaryIO, packing: Packing) -> BinaryIO:
    if packing == "gzip":
        return cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb"))
    if packing == "bzip2":
        return cast(BinaryIO, bz2.BZ2File(file))
    return cast(BinaryIO, io.BufferedReader(_ZlibStream(file), _CHUNK)) if packing == "zlib" else file


def _skip(stream: BinaryIO, n_bytes: int) -> int:
    """Read on without keeping anything; returns how many bytes there were."""
    done = 0
    while done < n_bytes and (chunk := stream.read(min(_CHUNK, n_bytes - done))):
        done += len(chunk)
    return done


def _fill(stream: BinaryIO, target: memoryview) -> int:
    done = 0
    while done < len(target) and (chunk := stream.read(min(_CHUNK, len(target) - done))):
        target[done : done + len(chunk)] = chunk
        done += len(chunk)
    return done


class _ZlibStream(io.RawIOBase):
    """A zlib or gzip stream, as MetaImage packs its voxels."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = zlib.decompressobj(wbits=47)  # either header
        self._packed = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the stub names a private protocol
        while not self._decoder.eof:
            self._packed = self._packed or self._file.read(1 << 16)
            chunk = self._decoder.decompress(self._packed, len(buffer))
            at_end = not self._packed
            self._packed = self._decoder.unconsumed_tail
            if chunk:
                buffer[: len(chunk)] = chunk
                return len(chunk)
            if at_end:
                raise EOFError("the packed voxels end early")
        return 0
