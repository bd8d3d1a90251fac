"""What a training and its processes say to each other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.core.plan import Plan
from medseg.errors import MedsegError
from medseg.io.labelled_cases import LabelledCase

__all__ = ["Done", "Failed", "Logged", "Moved", "Order"]


@dataclass(frozen=True, eq=False)
class Order:
    """To a process: train as number `rank` of `size`; the tensors lie in a file that it has open.

    Parameters
    ----------
    plan, validation, folder, resume
        As `fit` takes them.
    rank, size, device
        Which process it is, of how many, on which device.
    meeting
        The file at which the processes meet.
    n_threads
        Threads for torch's operators on the CPU.
    log_level
        Records of the package's loggers from this level on are wanted.
    """

    plan: Plan
    validation: Sequence[LabelledCase]
    folder: Path
    resume: bool
    rank: int
    size: int
    device: str
    meeting: Path
    n_threads: int
    log_level: int


@dataclass(frozen=True)
class Moved:
    """From the first process: so many steps of so many are done."""

    done: int
    total: int


@dataclass(frozen=True, eq=False)
class Logged:
    """From the first process: a log record."""

    record: logging.LogRecord


@dataclass(frozen=True, eq=False)
class Failed:
    """A process has failed: when (system-wide seconds), with which error of ours, or what another one says."""

    at_s: float
    error: MedsegError | None
    text: str


@dataclass(frozen=True, eq=False)
class Done:
    """A process has trained; the SHA-256 of its weights and, from the first one, the weights as `torch.save` writes."""

    sha256: str
    weights: bytes | None = None
