"""The MONAI adapter of lesion-wise scores."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from medseg.errors import UsageError
from medseg.evaluation.case import evaluate_case
from medseg.training.lesion_metric import LesionMetric
from tests.evaluation.maps import semantic_map


def case(*corners: int) -> torch.Tensor:
    mask = torch.zeros(1, 16, 16, 16)
    for corner in corners:
        mask[:, corner : corner + 3, corner : corner + 3, corner : corner + 3] = 1
    return mask


REFERENCE = torch.stack([case(1, 6), case(1, 6, 11)])
PREDICTION = torch.stack([case(1, 6), case(1, 12)])


@pytest.mark.parametrize(
    ("figure", "expected"), [("f1", 6 / 9), ("pq", 6 / 9), ("sensitivity", 3 / 5), ("precision", 3 / 4)]
)
def test_figures_are_pooled_over_batches(figure: str, expected: float) -> None:
    metric = LesionMetric(figure)
    for prediction, reference in zip(PREDICTION, REFERENCE, strict=True):
        metric(y_pred=prediction[None], y=reference[None])
    assert metric.aggregate().item() == pytest.approx(expected)
    metric.reset()
    metric(y_pred=REFERENCE, y=REFERENCE)
    assert metric.aggregate().item() == 1.0


def test_it_is_the_evaluation_of_the_same_maps() -> None:
    rng = np.random.default_rng(0)
    sides = [rng.random((12, 12, 12)) < share for share in (0.02, 0.03)]
    sides[0] |= sides[1] & (rng.random((12, 12, 12)) < 0.7)
    expected = evaluate_case(*(semantic_map(side) for side in sides), "panoptica", overlap_only=True)
    metric = LesionMetric("pq", "panoptica")
    metric(*(torch.from_numpy(side)[None, None].float() for side in sides))
    assert metric.aggregate().item() == pytest.approx(expected.pq)


def test_one_hot_channels_are_classes_with_background_first() -> None:
    one_hot = torch.cat([1 - REFERENCE, REFERENCE], dim=1)
    metric = LesionMetric("f1")
    metric(y_pred=one_hot, y=REFERENCE)
    assert metric.aggregate().item() == 1.0


def test_nothing_to_find_and_nothing_found_is_not_a_number() -> None:
    metric = LesionMetric("f1")
    metric(y_pred=torch.zeros(1, 1, 4, 4, 4), y=torch.zeros(1, 1, 4, 4, 4))
    assert metric.aggregate().isnan()


def test_it_serves_in_an_ignite_handler() -> None:
    """In a process of its own: ignite cannot be imported where warnings are errors."""
    code = (
        "import torch; from ignite.engine import Engine; from monai.handlers import IgniteMetricHandler;"
        "from medseg.training.lesion_metric import LesionMetric;"
        "mask = torch.zeros(1, 1, 9, 9, 9); mask[..., 1:3, 1:3, 1:3] = mask[..., 5:7, 5:7, 5:7] = 1;"
        "half = mask.clone(); half[..., 5:, :, :] = 0;"
        "handler = IgniteMetricHandler(metric_fn=LesionMetric('f1'), output_transform=lambda pair: pair);"
        "engine = Engine(lambda _, batch: batch); handler.attach(engine, 'f1');"
        "print(float(engine.run([(half, mask)]).metrics['f1']))"
    )
    shown = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert float(shown.stdout.split()[-1]) == pytest.approx(2 / 3)


def test_flat_images_and_no_case_are_refused() -> None:
    metric = LesionMetric("f1")
    with pytest.raises(UsageError, match="no case"):
        metric.aggregate()
    with pytest.raises(UsageError, match=r"\(B, C, I, J, K\)"):
        metric(y_pred=torch.zeros(1, 1, 4, 4), y=torch.zeros(1, 1, 4, 4))
