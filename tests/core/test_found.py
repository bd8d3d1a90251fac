from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medseg.core.found import FoundScan

FOUND = FoundScan(Path("p07"), "dicom", "3", "CT", "thin", 4, 4, None, series_instance_uid="1.2.3.4")


def test_what_has_a_problem_is_not_readable():
    assert FOUND.is_readable
    assert not replace(FOUND, problem="lacks a slice").is_readable


def test_repr_shows_no_uid():
    assert "1.2.3.4" not in repr(FOUND)
