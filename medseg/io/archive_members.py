"""Members of a zip or tar as streams, in bounded memory, whatever the archive claims of itself."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from medseg.errors import UnreadableImage, UnsafeArchive
from medseg.io.voxel_bytes import reading

__all__ = ["Member", "archive_kind", "tar_members", "zip_members"]

_ZIP_BEGINNINGS = (b"PK\x03\x04", b"PK\x05\x06")
_ZIP_END = b"PK\x05\x06"
_ZIP64_END, _ZIP64_LOCATOR = b"PK\x06\x06", b"PK\x06\x07"
_ZIP_END_BYTES = 22 + 65535  # the end record with the longest comment
_DIRECTORY_BYTES_PER_MEMBER = 256  # of a zip's directory, with names of usual length
_ZIP_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # of the others Python unpacks without bound
_OTHER_ZIP_METHODS = {9: "deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz"}
_ENCRYPTED = 0x1
_ZIP64 = 0xFFFFFFFF  # the true size stands elsewhere
_LARGEST_READ = 2**20  # a tar's names and attributes are read whole; none needs more
_KEPT_BYTES = 4096  # tarfile looks back by one byte
_XZ_MEMORY = 2**28  # bytes; xz itself takes 65 MiB at its strongest preset


@dataclass(frozen=True)
class Member:
    """One entry of an archive.

    Parameters
    ----------
    name
        As the archive says it.
    packed_bytes
        What it takes in the archive, for the ratio; None where that cannot be known (tar).
    open
        Opens its content; None if it is no plain file, or cannot be unpacked.
    skipped
        Why it is passed over without harm (a link, a device), or None.
    damaged
        Why it cannot be unpacked, or None.
    """

    name: str
    packed_bytes: int | None = None
    open: Callable[[], IO[bytes]] | None = None
    skipped: str | None = None
    damaged: str | None = None


def archive_kind(path: Path) -> str | None:
    """Tell "zip" and "tar" (plain, or packed by gzip, bzip2 or xz) by content; None for all else."""
    with reading(path), path.open("rb") as stream:
        if stream.read(4) in _ZIP_BEGINNINGS:
            return "zip"
    try:
        with _unpacked(path) as stream:
            block = stream.read(tarfile.BLOCKSIZE)
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except Exception:  # whatever a decoder or tarfile says of content that is no tar
        return None
    return "tar"


def zip_members(path: Path, most_members: int) -> Iterator[Member]:
    """The files in a zip.

    Raises
    ------
    UnreadableImage
        If the zip has no usable directory (it is truncated).
    UnsafeArchive
        If it has more members than allowed.
    """
    n_promised = _checked_zip_directory(path, most_members)
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # zipfile lets almost any error of parsing through
        raise UnreadableImage(f"{path} is a damaged or truncated zip: {error}. Fetch or make it anew") from error
    with archive:
        n_listed = len(archive.infolist())
        if (n_listed - n_promised) % 2**16:  # the count has 16 bits, and older writers let it run over
            yield Member(path.name, damaged=f"the zip lists {n_listed} files, its end says {n_promised}")
        for info in archive.infolist():
            if not info.filename.endswith("/"):  # is_dir fails for an empty name
                yield _zip_member(archive, info)


def tar_members(path: Path, most_unpacked_bytes: int) -> Iterator[Member]:
    """The files in a tar, packed or not; each must be read before the next is asked for.

    The last one says so if the tar ends early or is damaged.

    Raises
    ------
    UnsafeArchive
        If it goes on for more than so many bytes.
    """
    with _unpacked(path) as stream:
        source = cast(IO[bytes], _ForwardStream(stream, most_unpacked_bytes, path))
        try:
            with tarfile.open(fileobj=source, mode="r:", errorlevel=2) as archive:
                yield from _tar_entries(archive)
                _check_tar_end(source, archive.offset)
        except UnsafeArchive:
            raise
        except Exception as error:  # tarfile lets almost any error of parsing through
            yield Member(path.name, damaged=f"the tar is damaged or ends early, what follows is lost: {error}")


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return Member(info.filename, skipped="links" if stat.S_ISLNK(mode) else "devices and pipes")
    if info.flag_bits & _ENCRYPTED:
        return Member(info.filename, damaged="encrypted; unpack it by hand")
    if info.compress_type not in _ZIP_METHODS:
        method = _OTHER_ZIP_METHODS.get(info.compress_type, str(info.compress_type))
        return Member(info.filename, damaged=f"packed by {method}; medseg unpacks deflate only")
    return Member(info.filename, info.compress_size, lambda: archive.open(info))


def _checked_zip_directory(path: Path, most_members: int) -> int:
    """Bound the directory, which Python reads as a whole, by what the end of the file says of it; returns its count."""
    with reading(path), path.open("rb") as stream:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(max(0, size - _ZIP_END_BYTES))
        tail = stream.read()
    end = tail.rfind(_ZIP_END)
    if end < 0 or len(tail) < end + 22:
        raise UnreadableImage(f"{path} is a truncated zip: its directory is missing. Fetch or make it anew")
    claimed = int.from_bytes(tail[end + 12 : end + 16], "little")
    if claimed != _ZIP64 and claimed > size:
        raise UnreadableImage(f"{path} is a damaged zip: its directory is larger than the file. Fetch or make it anew")
    if claimed != _ZIP64 and claimed > most_members * _DIRECTORY_BYTES_PER_MEMBER:
        raise UnsafeArchive(f"{path} has a directory of {claimed} bytes, more than {most_members} files need")
    return _promised_files(tail, end)


def _promised_files(tail: bytes, end: int) -> int:
    """The number of files by the end record, or by that of zip64 where there is one."""
    large = tail.rfind(_ZIP64_END, 0, end)
    # its locator stands right before the end record; elsewhere it belongs to a zip that is packed inside this one
    if large >= 0 and tail[max(end - 20, 0) : end - 16] == _ZIP64_LOCATOR:
        return int.from_bytes(tail[large + 32 : large + 40], "little")
    return int.from_bytes(tail[end + 10 : end + 12], "little")


def _tar_entries(archive: tarfile.TarFile) -> Iterator[Member]:
    last = -1
    while (entry := archive.next()) is not None:
        if entry.offset <= last or entry.size < 0:
            raise tarfile.ReadError("its entries run in a circle")
        last = entry.offset
        archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every entry, for a random access unused here
        if entry.isreg():
            yield Member(entry.name, open=_opener(archive, entry))
        elif not entry.isdir():
            yield Member(entry.name, skipped="links" if entry.issym() or entry.islnk() else "devices and pipes")


def _check_tar_end(source: IO[bytes], offset: int) -> None:
    """Find out whether the tar ends where tarfile stopped: it takes a damaged header for the end."""
    source.seek(offset)
    if source.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end mark after the last file")
    while chunk := source.read(_LARGEST_READ):  # to the last byte, for a checksum of the packing comes after it
        if chunk.strip(b"\0"):
            raise tarfile.ReadError("it goes on after its end mark")


def _opener(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    return lambda: cast(IO[bytes], archive.extractfile(entry))


@contextmanager
def _unpacked(path: Path) -> Iterator[BinaryIO]:
    with reading(path), path.open("rb") as file:
        head = file.read(6)
        file.seek(0)
        if head.startswith(b"\x1f\x8b"):
            yield cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb"))
        elif head.startswith(b"BZh"):
            yield cast(BinaryIO, bz2.BZ2File(file))
        elif head == b"\xfd7zXZ\x00":
            yield cast(BinaryIO, io.BufferedReader(_XzStream(file), _LARGEST_READ))
        else:
            yield file


class _XzStream(io.RawIOBase):
    """An xz stream in bounded memory; Python's own reader takes whatever dictionary the file asks for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the stub names a private protocol
        while not self._decoder.eof:
            packed = self._file.read(1 << 16) if self._decoder.needs_input else b""
            chunk = self._decoder.decompress(packed, len(buffer))
            if chunk:
                buffer[: len(chunk)] = chunk
                return len(chunk)
            if not packed and self._decoder.needs_input:
                raise EOFError("the xz stream ends early")
        return 0


class _ForwardStream:
    """What tarfile reads from: forward only but for a few bytes, in small pieces, and not without end."""

    def __init__(self, stream: BinaryIO, most_bytes: int, path: Path) -> None:
        self._stream, self._most_bytes, self._path = stream, most_bytes, path
        self._position = self._end = 0
        self._kept = b""  # the bytes before _end

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or position < self._end - len(self._kept):
            raise tarfile.ReadError("an entry lies before the one that it follows")
        while self._end < position and self._pull(min(_LARGEST_READ, position - self._end)):
            pass
        self._position = min(position, self._end)
        return self._position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LARGEST_READ:
            raise tarfile.ReadError(f"a name or attribute of {size} bytes")
        back = self._end - self._position
        kept = self._kept[len(self._kept) - back :][:size] if back else b""
        fresh = self._pull(size - len(kept)) if len(kept) < size else b""
        self._position += len(kept) + len(fresh)
        return kept + fresh

    def _pull(self, size: int) -> bytes:
        chunk = self._stream.read(size)
        self._end += len(chunk)
        self._kept = (self._kept + chunk)[-_KEPT_BYTES:]
        if self._end > self._most_bytes:
            raise UnsafeArchive(
                f"{self._path} unpacks to more than {self._most_bytes} bytes; unpack it by hand if it should"
            )
        return chunk
