"""Lesion-wise scores as a MONAI metric, so that training can validate by what counts: lesions found."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from monai.metrics.metric import CumulativeIterationMetric

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.core.semantic import SemanticMap
from medseg.errors import UsageError
from medseg.evaluation.case import evaluate_case
from medseg.metrics.presets import Convention, get_convention

__all__ = ["LesionMetric"]

Figure = Literal["f1", "pq", "sensitivity", "precision"]


class LesionMetric(CumulativeIterationMetric):
    """F1, PQ, sensitivity or precision of lesions, pooled over all cases of a validation.

    Called as every MONAI metric: `metric(y_pred, y)` for each batch, then `metric.aggregate()`, then `metric.reset()`;
    it also serves in MONAI's `IgniteMetricHandler`.

    Parameters
    ----------
    figure
        What `aggregate` gives.
    preset
        How lesions come apart and match, a name or a convention of one's own.
    spacing_mm
        (3,) millimeters between voxels of what is compared.

    Raises
    ------
    UsageError
        If there is no such preset.

    Examples
    --------
    >>> metric = LesionMetric("f1")
    >>> mask = torch.zeros(1, 1, 8, 8, 8)
    >>> mask[..., 1:3, 1:3, 1:3] = mask[..., 5:7, 5:7, 5:7] = 1
    >>> _ = metric(y_pred=mask, y=mask)
    >>> metric.aggregate().item()
    1.0
    """

    def __init__(
        self,
        figure: Figure = "f1",
        preset: str | Convention = "default",
        spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        self._figure = figure
        self._convention = get_convention(preset)
        self._spacing_mm = spacing_mm

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **_: Any) -> torch.Tensor:
        """(B, 4): found, false and missed lesions, and the sum of the IoU of the found ones, of each case."""
        if y is None:
            raise UsageError("LesionMetric compares a prediction with a reference; give y")
        rows = [self._sums(prediction, reference) for prediction, reference in zip(y_pred, y, strict=True)]
        return torch.tensor(rows, dtype=torch.float64, device=y_pred.device)

    def _sums(self, prediction: torch.Tensor, reference: torch.Tensor) -> tuple[float, float, float, float]:
        sides = [_classes(side, self._spacing_mm) for side in (prediction, reference)]
        case = evaluate_case(sides[0], sides[1], self._convention, overlap_only=True)
        return case.tp, case.fp, case.fn, sum(row.iou or 0.0 for row in case.lesions if row.outcome == "tp")

    def aggregate(self, *_: Any, **__: Any) -> torch.Tensor:
        """The figure over all cases since the last reset, a 0-d tensor; NaN where it is not defined."""
        sums = self.get_buffer()  # type: ignore[no-untyped-call]
        if sums is None:
            raise UsageError("LesionMetric has seen no case; call it on a batch before aggregate")
        tp, fp, fn, iou = torch.as_tensor(sums).sum(dim=0)
        numerator, denominator = {
            "f1": (2 * tp, 2 * tp + fp + fn),
            "pq": (2 * iou, 2 * tp + fp + fn),
            "sensitivity": (tp, tp + fn),
            "precision": (tp, tp + fp),
        }[self._figure]
        return torch.as_tensor(numerator / denominator)


def _classes(channels: torch.Tensor, spacing_mm: tuple[float, float, float]) -> SemanticMap:
    """The classes of one case: a mask or class numbers in one channel, or one-hot with background first."""
    if channels.ndim != 4:
        raise UsageError(f"LesionMetric takes batches (B, C, I, J, K); one case has shape {tuple(channels.shape)}")
    numbers = channels[0] if channels.shape[0] == 1 else channels.argmax(dim=0)
    array = np.ascontiguousarray(numbers.detach().cpu().numpy()).round().astype(np.uint8)
    scheme = LabelScheme(classes={n: f"class_{n}" for n in range(1, max(2, int(array.max()) + 1))})
    return SemanticMap(array, Geometry(array.shape, np.diag([*spacing_mm, 1.0])), scheme)
