"""The work on one case in a worker process, with a model that is loaded once; errors become outcomes."""

from __future__ import annotations

import errno
import gc
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.batch.ledger import Files
from medseg.batch.messages import CaseDone, CaseFailed, CaseShort, CaseStopped, ModelChoice, Task
from medseg.errors import Cancelled, MedsegError, NetworkFailed, NotEnoughMemory, OutputNotWritable, ScanTooLarge
from medseg.io.hashes import sha256_of_file
from medseg.io.memory import available_memory_bytes, resident_bytes
from medseg.pipeline import MESH_FOLDER, RESULT_FILES, segment_case, write_case

if TYPE_CHECKING:
    from medseg.core.result import CaseResult
    from medseg.inference.segmenter import Segmenter

__all__ = ["CaseOutcome", "CaseWork"]

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_MEMORY_WORDS = (
    *("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory"),
    *("failed to allocate memory", "bad_alloc", "bad allocation"),
    "could not create a primitive",  # all that oneDNN says where it has no memory for its code
)

CaseOutcome = CaseDone | CaseFailed | CaseShort | CaseStopped
"""What can come of one try."""


class CaseWork:
    """A loaded model, and what is done with it; several threads may each do a case.

    Parameters
    ----------
    choice
        The model and how it is run.

    Raises
    ------
    ModelError, UsageError
        If it cannot be loaded.
    """

    def __init__(self, choice: ModelChoice) -> None:
        self._choice = choice
        self._segmenter = _load(choice)
        self.model = (self._segmenter.weights_sha256, self._segmenter.recipe.sha256, *choice.settings)

    def do(self, task: Task, tell: Callable[[str], None], time_limit_s: float | None = None) -> CaseOutcome:
        """One attempt at a case: segmented and written, or why not.

        Parameters
        ----------
        task
            The case. A frugal one must be the only one in work.
        tell
            Called with each stage that it reaches.
        time_limit_s
            Most seconds; looked at between two windows of the network.
        """
        stages = _Stages(tell)
        segmenter, options = self._segmenter, self._segmenter.options
        if task.is_frugal:
            gc.collect()
            segmenter.options = replace(options, max_memory_mib=_half_of_rest_mib(options.max_memory_mib))
        start = time.perf_counter()
        try:
            nan_as = self._choice.nan_as
            result = segment_case(task.scan, segmenter, nan_as=nan_as, progress=stages, cancel=_alarm(time_limit_s))
            stages("write", 0, 1)
            before = _stamps(task.folder)
            self._write(result, task.folder)
            files = _new_files(task.folder, before)
            return CaseDone(result.provenance.inputs_sha256, files, time.perf_counter() - start)
        except Cancelled:
            return CaseFailed(stages.current, "TimeLimit", f"took longer than {time_limit_s:g} s")
        except Exception as error:  # whatever it is, it stays in this case
            return _outcome(error, stages.current, task)
        finally:
            if task.is_frugal:
                segmenter.options = options

    def _write(self, result: CaseResult, folder: Path) -> None:
        choice = self._choice
        write_case(
            result,
            folder,
            overwrite=True,
            dicom=True if choice.for_pacs else None,
            identified_dicom=choice.for_pacs,
            seg_kind=choice.seg_kind,
            rtstruct=choice.rtstruct and result.scan.format == "dicom",
            mesh=choice.mesh,
            viewer=choice.viewer,
        )


def _load(choice: ModelChoice) -> Segmenter:
    from medseg.inference.options import RunOptions
    from medseg.models.load import load_segmenter

    options = RunOptions(mirror=choice.mirror, skip_air=choice.skip_air, max_memory_mib=choice.max_memory_mib)
    how: dict[str, Any] = {"engine": choice.engine, "precision": choice.precision, "classes": choice.classes}
    return load_segmenter(choice.model, device=choice.device, trust=choice.trust, options=options, **how)


def _alarm(limit_s: float | None) -> Callable[[], bool] | None:
    """Says when the time is over."""
    if limit_s is None:
        return None
    end_s = time.monotonic() + limit_s
    return lambda: time.monotonic() > end_s


class _Stages:
    """Passes the stages of a case on, once each."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.current = "read"
        self._tell = tell
        self._told = ""

    def __call__(self, stage: str, _done: int, _total: int) -> None:
        self.current = stage
        if stage != self._told:
            self._told = stage
            self._tell(stage)


def _outcome(error: Exception, stage: str, task: Task) -> CaseOutcome:
    if isinstance(error, OutputNotWritable) and getattr(error.__cause__, "errno", None) in _DISK_FULL:
        return CaseStopped(OutputNotWritable(f"{error}; the run ends here, --resume goes on with it"))
    if not task.is_frugal and _is_short_of_memory(error):
        return CaseShort(is_frugal=True)
    if not task.is_alone and isinstance(error, NotEnoughMemory | ScanTooLarge):  # refused beside others, by an estimate
        return CaseShort(is_frugal=False)
    return CaseFailed(stage, type(error).__name__, str(error) or "no details")


def _is_short_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed."""
    if isinstance(error, NetworkFailed) and error.__cause__ is not None:
        error = error.__cause__  # torch tells of its allocator by a RuntimeError
    if isinstance(error, MedsegError):
        return False
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MEMORY_WORDS)
    )


def _half_of_rest_mib(limit: float | None) -> float:
    """What a second try may hold: what the process holds already, and half of what it could still take."""
    held = resident_bytes() / 2**20
    rest = available_memory_bytes() / 2**20
    if limit is not None:
        rest = min(rest, max(0.0, limit - held))
    return held + rest / 2


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """What tells whether a file has been replaced, by its path in the folder."""
    if not folder.is_dir():
        return {}
    files = [path for place in (folder, folder / MESH_FOLDER) for path in place.glob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def _new_files(folder: Path, before: dict[str, tuple[int, int]]) -> Files:
    """The files that were written; others that lie there are someone else's."""
    names = {name for name, stamp in _stamps(folder).items() if before.get(name) != stamp} | set(RESULT_FILES)
    return {name: ((folder / name).stat().st_size, sha256_of_file(folder / name)) for name in sorted(names)}
