"""LesionTable: exactly the listed columns, with nullable types and a unit in every name."""

from __future__ import annotations

import pandas as pd
import pytest

from medseg.core.table import COLUMNS, Column, LesionTable
from medseg.errors import InvalidLabelMap

SUFFIX = {"ml": "_ml", "mm": "_mm"}


def _row(lesion_id: int = 1, **changes):
    row = {c.name: {"text": "a", "integer": 1, "number": 1.5, "flag": True}[c.kind] for c in COLUMNS}
    return row | {"lesion_id": lesion_id, "class_name": "lesion"} | changes


def test_column_names_are_unique_documented_and_carry_their_unit():
    names = [column.name for column in COLUMNS]
    assert len(set(names)) == len(names)
    for column in COLUMNS:
        assert column.definition.endswith(".")
        assert column.name.endswith(SUFFIX.get(column.unit, ""))


def test_table_has_as_many_rows_as_lesions_and_iterates_over_them():
    table = LesionTable((_row(1), _row(2)))
    assert len(table) == 2
    assert [row["lesion_id"] for row in table] == [1, 2]
    assert repr(table) == f"LesionTable(2 lesion(s), {len(COLUMNS)} columns)"


def test_pandas_frame_has_the_columns_in_order_and_nullable_types():
    frame = LesionTable((_row(1), _row(2, mean=None, bbox_i_min=None, touches_border=None))).to_pandas()
    assert list(frame.columns) == [column.name for column in COLUMNS]
    dtypes = {"text": "string", "integer": "Int64", "number": "Float64", "flag": "boolean"}
    assert [str(dtype) for dtype in frame.dtypes] == [dtypes[column.kind] for column in COLUMNS]
    assert frame.loc[0, "mean"] == 1.5
    for name in ("mean", "bbox_i_min", "touches_border"):
        assert frame[name].isna().tolist() == [False, True], "undefined is NA, never 0"


def test_empty_table_keeps_its_columns_and_types():
    frame = LesionTable(()).to_pandas()
    assert frame.shape == (0, len(COLUMNS))
    assert str(frame["volume_ml"].dtype) == "Float64"


def test_whole_numbers_in_a_number_column_stay_numbers():
    assert LesionTable((_row(volume_ml=2),)).to_pandas()["volume_ml"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({k: v for k, v in _row().items() if k != "volume_ml"}, "volume_ml"),
        (_row(hardness=1.0), "hardness"),
    ],
)
def test_row_with_other_names_than_the_columns_is_refused_by_name(row, named: str):
    with pytest.raises(InvalidLabelMap, match=f"row 2 .*{named}"):
        LesionTable((_row(), row))


def test_further_columns_are_possible():
    columns = (*COLUMNS, Column("hardness", "number", "N", "Hardness."))
    frame = LesionTable((_row(hardness=4.0),), columns).to_pandas()
    assert frame.columns[-1] == "hardness"
    assert isinstance(frame, pd.DataFrame)


def test_text_shows_one_line_a_lesion_and_a_dash_where_undefined():
    table = LesionTable((_row(1, volume_ml=12.34567, centroid_x_lps_mm=-3.04), _row(2, perpendicular_diameter_mm=None)))
    header, first, second = str(table).splitlines()
    assert header.split()[:2] == ["lesion", "class"]
    assert first.split() == ["1", "lesion", "12.346", "1.5", "1.5", "-3.0,", "1.5,", "1.5"]
    assert second.split()[4] == "-"


def test_text_of_an_empty_table_is_its_header():
    assert len(str(LesionTable(())).splitlines()) == 1
