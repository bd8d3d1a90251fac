"""Words can be read on every ground that they stand on: contrast as WCAG 2.2 measures it."""

from __future__ import annotations

import re

import pytest

from medseg.evaluation import page_style as evaluation
from medseg.pages.style import STYLE

_TEXT, _LARGE = 4.5, 3.0  # WCAG 2.2, 1.4.3 and 1.4.11, level AA
_WORDS = [(word, ground) for word in ("text", "quiet", "notice") for ground in ("ground", "raised", "notice-ground")]
_SIGNS = [(sign, ground) for sign in ("focus", "first", "second") for ground in ("ground", "raised")]


def _colors(setting: str) -> dict[str, str]:
    """Custom properties in light, dark or print, those of the other settings not counted."""
    sheet = STYLE + evaluation.STYLE
    dark = "@media (prefers-color-scheme: dark)"
    colors: dict[str, str] = {}
    for block in re.finditer(r"(@media [^{]+\{\s*)?:root \{([^}]*)\}", sheet):
        media = (block[1] or "").split("{")[0].strip()
        if media in ("", {"dark": dark, "print": "@media print"}.get(setting)):
            colors |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block[2]))
    return colors


def _luminance(color: str) -> float:
    parts = [int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_black_on_white_is_21() -> None:
    assert _contrast("#000000", "#ffffff") == pytest.approx(21.0)


@pytest.mark.parametrize("setting", ["light", "dark", "print"])
def test_words_and_signs_stand_out(setting: str) -> None:
    colors = _colors(setting)
    for word, ground in _WORDS:
        assert _contrast(colors[word], colors[ground]) >= _TEXT, (word, ground)
    for sign, ground in _SIGNS:
        assert _contrast(colors[sign], colors[ground]) >= _LARGE, (sign, ground)
