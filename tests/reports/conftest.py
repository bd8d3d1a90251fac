"""A browser for the pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.reports.browser import launched


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, without a graphics processor."""
    with launched("--disable-gpu") as browser:
        yield browser
