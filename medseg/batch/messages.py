"""What a run and its worker processes say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medseg.batch.ledger import Files
from medseg.core.scan import Scan
from medseg.errors import MedsegError

__all__ = ["CaseDone", "CaseFailed", "CaseStopped", "ModelChoice", "Ready", "Stage", "Task", "Unusable"]


@dataclass(frozen=True)
class ModelChoice:
    """The model and how it is run; the first message to a worker.

    Parameters
    ----------
    model, device, engine, precision, trust
        As `load_segmenter`.
    mirror, skip_air, max_memory_mib
        As `RunOptions`.
    nan_as
        As `segment_case`.
    """

    model: str
    device: str = "auto"
    engine: str = "auto"
    precision: str = "auto"
    trust: bool | None = None
    mirror: bool | None = None
    skip_air: bool = False
    max_memory_mib: float | None = None
    nan_as: float | None = None

    @property
    def settings(self) -> tuple[str, ...]:
        """What changes numbers, apart from the model itself."""
        return (self.precision, str(self.mirror), str(self.skip_air), str(self.nan_as))


@dataclass(frozen=True)
class Task:
    """One case to do. `is_frugal`: within half of the memory that is free, after it went wrong for want of memory."""

    case_id: str
    scan: Scan
    folder: Path
    is_frugal: bool = False
    is_retry: bool = False


@dataclass(frozen=True)
class Ready:
    """The worker has the model; `model` identifies it: the hash of its weights and of its recipe."""

    model: tuple[str, ...]


@dataclass(frozen=True)
class Unusable:
    """The model cannot be used at all."""

    error: MedsegError


@dataclass(frozen=True)
class Stage:
    """The present case has reached this stage."""

    name: str


@dataclass(frozen=True)
class CaseDone:
    """The case is written."""

    inputs_sha256: tuple[str, ...]
    files: Files
    seconds: float


@dataclass(frozen=True)
class CaseFailed:
    """The case could not be finished: at which stage, the kind of error, and why."""

    stage: str
    error: str
    message: str


@dataclass(frozen=True)
class CaseStopped:
    """Nothing more can be written: the disk is full."""

    error: MedsegError
