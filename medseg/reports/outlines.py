"""Outlines: where a lesion ends in a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.colors import LESION_COLORS, lesion_color

__all__ = ["paint_outlines"]


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
