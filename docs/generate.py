"""Write the reference pages that follow from the code; with --check, fail if one is not up to date.

python docs/generate.py [--check]
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medseg.core.column import Column

REFERENCE = Path(__file__).resolve().parent / "reference"


def columns_page() -> str:
    """docs/reference/columns.md: every column of the lesion table, and the totals of a scan."""
    from medseg.core.columns_context import TOTALS
    from medseg.core.table import COLUMNS, FAMILIES

    head = (
        "# Columns of the lesion table\n\nWritten by `docs/generate.py` from `medseg/core/table.py`. A value that is "
        "undefined is empty in CSV and null in JSON and Parquet, never 0. "
        f'The {len(COLUMNS)} columns are there in every table. The unit "scan" is that of the scan\'s voxels. With '
        "several channels, those of intensity are the first channel's, and every further channel has its own with its "
        "name in front (`ct_mean`); those of uptake are the first channel's that is in SUV.\n\n"
        "Codes are of the IBSI (theibsi.github.io), SNOMED CT (SCT) and DICOM (DCM). How each figure is measured, and "
        "how far it can be trusted: [measurement](../explanation/measurement.md).\n"
        "The JSON form has a [schema](lesions.schema.json).\n"
    )
    parts = [head, *(_family(name, columns) for name, columns in FAMILIES.items()), _family("Totals of a scan", TOTALS)]
    tail = (
        "In JSON tables and `result.json` under `totals`; with an organ map also `organs`: for each organ with lesion "
        "in it `n_lesions` (hosted there), `volume_ml` and `tlg_suv_ml` of the lesion voxels in it.\n"
    )
    return "\n".join([*parts, tail])


def _family(name: str, columns: tuple[Column, ...]) -> str:
    rows = "".join(
        f"| `{c.name}` | {c.kind} | {c.unit} | {c.definition} | {c.code} | {c.null} | {c.source or 'medseg'} |\n"
        for c in columns
    )
    head = "| column | kind | unit | definition | code | null when | source |\n|---|---|---|---|---|---|---|\n"
    return f"## {name}\n\n{head}{rows}"


def schema_file() -> str:
    """docs/reference/lesions.schema.json: the JSON schema of a lesion table."""
    from medseg.core.table_schema import table_schema

    return json.dumps(table_schema(), indent=2) + "\n"


def manifest_schema_file() -> str:
    """docs/reference/manifest.schema.json: the JSON schema of a data manifest."""
    from medseg.io.manifest import manifest_schema

    return json.dumps(manifest_schema(), indent=2) + "\n"


def commands_page() -> str:
    """docs/reference/commands.md: the help of every command."""
    from typer.main import get_command
    from typer.testing import CliRunner

    from medseg.cli.main import app

    def help_of(*words: str) -> str:
        shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"})
        if shown.exit_code != 0:
            sys.exit(f"medseg {' '.join(words)} --help failed: {shown.output}")
        return "\n".join(line.rstrip() for line in shown.output.strip().splitlines())

    commands = get_command(app).commands  # type: ignore[attr-defined]
    names = [words for name in sorted(commands) for words in [(name,), *_below(name, commands[name])]]
    parts = ["# Commands\n\nWritten by `docs/generate.py` from the commands' own help.\n"]
    parts += [f"## medseg\n\n```text\n{help_of()}\n```\n"]
    parts += [f"## medseg {' '.join(name)}\n\n```text\n{help_of(*name)}\n```\n" for name in names]
    return "\n".join(parts)


def _below(name: str, command: object) -> list[tuple[str, str]]:
    """The commands below a group of commands."""
    return [(name, below) for below in sorted(getattr(command, "commands", {}))]


def evaluation_page() -> str:
    """docs/reference/evaluation.md: every preset, what it does in empty cases, and every figure of a case."""
    from medseg.evaluation.scores import CaseScores, LesionScore
    from medseg.metrics.presets import CORE_EDGE_CASES, PRESETS

    parts = [
        EVALUATION_HEAD,
        "| preset | what | maps | components | assignment | by | good enough |",
        "|---|" + "---|" * 6,
    ]
    for name, c in PRESETS.items():
        rule = c.matching
        limit = {"center": "within the radius", "dilated": f"touches, grown by {rule.dilation_voxels} voxels"}.get(
            rule.by, f"{'>' if rule.strict else '>='} {rule.threshold:g}"
        )
        classes = "all classes together" if c.unite_classes else "of each class"
        parts.append(
            f"| `{name}` | {c.title}. {c.reference}. | {c.input} | {c.connectivity} neighbors, {classes} | "
            f"{rule.assignment} | {rule.by} | {limit} |"
        )
    cases = ("both_empty", "empty_reference", "empty_prediction", "no_match")
    parts += ["", "## Empty cases", "", f"| figures | {' | '.join(case.replace('_', ' ') for case in cases)} |"]
    parts += ["|---|---|---|---|---|"]
    rows = {"medseg's own, with every preset": CORE_EDGE_CASES, **{f"`{n}`": c.edge_cases for n, c in PRESETS.items()}}
    rows.pop("`default`")
    parts += [f"| {name} | {' | '.join(getattr(e, case) for case in cases)} |" for name, e in rows.items()]
    for title, model in (("A case", CaseScores), ("A lesion", LesionScore)):
        names = ", ".join(f"`{name}`" for name in model.model_fields)
        parts += ["", f"## {title}", "", f"`{model.__name__}` in JSON: {names}.", "", _parameters_of(model)]
    return "\n".join(parts) + "\n"


def _parameters_of(model: type) -> str:
    """The entries of a docstring's Parameters section as a list."""
    import inspect

    lines = inspect.cleandoc(model.__doc__ or "").partition("----------\n")[2].splitlines()
    entries: list[str] = []
    for line in lines:
        if line and not line.startswith(" "):
            names = ", ".join(f"`{name}`" for name in line.split(", "))
            entries.append(f"* {names}:")
        elif line:
            entries[-1] += f" {line.strip()}"
    return "\n".join(entries)


EVALUATION_HEAD = """# Evaluation

Written by `docs/generate.py` from `medseg/metrics/presets.py` and `medseg/evaluation/scores.py`. What the figures mean,
and how to choose a preset, is in [how to evaluate](../how-to/evaluate.md).

## Presets
"""


def main() -> int:
    """Write or check every page; the number of pages that were not up to date."""
    os.environ["COLUMNS"] = "100"
    pages = {
        "columns.md": columns_page(),
        "commands.md": commands_page(),
        "evaluation.md": evaluation_page(),
        "lesions.schema.json": schema_file(),
        "manifest.schema.json": manifest_schema_file(),
    }
    stale = 0
    for name, text in pages.items():
        path = REFERENCE / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        sys.stderr.write(f"{path.name} {'is not up to date' if '--check' in sys.argv else 'written'}\n")
    return stale if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
