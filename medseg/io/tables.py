"""Lesion tables on disk: CSV, JSON or Parquet, by suffix; the same table always gives the same bytes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from os import PathLike
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from medseg.core.table import Column, LesionTable, Value
from medseg.errors import UsageError
from medseg.io.atomic import atomic_path
from medseg.io.json_files import write_json

__all__ = ["write_table"]

_ARROW_TYPES = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "flag": pa.bool_()}
_PLAIN_TYPES: dict[str, Callable[[Value], Value]] = {"text": str, "integer": int, "number": float, "flag": bool}  # type: ignore[dict-item]


def write_table(table: LesionTable, path: str | PathLike[str]) -> None:
    """Write a lesion table.

    Parameters
    ----------
    table
        The table; one without rows is written with its header.
    path
        A file that ends in .csv, .json or .parquet; replaced if it is there. Numbers are written in full (the shortest
        text that reads back exactly), undefined values as an empty field (CSV) or null.

    Raises
    ------
    UsageError
        If the suffix is none of these.
    OutputNotWritable
        If the folder cannot be written.
    """
    writers = {".csv": _write_csv, ".json": _write_json, ".parquet": _write_parquet}
    suffix = Path(path).suffix.lower()
    if suffix not in writers:
        raise UsageError(f"{path}: a lesion table ends in {', '.join(writers)}; got {suffix or 'no suffix'}")
    writers[suffix](table, Path(path))


def _write_csv(table: LesionTable, path: Path) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows([_text(value) for value in row] for row in _plain_rows(table))


def _write_json(table: LesionTable, path: Path) -> None:
    columns = [
        {
            "name": c.name,
            "unit": c.unit,
            "kind": c.kind,
            "definition": c.definition,
            "code": c.code,
            "null": c.null,
            "source": c.source,
        }
        for c in table.columns
    ]
    rows = [dict(zip(table.column_names, row, strict=True)) for row in _plain_rows(table)]
    document = {"schema_version": table.schema_version, "totals": dict(table.totals), "columns": columns, "rows": rows}
    write_json(document, path)


def _write_parquet(table: LesionTable, path: Path) -> None:
    schema = pa.schema([_arrow_field(column) for column in table.columns], _arrow_metadata(table))
    rows = [dict(zip(table.column_names, row, strict=True)) for row in _plain_rows(table)]
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)


def _arrow_field(column: Column) -> pa.Field:
    return pa.field(column.name, _ARROW_TYPES[column.kind], metadata={"unit": column.unit})


def _arrow_metadata(table: LesionTable) -> dict[str, str]:
    return {"schema_version": str(table.schema_version), "totals": json.dumps(dict(table.totals))}


def _plain_rows(table: LesionTable) -> list[list[Value]]:
    """Rows in column order, NumPy numbers made plain Python (their text form differs between NumPy versions)."""
    return [[_plain(row[column.name], column) for column in table.columns] for row in table]


def _plain(value: Value, column: Column) -> Value:
    return None if value is None else _PLAIN_TYPES[column.kind](value)


def _text(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)
