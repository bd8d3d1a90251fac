"""What a run and its worker processes say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medseg.batch.ledger import Files
from medseg.core.scan import Scan
from medseg.errors import MedsegError

__all__ = [
    "CaseDone",
    "CaseFailed",
    "CaseShort",
    "CaseStopped",
    "ModelChoice",
    "Outcome",
    "Ready",
    "Reply",
    "Stage",
    "Task",
    "Unusable",
]


@dataclass(frozen=True)
class ModelChoice:
    """The model and how it is run; the first message to a worker.

    Parameters
    ----------
    model, device, engine, precision, trust, classes
        As `load_segmenter`.
    mirror, skip_air, max_memory_mib
        As `RunOptions`.
    nan_as
        As `segment_case`.
    for_pacs
        Write DICOM objects that a PACS can file: they say who the patient is.
    seg_kind, mesh, viewer
        As `write_case`.
    rtstruct
        As `write_case`, for the cases that are DICOM series.
    """

    model: str
    device: str = "auto"
    engine: str = "auto"
    precision: str = "auto"
    trust: bool | None = None
    classes: tuple[str, ...] | None = None
    mirror: bool | None = None
    skip_air: bool = False
    max_memory_mib: float | None = None
    nan_as: float | None = None
    for_pacs: bool = False
    seg_kind: Literal["binary", "labelmap"] = "binary"
    rtstruct: bool = False
    mesh: Literal["stl", "obj"] | None = None
    viewer: Literal["canvas", "niivue"] = "canvas"

    @property
    def settings(self) -> tuple[str, ...]:
        """What changes a result, apart from the model itself."""
        asked = {
            "for PACS": self.for_pacs,
            "labelmap": self.seg_kind == "labelmap",
            "rtstruct": self.rtstruct,
            f"mesh {self.mesh}": self.mesh is not None,
            "niivue": self.viewer == "niivue",
            f"classes {','.join(self.classes or ())}": self.classes is not None,
        }
        others = (name for name, is_asked in asked.items() if is_asked)
        return (self.precision, str(self.mirror), str(self.skip_air), str(self.nan_as), *others)


@dataclass(frozen=True)
class Task:
    """One case to do.

    Parameters
    ----------
    case_id, scan
        Its name, and where its files are.
    folder
        Where its result goes.
    inputs
        What identifies its input for the ledger, if that is not the hash of its files.
    scratch
        The folder of its files, if it is to be removed when the case has ended.
    is_frugal
        Within half of the memory that is free: it went wrong for want of memory, or with its worker.
    is_alone
        With no other case in its process: something went wrong while several were in work, and it may be the cause.
    """

    case_id: str
    scan: Scan
    folder: Path
    inputs: tuple[str, ...] | None = None
    scratch: Path | None = None
    is_frugal: bool = False
    is_alone: bool = False


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
    """A case has reached this stage."""

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
class CaseShort:
    """There was not enough memory: alone it may go; if an allocation failed, alone and with less to hold."""

    is_frugal: bool


@dataclass(frozen=True)
class CaseStopped:
    """Nothing more can be written: the disk is full."""

    error: MedsegError


Outcome = CaseDone | CaseFailed


@dataclass(frozen=True)
class Reply:
    """What a worker says of a case."""

    case_id: str
    said: Stage | CaseDone | CaseFailed | CaseShort | CaseStopped
