"""Files and folders that appear whole or not at all.

Everything is written under a temporary name in the folder where it belongs and renamed over its final name, so that a
crash, a full disk or an interrupt never leaves half a file that looks like a result.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path

from medseg.errors import OutputExists, OutputNotWritable

__all__ = ["atomic_folder", "atomic_path", "check_output_folder"]

_DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


@contextmanager
def atomic_path(path: str | PathLike[str]) -> Iterator[Path]:
    """Write a file under a temporary name; it gets its own name only when the block ends well.

    Parameters
    ----------
    path
        The final file; replaced if it is there. Its folder is made if missing.

    Yields
    ------
    The temporary path, in the same folder and with the same suffixes, for the block to write.

    Raises
    ------
    OutputNotWritable
        If the folder cannot be written, the path is a folder, or the disk is full.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_path(f"{folder}/new/note.txt") as temporary:
    ...         _ = temporary.write_text("done")
    ...     Path(folder, "new", "note.txt").read_text()
    'done'
    """
    final = Path(path)
    made = _make_folder(final.parent)
    temporary = _temporary_sibling(final)
    try:
        if final.is_dir():
            raise OutputNotWritable(f"{final} is a folder; a file cannot take its place")
        _probe(final.parent)
        with _full_disk_as_output_error(final):
            yield temporary
            os.replace(temporary, final)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        _remove_folders(made)
        raise


@contextmanager
def atomic_folder(path: str | PathLike[str]) -> Iterator[Path]:
    """Write a folder under a temporary name; its files get their place only when the block ends well.

    Parameters
    ----------
    path
        The final folder. If it is there, the new files replace those of the same name, one by one, and all others
        are left alone.

    Yields
    ------
    The temporary folder for the block to fill: beside the final one, or inside it where that is there already (it may
    be a mount point, and files cannot be renamed from one file system to another).

    Raises
    ------
    OutputNotWritable
        If the folder cannot be made or written, the path is a file, or the disk is full.
    """
    final = Path(path)
    if final.exists() and not final.is_dir():
        raise OutputNotWritable(f"{final} is a file; a folder cannot take its place")
    made = _make_folder(final.parent)
    home = final if final.is_dir() else final.parent
    temporary = _temporary_sibling(home / final.name)
    try:
        _probe(home)
        with _full_disk_as_output_error(final):
            temporary.mkdir()
            yield temporary
            _move_folder(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        _remove_folders(made)
        raise


def check_output_folder(path: str | PathLike[str], names: Iterable[str], overwrite: bool = False) -> None:
    """Find out before the work starts whether its results can be written; leaves nothing behind.

    Parameters
    ----------
    path
        The output folder; need not exist.
    names
        The files that will be written there.
    overwrite
        True if they may replace older ones.

    Raises
    ------
    OutputExists
        If one of the files is there and `overwrite` is False.
    OutputNotWritable
        If the folder, or the nearest parent that exists, is no folder in which files can be made.
    """
    folder = Path(path)
    _probe(_nearest_existing(folder))
    present = [name for name in names if os.path.lexists(folder / name)]
    if present and not overwrite:
        raise OutputExists(f"{folder} already holds {', '.join(present)}; --overwrite replaces them")


def _temporary_sibling(path: Path) -> Path:
    return path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")


def _nearest_existing(path: Path) -> Path:
    return next(candidate for candidate in (path, *path.absolute().parents) if os.path.exists(candidate))


def _probe(folder: Path) -> None:
    """Make a file and delete it: permission bits and mount flags tell less, most of all to root."""
    if not folder.is_dir():
        raise OutputNotWritable(f"{folder} is a file, not a folder; name another output folder")
    probe = _temporary_sibling(folder / "probe")
    try:
        probe.open("xb").close()
    except OSError as error:
        raise OutputNotWritable(f"{folder} cannot be written ({error.strerror}); name another output folder") from error
    probe.unlink()


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder with its parents; returns those that were made, innermost first."""
    missing = [candidate for candidate in (folder, *folder.parents) if not os.path.exists(candidate)]
    for made, candidate in enumerate(reversed(missing)):
        try:
            candidate.mkdir(exist_ok=True)
        except OSError as error:
            _remove_folders(missing[len(missing) - made :])
            message = f"{candidate} cannot be made ({error.strerror}); name another output folder"
            raise OutputNotWritable(message) from error
    return missing


def _remove_folders(folders: list[Path]) -> None:
    """Remove folders, innermost first, as far as they are empty (another process may have used them)."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _move_folder(source: Path, target: Path) -> None:
    if not target.exists():
        os.rename(source, target)
        return
    moves = [(file, target / file.relative_to(source)) for file in sorted(source.rglob("*")) if not file.is_dir()]
    for _, to in moves:
        if to.is_dir():
            raise OutputNotWritable(f"{to} is a folder; a file cannot take its place")
    for file, to in moves:
        to.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, to)
    shutil.rmtree(source)


@contextmanager
def _full_disk_as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_TROUBLE:
            raise
        raise OutputNotWritable(f"{path} cannot be written: {error.strerror}") from error
