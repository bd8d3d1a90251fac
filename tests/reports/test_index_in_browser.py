"""The index of cases in a real browser, from disk, with the network off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medseg.reports.index_page import CaseSummary, write_index
from tests.reports.browser import Opened

pytestmark = pytest.mark.browser

EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>\u75c5\u4eba"


def _cases(folder: Path) -> list[CaseSummary]:
    known = [("case_10", 3, 1.25), ("case_2", 10, 0.5), (EVIL, 0, 0.0)]
    cases = [CaseSummary(folder / str(n), name, n, ml, "CT", "a_model", 0) for name, n, ml in known]
    return [*cases, CaseSummary(folder / "broken", "broken", problem=f"result.json is not JSON {EVIL}")]


def test_headings_sort_cases_and_those_without_result_stay_last(browser: Any, tmp_path: Path) -> None:
    write_index(tmp_path, _cases(tmp_path))
    opened = Opened(browser, tmp_path / "index.html")
    page = opened.page
    orders = {}
    for word in ("lesions", "volume", "case"):
        button = page.locator("thead button", has_text=word).first
        button.focus()
        for direction in ("ascending", "descending"):
            page.keyboard.press("Enter")
            rows = page.locator("tbody tr")
            orders[word, direction] = [rows.nth(n).locator("th").inner_text() for n in range(rows.count())]
            assert page.get_attribute("th[aria-sort]", "aria-sort") == direction
            assert page.locator("th[aria-sort]").count() == 1
    assert orders["lesions", "ascending"] == [EVIL, "case_10", "case_2", "broken"]
    assert orders["lesions", "descending"] == ["case_2", "case_10", EVIL, "broken"]
    assert orders["volume", "ascending"] == [EVIL, "case_2", "case_10", "broken"]
    assert orders["case", "ascending"] == [EVIL, "broken", "case_2", "case_10"]  # 2 before 10
    assert page.locator("main script, img").count() == 0
    opened.close()
