"""What several configurations of a bundle say alike, in the words of MONAI's bundle language."""

from __future__ import annotations

from typing import Any

from medseg.core.plan import Plan

__all__ = ["IMPORTS", "NETWORK_KEYS", "decision_step", "sliding_window_inferer"]

IMPORTS = ("$import copy", "$import glob", "$import monai", "$import torch", "$import torch.fx")
"""What the expressions of every configuration need."""

NETWORK_KEYS = (
    *("topology", "unit", "units", "block", "blocks", "forward", "unet", "traced"),  # of nnU-Net's networks
    *("members", "mean", "graph", "network_def"),
)
"""Entries of a configuration that the network is made of, where they are there."""


def sliding_window_inferer(plan: Plan) -> str:
    """An inferer as an expression: MONAI's own has one window for all scans, here it shrinks to a smaller scan.

    nnU-Net's networks, whose norms need several voxels at the coarsest level, have one window for all.
    """
    inference = plan.inference
    sides = "[min(p, -(-n // d) * d) for p, n, d in zip(@patch_size, inputs.shape[2:], @divisor)]"
    # one voxel at the coarsest level has no variance to be normalized by
    shrunk = f"(lambda w: w if w != @divisor else [min(2 * w[0], @patch_size[0]), *w[1:]])({sides})"
    return (
        "$lambda inputs, network, *args, **kwargs: monai.inferers.sliding_window_inference("
        f"inputs, {'@patch_size' if plan.network.is_nnunet else shrunk}, "
        f"{inference.windows_per_batch}, network, overlap={inference.overlap!r}, mode={inference.blend!r})"
    )


def decision_step(plan: Plan) -> dict[str, Any]:
    """The step from probabilities, background first, to class numbers in one channel."""
    threshold = plan.inference.foreground_threshold
    if threshold is None:
        return {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
    likeliest = f"torch.where(1 - p[:1] > {threshold!r}, p[1:].argmax(0, keepdim=True) + 1, 0)"
    return {"_target_": "Lambdad", "keys": "pred", "func": f"$lambda p: {likeliest}"}
