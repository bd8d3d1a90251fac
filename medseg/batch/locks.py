"""Locks of an output folder: one run at a time, and none while workers of a killed run are still alive.

They are advisory locks of the operating system (flock), which end with the process that holds them, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medseg.errors import OutputInUse, OutputNotWritable

__all__ = ["hold_as_worker", "is_running", "only_run"]

_RUN_LOCK, _WORKERS_LOCK = ".medseg-run.lock", ".medseg-workers.lock"
_SECONDS_FOR_ORPHANS = 30.0


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Be the only run on a folder while the block lasts.

    Raises
    ------
    OutputInUse
        If another run, or a worker of one, is at work there.
    OutputNotWritable
        If the folder cannot be written.
    """
    run = _open(folder / _RUN_LOCK)
    try:
        if not _try_lock(run, fcntl.LOCK_EX):
            holder = os.pread(run, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise OutputInUse(f"another run (process {holder}) is writing to {folder}; wait for it, or end it first")
        os.ftruncate(run, 0)
        os.pwrite(run, str(os.getpid()).encode(), 0)
        _wait_for_orphans(folder)
        yield
    finally:
        os.close(run)


def is_running(folder: Path) -> bool:
    """Whether a run is writing to a folder."""
    with suppress(FileNotFoundError):
        lock = os.open(folder / _RUN_LOCK, os.O_RDONLY)
        try:
            return not _try_lock(lock, fcntl.LOCK_SH)
        finally:
            os.close(lock)
    return False


def hold_as_worker(folder: Path) -> int:
    """Tell the next run that this process may still write; holds until the process ends. Returns the descriptor."""
    lock = _open(folder / _WORKERS_LOCK)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def _wait_for_orphans(folder: Path) -> None:
    """Workers end by themselves when their run is killed; that takes a moment."""
    lock = _open(folder / _WORKERS_LOCK)
    try:
        deadline = time.monotonic() + _SECONDS_FOR_ORPHANS
        while not _try_lock(lock, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise OutputInUse(f"a worker of an earlier run is still at work on {folder}; wait for it, or end it")
            time.sleep(0.05)
    finally:
        os.close(lock)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputNotWritable(f"{path} cannot be written ({error.strerror})") from error


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
