"""The page of an evaluation is whole, says what was measured, and its charts put points where they belong."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from medseg.evaluation.charts import Chart, Series, bland_altman, draw
from medseg.evaluation.evaluate import evaluate_cohort
from medseg.evaluation.page import write_evaluation_page
from tests.io.nifti_files import save


def circles(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle r="3.2" cx="([-\d.]+)" cy="([-\d.]+)"', svg)]


class Tags(HTMLParser):
    """Fails on a tag that is closed twice or never."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None: ...

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def folders(tmp_path: Path, empty: bool = False) -> tuple[Path, Path]:
    for name in ("p", "r"):
        (tmp_path / name).mkdir()
    for number in range(3):
        array = np.zeros((20, 20, 20), dtype=np.uint8)
        if not empty:
            array[1 : 4 + number, 1:4, 1:4], array[10:18, 8:18, 8:18] = 1, 2
        save(np.where(array == 1, array * (number % 2), array).astype(np.uint8), tmp_path / "p" / f"{number}<&>.nii.gz")
        save(array, tmp_path / "r" / f"{number}<&>.nii.gz")
    return tmp_path / "p", tmp_path / "r"


@pytest.mark.parametrize("preset", ["default", "panoptica", "luna16"])
def test_the_page_names_the_convention_and_every_case(tmp_path: Path, preset: str) -> None:
    result = evaluate_cohort(*folders(tmp_path), preset, resamples=50)
    write_evaluation_page(result, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert f"Convention <b>{preset}</b>" in text
    assert "0&lt;&amp;&gt;" in text
    assert "<&>" not in text
    assert text.count("<svg") == 4
    assert "empty prediction" in text
    assert "research use only" in text


def test_a_cohort_without_any_lesion_has_a_page(tmp_path: Path) -> None:
    result = evaluate_cohort(*folders(tmp_path, empty=True), resamples=50)
    write_evaluation_page(result, tmp_path / "page.html")
    assert "No lesion, no figure." in (tmp_path / "page.html").read_text()
    assert result.cohort.n_both_empty == 3


def test_points_lie_in_proportion() -> None:
    chart = Chart("t", "x", "y", (Series("s", ((0.0, 0.0), (1.0, 1.0), (2.0, 2.0))),), x_range=(0, 2), y_range=(0, 2))
    (x0, y0), (x1, y1), (x2, y2) = circles(draw(chart))
    assert (x1 - x0, y0 - y1) == pytest.approx((x2 - x1, y1 - y2))
    assert x0 < x2
    assert y0 > y2


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors() -> None:
    chart = Chart("t", "x", "y", (Series("s", ((0.1, 0.0), (1.0, 0.0), (10.0, 0.0))),), x_log=True)
    (x0, _), (x1, _), (x2, _) = circles(draw(chart))
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)


def test_limits_of_agreement_are_the_mean_and_196_standard_deviations() -> None:
    chart = bland_altman("t", "ml", [("s", [(1.0, 2.0, ""), (5.0, 4.0, ""), (6.0, 3.0, "")])])
    assert chart is not None
    low, mean, high = (value for value, _ in chart.lines)
    assert mean == pytest.approx(1.0)
    assert high - mean == mean - low == pytest.approx(1.96 * 2.0)
    assert chart.series[0].points[0] == (1.5, -1.0)


def test_nothing_found_has_no_chart_of_agreement() -> None:
    assert bland_altman("t", "ml", [("s", [])]) is None
