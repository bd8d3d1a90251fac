"""The files of a folder tree, one after the other, however many there are.

A tree from elsewhere may hold links that run in circles or lead out of it, pipes that hang whoever opens them, and
folders nested beyond what the system can name. Names are looked at one folder at a time; nothing is opened.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from medseg.errors import ScanError, ScanNotFound

__all__ = ["MAY_HIDE_SCANS", "MOST_FILES", "walk_files"]

MOST_FILES = 10_000_000  # ten times the largest archive that is known to be kept as one folder tree
_LINK_OUT, _LINK_NOWHERE = "links that lead out of the tree", "links to folders, or to nothing"
_UNREADABLE, _TOO_DEEP = "folders that cannot be read", "folders that lie too deep"
MAY_HIDE_SCANS = (_LINK_OUT, _LINK_NOWHERE, _UNREADABLE, _TOO_DEEP)
"""Reasons to pass over what may hold scans that are found nowhere else."""

_DEEPEST = 64  # folders within folders; archives of DICOM have 5 to 8


def walk_files(
    root: str | PathLike[str], skipped: Counter[str] | None = None, most_files: int = MOST_FILES
) -> Iterator[Path]:
    """Every plain file under a folder, folder by folder, each in the order of names.

    Parameters
    ----------
    root
        The folder; may itself be a link.
    skipped
        Counts what was passed over, by reason: hidden files and folders (other programs' leftovers), links to
        folders, links that lead out of the tree, pipes and devices, folders that cannot be read or lie too deep.
        A link to a file within the tree is passed over as well, for the file is found itself; only if that lies in
        a hidden folder (as data managers keep it) the link stands for it.
    most_files
        Bound on the number of files.

    Yields
    ------
    Paths that begin with `root`.

    Raises
    ------
    ScanNotFound
        If there is no such folder.
    ScanError
        If there are more than `most_files`.
    """
    top = Path(root)
    if not os.path.isdir(top):
        raise ScanNotFound(f"{top} is no folder; expected one with scans")
    counts = Counter[str]() if skipped is None else skipped
    inside = os.path.realpath(top)
    n_files = 0
    pending = [(str(top), 0)]
    while pending:
        folder, depth = pending.pop()
        folders: list[tuple[str, int]] = []
        for entry in _entries(folder, counts):
            reason = _reason_to_skip(entry, inside, depth)
            if reason is not None:
                counts[reason] += 1
            elif entry.is_dir(follow_symlinks=False):
                folders.append((entry.path, depth + 1))
            else:
                n_files += 1
                if n_files > most_files:
                    raise ScanError(f"{top} holds more than {most_files} files; name a smaller folder")
                yield Path(entry.path)
        pending += reversed(folders)


def _entries(folder: str, counts: Counter[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        counts[_UNREADABLE] += 1
        return []


def _reason_to_skip(entry: os.DirEntry[str], inside: str, depth: int) -> str | None:
    if entry.name.startswith("."):
        return "hidden files and folders"
    if entry.is_symlink():
        return _reason_to_skip_link(entry, inside)
    if entry.is_dir(follow_symlinks=False):
        return _TOO_DEEP if depth >= _DEEPEST else None
    return None if entry.is_file(follow_symlinks=False) else "pipes and devices"


def _reason_to_skip_link(entry: os.DirEntry[str], inside: str) -> str | None:
    target = Path(os.path.realpath(entry.path))
    if not target.is_relative_to(inside):
        return _LINK_OUT
    if not target.is_file():
        return _LINK_NOWHERE
    is_hidden = any(part.startswith(".") for part in target.relative_to(inside).parts)
    return None if is_hidden else "links to files that are found themselves"
