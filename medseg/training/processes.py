"""Several processes that train one network, one a device: started, listened to, and ended together.

The process that was asked to train takes no part itself: so it can end the others whatever they are at, also while they
wait for one another, and an error of one of them becomes an error of the training within seconds.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

import torch

from medseg.core.monitor import Monitor
from medseg.errors import MedsegError, TrainingError
from medseg.io.child_process import ChildProcess, how_it_ended
from medseg.training.orders import Done, Failed, Logged, Moved, Order
from medseg.training.task import FitTask, write_tensors

__all__ = ["LOG_FILE", "fit_in_processes"]

LOG_FILE = "processes.log"

logger = logging.getLogger(__name__)

_SECONDS_TO_SPEAK = 2.0  # after a first failure: what the others say of it
_SECONDS_TO_END = 3.0
_QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR"}  # torch advises against what `Team.wrap` does on purpose


def fit_in_processes(
    task: FitTask, folder: Path, devices: Sequence[torch.device], *, resume: bool, monitor: Monitor
) -> dict[str, torch.Tensor]:
    """Train by one process a device, as `medseg.training.loop.fit_members` does in each.

    What the processes print goes to `processes.log` in the folder.

    Raises
    ------
    MedsegError
        What one of the processes raised.
    TrainingError
        If one of them failed otherwise, or was killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n_threads = max(1, torch.get_num_threads() // len(devices))
    level = logging.getLogger("medseg").getEffectiveLevel()
    with TemporaryDirectory() as meeting, TemporaryFile(dir=folder) as tensors:  # without a name: no kill leaves it
        write_tensors(task, Path(f"/dev/fd/{tensors.fileno()}"))
        with _started(len(devices), tensors.fileno(), folder / LOG_FILE, n_threads) as processes:
            for rank, (process, device) in enumerate(zip(processes, devices, strict=True)):
                place = (folder, resume, rank, len(devices), str(device), Path(meeting, "meeting"), n_threads, level)
                process.tell(Order(task.plan, task.validation, *place))
            return _listen(processes, monitor, folder / LOG_FILE)


class _Process(ChildProcess):
    """One of the processes."""

    def __init__(self, rank: int, tensors: int, log: Path, n_threads: int) -> None:
        super().__init__(
            "medseg.training.process",
            (tensors,),
            log,
            n_threads=n_threads,
            files=(tensors,),
            environment=_QUIET,
        )
        self.rank = rank


@contextmanager
def _started(n: int, tensors: int, log: Path, n_threads: int) -> Iterator[list[_Process]]:
    """Start n processes; when the block ends, however it ends, they are gone."""
    processes: list[_Process] = []
    try:
        for rank in range(n):
            processes.append(_Process(rank, tensors, log, n_threads))  # one by one, so that none is forgotten
        yield processes
    finally:
        for process in processes:
            process.ask_to_end()  # all of them first: one that waits for another is freed by its end
        for process in processes:
            process.end(_SECONDS_TO_END)


def _listen(processes: Sequence[_Process], monitor: Monitor, log: Path) -> dict[str, torch.Tensor]:
    """Pass on what they say until all are done; the first one's weights."""
    working = {process.connection: process for process in processes}
    done: dict[int, Done] = {}
    steps = _Steps(monitor)
    while working:
        for connection in wait(list(working)):
            process = working[connection]  # type: ignore[index]
            said = process.hear()
            if isinstance(said, Moved):
                steps.tell(said)
            elif isinstance(said, Logged):
                logging.getLogger(said.record.name).handle(said.record)
            elif isinstance(said, Done):
                done[process.rank] = said
                del working[process.connection]
            else:
                raise _cause({process: said}, working, log)
    if len({one.sha256 for one in done.values()}) > 1:
        logger.warning("the devices ended with weights that differ in their last bits; the first one's are kept")
    weights: dict[str, torch.Tensor] = torch.load(io.BytesIO(done[0].weights or b""), weights_only=True)
    return weights


class _Steps:
    """Passes the first process's steps on to a monitor."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor, self._last = monitor, Moved(0, 0)

    def tell(self, moved: Moved) -> None:
        if moved.total != self._last.total:
            self._monitor.expect(moved.total)
            self._last = Moved(0, moved.total)
        if moved.done > self._last.done:
            self._monitor.advance(moved.done - self._last.done)
        self._last = moved


def _cause(failed: dict[_Process, object], working: dict[Connection, _Process], log: Path) -> MedsegError:
    """What the first failure was: when one process fails, the others lose their connection to it and fail too."""
    left = [process for process in working.values() if process not in failed]
    end_s = time.monotonic() + _SECONDS_TO_SPEAK
    while left and (rest_s := end_s - time.monotonic()) > 0:
        for connection in wait([process.connection for process in left], timeout=rest_s):
            process = working[connection]  # type: ignore[index]
            said = process.hear()
            if said is None or isinstance(said, Failed | Done):
                failed[process] = said
                left.remove(process)
    texts = {process: said for process, said in failed.items() if isinstance(said, Failed)}
    own = [said for said in texts.values() if said.error is not None]
    if own:
        first = min(own, key=lambda said: said.at_s)
        assert first.error is not None  # noqa: S101
        return first.error
    killed = [process for process, said in failed.items() if said is None]
    if killed:
        how = how_it_ended(killed[0].end(_SECONDS_TO_END))
        return TrainingError(
            f"process {killed[0].rank} of the training ended by {how}, and all others with it; its last words may be "
            f"in {log}. What was trained is kept up to the last checkpoint: --resume goes on"
        )
    process, said = min(texts.items(), key=lambda item: item[1].at_s)
    return TrainingError(f"process {process.rank} of the training failed: {said.text}; more is in {log}")
