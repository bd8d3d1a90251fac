"""From a plan to a network."""

from __future__ import annotations

import pytest
import torch

from medseg.errors import InvalidPlan
from medseg.networks.build import build_network, smallest_divisor
from tests.plans import tiny_plan


def test_network_maps_channels_to_classes_and_keeps_the_grid() -> None:
    network = build_network(tiny_plan(n_channels=2)).eval()
    with torch.inference_mode():
        assert network(torch.zeros((1, 2, 16, 20, 24))).shape == (1, 2, 16, 20, 24)


def test_same_seed_gives_the_same_weights() -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return list(build_network(tiny_plan()).parameters())

    assert all(torch.equal(a, b) for a, b in zip(weights(3), weights(3), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(3), weights(4), strict=True))


def test_divisor_is_the_product_of_strides_on_each_axis() -> None:
    network = tiny_plan().network.model_copy(update={"strides": (2, (2, 2, 1))})
    assert smallest_divisor(network) == (4, 4, 2)


def test_patch_that_the_network_cannot_halve_is_refused() -> None:
    with pytest.raises(InvalidPlan, match=r"patch_size \(18, 16, 16\) must be divisible by \(4, 4, 4\)"):
        build_network(tiny_plan(patch_size=(18, 16, 16)))


def test_filters_and_strides_must_go_together() -> None:
    plan = tiny_plan()
    plan = plan.model_copy(update={"network": plan.network.model_copy(update={"strides": (2,)})})
    with pytest.raises(InvalidPlan, match="3 levels need 2 strides; got 1"):
        build_network(plan)
