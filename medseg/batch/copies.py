"""Results on their way to another file system: any that fsspec knows (s3://, gs://, sftp://, memory://, a path)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec

from medseg.batch.deliver import Destination
from medseg.errors import OutputNotWritable, UsageError

__all__ = ["Copies"]

_PASSWORD = re.compile(r"//[^/@]*:[^/@]*@")


class Copies:
    """Copies the files of cases, and the tables at the end, below a URL; a file there is replaced when it is whole.

    Parameters
    ----------
    url
        Where to; credentials come from the environment or the configuration that its kind of storage uses, never from
        the URL.
    folder
        The output folder.

    Attributes
    ----------
    destination
        Takes all files of a case.

    Raises
    ------
    UsageError
        If there is no such kind of storage, it cannot be reached, or the URL holds a password.
    """

    def __init__(self, url: str, folder: Path) -> None:
        if _PASSWORD.search(url):  # the ledger keeps the URL, and everyone on this machine can read a command
            raise UsageError(
                f"{_PASSWORD.sub('//...@', url)} holds a user or password; put it into the configuration of that kind "
                "of storage, or into fsspec's"
            )
        self._folder = folder
        address = url.rstrip("/")
        try:
            files, path = fsspec.core.url_to_fs(address)
            files.makedirs(path, exist_ok=True)
        except Exception as error:  # each kind of storage has errors of its own
            raise UsageError(f"{url} cannot be written: {error}") from error
        self._files: Any = files
        self._root = str(path).rstrip("/")
        self.destination = Destination(address, "copy", lambda entry: entry.files, self._copy)

    def put(self, file: Path) -> None:
        """Copy one file of the output folder, under another name first: half a file is never taken for whole."""
        target = f"{self._root}/{file.relative_to(self._folder).as_posix()}"
        place, _, name = target.rpartition("/")
        draft = f"{place}/.tmp-{secrets.token_hex(4)}-{name}"
        self._files.makedirs(place, exist_ok=True)
        try:
            self._files.put_file(str(file), draft)
            self._files.mv(draft, target)
        except BaseException:
            with suppress(Exception):  # it may never have come to be
                self._files.rm_file(draft)
            raise

    def put_all(self, files: Iterable[Path]) -> None:
        """Copy files of the output folder at the end of a run.

        Raises
        ------
        OutputNotWritable
            If they cannot be copied.
        """
        for file in files:
            try:
                self.put(file)
            except Exception as error:  # each kind of storage has errors of its own
                raise OutputNotWritable(
                    f"{file.name} cannot be copied to {self.destination.address}: {error}"
                ) from error

    def _copy(self, files: Sequence[Path]) -> int:
        for file in files:
            self.put(file)
        return len(files)
