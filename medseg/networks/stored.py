"""Trained weights in the type that they are kept in."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from medseg.core.plan import Plan
from medseg.errors import TrainingError

__all__ = ["stored_weights"]

_DTYPES = {"float32": torch.float32, "float16": torch.float16}


def stored_weights(weights: Mapping[str, torch.Tensor], plan: Plan) -> dict[str, torch.Tensor]:
    """A state dict whose floating-point tensors have the plan's `network.weights_dtype`; counters stay as they are.

    Raises
    ------
    TrainingError
        If a weight has no value in that type: float16 ends at 65,504.
    """
    name_of_dtype = plan.network.weights_dtype
    dtype = _DTYPES[name_of_dtype]
    stored = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    for name, tensor in stored.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise TrainingError(
                f"{name}: a trained weight of {float(weights[name].abs().max()):g} is more than {name_of_dtype} holds; "
                'give "weights_dtype": "float32" in the plan\'s network'
            )
    return stored
