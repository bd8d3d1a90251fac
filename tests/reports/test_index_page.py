"""The index of many cases: a row each, whatever their names, and nothing that runs but the sorting."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from medseg.errors import ScanNotFound
from medseg.pages.frame import SORT_SCRIPT
from medseg.reports.index_page import find_cases, write_index


def _case(folder: Path, case_id: str, n_lesions: int, *, report: bool = True) -> None:
    folder.mkdir(parents=True)
    told = {
        "case_id": case_id,
        "n_lesions": n_lesions,
        "lesion_volume_ml": 1.5 * n_lesions,
        "scan": {"modality": "CT"},
        "provenance": {"model_name": "a_model", "notes": ["odd"]},
    }
    (folder / "result.json").write_text(json.dumps(told))
    if report:
        (folder / "report.html").write_text("")


class _Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str | None] = []
        self.words: list[str] = []
        self.values: list[str | None] = []
        self.n_scripts = 0
        self.feed(text)
        assert self.n_scripts == 1
        assert SORT_SCRIPT in self.words

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.n_scripts += tag == "script"
        if tag == "a":
            self.links.append(dict(attrs)["href"])
        if "data-value" in dict(attrs):
            self.values.append(dict(attrs)["data-value"])

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_one_row_a_case_with_its_link_and_the_sums(tmp_path: Path) -> None:
    _case(tmp_path / "a", "a", 2)
    _case(tmp_path / "deep" / "b 100%#?", "b", 0)
    _case(tmp_path / "c", "c", 3, report=False)
    page = _Links(write_index(tmp_path).read_text("utf-8"))
    assert page.links == ["a/report.html", "deep/b%20100%25%23%3F/report.html"]
    for word in ("3", "2", "5", "7.500 ml", "0", "a_model", "4.500"):
        assert word in page.words


def test_a_result_that_cannot_be_read_has_a_row_that_says_why(tmp_path: Path) -> None:
    _case(tmp_path / "a", "a", 2)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "result.json").write_text("{")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "result.json").write_text("{}")
    problems = [case.problem for case in find_cases(tmp_path)]
    assert problems[0] is None
    assert "is not JSON" in str(problems[1])
    assert "case_id" in str(problems[2])
    assert "Without result" in write_index(tmp_path).read_text("utf-8")


def test_hostile_names_are_text(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>'
    _case(tmp_path / "x", evil, 1)
    page = _Links(write_index(tmp_path).read_text("utf-8"))
    assert evil in page.words
    assert page.values == [evil, "1", "1.5", "CT", "a_model", "1"]


def test_a_folder_without_cases_is_told(tmp_path: Path) -> None:
    with pytest.raises(ScanNotFound, match=r"no result\.json"):
        write_index(tmp_path)
