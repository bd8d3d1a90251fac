"""Sliding-window inference: overlapping windows, blended logits, progress by the window.

MONAI's `sliding_window_inference` lays and blends the windows; this module turns the plan into its arguments, counts
windows, keeps the result on the CPU, and goes on with smaller batches, then on the CPU, when a GPU has no memory left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from monai.data.utils import dense_patch_slices
from monai.inferers import sliding_window_inference
from torch import nn

from medseg.core.monitor import Monitor
from medseg.core.plan import InferencePlan
from medseg.inference.augmentation import mirrored
from medseg.inference.device import Precision, autocast, place_input

__all__ = ["count_windows", "predict_logits", "predict_with_fallback"]

logger = logging.getLogger(__name__)


def count_windows(shape: tuple[int, int, int], plan: InferencePlan) -> int:
    """Number of windows that cover a grid (I, J, K); a window larger than the grid counts once."""
    padded = [max(n, side) for n, side in zip(shape, plan.patch_size, strict=True)]
    steps = [
        max(int(side * (1 - plan.overlap)), 1) if n != side else side
        for n, side in zip(padded, plan.patch_size, strict=True)
    ]
    return len(dense_patch_slices(padded, plan.patch_size, steps))


def predict_logits(
    network: nn.Module,
    image: torch.Tensor,
    plan: InferencePlan,
    *,
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
    device, precision
        Where and how the network runs; windows are blended in float32 on the CPU.
    monitor
        Told of each window.

    Returns
    -------
    (N, I, J, K) float32 on the CPU.
    """
    i, j, k = image.shape[1:]
    monitor.expect(count_windows((i, j, k), plan))
    predict = mirrored(network, plan.mirror_axes)

    def predict_windows(windows: torch.Tensor) -> torch.Tensor:
        with autocast(device, precision):
            logits = predict(place_input(windows, device))
        monitor.advance(windows.shape[0])
        return logits.float()

    with torch.inference_mode():
        logits = sliding_window_inference(
            inputs=_pinned(image[None], device),
            roi_size=plan.patch_size,
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
