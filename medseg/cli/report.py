"""`medseg report`: the index of a folder of cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.console import print_json
from medseg.cli.options import Json, Quiet

__all__ = ["report"]

_Folder = Annotated[
    Path, typer.Argument(metavar="DIR", show_default=False, help="Folder of cases, as medseg segment writes them.")
]


def report(folder: _Folder, as_json: Json = False, quiet: Quiet = False) -> None:
    """Write index.html: one row a case, with a link to its page.

    Cases are told by their result.json, in the folder and below it, those of a batch by its ledger; an older index is
    replaced. What failed or cannot be read has a row that says why, and the exit code is 1.

    \b
    Example:
      medseg report out
    """  # noqa: D301
    from medseg.batch.ledger import LEDGER_FILE
    from medseg.batch.tables import summarize_batch
    from medseg.reports.index_page import find_cases, write_index

    cases = summarize_batch(folder) if (folder / LEDGER_FILE).is_file() else find_cases(folder)
    path = write_index(folder, cases)
    lost = [case for case in cases if case.problem is not None]
    if as_json:
        known = [
            {"case_id": case.case_id, "n_lesions": case.n_lesions, "volume_ml": case.volume_ml, "problem": case.problem}
            for case in cases
        ]
        print_json({"output": str(path), "cases": known})
    elif not quiet:
        typer.echo(f"{len(cases)} case(s), {len(lost)} without result\n\nWritten to {path}")
    if lost:
        raise typer.Exit(1)
