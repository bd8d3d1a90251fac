"""Colors of lesions, the same in every picture, object and file; they repeat after eight lesions."""

from __future__ import annotations

__all__ = ["LESION_COLORS", "lesion_color"]

# Red, azure, orange, violet, green, cyan, pink, brown: told apart on black and on white.
LESION_COLORS = (
    (228, 26, 28),
    (0, 120, 240),
    (255, 127, 0),
    (152, 78, 220),
    (34, 160, 60),
    (0, 178, 190),
    (235, 90, 170),
    (166, 100, 40),
)


def lesion_color(lesion_id: int) -> tuple[int, int, int]:
    """The color (R, G, B), 0..255 each, of a lesion; of a class by its place among the classes, from 1."""
    return LESION_COLORS[(lesion_id - 1) % len(LESION_COLORS)]
