"""What `medseg batch` says while it runs and at its end: bars in a terminal, lines in a log, JSON for a program."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from medseg.cli.console import print_json

if TYPE_CHECKING:
    import rich.progress

    from medseg.batch.estimate import Estimate
    from medseg.batch.run import PlannedCase
    from medseg.batch.status import BatchStatus
    from medseg.dicom.patience import Delay, OnDelay

__all__ = ["print_plan", "print_status", "show_batch", "tell_delays"]

OnEvent = Callable[[Mapping[str, Any]], None]


@contextmanager
def show_batch(*, quiet: bool, as_json: bool) -> Iterator[OnEvent | None]:
    """What to hand to `run_archive` as `on_event`."""
    if quiet:
        yield None
    elif as_json:
        yield _print_event
    elif sys.stderr.isatty():
        with _live_bar() as bar:
            yield _Bar(bar)
    else:
        yield _Lines()


def tell_delays(*, quiet: bool, as_json: bool) -> OnDelay | None:
    """What to call when a PACS is asked again after a wait: a line on stderr, or an event."""

    def tell(delay: Delay) -> None:
        if as_json:
            _print_event({"event": "delay", **vars(delay), "wait_s": round(delay.wait_s, 3)})
        else:
            again = f"attempt {delay.attempt} of {delay.attempts} in {delay.wait_s:.1f} s"
            typer.echo(f"{delay.reason}; {again}", err=True)

    return None if quiet else tell


def print_plan(cases: list[PlannedCase], estimate: Estimate | None, *, as_json: bool) -> None:
    """What a run would do with each case, and about what it would take."""
    if as_json:
        shown = [{name: value for name, value in vars(case).items() if name != "scan"} for case in cases]
        print_json(
            {"n_cases": len(cases), "cases": shown, "estimate": None if estimate is None else vars(estimate)},
        )
        return
    for case in cases:
        typer.echo("  ".join(filter(None, [f"{case.state:<11}", case.case_id, case.problem])))
    n_to_do = sum(case.state == "to do" for case in cases)
    typer.echo(f"{n_to_do} of {len(cases)} case(s) to do")
    if estimate is not None:
        typer.echo(
            f"about {_span(estimate.seconds)} and {estimate.n_bytes / 2**20:.1f} MiB of results (from {estimate.basis})"
        )


def print_status(state: BatchStatus, *, as_json: bool) -> None:
    """How a batch stands, failed cases with their reason."""
    if as_json:
        print_json({**vars(state), "output": str(state.output), "failures": [vars(case) for case in state.failures]})
        return
    for case in state.failures:
        typer.echo(f"failed  {case.case_id}  ({case.stage})  {case.error}")
    pace = "" if state.seconds_per_case is None else f", {state.seconds_per_case:.3g} s a case"
    aside = f", {state.n_set_aside} set aside" if state.n_set_aside else ""
    running = ", a run is at work" if state.is_running else ""
    typer.echo(
        f"{state.output}: {state.n_cases} case(s): {state.n_done} done, {state.n_failed} failed, "
        f"{state.n_pending} to do{aside}{pace}{running}"
    )


def _print_event(event: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(event), err=True)


class _Count:
    """Cases that have ended, failed, and were worked on; the pace and the time left that follow."""

    def __init__(self) -> None:
        self.n_cases = 0
        self._ended: set[str] = set()
        self._failed: set[str] = set()
        self._n_worked = 0
        self._started_s: float | None = None

    def hear(self, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if kind == "found":
            self.n_cases = event["n_cases"]
        elif kind == "start" and self._started_s is None:
            self._started_s = time.monotonic()  # loading the model does not count
        if kind in ("done", "failed", "skipped", "set aside"):
            self._ended.add(event["case_id"])  # once: what was done may fail to be stored
        if kind == "failed":
            self._failed.add(event["case_id"])
        self._n_worked += kind == "done"

    @property
    def n_ended(self) -> int:
        """Cases that have ended, one way or another."""
        return len(self._ended)

    @property
    def n_failed(self) -> int:
        """Cases that have failed."""
        return len(self._failed)

    def pace(self) -> str:
        """Such as "120 cases an hour, about 5 min left"; empty while nothing is known."""
        if self._started_s is None or not self._n_worked:
            return ""
        each_s = (time.monotonic() - self._started_s) / self._n_worked
        left = _span(each_s * max(0, self.n_cases - self.n_ended))
        return f"{3600 / max(each_s, 1e-9):.0f} cases an hour, about {left} left"


class _Lines:
    """A line for each case that ends, with what has failed, the pace and the time left."""

    def __init__(self) -> None:
        self._count = _Count()

    def __call__(self, event: Mapping[str, Any]) -> None:
        kind, count = event["event"], self._count
        count.hear(event)
        if kind == "cluster":
            typer.echo(f"dashboard: {event['dashboard']}", err=True)
        elif kind == "found":
            typer.echo(f"{count.n_cases} case(s) found", err=True)
        elif kind in ("done", "failed"):
            reason = f": {event['message']}" if kind == "failed" else ""
            details = ", ".join(filter(None, [f"{count.n_failed} failed" if count.n_failed else "", count.pace()]))
            told = f" ({details})" if details else ""
            typer.echo(f"{count.n_ended}/{count.n_cases} {kind} {event['case_id']}{told}{reason}", err=True)


def _live_bar() -> rich.progress.Progress:
    """A bar with cases ended and in all, cases failed, the pace and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("cases"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]} failed"),
        TextColumn("{task.fields[pace]}"),
        console=Console(stderr=True),
        redirect_stdout=False,
    )


class _Bar:
    """A live bar; failures and the dashboard stand above it."""

    def __init__(self, bar: rich.progress.Progress) -> None:
        self._bar = bar
        self._count = _Count()
        self._task = bar.add_task("cases", total=None, failed=0, pace="")

    def __call__(self, event: Mapping[str, Any]) -> None:
        count = self._count
        count.hear(event)
        if event["event"] == "cluster":
            self._say(f"dashboard: {event['dashboard']}")
        elif event["event"] == "failed":
            self._say(f"failed {event['case_id']}: {event['message']}")
        self._bar.update(
            self._task, completed=count.n_ended, total=count.n_cases or None, failed=count.n_failed, pace=count.pace()
        )

    def _say(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False)


def _span(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
