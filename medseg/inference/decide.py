"""From network outputs to class numbers: activation, the winning channel, regions painted in order.

On the network's grid the winner of each voxel is known, and by how much. Linear interpolation keeps an order that holds
at all neighbors, so between neighbors with one clear winner nothing needs to be interpolated: only where winners
differ, or win by less than rounding, are all channels brought to the scan's grid.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from medseg.core.recipe import OutputPlan
from medseg.errors import UsageError

__all__ = ["Decision"]

Codes = NDArray[np.uint16]

_FLOAT_MARGIN = 4e-6  # share of its values by which a winner must lead so that float32 rounding cannot change it
_HALF_MARGIN = 2.0**-9  # the same for values that are rounded to float16 after interpolation
_BACKGROUND_LEAD = 1e4  # of the background's logit where no window was; within float16
_FEW_CHANNELS = 8


class Decision:
    """The rules of an `OutputPlan`.

    A *code* is the winner of a voxel: the channel for "argmax"; for "threshold" 0 for none, else one more than the
    place in the order of painting.

    Parameters
    ----------
    plan
        Activation, decision, classes.
    is_exact
        Whether logits are rounded to float16 after interpolation, where the plan says that its family does so.
    """

    def __init__(self, plan: OutputPlan, *, is_exact: bool) -> None:
        self.plan = plan
        self._is_exact = is_exact
        self.rounds_to_half = plan.rounds_to_half and is_exact
        self.order = plan.paint_order or tuple(range(len(plan.paint)))
        painted = [plan.paint[channel] for channel in self.order]
        numbers = plan.paint if plan.decision == "argmax" else (0, *painted)
        self.class_of_code = np.array(numbers, dtype=np.uint16)

    @property
    def n_channels(self) -> int:
        """N, the outputs of the network."""
        return len(self.plan.paint)

    def background_logits(self) -> NDArray[np.float32]:
        """(N,) float32 logits that surely mean background.

        Raises
        ------
        UsageError
            If the model has no channel for background.
        """
        logits = np.zeros(len(self.plan.paint), dtype=np.float32)
        if self.plan.decision == "threshold":
            logits[:] = -_BACKGROUND_LEAD
        elif 0 in self.plan.paint:
            logits[self.plan.paint.index(0)] = _BACKGROUND_LEAD
        else:
            raise UsageError("this model has no channel for background, so no window of air can be left out")
        return logits

    def before_interpolation(self, logits: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """What is interpolated: (..., N) float32 values of logits (..., N); written into `out` if that is given."""
        out = torch.empty(logits.shape) if out is None else out
        if self.plan.interpolates == "logits" or self.plan.activation == "none":
            return out.copy_(logits)
        if self.plan.activation == "softmax" and (self._is_exact or logits.shape[-1] != 2):
            return torch.softmax(logits.float(), -1, out=out)
        if self.plan.activation == "softmax":  # of two channels: ten times sooner, and the same but for rounding
            torch.sigmoid(logits[..., 1].float() - logits[..., 0].float(), out=out[..., 1])
            torch.sub(1.0, out[..., 1], out=out[..., 0])
            return out
        return torch.sigmoid(logits.float(), out=out)

    def foreground(self, values: torch.Tensor) -> torch.Tensor:
        """(...) float32 in 0..1: probability of anything but background, from what is interpolated (..., N)."""
        values = self._activated(values) if self.plan.interpolates == "logits" else values
        if self.plan.decision == "threshold":
            return values.amax(-1).clamp(0, 1)
        background = [channel for channel, number in enumerate(self.plan.paint) if number == 0]
        return (1.0 - values[..., background].sum(-1)).clamp(0, 1)

    def winners(self, values: torch.Tensor) -> tuple[Codes, NDArray[np.bool_]]:
        """Codes (...) of what is interpolated (..., N), and where they are clear: no rounding could change them."""
        if self.plan.decision == "threshold":
            return self._above_threshold(values)
        if self.plan.foreground_threshold is not None:
            return self._likely_enough(values, self.plan.foreground_threshold)
        flat = values.reshape(-1, values.shape[-1])
        best, channel = _best(flat)
        margin = _HALF_MARGIN if self.rounds_to_half else _FLOAT_MARGIN
        second = _best_but(flat, channel, best)
        is_clear = (best - second) > margin * (best.abs() + second.abs())
        shape = values.shape[:-1]
        return channel.reshape(shape).numpy().astype(np.uint16), is_clear.reshape(shape).numpy()

    def decide(self, values: NDArray[np.floating]) -> Codes:
        """Codes (n,) of interpolated values (n, N)."""
        if self.rounds_to_half:
            values = values.astype(np.float16).astype(np.float32)  # numpy compares float16 slowly
        if self.plan.foreground_threshold is not None:
            return self._likely_enough(torch.from_numpy(values), self.plan.foreground_threshold)[0]
        if self.plan.decision == "argmax":
            return _argmax(values)
        if self.plan.interpolates == "logits":
            values = self._activated(torch.from_numpy(values.astype(np.float32))).numpy()
        codes = np.zeros(len(values), dtype=np.uint16)
        for place, channel in enumerate(self.order):
            codes[values[:, channel] > self.plan.threshold] = place + 1
        return codes

    def _likely_enough(self, values: torch.Tensor, threshold: float) -> tuple[Codes, NDArray[np.bool_]]:
        """The likeliest class where foreground exceeds a threshold, and where neither could change by rounding.

        Linear interpolation keeps both: foreground is a sum of channels, and an order holds at all neighbors.
        """
        is_background = torch.tensor([number == 0 for number in self.plan.paint])
        others = values.masked_fill(is_background, -torch.inf).reshape(-1, values.shape[-1])
        best, channel = _best(others)
        second = _best_but(others, channel, best)
        foreground = self.foreground(values).reshape(-1)
        is_marked = foreground > threshold
        codes = torch.where(is_marked, channel, is_background.int().argmax())
        is_sure = (foreground - threshold).abs() > _FLOAT_MARGIN
        is_sure &= ~is_marked | (best - second > _FLOAT_MARGIN * (best.abs() + second.abs()))
        shape = values.shape[:-1]
        return codes.reshape(shape).numpy().astype(np.uint16), is_sure.reshape(shape).numpy()

    def _activated(self, logits: torch.Tensor) -> torch.Tensor:
        if self.plan.activation == "softmax":
            return logits.softmax(-1)
        return logits.sigmoid() if self.plan.activation == "sigmoid" else logits

    def _above_threshold(self, values: torch.Tensor) -> tuple[Codes, NDArray[np.bool_]]:
        if self.plan.interpolates == "logits":
            values = self._activated(values)
        codes = np.zeros(values.shape[:-1], dtype=np.uint16)
        for place, channel in enumerate(self.order):
            codes[(values[..., channel] > self.plan.threshold).numpy()] = place + 1
        margin = _HALF_MARGIN if self.rounds_to_half else _FLOAT_MARGIN
        from_threshold = (values - self.plan.threshold).abs()
        is_clear = (from_threshold > margin * (values.abs() + abs(self.plan.threshold))).all(-1).numpy()
        if self.plan.interpolates == "logits" and self.plan.activation == "softmax":
            is_clear[...] = False  # a channel's probability is no monotonic function of its own logit
        return codes, is_clear


def _best(flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Highest value (n,) and its channel (n,) int64 of (n, N); the lower of equal ones."""
    if flat.shape[1] > _FEW_CHANNELS:
        channel = torch.from_numpy(flat.numpy().argmax(axis=1))
        return flat.gather(1, channel[:, None])[:, 0], channel
    best, channel = flat[:, 0].clone(), torch.zeros(len(flat), dtype=torch.int64)
    for number in range(1, flat.shape[1]):
        is_better = flat[:, number] > best
        channel[is_better] = number
        torch.maximum(best, flat[:, number], out=best)
    return best, channel


def _best_but(flat: torch.Tensor, channel: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """Highest value (n,) of (n, N) outside one channel a row."""
    if flat.shape[1] == 1:
        return torch.full_like(best, -torch.inf)
    flat.scatter_(1, channel[:, None], -torch.inf)
    second = flat.amax(1)
    flat.scatter_(1, channel[:, None], best[:, None])
    return second


def _argmax(values: NDArray[np.floating]) -> Codes:
    if values.shape[1] > _FEW_CHANNELS:
        highest: Codes = np.argmax(values, axis=1).astype(np.uint16)
        return highest
    codes = np.zeros(len(values), dtype=np.uint16)
    best = values[:, 0].copy()
    for channel in range(1, values.shape[1]):
        is_better = values[:, channel] > best
        codes[is_better] = channel
        np.maximum(best, values[:, channel], out=best)
    return codes
