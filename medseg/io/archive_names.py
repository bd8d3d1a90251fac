r"""Names of archive members, made safe for any file system.

A member may be called `../../etc/cron.d/x`, `C:\x`, `CON`, or anything of 300 characters with a line end in it. Each
gets a name that stays below the folder that it is unpacked into and differs from all others even where small and
capital letters are the same.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import PurePosixPath

__all__ = ["SafeNames"]

_LONGEST_PART = 120  # bytes; file systems take 255, and a suffix and a hash must fit
_LONGEST_STEM, _LONGEST_SUFFIX = 24, 12  # characters, of up to 4 bytes
_DEEPEST = 24  # parts; more are replaced by a hash
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"|?*\u2028\u2029\ud800-\udfff]')
_DRIVE = re.compile(r"^[A-Za-z]:$")
_RESERVED = {"con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(1, 10))}

Folder = tuple[str, ...]


class SafeNames:
    """The safe names of one archive; each call takes one more name."""

    def __init__(self) -> None:
        self._folders: dict[tuple[Folder, str], str] = {}
        self._taken: dict[Folder, set[str]] = {}

    def path_for(self, name: str) -> PurePosixPath:
        """A relative path for a member, never given before.

        Examples
        --------
        >>> names = SafeNames()
        >>> str(names.path_for("ct/a.dcm")), str(names.path_for("../../etc/passwd"))
        ('ct/a.dcm', 'etc/passwd')
        """
        *folders, last = _parts(name)
        here: Folder = ()
        for part in folders:
            known = self._folders.get((here, part))
            if known is None:
                known = self._folders[here, part] = self._take(here, part, name)
            here = (*here, known)
        return PurePosixPath(*here, self._take(here, last, name))

    def _take(self, folder: Folder, part: str, name: str) -> str:
        taken = self._taken.setdefault(folder, set())
        wish = candidate = _safe_part(part)
        attempt = 0
        while _folded(candidate) in taken:
            attempt += 1
            stem, suffix = _split(wish)
            candidate = f"{stem}-{_hash(f'{name}#{len(taken)}#{attempt}')}{suffix}"
        taken.add(_folded(candidate))
        return candidate


def _parts(name: str) -> list[str]:
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".", "..") and not _DRIVE.match(part)]
    if len(parts) > _DEEPEST:
        parts = [*parts[:4], _hash(name), *parts[-2:]]
    return parts or ["unnamed"]


def _safe_part(part: str) -> str:
    clean = _FORBIDDEN.sub("_", part).rstrip(". ") or "_"
    if clean.partition(".")[0].strip().lower() in _RESERVED:
        clean = f"_{clean}"
    if len(clean.encode()) > _LONGEST_PART:
        stem, suffix = _split(clean)
        clean = f"{stem}-{_hash(part)}{suffix}"
    return clean


def _split(part: str) -> tuple[str, str]:
    """Stem and suffix, both short enough to put a hash between them."""
    dot = part.find(".", 1)
    suffix = part[dot:] if dot > 0 and len(part) - dot <= _LONGEST_SUFFIX else PurePosixPath(part).suffix
    suffix = suffix if len(suffix) <= _LONGEST_SUFFIX else ""
    return part[: len(part) - len(suffix)][: _LONGEST_STEM // 2 if not part.isascii() else _LONGEST_STEM], suffix


def _folded(part: str) -> str:
    return unicodedata.normalize("NFC", part).casefold()


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
