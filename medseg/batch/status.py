"""How a batch stands."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from medseg.batch.ledger import Ledger
from medseg.batch.locks import is_running
from medseg.core.result import CaseFailure

__all__ = ["BatchStatus", "archive_status"]


@dataclass(frozen=True)
class BatchStatus:
    """How a batch stands.

    Parameters
    ----------
    output
        Its folder.
    n_cases, n_done, n_failed, n_pending, n_set_aside
        Cases in all, with a result, without one for a reason, not yet looked at, and none to segment (localizers and
        derived images that were fetched from a PACS).
    is_running
        Whether a run is at work on it.
    seconds_per_case
        Mean over the cases that are done; None while there are none.
    failures
        The failed cases, by name: stage and reason.
    """

    output: Path
    n_cases: int
    n_done: int
    n_failed: int
    n_pending: int
    is_running: bool
    seconds_per_case: float | None
    failures: tuple[CaseFailure, ...]
    n_set_aside: int = 0


def archive_status(output: str | PathLike[str]) -> BatchStatus:
    """How a batch stands; also while it runs.

    Parameters
    ----------
    output
        The output folder of a batch.

    Raises
    ------
    UsageError
        If it holds no batch.
    """
    folder = Path(output)
    with Ledger(folder) as ledger:
        entries = ledger.entries()
    seconds = [entry.seconds for entry in entries if entry.seconds is not None]
    failures = tuple(entry.failure for entry in entries if entry.failure is not None)
    n_done = sum(entry.state == "done" for entry in entries)
    n_set_aside = sum(entry.state == "set aside" for entry in entries)
    return BatchStatus(
        output=folder,
        n_cases=len(entries),
        n_done=n_done,
        n_failed=len(failures),
        n_pending=len(entries) - n_done - len(failures) - n_set_aside,
        is_running=is_running(folder),
        seconds_per_case=sum(seconds) / len(seconds) if seconds else None,
        failures=failures,
        n_set_aside=n_set_aside,
    )
