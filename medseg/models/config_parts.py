"""What several configurations of a bundle say alike, in the words of MONAI's bundle language."""

from __future__ import annotations

from typing import Any

from medseg.core.plan import Plan

__all__ = ["IMPORTS", "decision_step", "sliding_window_inferer"]

IMPORTS = ("$import copy", "$import glob", "$import monai", "$import torch", "$import torch.fx")
"""What the expressions of every configuration need."""


def sliding_window_inferer(plan: Plan) -> str:
    """An inferer as an expression: MONAI's own has one window for all scans, here it shrinks to a smaller scan."""
    inference = plan.inference
    return (
        "$lambda inputs, network, *args, **kwargs: monai.inferers.sliding_window_inference("
        "inputs, [min(p, -(-n // d) * d) for p, n, d in zip(@patch_size, inputs.shape[2:], @divisor)], "
        f"{inference.windows_per_batch}, network, overlap={inference.overlap!r}, mode={inference.blend!r})"
    )


def decision_step(plan: Plan) -> dict[str, Any]:
    """The step from probabilities, background first, to class numbers in one channel."""
    threshold = plan.inference.foreground_threshold
    if threshold is None:
        return {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
    likeliest = f"torch.where(1 - p[:1] > {threshold!r}, p[1:].argmax(0, keepdim=True) + 1, 0)"
    return {"_target_": "Lambdad", "keys": "pred", "func": f"$lambda p: {likeliest}"}
