"""What the commands say: errors, logs and progress on stderr, JSON on stdout."""

from __future__ import annotations

import errno
import logging
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from medseg.errors import MedsegError

if TYPE_CHECKING:
    import rich.progress

    from medseg.core.monitor import Progress

__all__ = ["CleanErrors", "print_json", "show_notes", "show_progress"]

_UNITS = {"network": "windows", "train": "steps", "hash": "cases", "check": "cases", "tune": "cases"}
_SECONDS_TO_BEGIN = 0.5
_SECONDS_BETWEEN_LINES = 10.0
_EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count


class CleanErrors(TyperGroup):
    """A group of commands whose deliberate errors are one message on stderr and an exit code, without traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; `--debug` shows the traceback of an error too."""
        debug = bool(ctx.params.get("debug"))
        with _logs_on_stderr(debug):
            try:
                return super().invoke(ctx)
            except (MedsegError, OSError, MemoryError, KeyboardInterrupt) as error:
                if isinstance(error, OSError) and error.errno == errno.EPIPE:
                    raise  # the reader of our output has gone: Typer ends quietly
                if debug:
                    traceback.print_exc()
                message, exit_code = _explain(error)
                typer.echo(message, err=True)
                raise SystemExit(exit_code) from error


def _explain(error: BaseException) -> tuple[str, int]:
    """The message and exit code of an error."""
    if isinstance(error, MedsegError):
        return f"Error: {error}", error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted.", _EXIT_INTERRUPTED
    if isinstance(error, MemoryError):
        return f"Error: not enough memory ({str(error) or 'no details'})", 1
    if isinstance(error, OSError) and error.strerror:
        return f"Error: {error.filename or 'a file'}: {error.strerror}", 1
    return f"Error: {error}", 1


@contextmanager
def _logs_on_stderr(debug: bool) -> Iterator[None]:
    """Logs and Python warnings as one line each on stderr, while a command runs."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.DEBUG if debug else logging.WARNING)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s" if debug else "%(levelname)s: %(message)s"))
    root, own, show_warning = logging.getLogger(), logging.getLogger("medseg"), warnings.showwarning
    dicom_network = logging.getLogger("pynetdicom")
    own_level, dicom_level = own.level, dicom_network.level
    root.addHandler(handler)
    if debug:
        own.setLevel(logging.DEBUG)
    else:
        dicom_network.setLevel(logging.CRITICAL)  # what it says comes as an error of ours, once
    warnings.showwarning = _log_warning
    try:
        yield
    finally:
        warnings.showwarning = show_warning
        own.setLevel(own_level)
        dicom_network.setLevel(dicom_level)
        root.removeHandler(handler)


def _log_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    logging.getLogger("py.warnings").warning("%s: %s", category.__name__, message)


def print_json(value: Mapping[str, Any]) -> None:
    """Print a mapping as JSON on stdout; characters beyond ASCII are escaped, so that any pipe can carry them."""
    import json

    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def show_notes(notes: tuple[str, ...], *, quiet: bool) -> None:
    """What was done to the input beside reading it, one line a note on stderr."""
    if not quiet:
        for note in notes:
            typer.echo(f"Note: {note}", err=True)


@contextmanager
def show_progress(*, quiet: bool) -> Iterator[Progress | None]:
    """Progress on stderr: live bars in a terminal, a line now and then elsewhere, nothing if quiet.

    Yields
    ------
    What to hand to a function that takes `progress`.
    """
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _live_bars() as bars:
            yield _Bars(bars)
    else:
        yield _Lines()


def _live_bars() -> rich.progress.Progress:
    """A bar with stage, units done and in all, and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
        redirect_stdout=False,
    )


class _Bars:
    """Progress as Rich bars, one a stage."""

    def __init__(self, bars: rich.progress.Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, rich.progress.TaskID] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total, unit=_unit(stage))
        self._bars.update(self._tasks[stage], completed=done, total=total)

    def remark(self, text: str) -> None:
        """A sentence above the bars."""
        self._bars.console.print(text, markup=False, highlight=False)


class _Lines:
    """Progress as plain lines, for logs: each stage when it starts, then one in ten seconds at most."""

    def __init__(self) -> None:
        self._stage = ""
        self._begun = self._told = 0.0
        self._from = (0.0, 0)  # when, and with how many units done, the count of time left starts

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._begun, self._told, self._from = stage, now, now, (now, done)
            typer.echo(stage, err=True)
        elif done == 0:
            self._begun, self._from = now, (now, 0)
        elif now - self._begun < _SECONDS_TO_BEGIN:
            self._from = (now, done)  # what is told as done at once was done by an earlier run
        elif done < total and now - self._told >= _SECONDS_BETWEEN_LINES:
            self._told = now
            since, before = self._from
            left_s = (now - since) / max(done - before, 1) * (total - done)
            typer.echo(f"{stage}: {done}/{total} {_unit(stage)}, about {left_s:.0f} s left", err=True)

    def remark(self, text: str) -> None:
        """A sentence as a line of its own."""
        typer.echo(text, err=True)


def _unit(stage: str) -> str:
    """What the units of work of a stage are called."""
    return "steps" if stage.startswith("fold") else _UNITS.get(stage, "")
