"""Outlines: where a lesion ends in a picture, and in which color it is drawn.

Colors repeat after eight lesions; the number beside it tells two of one color apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LESION_COLORS", "lesion_color", "paint_outlines"]

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
    """The color (R, G, B) of a lesion in every picture."""
    return LESION_COLORS[(lesion_id - 1) % len(LESION_COLORS)]


def paint_outlines(
    picture: NDArray[np.uint8], labels: NDArray[np.unsignedinteger], emphasized: int | None = None
) -> None:
    """Paint the outline of every lesion, in place.

    Parameters
    ----------
    picture
        (rows, columns, 3) uint8, red, green, blue.
    labels
        (rows, columns) lesion numbers, 0 for background.
    emphasized
        The lesion whose outline is three times as thick, on both sides of its border; the others lie within.
    """
    edges = _edges(labels)
    colors = np.array(LESION_COLORS, dtype=np.uint8)
    picture[edges] = colors[(labels[edges].astype(np.intp) - 1) % len(colors)]
    if emphasized is not None:
        own = labels == emphasized
        picture[_grown(own) & ~_shrunk(own)] = lesion_color(emphasized)


def _neighbors(labels: NDArray[Any]) -> list[NDArray[Any]]:
    """The four neighbors of each pixel; beyond the edge lies background."""
    padded = np.pad(labels, 1)
    return [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]


def _edges(labels: NDArray[np.unsignedinteger]) -> NDArray[np.bool_]:
    """Pixels of a lesion that have a neighbor outside it."""
    differs = np.logical_or.reduce([labels != neighbor for neighbor in _neighbors(labels)])
    edges: NDArray[np.bool_] = (labels > 0) & differs
    return edges


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    grown: NDArray[np.bool_] = np.logical_or.reduce([mask, *_neighbors(mask)])
    return grown


def _shrunk(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    shrunk: NDArray[np.bool_] = np.logical_and.reduce([mask, *_neighbors(mask)])
    return shrunk
