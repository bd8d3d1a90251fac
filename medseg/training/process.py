"""A process that trains with others: takes its order, trains, and says how it went.

Started by `medseg.training.processes` as `python -m medseg.training.process CHANNEL LIFELINE TENSORS`, all descriptors:
a socket for messages, the reading end of a pipe that closes when the training ends, however it ends, and the file of
tensors.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from types import FrameType

import torch

from medseg.core.monitor import Monitor
from medseg.errors import MedsegError
from medseg.io.child_process import meet_parent
from medseg.training.loop import fit_members
from medseg.training.orders import Done, Failed, Logged, Moved, Order
from medseg.training.task import read_tensors
from medseg.training.team import joined

__all__ = ["main"]


def main() -> None:
    """Train as one of several, then end."""
    training, (tensors,) = meet_parent()  # and when the training is gone, it may be resumed
    try:
        training.send(_train(training.recv(), Path(f"/dev/fd/{tensors}"), training))
    except Exception as error:
        traceback.print_exc()
        ours = error if isinstance(error, MedsegError) else None
        training.send(Failed(time.monotonic(), ours, f"{type(error).__name__}: {error}"))
        sys.stderr.flush()
        os._exit(1)  # at once: the others notice by it


def _train(order: Order, tensors: Path, training: Connection) -> Done:
    device = torch.device(order.device)
    torch.set_num_threads(order.n_threads)
    monitor = Monitor()
    if order.rank == 0:
        signal.signal(signal.SIGTERM, _leave)
        monitor = Monitor(lambda _stage, done, total: training.send(Moved(done, total)))
        _send_logs(training, order.log_level)
    _stay_here(device)
    with joined(order.rank, order.size, device, order.meeting) as team:
        task = read_tensors(tensors, order.plan, order.validation)
        weights = fit_members(task, order.folder, device=device, resume=order.resume, monitor=monitor, team=team)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is left to put in order
    return Done(_sha256(weights), _saved(weights) if order.rank == 0 else None)


def _stay_here(device: torch.device) -> None:
    """Keep gloo to this machine, and CUDA to this device."""
    if any(name == "lo" for _, name in socket.if_nameindex()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if device.type == "cuda":
        torch.cuda.set_device(device)


def _send_logs(training: Connection, level: int) -> None:
    class Sender(QueueHandler):
        def enqueue(self, record: logging.LogRecord) -> None:
            training.send(Logged(record))

    own = logging.getLogger("medseg")
    own.setLevel(level)
    own.addHandler(Sender(SimpleQueue()))


def _saved(weights: Mapping[str, torch.Tensor]) -> bytes:
    file = io.BytesIO()
    torch.save(dict(weights), file)
    return file.getvalue()


def _sha256(weights: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _leave(number: int, _frame: FrameType | None) -> None:
    """Leave by an exception, so that a half-written checkpoint is removed on the way out."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
