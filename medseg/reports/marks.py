"""Marks: what is written on a picture: directions, lesion numbers, a scale bar."""

from __future__ import annotations

from PIL import Image, ImageDraw

from medseg.reports.display import GrayWindow
from medseg.reports.planes import Plane

__all__ = ["draw_directions", "draw_line", "draw_scale_bar", "write"]

_SCALE_BAR_MM = 50.0
_LINE, _LINE_RIM = (255, 230, 0), (0, 0, 0)

Color = tuple[int, int, int]


def write(image: Image.Image, where: tuple[float, float], text: str, anchor: str, window: GrayWindow) -> None:
    """Write a text with a rim, legible on any gray; `where` (x, y) and `anchor` as Pillow means them."""
    fill, rim = _ink(window)
    ImageDraw.Draw(image).text(where, text, fill=fill, anchor=anchor, stroke_width=1, stroke_fill=rim)


def draw_directions(image: Image.Image, plane: Plane, window: GrayWindow) -> None:
    """Write the anatomical direction at each edge: R on the left means the patient's right."""
    width, height = image.size
    top, right, bottom, left = plane.marks
    write(image, (width / 2, 3), top, "mt", window)
    write(image, (width - 4, height / 2), right, "rm", window)
    write(image, (width / 2, height - 3), bottom, "mb", window)
    write(image, (4, height / 2), left, "lm", window)


def draw_line(image: Image.Image, points: list[tuple[float, float]]) -> None:
    """Draw a line with a rim between two points (x, y), as a caliper is laid."""
    draw = ImageDraw.Draw(image)
    draw.line(points, fill=_LINE_RIM, width=4)
    draw.line(points, fill=_LINE, width=2)


def draw_scale_bar(image: Image.Image, pixel_mm: float, window: GrayWindow) -> None:
    """Draw 50 mm into the lower left corner, if the picture is twice that wide."""
    width, height = image.size
    length = round(_SCALE_BAR_MM / pixel_mm)
    if width < 2 * length or height < 60:
        return
    fill, rim = _ink(window)
    draw = ImageDraw.Draw(image)
    draw.rectangle((7, height - 11, 9 + length, height - 7), fill=rim)
    draw.rectangle((8, height - 10, 8 + length, height - 8), fill=fill)
    write(image, (8, height - 14), f"{_SCALE_BAR_MM:g} mm", "lb", window)


def _ink(window: GrayWindow) -> tuple[Color, Color]:
    """Colors of writing and of its rim."""
    dark, light = (20, 20, 20), (245, 245, 245)
    return (dark, light) if window.background == 255 else (light, dark)
