"""LesionTable: one row a lesion, a unit in every column name.

`COLUMNS` is the one list of what a table holds: its order is the order in every file, and `docs/reference/columns.md`
is written from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medseg.core.column import Column, Value
from medseg.core.columns_context import CONFIDENCE, IDENTITY, LESION_FIELDS, NEIGHBORS, ORGAN
from medseg.core.columns_scan import INTENSITY, UPTAKE
from medseg.core.columns_shape import DIAMETERS, POSITION, QUALITY, SHAPE, SIZE
from medseg.errors import InvalidLabelMap

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "Column", "FAMILIES", "LesionTable", "Value"]

FAMILIES: Mapping[str, tuple[Column, ...]] = {
    "Identity": (*IDENTITY, *LESION_FIELDS),
    "Size": SIZE,
    "Diameters": DIAMETERS,
    "Shape": SHAPE,
    "Position": POSITION,
    "Quality": QUALITY,
    "Intensity": INTENSITY,
    "Uptake": UPTAKE,
    "Organ": ORGAN,
    "Neighbors": NEIGHBORS,
    "Confidence": CONFIDENCE,
}
"""Columns of every table, by what they are about."""

COLUMNS: tuple[Column, ...] = tuple(column for family in FAMILIES.values() for column in family)


@dataclass(frozen=True, eq=False)
class LesionTable:
    """Rows of measurements; row n describes lesion n.

    Parameters
    ----------
    rows
        One mapping a lesion, with exactly the names of `columns`; None where a value is undefined, never 0.0.
    columns
        What the rows hold, in file order.
    schema_version
        Raised when a column changes its meaning; new columns do not raise it.
    totals
        Figures of the whole scan: those of `medseg.core.columns_context.TOTALS`, and "organs": the same for each organ.

    Raises
    ------
    InvalidLabelMap
        If a row has other names than the columns.
    """

    rows: tuple[Mapping[str, Value], ...]
    columns: tuple[Column, ...] = COLUMNS
    schema_version: int = 2
    totals: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_columns(
        cls, values: Mapping[str, Sequence[Value]], columns: tuple[Column, ...], totals: Mapping[str, Any]
    ) -> LesionTable:
        """A table from one sequence a column, all of one length."""
        names = [column.name for column in columns]
        rows = zip(*(values[name] for name in names), strict=True)
        return cls(tuple(dict(zip(names, row, strict=True)) for row in rows), columns, totals=totals)

    def __post_init__(self) -> None:
        names = set(self.column_names)
        for number, row in enumerate(self.rows, start=1):
            if set(row) != names:
                raise InvalidLabelMap(f"table row {number} differs from the columns in {sorted(names ^ set(row))}")

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Mapping[str, Value]]:
        return iter(self.rows)

    def __repr__(self) -> str:
        return f"LesionTable({len(self)} lesion(s), {len(self.columns)} columns)"

    def __str__(self) -> str:
        if not set(self.column_names) >= _TEXT_COLUMNS:  # columns were chosen: the first of them
            names = self.column_names[1 : 1 + _MOST_TEXT_COLUMNS]
            return "\n".join("  ".join(line) for line in [names, *(_cells(row, names) for row in self.rows)])
        header = f"{'lesion':>6}  {'class':<12} {'volume ml':>10} {'longest mm':>10} {'perp. mm':>9}  centroid LPS mm"
        return "\n".join([header, *(_text_row(row) for row in self.rows)])

    @property
    def column_names(self) -> tuple[str, ...]:
        """Column names in file order."""
        return tuple(column.name for column in self.columns)

    def to_pandas(self) -> pd.DataFrame:
        """A pandas DataFrame with nullable types: integers stay integers, undefined values are NA."""
        import pandas as pd

        dtypes = {"text": "string", "integer": "Int64", "number": "Float64", "flag": "boolean"}
        return pd.DataFrame(
            {c.name: pd.Series([row[c.name] for row in self.rows], dtype=dtypes[c.kind]) for c in self.columns}
        )


_TEXT_COLUMNS = {"class_name", "volume_ml", "longest_diameter_mm", "perpendicular_diameter_mm"} | {
    f"centroid_{axis}_lps_mm" for axis in "xyz"
}
_MOST_TEXT_COLUMNS = 7


def _cells(row: Mapping[str, Value], names: Sequence[str]) -> list[str]:
    """Values below their names."""
    values = [row[name] for name in names]
    texts = [f"{v:.6g}" if isinstance(v, float) else "-" if v is None else str(v) for v in values]
    return [text.rjust(len(name)) for text, name in zip(texts, names, strict=True)]


def _text_row(row: Mapping[str, Value]) -> str:
    centroid = ", ".join(_number(row[f"centroid_{axis}_lps_mm"], 1) for axis in "xyz")
    return (
        f"{row['lesion_id']:>6}  {row['class_name']:<12} {_number(row['volume_ml'], 3):>10} "
        f"{_number(row['longest_diameter_mm'], 1):>10} {_number(row['perpendicular_diameter_mm'], 1):>9}  {centroid}"
    )


def _number(value: Value, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
