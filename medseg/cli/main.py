"""`medseg`: the commands and the options that all of them share."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Annotated

import typer

from medseg import __version__
from medseg.cli.batch import batch, status
from medseg.cli.compare import compare
from medseg.cli.console import CleanErrors
from medseg.cli.convert import convert
from medseg.cli.demo import demo
from medseg.cli.evaluate import evaluate
from medseg.cli.finetune import finetune
from medseg.cli.inspect import inspect
from medseg.cli.manifest import manifest
from medseg.cli.measure import measure
from medseg.cli.model import model_app
from medseg.cli.phantom import phantom
from medseg.cli.report import report
from medseg.cli.segment import segment
from medseg.cli.separate import separate
from medseg.cli.train import train
from medseg.cli.tune import tune
from medseg.io.freed_memory import keep_freed_memory

__all__ = ["app", "run"]

app = typer.Typer(
    name="medseg",
    cls=CleanErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: quick, and the same in a terminal, a pipe and the documentation
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"medseg {__version__}")
        raise typer.Exit


@app.callback(epilog="Exit code: 0 fine, 1 the case failed, 2 wrong usage. For research use only.")
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and detailed logs.")] = False,
) -> None:
    """From a medical scan to a table of lesions: segment, separate, measure.

    \b
    Example:
      medseg demo
    """  # noqa: D301


_COMMANDS = (
    *(demo, inspect, segment, separate, measure, convert, evaluate, compare, report),
    *(batch, status, phantom, manifest, train, finetune, tune),
)
for _command in _COMMANDS:
    app.command()(_command)
app.add_typer(model_app, name="model")


def run() -> None:
    """Run the command line with the arguments of this process; never returns."""
    signal.signal(signal.SIGTERM, _end)
    keep_freed_memory()
    app(prog_name="medseg")


def _end(number: int, _frame: FrameType | None) -> None:
    """Leave by an exception, so that half-written files are removed on the way out."""
    raise SystemExit(128 + number)
