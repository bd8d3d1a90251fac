"""What is written on a picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medseg.core.geometry import Geometry
from medseg.reports.display import GrayWindow
from medseg.reports.marks import draw_directions, draw_scale_bar
from medseg.reports.planes import plane_of

DARK, LIGHT = GrayWindow(0.0, 1.0), GrayWindow(0.0, 1.0, inverted=True)


def _blank(width: int, height: int, window: GrayWindow) -> Image.Image:
    return Image.new("RGB", (width, height), (window.background,) * 3)


@pytest.mark.parametrize("window", [DARK, LIGHT])
def test_the_scale_bar_is_50_mm_long_and_stands_out(window: GrayWindow) -> None:
    image = _blank(300, 200, window)
    draw_scale_bar(image, 0.5, window)
    row = np.asarray(image)[200 - 9, :, 0].astype(int)
    assert int((abs(row - window.background) > 150).sum()) == 101  # 100 pixels apart, both ends drawn


def test_a_picture_too_narrow_for_the_scale_bar_has_none() -> None:
    image = _blank(190, 200, DARK)
    draw_scale_bar(image, 0.5, DARK)
    assert not np.asarray(image).any()


def test_every_edge_has_its_direction() -> None:
    image = _blank(200, 100, DARK)
    draw_directions(image, plane_of(Geometry((3, 3, 3), np.eye(4)), "axial"), DARK)
    drawn = np.asarray(image)[:, :, 0] > 100
    assert drawn[:15, 90:110].any()
    assert drawn[-15:, 90:110].any()
    assert drawn[40:60, :15].any()
    assert drawn[40:60, -15:].any()
    assert not drawn[20:80, 20:180].any()
