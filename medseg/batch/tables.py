"""The tables and the page of a batch, out of its ledger and its cases: the same cases give the same bytes."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from medseg.batch.ledger import Entry, Ledger
from medseg.core.columns_context import TOTALS
from medseg.core.table import COLUMNS, Value
from medseg.errors import UsageError
from medseg.io.atomic import atomic_path
from medseg.io.json_files import read_json
from medseg.reports.index_page import CaseSummary, summarize_case, write_index

__all__ = ["TABLE_FILES", "summarize_batch", "write_tables"]

TABLE_FILES = ("cases.parquet", "lesions.parquet", "failures.csv", "index.html")
_TYPES = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "flag": pa.bool_()}
_ROWS_AT_ONCE = 512  # bounds the memory, whatever the number of cases
_CASE_COLUMNS: Mapping[str, str] = {
    "case_id": "text",
    "folder": "text",
    "source": "text",
    "state": "text",
    "n_lesions": "integer",
    "lesion_volume_ml": "number",
    "semantic_volume_ml": "number",
    "format": "text",
    "modality": "text",
    **{f"size_{axis}_voxels": "integer" for axis in "ijk"},
    **{f"spacing_{axis}_mm": "number" for axis in "ijk"},
    **{f"total_{column.name}": column.kind for column in TOTALS},
    "model_name": "text",
    "weights_sha256": "text",
    "plan_sha256": "text",
    "inputs_sha256": "text",
}
_KINDS: Mapping[str, str] = {column.name: column.kind for column in COLUMNS}


def write_tables(folder: Path) -> tuple[Path, ...]:
    """Write `cases.parquet`, `lesions.parquet`, `failures.csv` and `index.html` of a batch, as it stands.

    Parameters
    ----------
    folder
        The output folder of a batch.

    Returns
    -------
    The files. Rows go by case name, then by lesion number; nothing in them depends on when or how often the batch ran.

    Raises
    ------
    UsageError
        If it holds no batch, or files of a finished case are gone.
    OutputNotWritable
        If the folder cannot be written.
    """
    with Ledger(folder) as ledger:
        entries = ledger.entries()
    done = [entry for entry in entries if entry.state == "done"]
    _write_parquet(folder / TABLE_FILES[0], _CASE_COLUMNS, (_case_row(folder, entry) for entry in entries))
    _write_parquet(folder / TABLE_FILES[1], _lesion_columns(folder, done), _lesion_rows(folder, done))
    _write_failures(folder / TABLE_FILES[2], [entry for entry in entries if entry.state == "failed"])
    write_index(folder, _summaries(folder, entries))
    return tuple(folder / name for name in TABLE_FILES)


def summarize_batch(folder: Path) -> list[CaseSummary]:
    """What the page of a batch tells of its cases, failed ones with their reason; those yet to come are not there.

    Raises
    ------
    UsageError
        If the folder holds no batch.
    """
    with Ledger(folder) as ledger:
        return _summaries(folder, ledger.entries())


def _summaries(folder: Path, entries: Sequence[Entry]) -> list[CaseSummary]:
    return [summary for entry in entries if (summary := _summary(folder, entry)) is not None]


def _summary(folder: Path, entry: Entry) -> CaseSummary | None:
    """A case's row of the page; None for a case that has not been looked at yet."""
    if entry.state == "done":
        return summarize_case(folder / entry.folder)
    if entry.failure is None:
        return None
    return CaseSummary(
        folder / entry.folder, entry.case_id, problem=f"failed ({entry.failure.stage}): {entry.failure.error}"
    )


def _case_row(folder: Path, entry: Entry) -> dict[str, Value]:
    row: dict[str, Value] = dict.fromkeys(_CASE_COLUMNS)
    state = "pending" if entry.state == "running" else entry.state
    row |= {"case_id": entry.case_id, "folder": entry.folder, "source": entry.source, "state": state}
    if entry.state != "done":
        return row
    result: dict[str, Any] = read_json(folder / entry.folder / "result.json")
    scan, provenance = result["scan"], result["provenance"]
    row |= {name: result[name] for name in ("n_lesions", "lesion_volume_ml", "semantic_volume_ml")}
    row |= {"format": scan["format"], "modality": scan["modality"]}
    row |= {f"size_{axis}_voxels": size for axis, size in zip("ijk", scan["shape"], strict=True)}
    row |= {f"spacing_{axis}_mm": mm for axis, mm in zip("ijk", scan["spacing_mm"], strict=True)}
    row |= {f"total_{column.name}": result["totals"].get(column.name) for column in TOTALS}
    row |= {name: provenance[name] for name in ("model_name", "weights_sha256", "plan_sha256")}
    return {**row, "inputs_sha256": " ".join(provenance["inputs_sha256"])}


def _lesion_columns(folder: Path, done: Sequence[Entry]) -> dict[str, str]:
    """Name and kind of every column that a case has; those of further channels behind those of every table."""
    columns: dict[str, str] = dict(_KINDS)
    for entry in done:
        with _open_table(folder, entry) as file:
            names = next(csv.reader(file), [])
        columns |= {name: _kind(name) for name in names if name not in columns}
    return columns


def _kind(name: str) -> str:
    """The kind of a further channel's column, `ct_mean`: that of `mean`."""
    base = name
    while base not in _KINDS and "_" in base:
        base = base.partition("_")[2]
    return _KINDS.get(base, "text")


def _lesion_rows(folder: Path, done: Sequence[Entry]) -> Iterator[dict[str, Value]]:
    for entry in done:
        with _open_table(folder, entry) as file:
            for row in csv.DictReader(file):
                yield {name: _value(text, _kind(name)) for name, text in row.items()}


def _open_table(folder: Path, entry: Entry) -> Any:
    path = folder / entry.folder / "lesions.csv"
    try:
        return path.open(newline="", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); run the batch again with --resume") from error


def _value(text: str, kind: str) -> Value:
    if text == "":
        return None
    if kind == "flag":
        return text == "true"
    return int(text) if kind == "integer" else float(text) if kind == "number" else text


def _write_parquet(path: Path, columns: Mapping[str, str], rows: Iterator[dict[str, Value]]) -> None:
    schema = pa.schema([pa.field(name, _TYPES[kind]) for name, kind in columns.items()])
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        chunk: list[dict[str, Value]] = []
        for row in rows:
            chunk.append(row)
            if len(chunk) == _ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
                chunk = []
        writer.write_table(pa.Table.from_pylist(chunk, schema=schema))


def _write_failures(path: Path, failed: Sequence[Entry]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case_id", "source", "stage", "error", "message"])
        for entry in failed:
            if entry.failure is not None:
                error, _, message = entry.failure.error.partition(": ")
                writer.writerow([entry.case_id, entry.source, entry.failure.stage, error, message])
