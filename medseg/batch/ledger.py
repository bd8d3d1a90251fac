"""The ledger of a batch: what state each case is in, what made its result, and which files the result consists of."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medseg.core.result import CaseFailure
from medseg.errors import OutputNotWritable, UsageError
from medseg.io.hashes import sha256_of_file

__all__ = ["CaseState", "Entry", "Files", "LEDGER_FILE", "Ledger", "is_whole", "result_key"]

LEDGER_FILE = "ledger.sqlite"
CaseState = Literal["pending", "running", "done", "failed", "set aside"]
Files = Mapping[str, tuple[int, str]]
"""Size in bytes and SHA-256 of each file, by its name."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cases (
    case_id TEXT PRIMARY KEY, folder TEXT NOT NULL UNIQUE, source TEXT NOT NULL, state TEXT NOT NULL,
    key TEXT, files TEXT, seconds REAL, stage TEXT, error TEXT, message TEXT
);
CREATE TABLE IF NOT EXISTS stored (
    case_id TEXT, address TEXT, key TEXT NOT NULL, PRIMARY KEY (case_id, address)
);"""
_PATIENCE_S = 30.0  # for another process that has it locked
_VERSION = 2  # 1 had no table of what was stored in a PACS


@dataclass(frozen=True)
class Entry:
    """One case in the ledger; only a failed one has a `failure`, only one with a result `key`, `files` and `seconds`.

    A case that could not be stored in a PACS has both. One that is set aside (a localizer) has a key only.
    """

    case_id: str
    folder: str
    source: str
    state: CaseState
    key: str | None
    files: Files
    seconds: float | None
    failure: CaseFailure | None


def result_key(inputs_sha256: Sequence[str], model: Sequence[str]) -> str:
    """SHA-256 of everything that a result follows from: the input's hashes, and what identifies model and settings."""
    return hashlib.sha256(json.dumps([list(inputs_sha256), list(model)]).encode()).hexdigest()


def is_whole(folder: Path, files: Files) -> bool:
    """Whether every file of a result is there with the bytes that were recorded."""
    return bool(files) and all(
        (folder / name).is_file() and (folder / name).stat().st_size == size and sha256_of_file(folder / name) == sha256
        for name, (size, sha256) in files.items()
    )


class Ledger:
    """The ledger of an output folder, an SQLite file in WAL mode: one process writes, others may read meanwhile.

    Parameters
    ----------
    folder
        The output folder.
    create
        Write the ledger, and make it if there is none; otherwise it is opened for reading only.

    Raises
    ------
    UsageError
        If there is none, it is empty, no ledger, cannot be read, or was written by a later version.
    OutputNotWritable
        If it is to be written and cannot be.
    """

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        self._path = path = folder / LEDGER_FILE
        self._works = _as_output_error if create else _as_reading_error
        if not create and not path.is_file():
            raise UsageError(f"{folder} holds no batch ({LEDGER_FILE} is missing); name the output folder of one")
        with self._works(path):
            self._database = _connect(path, create=create)
        try:
            with self._works(path):
                (version,) = self._database.execute("PRAGMA user_version").fetchone()
                if version > _VERSION:
                    raise UsageError(f"{path} is of form {version}; this medseg knows {_VERSION}. Update medseg")
                if version == 0 and not create:
                    raise UsageError(
                        f"{folder} holds no batch ({LEDGER_FILE} is empty); a run that is just beginning fills it, one "
                        "that ended before that begins anew with --resume"
                    )
                if create:
                    self._database.execute("PRAGMA journal_mode=WAL")
                    self._database.execute("PRAGMA synchronous=NORMAL")
                    self._database.executescript(_SCHEMA)
                    self._database.execute(f"PRAGMA user_version={_VERSION}")
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add(self, cases: Sequence[tuple[str, str, str]]) -> None:
        """Enter cases (name, folder, source) that are not known; what is known of others stays."""
        with _as_output_error(self._path), self._transaction():
            self._database.executemany(
                "INSERT INTO cases (case_id, folder, source, state) VALUES (?, ?, ?, 'pending') "
                "ON CONFLICT (case_id) DO UPDATE SET source = excluded.source",
                cases,
            )

    def forget_gone(self, keep: set[str]) -> None:
        """Drop cases that are none of `keep`, for they have left the archive, and whose result is not there either."""
        with closing(self._database.execute("SELECT case_id, folder, files IS NULL FROM cases")) as rows:
            left = [row for row in rows if row[0] not in keep]
        gone = [(case_id,) for case_id, folder, is_bare in left if is_bare or not (self._path.parent / folder).is_dir()]
        with _as_output_error(self._path), self._transaction():
            self._database.executemany("DELETE FROM cases WHERE case_id = ?", gone)

    def set_state(self, case_id: str, state: Literal["pending", "running"]) -> None:
        """A case waits, or is being worked on: what it had is no result any more."""
        self._update(case_id, state=state, key=None, files=None, seconds=None, stage=None, error=None, message=None)

    def set_done(self, case_id: str, key: str, files: Files, seconds: float) -> None:
        """A case is finished, and these are its files."""
        self._update(case_id, state="done", key=key, files=json.dumps(files), seconds=seconds)

    def set_failed(self, case_id: str, stage: str, error: str, message: str) -> None:
        """A case could not be finished: at which stage, the kind of error, and why."""
        self._update(case_id, state="failed", stage=stage, error=error, message=message)

    def set_unfailed(self, case_id: str) -> None:
        """A case that could not be stored in a PACS now is."""
        self._update(case_id, state="done", stage=None, error=None, message=None)

    def set_aside(self, case_id: str, key: str) -> None:
        """A case is none that is segmented by itself: a localizer, a derived image."""
        self._update(case_id, state="set aside", key=key)

    def set_stored(self, case_id: str, address: str, key: str) -> None:
        """The result with that key lies in a PACS."""
        with _as_output_error(self._path):
            self._database.execute("INSERT OR REPLACE INTO stored VALUES (?, ?, ?)", (case_id, address, key))

    def is_stored(self, case_id: str, address: str, key: str | None) -> bool:
        """Whether the result with that key lies in a PACS."""
        question = "SELECT 1 FROM stored WHERE case_id = ? AND address = ? AND key = ?"
        return self._database.execute(question, (case_id, address, key)).fetchone() is not None

    def entry(self, case_id: str) -> Entry | None:
        """What is known of one case."""
        with self._works(self._path):
            return next(self._select("WHERE case_id = ?", case_id), None)

    def entries(self, *, with_files: bool = False) -> list[Entry]:
        """Every case, by name; its files only if asked for, since they take most of the memory."""
        with self._works(self._path):
            return list(self._select("ORDER BY case_id", with_files=with_files))

    def counts(self) -> dict[str, int]:
        """How many cases are in each state."""
        with closing(self._database.execute("SELECT state, COUNT(*) FROM cases GROUP BY state")) as rows:
            return dict(rows.fetchall())

    def _select(self, condition: str, *values: str, with_files: bool = True) -> Iterator[Entry]:
        files_column = "files" if with_files else "NULL"
        columns = f"case_id, folder, source, state, key, {files_column}, seconds, stage, error, message"
        for row in self._database.execute(f"SELECT {columns} FROM cases {condition}", values):  # noqa: S608 (ours)
            case_id, folder, source, state, key, files, seconds, stage, error, message = row
            told = {name: (size, sha256) for name, (size, sha256) in json.loads(files or "{}").items()}
            failure = CaseFailure(case_id, stage, f"{error}: {message}") if state == "failed" else None
            yield Entry(case_id, folder, source, state, key, told, seconds, failure)

    def _update(self, case_id: str, **values: object) -> None:
        names = ", ".join(f"{name} = ?" for name in values)
        with _as_output_error(self._path):
            self._database.execute(f"UPDATE cases SET {names} WHERE case_id = ?", (*values.values(), case_id))  # noqa: S608

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")


def _connect(path: Path, *, create: bool) -> sqlite3.Connection:
    """Open the file; a reader changes nothing, not even the form of a file that a run has just begun."""
    if create:
        return sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None)
    is_open = path.with_name(f"{path.name}-wal").exists()  # by a run, or one that was killed
    how = "mode=ro" if is_open else "immutable=1"  # no locks, no files beside it: the disk may be read-only
    return sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True, timeout=_PATIENCE_S, isolation_level=None)


@contextmanager
def _as_reading_error(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise UsageError(
            f"{path} cannot be read ({error}): a run may just begin there, try again; or the disk fails"
        ) from error
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{path} is no ledger, or damaged: {error}") from error


@contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        words = "the run ends here, --resume goes on with it"
        raise OutputNotWritable(f"{path} cannot be written: {error}; {words}") from error
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{path} is no ledger, or damaged: {error}") from error
