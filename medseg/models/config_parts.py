"""What several configurations of a bundle say alike, in the words of MONAI's bundle language."""

from __future__ import annotations

from medseg.core.plan import Plan

__all__ = ["IMPORTS", "sliding_window_inferer"]

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
