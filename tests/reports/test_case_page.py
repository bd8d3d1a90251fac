"""The page of a case: complete, self-contained, and nothing in it that a name could break."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.core.geometry import Geometry
from medseg.core.result import CaseResult
from medseg.errors import OutputNotWritable
from medseg.reports.case_page import MOST_KEY_IMAGES, write_case_page
from tests.reports.cases import asymmetric_case, make_result, spots

_DATA_TYPES = ["application/json", "application/gzip", "application/gzip"]
_VOID = {"meta", "img", "br", "hr", "input"}


class _Page(HTMLParser):
    """What a browser would see: tags in order, attributes, text; fails on a tag that is closed wrongly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open_tags

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def images(self) -> list[Image.Image]:
        sources = [attributes["src"] or "" for attributes in self.all("img")]
        head = "data:image/webp;base64,"
        assert all(source.startswith(head) for source in sources)
        return [Image.open(io.BytesIO(base64.b64decode(source.removeprefix(head)))) for source in sources]


def _write(result: CaseResult, folder: Path) -> str:
    write_case_page(result, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def _spots_result(n_lesions: int, **changes: object) -> CaseResult:
    return make_result(*spots(n_lesions), **changes)  # type: ignore[arg-type]


def test_one_row_and_one_picture_a_lesion(tmp_path: Path) -> None:
    page = _Page(_write(_spots_result(3), tmp_path))
    assert len(page.all("tr")) == 1 + 3
    images = page.images()
    assert len(images) == 3 + 1  # the overview last
    for image in images:
        image.load()
        assert 100 < max(image.size) < 900


def test_the_table_has_units_in_its_header_and_the_values_of_the_result(tmp_path: Path) -> None:
    result = make_result(*asymmetric_case())
    page = _Page(_write(result, tmp_path))
    for heading in ("volume (ml)", "longest diameter (mm)", "centroid x (mm)", "mean (SUV)", "touches border"):
        assert heading in page.words
    row = result.table.rows[0]
    assert f"{row['volume_ml']:.3f}" in page.words
    assert f"{row['longest_diameter_mm']:.1f}" in page.words
    assert f"{row['centroid_z_lps_mm']:.1f}" in page.words


def test_total_volume_is_that_of_all_lesions(tmp_path: Path) -> None:
    result = make_result(*asymmetric_case())
    total = sum(float(row["volume_ml"] or 0) for row in result.table)
    assert f"{total:.3f} ml" in _Page(_write(result, tmp_path)).words


def test_an_undefined_value_is_a_dash_and_not_zero(tmp_path: Path) -> None:
    result = _spots_result(1)
    row = {**result.table.rows[0], "mean": None}
    blank = CaseResult(
        result.scan,
        result.volume,
        result.semantic,
        result.lesions,
        type(result.table)((row,)),
        result.recipe,
        result.provenance,
        result.seconds,
    )
    assert '<td class="number" data-value="">-</td>' in _write(blank, tmp_path)


def test_no_lesion_is_said_and_the_overview_stays(tmp_path: Path) -> None:
    array, lesions, geometry = asymmetric_case()
    page = _Page(_write(make_result(array, lesions * 0, geometry), tmp_path))
    assert "No lesion found." in page.words
    assert not page.all("table")
    assert len(page.images()) == 1


def test_beyond_fifty_lesions_the_page_says_how_many_are_shown(tmp_path: Path) -> None:
    page = _Page(_write(_spots_result(MOST_KEY_IMAGES + 2), tmp_path))
    assert len(page.all("tr")) == 1 + MOST_KEY_IMAGES + 2
    assert len(page.images()) == 1 + MOST_KEY_IMAGES
    assert "Shown are the 50 largest of 52 lesions." in page.text


def test_fifty_lesions_are_all_shown_and_nothing_is_said_of_more(tmp_path: Path) -> None:
    page = _Page(_write(_spots_result(MOST_KEY_IMAGES), tmp_path))
    assert len(page.images()) == 1 + MOST_KEY_IMAGES
    assert "largest of" not in page.text


def test_names_and_notes_cannot_become_markup(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>&amp;$case_id'
    text = _write(_spots_result(1, case_id=evil, class_name=evil, notes=(evil,)), tmp_path)
    page = _Page(text)
    assert page.words.count(evil) >= 3  # heading, class, note; as text, unchanged
    assert [script.get("type") for script in page.all("script")] == [*_DATA_TYPES, None]
    assert text.count("</script>") == 4
    (data,) = [word for word in page.words if word.startswith('{"shape"')]
    assert "<" not in data
    assert json.loads(data)["table"]["rows"][0][0] == evil


def test_a_name_that_is_not_unicode_can_be_written(tmp_path: Path) -> None:
    assert "case_" in _write(_spots_result(1, case_id="case_\udcff"), tmp_path)


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    text = _write(_spots_result(2), tmp_path)
    page = _Page(text)
    assert not re.findall(r"https?:|url\(|@import|<link|<iframe|<object|<embed| style=| on[a-z]+=", text)
    policy = next(meta for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    rules = policy["content"] or ""
    assert rules.startswith("default-src 'none'")
    assert "unsafe" not in rules
    for source, element in (("script-src", "script"), ("style-src", "style")):
        (content,) = re.findall(f"<{element}>(.*?)</{element}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{source} 'sha256-{digest}'" in rules
    assert "prefers-color-scheme: dark" in text
    assert all(image["alt"] for image in page.all("img"))


def test_the_page_names_the_case_the_model_and_its_limits(tmp_path: Path) -> None:
    result = _spots_result(1, notes=("filled 3 NaN voxels with 0",))
    page = _Page(_write(result, tmp_path))
    assert "case_1" in page.words
    assert "For research use only. medseg is not a medical device." in page.words
    for words in ("a_model", "filled 3 NaN voxels with 0", result.provenance.weights_sha256, result.recipe.sha256):
        assert words in page.words


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    result = make_result(*asymmetric_case())
    slower = make_result(*asymmetric_case())
    object.__setattr__(slower, "seconds", {"read": 99.0})
    assert _write(result, tmp_path) == _write(slower, tmp_path)


def test_a_model_for_ct_makes_a_ct_page(tmp_path: Path) -> None:
    array, lesions, geometry = asymmetric_case()
    page = _Page(_write(make_result(array * 10.0, lesions, geometry, modality="CT"), tmp_path))
    corner = page.images()[0].convert("RGB").getpixel((20, 60))
    dark_enough = 128  # 0 HU is 102 of 255 in the soft-tissue window; in a PET window it is white
    assert max(corner) < dark_enough  # type: ignore[arg-type, type-var]


def test_an_older_page_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    assert "old</" not in _write(_spots_result(1), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputNotWritable):
        write_case_page(_spots_result(1), tmp_path / "file" / "report.html")


def test_an_empty_scan_of_one_voxel_has_a_page(tmp_path: Path) -> None:
    geometry = Geometry((1, 1, 1), np.eye(4))
    result = make_result(np.zeros((1, 1, 1), np.float32), np.zeros((1, 1, 1), np.uint16), geometry)
    assert "No lesion found." in _write(result, tmp_path)
