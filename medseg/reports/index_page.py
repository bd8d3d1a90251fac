"""The page of many cases: one row a case, with a link to its own page."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import quote

from medseg.errors import ScanNotFound, UsageError
from medseg.io.json_files import read_json
from medseg.pages.frame import SORT_SCRIPT, write_page
from medseg.reports.page_style import STYLE

__all__ = ["CaseSummary", "find_cases", "summarize_case", "write_index"]

_RESULT, _REPORT = "result.json", "report.html"
_COLUMNS = ("case", "lesions", "volume (ml)", "modality", "model", "notes")


@dataclass(frozen=True)
class CaseSummary:
    """What the index tells of a case; `problem` is why it has no result to read, and then nothing else is known."""

    folder: Path
    case_id: str
    n_lesions: int | None = None
    volume_ml: float | None = None
    modality: str | None = None
    model: str | None = None
    n_notes: int | None = None
    problem: str | None = None


def find_cases(folder: str | PathLike[str]) -> list[CaseSummary]:
    """Every case below a folder, told by its `result.json`, in the order of their folders.

    Raises
    ------
    ScanNotFound
        If there is no such folder, or no case in it.
    """
    root = Path(folder)
    cases = [summarize_case(path.parent) for path in sorted(root.rglob(_RESULT))]
    if not cases:
        raise ScanNotFound(f"{root} holds no case: no {_RESULT} in it or below it; medseg segment writes one")
    return cases


def write_index(folder: str | PathLike[str], cases: list[CaseSummary] | None = None) -> Path:
    """Write `index.html` into a folder of cases.

    Parameters
    ----------
    folder
        The folder; an older index is replaced.
    cases
        What `find_cases` found there; None looks for them.

    Returns
    -------
    The file.

    Raises
    ------
    ScanNotFound
        If the folder holds no case.
    OutputNotWritable
        If it cannot be written.
    """
    root = Path(folder)
    found = find_cases(root) if cases is None else cases
    path = root / "index.html"
    main = f'<dl class="facts">\n{_facts(found)}\n</dl>\n<h2>Results</h2>\n{_table(found, root)}'
    write_page(path, "Cases", main, style=STYLE, script=SORT_SCRIPT)
    return path


def summarize_case(folder: Path) -> CaseSummary:
    """What the `result.json` in a case's folder says; a summary with its `problem` where that cannot be read."""
    try:
        told: dict[str, Any] = read_json(folder / _RESULT)
        return CaseSummary(
            folder,
            case_id=str(told["case_id"]),
            n_lesions=int(told["n_lesions"]),
            volume_ml=float(told["lesion_volume_ml"]),
            modality=told["scan"]["modality"],
            model=str(told["provenance"]["model_name"]),
            n_notes=len(told["provenance"]["notes"]),
        )
    except (UsageError, KeyError, TypeError, ValueError) as error:
        return CaseSummary(folder, case_id=folder.name, problem=f"{type(error).__name__}: {error}")


def _facts(cases: list[CaseSummary]) -> str:
    known = [case for case in cases if case.problem is None]
    facts = {
        "Cases": str(len(cases)),
        "With lesions": str(sum(bool(case.n_lesions) for case in known)),
        "Lesions": str(sum(case.n_lesions or 0 for case in known)),
        "Total volume": f"{sum(case.volume_ml or 0.0 for case in known):.3f} ml",
        "Without result": str(len(cases) - len(known)),
    }
    return "\n".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items())


def _table(cases: list[CaseSummary], root: Path) -> str:
    heads = "".join(f'<th scope="col"><button type="button">{word}</button></th>' for word in _COLUMNS)
    rows = "\n".join(_row(case, root) for case in cases)
    return (
        '<div class="scroll" role="region" aria-label="Cases" tabindex="0"><table class="sortable">\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _row(case: CaseSummary, root: Path) -> str:
    name = escape(case.case_id)
    report = case.folder / _REPORT
    if report.is_file():
        link = quote("/".join(report.relative_to(root).parts), errors="surrogateescape")
        name = f'<a href="{escape(link)}">{name}</a>'
    head = f'<th scope="row" data-value="{escape(case.case_id)}">{name}</th>'
    if case.problem is not None:
        return f'<tr>{head}<td class="text flag" colspan="5">{escape(case.problem)}</td></tr>'
    cells = [
        _cell("number", case.n_lesions),
        _cell("number", case.volume_ml, f"{case.volume_ml:.3f}"),
        _cell("text", case.modality),
        _cell("text", case.model),
        _cell("number", case.n_notes),
    ]
    return f"<tr>{head}{''.join(cells)}</tr>"


def _cell(kind: str, value: object, shown: str | None = None) -> str:
    """A cell that sorts by the exact value; a dash, sorted last, for none."""
    exact = "" if value is None else escape(str(value))
    return f'<td class="{kind}" data-value="{exact}">{exact or "-" if shown is None else escape(shown)}</td>'
