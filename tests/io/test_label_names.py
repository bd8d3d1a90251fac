"""Files of names: as ITK-SNAP and 3D Slicer read them, whatever the names are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medseg.core.colors import lesion_color
from medseg.errors import UsageError
from medseg.io.label_names import write_label_names

HOSTILE = ["Lesion 1", 'two "quotes"\nand a line', "\u75c5\u5909 <script>"]


def test_itksnap_reads_every_line(tmp_path: Path) -> None:
    write_label_names(HOSTILE, tmp_path / "a.label.txt")
    lines = [line for line in (tmp_path / "a.label.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    form = re.compile(r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+(?:\.\d+)?)\s+([01])\s+([01])\s+"([^"]*)"')
    read = [form.fullmatch(line) for line in lines]
    assert all(read)
    assert [int(found[1]) for found in read if found] == [0, 1, 2, 3]
    assert tuple(int(read[2][n]) for n in (2, 3, 4)) == lesion_color(2)  # type: ignore[index]
    assert read[3][8] == "\u75c5\u5909 <script>"  # type: ignore[index]


def test_slicer_reads_six_fields_a_line(tmp_path: Path) -> None:
    write_label_names(HOSTILE, tmp_path / "a.ctbl")
    lines = (tmp_path / "a.ctbl").read_text("utf-8").splitlines()
    assert lines[0].startswith("#")
    rows = [line.split(" ") for line in lines[1:]]
    assert all(len(row) == 6 for row in rows)
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert rows[1] == ["1", "Lesion_1", *map(str, lesion_color(1)), "255"]


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.txt .*\.ctbl"):
        write_label_names(["a"], tmp_path / "a.csv")
