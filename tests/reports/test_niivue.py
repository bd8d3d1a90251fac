"""The 3-D view: NiiVue as it was published, run from the page alone, in step with the viewer."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medseg.core.result import CaseResult
from medseg.reports.case_page import write_case_page
from medseg.reports.niivue import niivue_script, niivue_section
from tests.reports.browser import Opened, launched
from tests.reports.cases import asymmetric_case, make_result

PUBLISHED = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"


def _page(folder: Path, **changes: Any) -> tuple[Path, CaseResult]:
    result = make_result(*asymmetric_case(), **changes)
    write_case_page(result, folder / "report.html", "niivue")
    return folder / "report.html", result


def test_the_library_is_the_published_file_and_the_page_carries_its_licenses() -> None:
    assert hashlib.sha256(niivue_script().encode()).hexdigest() == PUBLISHED
    section = niivue_section()
    assert PUBLISHED in section
    for words in ("Copyright (c) 2021, Niivue", "BSD 2-Clause License", "Arjun Barrett", "RII-UTHSCSA", "Roboto"):
        assert words in section
    assert "END OF TERMS AND CONDITIONS" in section  # Roboto's license is there as a whole


def test_without_it_the_page_holds_nothing_of_others(tmp_path: Path) -> None:
    path, _ = _page(tmp_path)
    plain = tmp_path / "plain.html"
    write_case_page(make_result(*asymmetric_case()), plain)
    assert "niivue" in path.read_text("utf-8")
    assert "niivue" not in plain.read_text("utf-8").lower()
    assert 1_000_000 < path.stat().st_size - plain.stat().st_size < 1_150_000


@pytest.fixture(scope="module")
def software_webgl() -> Iterator[Any]:
    """A browser that draws WebGL without a graphics processor."""
    switches = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
    with launched(*switches) as browser:
        yield browser


@pytest.mark.browser
def test_it_draws_the_lesions_and_follows_the_viewer(software_webgl: Any, tmp_path: Path) -> None:
    path, result = _page(tmp_path)
    opened = Opened(software_webgl, path)
    page = opened.page
    assert page.locator("#view3d-canvas").is_hidden()  # nothing runs before it is asked for
    page.focus("#view3d-start")
    page.keyboard.press("Enter")
    page.wait_for_selector("#view3d[data-state]", timeout=120_000)
    assert page.get_attribute("#view3d", "data-state") == "ready", page.inner_text("#view3d-told")
    for number in (2, 1):
        page.click(f"tr[data-lesion='{number}'] td.number")
        at = opened.state("lps")
        assert page.get_attribute("#view3d", "data-lps") == at
        row = result.table.rows[number - 1]
        centroid = np.array([row[f"centroid_{axis}_lps_mm"] for axis in "xyz"])
        assert (np.abs(np.array(at.split(), dtype=float) - centroid) <= 0.51 * np.array([2.0, 3.0, 4.0])).all()
    assert _red_pixels(page) > 20  # lesion 1; nothing else in the picture is red
    page.focus("#view3d-canvas")
    before = page.get_attribute("#view3d", "data-turn")
    page.keyboard.press("ArrowLeft")
    assert page.get_attribute("#view3d", "data-turn") != before
    assert opened.state("lps") == at  # the key turned the body and did not move the crosshair
    opened.close()


def _red_pixels(page: Any) -> int:
    picture = Image.open(io.BytesIO(page.locator("#view3d-canvas").screenshot())).convert("RGB")
    red, green, blue = np.moveaxis(np.asarray(picture).astype(int), -1, 0)
    return int(((red - green > 80) & (red - blue > 80)).sum())


@pytest.mark.browser
def test_without_webgl_the_page_says_so_and_the_planes_work(software_webgl: Any, tmp_path: Path) -> None:
    path, _ = _page(tmp_path)
    opened = Opened(software_webgl, path)
    code = """() => {
        const own = HTMLCanvasElement.prototype.getContext;
        HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
            return kind.startsWith('webgl') ? null : own.call(this, kind, ...rest);
        };
    }"""
    opened.page.evaluate(code)
    opened.page.click("#view3d-start")
    opened.page.wait_for_selector("#view3d[data-state=failed]", timeout=60_000)
    assert "needs WebGL 2" in opened.page.inner_text("#view3d-told")
    opened.page.click("tr[data-lesion='2'] td.number")
    assert opened.state("lesion") == "2"
    opened.trouble = [words for words in opened.trouble if "webgl" not in words.lower()]
    opened.close()
