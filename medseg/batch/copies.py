"""Results on their way to another file system: any that fsspec knows (s3://, gs://, sftp://, memory://, a path)."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec

from medseg.batch.deliver import Delivered
from medseg.batch.ledger import Entry
from medseg.errors import OutputNotWritable, UsageError

__all__ = ["Copies"]

_MOST_WAITING = 16


class Copies:
    """Copies the files of cases, and the tables at the end, below a URL; a file there is replaced when it is whole.

    Parameters
    ----------
    url
        Where to; credentials come from the environment or the configuration that its kind of storage uses.
    folder
        The output folder.

    Raises
    ------
    UsageError
        If there is no such kind of storage, or it cannot be reached.
    """

    stage = "copy"

    def __init__(self, url: str, folder: Path) -> None:
        self.address = url.rstrip("/")
        self._folder = folder
        try:
            files, path = fsspec.core.url_to_fs(self.address)
            files.makedirs(path, exist_ok=True)
        except Exception as error:  # each kind of storage has errors of its own
            raise UsageError(f"{url} cannot be written: {error}") from error
        self._files: Any = files
        self._root = str(path).rstrip("/")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="medseg-copy")
        self._waiting: list[Future[Delivered]] = []

    def __enter__(self) -> Copies:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def names(self, entry: Entry) -> Iterable[str]:
        """All files of a case."""
        return entry.files

    def send(self, case_id: str, files: Sequence[Path]) -> None:
        """Copy the files of a case when its turn comes."""
        self._waiting.append(self._thread.submit(self._copy, case_id, list(files)))

    def ended(self, *, wait: bool = False) -> Iterator[Delivered]:
        """The cases that have come to an end since; with `wait`, all of them. Too many that wait are waited for."""
        while self._waiting and (wait or len(self._waiting) > _MOST_WAITING or self._waiting[0].done()):
            yield self._waiting.pop(0).result()

    def put(self, file: Path) -> None:
        """Copy one file of the output folder, under another name first: half a file is never taken for whole."""
        target = f"{self._root}/{file.relative_to(self._folder).as_posix()}"
        place, _, name = target.rpartition("/")
        draft = f"{place}/.tmp-{secrets.token_hex(4)}-{name}"
        self._files.makedirs(place, exist_ok=True)
        self._files.put_file(str(file), draft)
        self._files.mv(draft, target)

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
                raise OutputNotWritable(f"{file.name} cannot be copied to {self.address}: {error}") from error

    def _copy(self, case_id: str, files: list[Path]) -> Delivered:
        try:
            for file in files:
                self.put(file)
            return Delivered(case_id, len(files))
        except Exception as error:  # whatever it is, it stays with this case
            return Delivered(case_id, error=error)
