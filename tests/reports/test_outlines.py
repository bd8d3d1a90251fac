"""Outlines: closed, inside their lesion, in the lesion's color."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.colors import LESION_COLORS, lesion_color
from medseg.reports.outlines import paint_outlines


def _painted(labels: np.ndarray, emphasized: int | None = None) -> np.ndarray:
    picture = np.full((*labels.shape, 3), 9, dtype=np.uint8)
    paint_outlines(picture, labels, emphasized)
    return picture


def _is_color(picture: np.ndarray, lesion_id: int) -> np.ndarray:
    return (picture == lesion_color(lesion_id)).all(axis=2)


def test_the_outline_of_a_square_is_its_rim() -> None:
    labels = np.zeros((8, 8), dtype=np.uint16)
    labels[2:6, 2:6] = 1
    expected = labels > 0
    expected[3:5, 3:5] = False
    np.testing.assert_array_equal(_is_color(_painted(labels), 1), expected)
    assert (_painted(labels)[3:5, 3:5] == 9).all()


def test_lesions_that_touch_are_told_apart() -> None:
    labels = np.zeros((6, 9), dtype=np.uint16)
    labels[1:5, 1:4] = 1
    labels[1:5, 4:8] = 2
    picture = _painted(labels)
    assert _is_color(picture, 1)[1:5, 3].all()
    assert _is_color(picture, 2)[1:5, 4].all()


def test_emphasis_also_paints_outside_the_lesion() -> None:
    labels = np.zeros((9, 9), dtype=np.uint16)
    labels[3:6, 3:6] = 1
    painted = _is_color(_painted(labels, emphasized=1), 1)
    assert painted[2, 3:6].all()
    assert not painted[4, 4]
    assert painted.sum() > _is_color(_painted(labels), 1).sum()


def test_a_lesion_cut_by_the_edge_is_closed_there() -> None:
    labels = np.ones((5, 5), dtype=np.uint16)
    assert _is_color(_painted(labels), 1).sum() == 16


@pytest.mark.parametrize("lesion_id", [1, 8, 9, 70000])
def test_every_lesion_has_a_color(lesion_id: int) -> None:
    labels = np.full((1, 1), lesion_id, dtype=np.uint32)
    assert lesion_color(lesion_id) in LESION_COLORS
    assert _painted(labels)[0, 0].tolist() == list(lesion_color(lesion_id))


def test_colors_repeat_after_eight() -> None:
    assert len(set(LESION_COLORS)) == 8
    assert lesion_color(9) == lesion_color(1)
