"""LesionTable: one row a lesion, a unit in every column name.

`COLUMNS` is the one list of what a table holds: its order is the order in every file, and `docs/reference/columns.md`
is written from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from medseg.errors import InvalidLabelMap

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "Column", "LesionTable", "Value"]

Value = str | int | float | bool | None
_Kind = Literal["text", "integer", "number", "flag"]


@dataclass(frozen=True)
class Column:
    """One column: its name, what kind of value it holds, its unit, and what it means."""

    name: str
    kind: _Kind
    unit: str
    definition: str


COLUMNS: tuple[Column, ...] = (
    Column("case_id", "text", "", "The case that the lesion was found in."),
    Column("lesion_id", "integer", "", "Number of the lesion in the lesion map, from 1, by descending volume."),
    Column("class_name", "text", "", "Class of the lesion in the semantic map."),
    Column("volume_ml", "number", "ml", "Number of voxels times the volume of one voxel (IBSI YEKZ)."),
    Column(
        "longest_diameter_mm",
        "number",
        "mm",
        "Longest chord within one axial slice, over all axial slices (RECIST 1.1 longest diameter).",
    ),
    Column(
        "perpendicular_diameter_mm",
        "number",
        "mm",
        "Longest chord perpendicular to the longest diameter, in the same slice (RECIST 1.1 short axis).",
    ),
    Column("centroid_x_lps_mm", "number", "mm", "Mean voxel center, patient left (DICOM, LPS)."),
    Column("centroid_y_lps_mm", "number", "mm", "Mean voxel center, patient posterior (DICOM, LPS)."),
    Column("centroid_z_lps_mm", "number", "mm", "Mean voxel center, patient superior (DICOM, LPS)."),
    Column("bbox_i_min", "integer", "voxel", "First voxel index of the lesion on the first array axis."),
    Column("bbox_i_max", "integer", "voxel", "One past its last voxel index on the first array axis."),
    Column("bbox_j_min", "integer", "voxel", "First voxel index of the lesion on the second array axis."),
    Column("bbox_j_max", "integer", "voxel", "One past its last voxel index on the second array axis."),
    Column("bbox_k_min", "integer", "voxel", "First voxel index of the lesion on the third array axis."),
    Column("bbox_k_max", "integer", "voxel", "One past its last voxel index on the third array axis."),
    Column("mean", "number", "scan", "Mean intensity of the first channel; null without a scan."),
    Column("std", "number", "scan", "Population standard deviation of the first channel; null without a scan."),
    Column("min", "number", "scan", "Lowest intensity of the first channel; null without a scan."),
    Column("max", "number", "scan", "Highest intensity of the first channel; null without a scan."),
    Column("touches_border", "flag", "", "True if a voxel of the lesion lies on a face of the scan's grid."),
)


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
        Raised when a column changes its meaning; new columns at the end do not raise it.

    Raises
    ------
    InvalidLabelMap
        If a row has other names than the columns.
    """

    rows: tuple[Mapping[str, Value], ...]
    columns: tuple[Column, ...] = COLUMNS
    schema_version: int = 1

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


def _text_row(row: Mapping[str, Value]) -> str:
    centroid = ", ".join(_number(row[f"centroid_{axis}_lps_mm"], 1) for axis in "xyz")
    return (
        f"{row['lesion_id']:>6}  {row['class_name']:<12} {_number(row['volume_ml'], 3):>10} "
        f"{_number(row['longest_diameter_mm'], 1):>10} {_number(row['perpendicular_diameter_mm'], 1):>9}  {centroid}"
    )


def _number(value: Value, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
