"""A worker process: loads the model once, then does case after case until its run ends.

Started by `medseg.batch.crew` as `python -m medseg.batch.worker CHANNEL LIFELINE FOLDER`, where the first two are
descriptors: a socket for messages, and the reading end of a pipe that closes when the run ends, however it ends.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from medseg.batch.ledger import Files
from medseg.batch.locks import hold_as_worker
from medseg.batch.messages import CaseDone, CaseFailed, CaseStopped, ModelChoice, Ready, Stage, Task, Unusable
from medseg.errors import MedsegError, NotEnoughMemory, OutputNotWritable, ScanTooLarge
from medseg.io.hashes import sha256_of_file
from medseg.io.memory import available_memory_bytes
from medseg.pipeline import RESULT_FILES, segment_case, write_case

if TYPE_CHECKING:
    from medseg.inference.segmenter import Segmenter

__all__ = ["main"]

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


def main() -> None:
    """Serve one run until it ends."""
    channel, lifeline, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which then ends its workers
    signal.signal(signal.SIGTERM, _end)
    hold_as_worker(folder)
    threading.Thread(target=_end_with_run, args=(lifeline,), daemon=True).start()
    run = Connection(channel)
    choice: ModelChoice = run.recv()
    try:
        segmenter = _load(choice)
    except MedsegError as error:
        run.send(Unusable(error))
        return
    run.send(Ready((segmenter.weights_sha256, segmenter.recipe.sha256, *choice.settings)))
    while (task := _next_task(run)) is not None:
        run.send(_do(task, segmenter, choice, run))


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _end_with_run(lifeline: int) -> None:
    """Wait until the run is gone, then end at once: another run may start."""
    os.read(lifeline, 1)
    os._exit(1)


def _next_task(run: Connection) -> Task | None:
    try:
        task: Task | None = run.recv()
    except EOFError:
        return None
    return task


def _load(choice: ModelChoice) -> Segmenter:
    from medseg.inference.options import RunOptions
    from medseg.models.load import load_segmenter

    options = RunOptions(mirror=choice.mirror, skip_air=choice.skip_air, max_memory_mib=choice.max_memory_mib)
    how: dict[str, Any] = {"engine": choice.engine, "precision": choice.precision}
    return load_segmenter(choice.model, device=choice.device, trust=choice.trust, options=options, **how)


def _do(task: Task, segmenter: Segmenter, choice: ModelChoice, run: Connection) -> CaseDone | CaseFailed | CaseStopped:
    outcome, is_short = _attempt(task, segmenter, choice, run)
    if not is_short or task.is_frugal:
        return outcome
    gc.collect()
    return _attempt(replace(task, is_frugal=True), segmenter, choice, run)[0]


def _attempt(
    task: Task, segmenter: Segmenter, choice: ModelChoice, run: Connection
) -> tuple[CaseDone | CaseFailed | CaseStopped, bool]:
    """One attempt at a case: what came of it, and whether it went wrong for want of memory."""
    stages = _Stages(run)
    options = segmenter.options
    if task.is_frugal:
        segmenter.options = replace(options, max_memory_mib=_half_of_free_mib(options.max_memory_mib))
    start = time.perf_counter()
    try:
        result = segment_case(task.scan, segmenter, nan_as=choice.nan_as, progress=stages)
        stages("write", 0, 1)
        before = _stamps(task.folder)
        write_case(result, task.folder, overwrite=True)
        files = _new_files(task.folder, before)
        return CaseDone(result.provenance.inputs_sha256, files, time.perf_counter() - start), False
    except Exception as error:  # whatever it is, it stays in this case
        if isinstance(error, OutputNotWritable) and getattr(error.__cause__, "errno", None) in _DISK_FULL:
            return CaseStopped(error), False
        failed = CaseFailed(stages.current, type(error).__name__, str(error) or "no details")
        return failed, _is_short_of_memory(error)
    finally:
        segmenter.options = options


class _Stages:
    """Passes the stages of a case on to the run, once each."""

    def __init__(self, run: Connection) -> None:
        self.current = "read"
        self._run = run
        self._told = ""

    def __call__(self, stage: str, _done: int, _total: int) -> None:
        self.current = stage
        if stage != self._told:
            self._told = stage
            self._run.send(Stage(stage))


def _is_short_of_memory(error: Exception) -> bool:
    """Whether an allocation failed; a case that was refused by its estimate is refused again."""
    if isinstance(error, NotEnoughMemory | ScanTooLarge):
        return False
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MEMORY_WORDS)
    )


def _half_of_free_mib(limit: float | None) -> float:
    free = available_memory_bytes() / 2**20
    return min(free, limit or free) / 2


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """What tells whether a file has been replaced."""
    if not folder.is_dir():
        return {}
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()}


def _new_files(folder: Path, before: dict[str, tuple[int, int]]) -> Files:
    """The files that were written; others that lie there are someone else's."""
    names = {name for name, stamp in _stamps(folder).items() if before.get(name) != stamp} | set(RESULT_FILES)
    return {name: ((folder / name).stat().st_size, sha256_of_file(folder / name)) for name in sorted(names)}


if __name__ == "__main__":
    main()
