from __future__ import annotations

import pytest

from medseg.errors import OutputNotWritable, UsageError
from medseg.io.json_files import read_json, write_json


def test_file_is_indented_in_the_given_order_and_ends_with_a_line_break(tmp_path):
    write_json({"b": 1, "a": [None, "µ"]}, tmp_path / "x.json")
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": [\n    null,\n    "µ"\n  ]\n}\n'


def test_values_survive_the_round_trip(tmp_path):
    value = {"numbers": [0.1, 1e-300, -7], "flag": True, "nothing": None, "text": 'quote " and ü'}
    write_json(value, tmp_path / "x.json")
    assert read_json(tmp_path / "x.json") == value


def test_nan_is_refused_and_leaves_the_old_file(tmp_path):
    write_json(1, tmp_path / "x.json")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(float("nan"), tmp_path / "x.json")
    assert read_json(tmp_path / "x.json") == 1


def test_missing_or_malformed_file_is_named(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UsageError, match=r"bad\.json is not JSON"):
        read_json(tmp_path / "bad.json")
    with pytest.raises(UsageError, match=r"none\.json cannot be read"):
        read_json(tmp_path / "none.json")


def test_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(OutputNotWritable):
        write_json(1, tmp_path / "f" / "x.json")
