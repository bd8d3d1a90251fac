from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medseg.errors import GridMismatch, InvalidLabelMap
from medseg.metrics.overlap import dice

masks = arrays(np.bool_, (3, 4, 2), elements=st.booleans())


def mask(*values: int) -> np.ndarray:
    return np.array(values, dtype=bool)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        (mask(1, 1, 0, 0), mask(1, 1, 0, 0), 1.0),
        (mask(1, 1, 0, 0), mask(0, 0, 1, 1), 0.0),
        (mask(1, 1, 0, 0), mask(0, 1, 1, 0), 0.5),
        (mask(1, 1, 1, 0), mask(1, 0, 0, 0), 0.5),
        (mask(0, 0), mask(1, 0), 0.0),
        (mask(1, 0), mask(0, 0), 0.0),
    ],
)
def test_known_answers(prediction, reference, expected):
    assert dice(prediction, reference) == expected


def test_two_empty_masks_have_no_dice():
    assert dice(mask(0, 0, 0), mask(0, 0, 0)) is None


@given(prediction=masks, reference=masks)
def test_dice_is_symmetric_and_between_0_and_1(prediction, reference):
    score = dice(prediction, reference)
    assert score == dice(reference, prediction)
    assert score is None or 0.0 <= score <= 1.0
    assert type(score) in (float, type(None))


def test_many_voxels_do_not_overflow():
    full = np.ones((700, 700, 300), dtype=bool)
    assert dice(full, full) == 1.0


def test_dice_agrees_with_simpleitk():
    random = np.random.default_rng(0)
    prediction, reference = random.random((2, 12, 12, 12)) < 0.4
    peer = SimpleITK.LabelOverlapMeasuresImageFilter()
    peer.Execute(*(SimpleITK.GetImageFromArray(side.astype(np.uint8)) for side in (reference, prediction)))
    assert dice(prediction, reference) == pytest.approx(peer.GetDiceCoefficient(), abs=1e-12)


def test_other_shapes_are_refused():
    with pytest.raises(GridMismatch, match=r"\(2,\) and \(3,\)"):
        dice(mask(1, 0), mask(1, 0, 0))


def test_labels_are_refused():
    with pytest.raises(InvalidLabelMap, match="reference is uint8"):
        dice(mask(1, 0), np.array([2, 1], dtype=np.uint8))
