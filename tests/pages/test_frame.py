"""The frame of pages: nothing runs or loads but what stands in it."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from medseg.errors import OutputNotWritable
from medseg.pages.frame import write_page

EVIL = '"><script>alert(1)</script>$main'


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _written(folder: Path, *args: str, **options: object) -> tuple[str, str]:
    """The page and its policy."""
    write_page(folder / "page.html", *args, **options)  # type: ignore[arg-type]
    text = (folder / "page.html").read_text("utf-8")
    (policy,) = re.findall('http-equiv="Content-Security-Policy" content="(.*?)"', text)
    return text, policy.replace("&#x27;", "'")


def test_a_page_without_script_allows_none(tmp_path: Path) -> None:
    text, policy = _written(tmp_path, "Heading", "<p>words</p>")
    assert "<script" not in text
    assert "script-src" not in policy
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")


def test_only_the_scripts_that_were_given_may_run(tmp_path: Path) -> None:
    text, policy = _written(tmp_path, "Heading", "", script="let a = 1;", later_scripts=["let b = '</p>';"])
    (rule,) = re.findall("script-src (.*?);", policy)
    wanted = ("let a = 1;", "let b = '</p>';")
    assert rule == " ".join(f"'sha256-{_digest(script)}'" for script in wanted)
    assert re.findall("<script>(.*?)</script>", text) == ["let a = 1;"]


def test_a_heading_is_text(tmp_path: Path) -> None:
    text, _ = _written(tmp_path, EVIL, "<p>words</p>")
    assert "<script" not in text
    assert text.count("&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;$main") == 2  # title and heading
    assert text.count("<p>words</p>") == 1


def test_the_style_of_the_page_comes_after_that_of_all_pages(tmp_path: Path) -> None:
    text, policy = _written(tmp_path, "Heading", "", style="p { color: red; }")
    (style,) = re.findall("<style>(.*?)</style>", text, re.DOTALL)
    assert style.endswith("p { color: red; }")
    assert f"style-src 'sha256-{_digest(style)}'" in policy


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputNotWritable):
        write_page(tmp_path / "file" / "page.html", "Heading", "")
