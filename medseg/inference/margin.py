"""Two classes as one number: by how much the logit of the second exceeds that of the first.

Softmax and argmax over two channels depend on the difference of their logits alone, `p1 = sigmoid(l1 - l0)`, and so do
blending, test-time flips and interpolation, all of which are linear. One channel instead of two is summed, blended,
interpolated and decided.
"""

from __future__ import annotations

import torch

from medseg.core.recipe import OutputPlan
from medseg.errors import ModelError
from medseg.inference.engine import Engine, Heads
from medseg.inference.slab import SEMANTIC

__all__ = ["MarginEngine", "margin_output"]


def margin_output(output: OutputPlan) -> OutputPlan | None:
    """What a plan of two softmax channels says of the difference between them; None for any other plan.

    The map is the same but for rounding, so this is not for a run that follows the arithmetic of the model's family.
    """
    is_pair = len(output.paint) == 2 and output.paint[0] == 0 and output.paint[1] != 0
    if not is_pair or output.activation != "softmax" or output.decision != "argmax":
        return None
    changes = {
        "activation": "sigmoid",
        "decision": "threshold",
        "paint": output.paint[1:],
        "paint_order": (),
        "threshold": 0.5 if output.foreground_threshold is None else output.foreground_threshold,
        "foreground_threshold": None,
    }
    return OutputPlan.model_validate({**output.model_dump(), **changes})


class MarginEngine:
    """An engine whose two channels of logits are handed on as their difference.

    Parameters
    ----------
    engine
        Of a network with two classes.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name, self.precision, self.device = engine.name, engine.precision, engine.device
        self.seconds_per_window, self.takes_batches = engine.seconds_per_window, engine.takes_batches

    def __call__(self, windows: torch.Tensor) -> Heads:
        """Heads by name; "semantic" is (B, 1, I, J, K).

        Raises
        ------
        ModelError
            If the network gives another number of channels.
        """
        heads = self._engine(windows)
        logits = heads[SEMANTIC]
        if logits.shape[1] != 2:
            raise ModelError(f"the network gives {logits.shape[1]} channels; the model's labels are made from 2")
        return {**heads, SEMANTIC: logits[:, 1:] - logits[:, :1]}
