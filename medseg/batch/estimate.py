"""What a run would take: seconds and bytes, from the cases that are done, or from a trial of one."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from medseg.batch.ledger import LEDGER_FILE, Ledger
from medseg.batch.messages import CaseDone, ModelChoice, Task
from medseg.batch.run import PlannedCase
from medseg.errors import UsageError
from medseg.io.json_files import read_json

__all__ = ["Estimate", "estimate_run"]

_MOST_LOOKED_AT = 50


@dataclass(frozen=True)
class Estimate:
    """What a run would take.

    Parameters
    ----------
    seconds
        About so many, for one worker after another's case; cases of one worker overlap, so it may be less.
    n_bytes
        About so many, of results.
    basis
        What it is drawn from.
    """

    seconds: float
    n_bytes: int
    basis: str


@dataclass(frozen=True)
class _Sample:
    """What cases took, and how large they were."""

    seconds: float
    n_bytes: int
    n_voxels: int
    basis: str


def estimate_run(
    planned: Sequence[PlannedCase], model: str | PathLike[str], output: str | PathLike[str], **how: Any
) -> Estimate | None:
    """What the planned cases would take, in proportion to their voxels.

    Parameters
    ----------
    planned
        What `plan_archive` returned.
    model, output, **how
        As `run_archive`. If no case is done in the output folder, the case of median size is run with the model, and
        its result thrown away.

    Returns
    -------
    The estimate; None if nothing is to do, or nothing is known of the sizes (series of a PACS), or the trial fails.

    Raises
    ------
    ModelError, UsageError
        If a trial is needed and the model cannot be loaded.
    """
    to_do = [case for case in planned if case.state == "to do" and case.scan is not None]
    sizes = [_voxels(case) for case in to_do]
    if not to_do:
        return None
    sample = _history(Path(output)) or _trial(sorted(to_do, key=_voxels)[len(to_do) // 2], model, how)
    if sample is None:
        return None
    share = sum(sizes) / sample.n_voxels
    return Estimate(sample.seconds * share, round(sample.n_bytes * share), sample.basis)


def _voxels(case: PlannedCase) -> int:
    return 0 if case.scan is None else math.prod(case.scan.geometry.shape)


def _history(folder: Path) -> _Sample | None:
    """The cases that are done in an output folder."""
    if not (folder / LEDGER_FILE).is_file():
        return None
    with Ledger(folder) as ledger:
        done = [entry for entry in ledger.entries(with_files=True) if entry.state == "done"][:_MOST_LOOKED_AT]
    seconds, n_bytes, n_voxels, n_read = 0.0, 0, 0, 0
    for entry in done:
        try:
            shape = read_json(folder / entry.folder / "result.json")["scan"]["shape"]
        except (UsageError, KeyError):
            continue
        seconds += entry.seconds or 0.0
        n_bytes += sum(size for size, _ in entry.files.values())
        n_voxels += math.prod(shape)
        n_read += 1
    return _Sample(seconds, n_bytes, n_voxels, f"{n_read} case(s) that are done") if n_voxels else None


def _trial(case: PlannedCase, model: str | PathLike[str], how: dict[str, Any]) -> _Sample | None:
    from medseg.batch.case_work import CaseWork

    if case.scan is None:
        return None
    work = CaseWork(ModelChoice(str(model), **how))
    with tempfile.TemporaryDirectory(prefix="medseg-trial-") as place:
        outcome = work.do(Task(case.case_id, case.scan, Path(place, "case")), lambda _: None)
    if not isinstance(outcome, CaseDone):
        return None
    n_bytes = sum(size for size, _ in outcome.files.values())
    return _Sample(outcome.seconds, n_bytes, _voxels(case), f"a trial of {case.case_id}")
