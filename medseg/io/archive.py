"""Zip and tar archives as sources of scans: unpacked into a private folder, within limits, never outside of it.

Archives come from anywhere. Limits are counted on what comes out, not on what the archive says of itself; links and
devices are passed over; a member that cannot be unpacked is reported while the others are still read, and it is for
the caller to refuse a scan of which it may be a part.
"""

from __future__ import annotations

import errno
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from multiprocessing.util import Finalize
from os import PathLike
from pathlib import Path
from typing import IO

from medseg.errors import OutputNotWritable, UnreadableImage, UnsafeArchive
from medseg.io.archive_members import Member, archive_kind, tar_members, zip_members
from medseg.io.archive_names import SafeNames
from medseg.io.voxel_bytes import check_plain_file

__all__ = [
    "ArchiveLimits",
    "DamagedMember",
    "UnpackedArchive",
    "is_archive",
    "unpack_archive",
    "unpack_until_exit",
    "unpacked_archive",
    "unpacking_into",
]

logger = logging.getLogger(__name__)

_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
_CHUNK = 2**18
_DISK_RESERVE_BYTES = 2**30  # left free for the results and for other programs


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may take; raise a limit for a larger archive that is trusted.

    Parameters
    ----------
    max_members
        Files, nested archives included. A hospital's study has some 10^4.
    max_total_bytes
        Unpacked. Ten times a large study of CT, PET and MR.
    max_ratio
        Unpacked over packed bytes, of each member and of the whole. Scans reach 2 to 10, masks with little in them
        some hundred; deflate ends at 1032.
    ratio_floor_bytes
        Unpacked bytes below which the ratio does not count: an empty mask of 512 x 512 x 600 packs very well.
    max_depth
        Archives within archives. Portals pack one zip a patient or study into one.
    """

    max_members: int = 200_000
    max_total_bytes: int = 64 * 2**30
    max_ratio: float = 200.0
    ratio_floor_bytes: int = 2**28
    max_depth: int = 2


@dataclass(frozen=True)
class DamagedMember:
    """A member that could not be unpacked: its name in the archive, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class UnpackedArchive:
    """An archive on disk.

    Parameters
    ----------
    source
        The archive.
    folder
        Where its members lie, by their own paths as far as these are safe.
    renamed
        Members that got another path: name in the archive by path below `folder`.
    damaged
        Members that are not there; a scan that may have been one of them must not be used.
    notes
        How many members were passed over, renamed or not unpacked, by reason; no names, for these may be a patient's.
    """

    source: Path
    folder: Path
    renamed: dict[str, str]
    damaged: tuple[DamagedMember, ...]
    notes: tuple[str, ...]


@dataclass
class _Progress:
    """What has come out so far, nested archives included."""

    limits: ArchiveLimits
    source: Path
    most_bytes: int
    n_members: int = 0
    n_bytes: int = 0
    renamed: dict[str, str] = field(default_factory=dict)
    damaged: list[DamagedMember] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def count_member(self) -> None:
        self.n_members += 1
        if self.n_members > self.limits.max_members:
            raise UnsafeArchive(f"{self.source} holds more than {self.limits.max_members} files; unpack it by hand")

    def count_bytes(self, n_bytes: int) -> None:
        self.n_bytes += n_bytes
        if self.n_bytes > self.most_bytes:
            raise UnsafeArchive(
                f"{self.source} unpacks to more than {self.most_bytes} bytes, {self.n_members} files so far; unpack it "
                "by hand if it is what it should be"
            )


class _Refused(Exception):  # one member goes beyond its limit; the others are still read
    pass


def is_archive(path: str | PathLike[str]) -> bool:
    """Whether a file is a zip or a tar (plain, or packed by gzip, bzip2 or xz), by content."""
    file = Path(path)
    check_plain_file(file, "an archive")
    return archive_kind(file) is not None


def unpack_archive(
    path: str | PathLike[str], folder: str | PathLike[str], limits: ArchiveLimits | None = None
) -> UnpackedArchive:
    """Unpack an archive into a folder.

    Parameters
    ----------
    path
        A zip or tar.
    folder
        An empty folder.
    limits
        What it may take.

    Raises
    ------
    ScanNotFound
        If there is no such file.
    UnreadableImage
        If it is no archive, or a zip without its directory.
    UnsafeArchive
        If it goes beyond the limits; what was unpacked before stays in the folder.
    OutputNotWritable
        If the disk is full.
    """
    source = Path(path)
    check_plain_file(source, "an archive")
    bounds = limits or ArchiveLimits()
    progress = _Progress(bounds, source, _most_bytes(source, Path(folder), bounds))
    _unpack(source, Path(folder), progress, depth=0, shown="")
    logger.info("unpacked %d members, %d damaged", progress.n_members, len(progress.damaged))
    return UnpackedArchive(source, Path(folder), progress.renamed, tuple(progress.damaged), _notes(progress))


@contextmanager
def unpacked_archive(path: str | PathLike[str], limits: ArchiveLimits | None = None) -> Iterator[UnpackedArchive]:
    """Unpack an archive into a private temporary folder that is removed when the block ends.

    Raises
    ------
    ScanNotFound, UnreadableImage, UnsafeArchive, OutputNotWritable
        As `unpack_archive`.
    """
    with tempfile.TemporaryDirectory(prefix="medseg-archive-") as folder:  # for its owner only
        yield unpack_archive(path, folder, limits)


def unpack_until_exit(path: str | PathLike[str], limits: ArchiveLimits | None = None) -> UnpackedArchive:
    """Unpack an archive into a private temporary folder that is removed when Python ends; once for the same file.

    Raises
    ------
    ScanNotFound, UnreadableImage, UnsafeArchive, OutputNotWritable
        As `unpack_archive`.
    """
    file = Path(path)
    check_plain_file(file, "an archive")
    status = file.stat()
    key = (file.resolve(), status.st_size, status.st_mtime_ns, limits)
    known = _kept.get(key)
    if known is not None and known.folder.is_dir():
        return known
    folder = tempfile.mkdtemp(prefix=_PREFIX_INSIDE if _parent.get() else "medseg-archive-", dir=_parent.get())
    # unlike atexit, this also runs at the end of a worker process, and not in one that was forked later
    Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=0)
    try:
        _kept[key] = unpack_archive(file, folder, limits)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return _kept[key]


@contextmanager
def unpacking_into(folder: Path) -> Iterator[None]:
    """Within the block, `unpack_until_exit` unpacks into a folder of the caller's, under names that begin with .tmp-.

    Whoever owns the folder removes what a process leaves there that was killed.
    """
    before = _parent.set(folder)
    try:
        yield
    finally:
        _parent.reset(before)


_PREFIX_INSIDE = ".tmp-archive-"
_parent: ContextVar[Path | None] = ContextVar("_parent", default=None)
_kept: dict[tuple[Path, int, int, ArchiveLimits | None], UnpackedArchive] = {}


def _most_bytes(source: Path, folder: Path, limits: ArchiveLimits) -> int:
    by_ratio = max(limits.ratio_floor_bytes, int(source.stat().st_size * limits.max_ratio))
    on_disk = max(0, shutil.disk_usage(folder).free - _DISK_RESERVE_BYTES)
    return min(limits.max_total_bytes, by_ratio, on_disk)


def _unpack(archive: Path, folder: Path, progress: _Progress, depth: int, shown: str) -> None:
    """Unpack one archive; `shown` stands before the names of its members in what is reported."""
    names = SafeNames()
    for member in _members(archive, progress):
        name = f"{shown}{member.name}"
        progress.count_member()
        if member.skipped is not None:
            progress.skipped[member.skipped] += 1
        elif member.damaged is not None:
            progress.damaged.append(DamagedMember(name, member.damaged))
        else:
            relative = names.path_for(member.name)
            if relative.as_posix() != member.name:
                progress.renamed[(folder / relative).as_posix()] = name
            _unpack_member(member, folder / relative, progress, depth, name)


def _notes(progress: _Progress) -> tuple[str, ...]:
    counts = {
        **{f"passed over {{}} {what}": count for what, count in sorted(progress.skipped.items())},
        "gave {} file(s) other names, for theirs are not safe": len(progress.renamed),
        "could not unpack {} file(s)": len(progress.damaged),
    }
    return tuple(f"archive: {what.format(count)}" for what, count in counts.items() if count)


def _members(archive: Path, progress: _Progress) -> Iterator[Member]:
    kind = archive_kind(archive)
    if kind == "zip":
        return zip_members(archive, progress.limits.max_members)
    if kind == "tar":
        return tar_members(archive, progress.most_bytes + 2**20)  # headers come on top
    raise UnreadableImage(f"{archive} is no zip or tar archive")


def _unpack_member(member: Member, target: Path, progress: _Progress, depth: int, name: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if member.open is not None:
            with member.open() as stream, target.open("xb") as file:
                _copy(stream, file, member, progress)
    except (UnsafeArchive, OutputNotWritable):
        raise
    except Exception as error:  # zipfile, tarfile and zlib raise almost anything for damaged members
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"{progress.source} cannot be unpacked: the disk of {target.parent} is full"
            raise OutputNotWritable(message) from error
        target.unlink(missing_ok=True)
        progress.damaged.append(DamagedMember(name, str(error) or type(error).__name__))
        return
    if target.name.lower().endswith(_ARCHIVE_SUFFIXES):
        _unpack_nested(target, progress, depth + 1, name)


def _copy(stream: IO[bytes], file: IO[bytes], member: Member, progress: _Progress) -> None:
    limits = progress.limits
    most = None if member.packed_bytes is None else member.packed_bytes * limits.max_ratio
    n_bytes = 0
    while chunk := stream.read(_CHUNK):
        n_bytes += len(chunk)
        progress.count_bytes(len(chunk))
        if most is not None and n_bytes > max(most, limits.ratio_floor_bytes):
            raise _Refused(f"unpacks to more than {limits.max_ratio:g} times its size, like a decompression bomb")
        file.write(chunk)


def _unpack_nested(target: Path, progress: _Progress, depth: int, name: str) -> None:
    """Replace an archive by a folder of the same name with its members."""
    if archive_kind(target) is None:
        return
    if depth > progress.limits.max_depth:
        target.unlink()
        progress.skipped[f"archives nested more than {progress.limits.max_depth} deep"] += 1
        return
    with tempfile.TemporaryDirectory(prefix="medseg-archive-") as holder:
        inner = Path(shutil.move(target, Path(holder, "inner")))
        target.mkdir()
        try:
            _unpack(inner, target, progress, depth, f"{name}/")
        except UnreadableImage as error:
            progress.damaged.append(DamagedMember(name, str(error).replace(str(inner), target.name)))
