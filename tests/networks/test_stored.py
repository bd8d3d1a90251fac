"""Weights in the type that a plan keeps them in."""

from __future__ import annotations

import pytest
import torch

from medseg.core.plan import Plan
from medseg.errors import TrainingError
from medseg.networks.stored import stored_weights
from tests.plans import tiny_plan


def kept_in(weights_dtype: str) -> Plan:
    plan = tiny_plan()
    return plan.model_copy(update={"network": plan.network.model_copy(update={"weights_dtype": weights_dtype})})


def test_half_precision_rounds_weights_and_leaves_counters() -> None:
    weights = {
        "conv.weight": torch.tensor([1.0, 1.0 + 2.0**-12, 0.3]),
        "norm.num_batches_tracked": torch.tensor(70_000),
    }
    stored = stored_weights(weights, kept_in("float16"))
    assert stored["conv.weight"].dtype == torch.float16
    assert stored["conv.weight"].tolist() == [1.0, 1.0, 0.300048828125]
    assert int(stored["norm.num_batches_tracked"]) == 70_000
    as_they_are = stored_weights(weights, kept_in("float32"))
    assert all(torch.equal(as_they_are[name], tensor) for name, tensor in weights.items())


def test_a_weight_beyond_half_precision_is_refused_and_named() -> None:
    weights = {"fine": torch.zeros(2), "norm.running_var": torch.tensor([1.0, 70_000.0])}
    with pytest.raises(TrainingError, match=r"norm\.running_var.*70000.*float16.*\"float32\""):
        stored_weights(weights, kept_in("float16"))
    stored_weights(weights, kept_in("float32"))
