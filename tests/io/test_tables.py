from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.core.table import COLUMNS, Column, LesionTable
from medseg.errors import UsageError
from medseg.io.tables import write_table

FEW = (
    Column("case_id", "text", "", "The case."),
    Column("lesion_id", "integer", "", "The lesion."),
    Column("volume_ml", "number", "ml", "Its volume.", "IBSI YEKZ"),
    Column("touches_border", "flag", "", "Whether it is cut off."),
)


def few_rows() -> LesionTable:
    rows = (
        {"case_id": 'p, "07"', "lesion_id": 1, "volume_ml": 0.1, "touches_border": True},
        {"case_id": "p8", "lesion_id": 2, "volume_ml": None, "touches_border": False},
    )
    return LesionTable(rows, FEW, totals={"volume_ml": 0.1})


def numbers_table(numbers: list[float]) -> LesionTable:
    return LesionTable(tuple({"volume_ml": number} for number in numbers), (FEW[2],))


def test_csv_has_exactly_these_bytes(tmp_path):
    write_table(few_rows(), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_bytes() == (
        b"case_id,lesion_id,volume_ml,touches_border\n"
        b'"p, ""07""",1,0.1,true\n'
        b"p8,2,,false\n"
    )  # fmt: skip


def test_json_says_what_its_columns_mean(tmp_path):
    write_table(few_rows(), tmp_path / "t.json")
    document = json.loads((tmp_path / "t.json").read_text())
    assert list(document) == ["schema_version", "totals", "columns", "rows"]
    assert document["schema_version"] == 2
    assert document["totals"] == {"volume_ml": 0.1}
    assert document["columns"][2] == {
        "name": "volume_ml",
        "unit": "ml",
        "kind": "number",
        "definition": "Its volume.",
        "code": "IBSI YEKZ",
        "null": "never",
        "source": "",
    }
    assert document["rows"] == [dict(row) for row in few_rows()]


def test_parquet_keeps_types_nulls_and_units(tmp_path):
    write_table(few_rows(), tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    assert [str(kind) for kind in table.schema.types] == ["string", "int64", "double", "bool"]
    assert table.to_pylist() == [dict(row) for row in few_rows()]
    assert table.schema.field("volume_ml").metadata == {b"unit": b"ml"}
    assert table.schema.metadata[b"schema_version"] == b"2"
    assert json.loads(table.schema.metadata[b"totals"]) == {"volume_ml": 0.1}


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_empty_table_is_written_with_its_header(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    write_table(LesionTable(()), path)
    names = [column.name for column in COLUMNS]
    if suffix == "csv":
        assert path.read_text() == ",".join(names) + "\n"
    elif suffix == "json":
        assert [column["name"] for column in json.loads(path.read_text())["columns"]] == names
    else:
        assert pq.read_table(path).column_names == names


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_same_table_gives_the_same_bytes(tmp_path, suffix):
    write_table(few_rows(), tmp_path / f"a.{suffix}")
    write_table(few_rows(), tmp_path / f"b.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_numpy_values_are_written_like_plain_ones(tmp_path):
    row = {
        "case_id": np.str_('p, "07"'),
        "lesion_id": np.uint16(1),
        "volume_ml": np.float64(0.1),
        "touches_border": np.bool_(True),
    }
    write_table(LesionTable((row,), FEW), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().splitlines()[1] == '"p, ""07""",1,0.1,true'
    write_table(LesionTable((row,), FEW), tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["rows"] == [dict(few_rows().rows[0])]


def test_pandas_reads_the_csv_as_the_table_says(tmp_path):
    write_table(few_rows(), tmp_path / "t.csv")
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "t.csv").convert_dtypes(), few_rows().to_pandas().convert_dtypes()
    )


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5))
def test_numbers_read_back_exactly(tmp_path_factory, numbers):
    path = tmp_path_factory.mktemp("numbers") / "t.csv"
    write_table(numbers_table(numbers), path)
    with path.open(newline="") as file:
        assert [float(row["volume_ml"]) for row in csv.DictReader(file)] == numbers


@pytest.mark.parametrize("name", ["t.xlsx", "t"])
def test_other_suffixes_are_refused(tmp_path, name):
    with pytest.raises(UsageError, match=r"\.csv, \.json, \.parquet"):
        write_table(few_rows(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []
