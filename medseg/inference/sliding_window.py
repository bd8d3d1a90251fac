"""Sliding-window inference: overlapping windows, blended logits, progress by the window.

MONAI's `sliding_window_inference` lays and blends the windows; this module turns the plan into its arguments, counts
windows, keeps the result on the CPU, and goes on with smaller batches, then on the CPU, when a GPU has no memory left.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import torch
from monai.data.utils import dense_patch_slices
from monai.inferers import sliding_window_inference
from torch import nn

from medseg.core.monitor import Monitor
from medseg.core.plan import InferencePlan
from medseg.inference.augmentation import mirrored
from medseg.inference.device import Precision, autocast, place_input

__all__ = ["count_windows", "predict_logits", "predict_with_fallback", "window_for"]

logger = logging.getLogger(__name__)


def count_windows(shape: Sequence[int], window: Sequence[int], overlap: float) -> int:
    """Number of windows (voxels a side, overlap 0..1) that cover a grid (I, J, K); one larger than it counts once."""
    padded = [max(n, side) for n, side in zip(shape, window, strict=True)]
    steps = [max(int(side * (1 - overlap)), 1) if n != side else side for n, side in zip(padded, window, strict=True)]
    return len(dense_patch_slices(padded, window, steps))


def window_for(shape: Sequence[int], patch_size: Sequence[int], divisor: Sequence[int]) -> tuple[int, int, int]:
    """The window for a grid (I, J, K): the patch, shrunk along each axis to the grid rounded up to the divisor."""
    i, j, k = (min(p, math.ceil(n / d) * d) for n, p, d in zip(shape, patch_size, divisor, strict=True))
    return (i, j, k)


def predict_logits(
    network: nn.Module,
    image: torch.Tensor,
    plan: InferencePlan,
    *,
    divisor: Sequence[int],
    device: torch.device,
    precision: Precision,
    monitor: Monitor,
) -> torch.Tensor:
    """Logits of a whole volume.

    Parameters
    ----------
    network
        On `device`, in evaluation mode.
    image
        (C, I, J, K) float32 on the CPU: network grid and intensities.
    plan
        Windows, overlap, blend, mirrored axes.
    divisor
        What each side of a window must be divisible by.
    device, precision
        Where and how the network runs; windows are blended in float32 on the CPU.
    monitor
        Told of each window.

    Returns
    -------
    (N, I, J, K) float32 on the CPU.
    """
    window = window_for(image.shape[1:], plan.patch_size, divisor)
    monitor.expect(count_windows(image.shape[1:], window, plan.overlap))
    predict = mirrored(network, plan.mirror_axes)

    def predict_windows(windows: torch.Tensor) -> torch.Tensor:
        with autocast(device, precision):
            logits = predict(place_input(windows, device))
        monitor.advance(windows.shape[0])
        return logits.float()

    with torch.inference_mode():
        logits = sliding_window_inference(
            inputs=_pinned(image[None], device),
            roi_size=window,
            sw_batch_size=plan.windows_per_batch,
            predictor=predict_windows,
            overlap=plan.overlap,
            mode=plan.blend,
            sw_device=device,
            device=torch.device("cpu"),
        )
    result: torch.Tensor = logits[0]
    return result


def predict_with_fallback(
    predict: Callable[[torch.device, InferencePlan], torch.Tensor], device: torch.device, plan: InferencePlan
) -> tuple[torch.Tensor, str | None]:
    """Call `predict`; when a GPU runs out of memory, again with one window at a time, then on the CPU.

    Returns
    -------
    The logits, and a note for the provenance if it did not go as planned.
    """
    attempts = [(device, plan)]
    if device.type == "cuda":
        attempts += [(device, plan.model_copy(update={"windows_per_batch": 1})), (torch.device("cpu"), plan)]
    for place_to_run, attempt in attempts[:-1]:
        try:
            return predict(place_to_run, attempt), _fallback_note(device, place_to_run, plan, attempt)
        except torch.OutOfMemoryError:
            logger.warning("%s ran out of memory with %d windows a batch", place_to_run, attempt.windows_per_batch)
            torch.cuda.empty_cache()
    place_to_run, attempt = attempts[-1]
    return predict(place_to_run, attempt), _fallback_note(device, place_to_run, plan, attempt)


def _fallback_note(asked: torch.device, ran: torch.device, plan: InferencePlan, attempt: InferencePlan) -> str | None:
    if asked == ran and plan == attempt:
        return None
    return f"{asked} ran out of memory; inference ran on {ran} with {attempt.windows_per_batch} window(s) a batch"


def _pinned(image: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Page-locked memory, from which windows reach a GPU without a copy in between."""
    return image.pin_memory() if device.type == "cuda" else image
