"""The page in a real browser, from disk, with the network off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import medseg
from medseg.core.result import CaseResult
from medseg.reports.case_page import write_case_page
from tests.reports.browser import Opened
from tests.reports.cases import make_result

pytestmark = pytest.mark.browser
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>\u75c5\u4eba" + "x" * 300


def _phantom_result(kind: str, **changes: Any) -> CaseResult:
    phantom = medseg.make_phantom(kind, seed=1)  # type: ignore[arg-type]
    return make_result(
        phantom.volume.array[0],
        phantom.lesions.array,
        phantom.volume.geometry,
        modality="PT" if kind == "pet" else "CT",
        **changes,
    )


@pytest.fixture(scope="module", params=["pet", "ct"])
def case(
    request: pytest.FixtureRequest, browser: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Opened, CaseResult]]:
    """One page a kind for all tests: what is wrong in it is told at the end."""
    result = _phantom_result(request.param)
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_case_page(result, path)
    opened = Opened(browser, path)
    yield opened, result
    opened.close()


def test_a_click_on_a_row_puts_the_crosshair_on_the_centroid_and_shows_the_lesion(
    case: tuple[Opened, CaseResult],
) -> None:
    opened, result = case
    voxel = np.array(result.scan.geometry.spacing)
    for row in result.table:
        number = row["lesion_id"]
        opened.page.click(f"tr[data-lesion='{number}'] td.number")
        centroid = np.array([row[f"centroid_{axis}_lps_mm"] for axis in "xyz"])
        assert (np.abs(opened.lps() - centroid) <= 0.51 * voxel).all()
        assert opened.state("lesion") == str(number)
        assert f"lesion {opened.state('owner')}" in opened.page.inner_text("#where")
        assert opened.color_pixels("axial", number) > 5
        assert opened.color_pixels("coronal", number) > 5
        assert opened.color_pixels("sagittal", number) > 5
        assert opened.page.get_attribute(f"tr[data-lesion='{number}']", "aria-current") == "true"


def test_a_click_on_a_lesion_finds_its_row(case: tuple[Opened, CaseResult]) -> None:
    opened, _ = case
    opened.page.click("tr[data-lesion='2'] td.number")
    place = _crosshair(opened, "axial")
    opened.page.click("#view-axial", position=place)
    assert opened.state("lesion") == opened.state("owner") == "2"
    opened.page.click("#view-axial", position={"x": 4, "y": place["y"]})
    assert opened.state("lesion") == "0"
    assert opened.page.query_selector("tr[aria-current]") is None
    opened.page.click("#view-axial", position=place)
    assert opened.state("lesion") == "2"


def _crosshair(opened: Opened, plane: str) -> dict[str, float]:
    """Where the crosshair is on a picture, found by the blue lines beside it."""
    code = """(id) => {
        const canvas = document.getElementById(id);
        const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        const isBlue = (x, y) => { const p = 4 * (y * canvas.width + x);
            return data[p + 2] - data[p] > 60 && data[p + 2] - data[p + 1] > 15; };
        const count = (n, test) => [...Array(n).keys()].filter(test).length;
        const columns = [...Array(canvas.width).keys()].map((x) => count(canvas.height, (y) => isBlue(x, y)));
        const rows = [...Array(canvas.height).keys()].map((y) => count(canvas.width, (x) => isBlue(x, y)));
        const ratio = canvas.clientWidth / canvas.width;
        return {x: (columns.indexOf(Math.max(...columns)) + 0.5) * ratio,
                y: (rows.indexOf(Math.max(...rows)) + 0.5) * ratio};
    }"""
    opened.state("lps")  # drawn by now
    found: dict[str, float] = opened.page.evaluate(code, f"view-{plane}")
    return found


def test_the_table_sorts_up_and_down_with_undefined_values_last(case: tuple[Opened, CaseResult]) -> None:
    opened, result = case
    volumes = {str(row["lesion_id"]): row["volume_ml"] for row in result.table}
    heading = opened.page.locator("thead button", has_text="volume")
    orders = []
    for _ in range(2):
        heading.click()
        rows = opened.page.locator("tbody tr")
        orders.append([rows.nth(n).get_attribute("data-lesion") for n in range(rows.count())])
    assert [volumes[n] for n in orders[0]] == sorted(volumes.values())
    assert orders[1] == orders[0][::-1]
    assert opened.page.get_attribute("th[aria-sort]", "aria-sort") == "descending"


def test_the_keyboard_alone_reaches_everything(case: tuple[Opened, CaseResult]) -> None:
    opened, _ = case
    page = opened.page
    page.focus("tr[data-lesion='3'] button")
    page.keyboard.press("Enter")
    assert opened.state("lesion") == "3"
    page.keyboard.press("n")
    assert opened.state("lesion") == "4"
    page.keyboard.press("p")
    assert opened.state("lesion") == "3"
    page.focus("#view-axial")
    before = opened.lps()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("PageUp")
    moved = opened.lps() - before
    assert moved[0] > 0  # to the right of the picture is the patient's left
    assert moved[2] > 0  # up is towards the head
    page.keyboard.press("ArrowDown")
    assert opened.lps()[1] > before[1]
    reached = set()
    page.focus("#window")
    for _ in range(12 + 3 * 2):
        reached.add(page.evaluate("document.activeElement.id"))
        page.keyboard.press("Tab")
    assert {"window", "low", "high", "overlay", "next", "view-axial", "view-coronal", "view-sagittal"} <= reached


def test_window_and_overlay_change_the_picture(case: tuple[Opened, CaseResult]) -> None:
    opened, _ = case
    page = opened.page

    def brightness() -> float:
        opened.state("lps")
        code = """() => { const c = document.getElementById('view-axial');
            const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
            let sum = 0; for (let p = 0; p < d.length; p += 4) sum += d[p]; return sum / d.length; }"""
        return float(page.evaluate(code))

    first = brightness()
    page.select_option("#window", index=2)
    assert brightness() != first
    page.click("tr[data-lesion='1'] td.number")
    outlined = opened.color_pixels("coronal", 1)
    page.select_option("#overlay", "off")
    opened.state("lps")
    assert opened.color_pixels("coronal", 1) < outlined
    page.select_option("#overlay", "outline")
    page.select_option("#window", index=0)


def test_the_longest_diameter_is_drawn_where_it_is(case: tuple[Opened, CaseResult]) -> None:
    opened, _ = case
    opened.page.click("tr[data-lesion='1'] td.number")
    opened.page.click("#diameter")
    opened.state("lps")
    code = """() => { const c = document.getElementById('view-axial');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        let n = 0;
        for (let p = 0; p < d.length; p += 4) if (d[p] > 230 && d[p + 1] > 200 && d[p + 2] < 60) n++;
        return n; }"""
    assert opened.page.evaluate(code) > 20


def test_the_table_is_copied_as_csv(case: tuple[Opened, CaseResult]) -> None:
    opened, result = case
    opened.page.click("#copy")
    opened.page.locator("#copied", has_text=f"{len(result.table)} rows copied as CSV").wait_for(timeout=5000)


def test_in_print_and_without_script_there_are_the_key_images(browser: Any, tmp_path: Path) -> None:
    write_case_page(_phantom_result("pet"), tmp_path / "report.html")
    printed = Opened(browser, tmp_path / "report.html")
    printed.page.emulate_media(media="print")
    plain = Opened(browser, tmp_path / "report.html", java_script_enabled=False)
    for opened in (printed, plain):
        assert not opened.page.is_visible("#viewer")
        assert opened.page.locator("img").count() == 7 + 1
        assert opened.page.is_visible("img >> nth=0")
    printed.close()
    plain.close()


def test_hostile_text_is_shown_as_text_and_runs_nothing(browser: Any, tmp_path: Path) -> None:
    result = _phantom_result("pet", case_id=EVIL, class_name=EVIL, notes=(EVIL,))
    write_case_page(result, tmp_path / "report.html")
    opened = Opened(browser, tmp_path / "report.html")
    assert opened.page.inner_text("h1") == EVIL
    assert opened.page.locator("td", has_text="onerror").count() == 7
    opened.page.click("tr[data-lesion='2'] td.number")
    assert opened.state("lesion") == "2"
    assert opened.page.locator("main script, img[src=x]").count() == 0
    opened.close()
