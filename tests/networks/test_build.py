"""From a plan to a network."""

from __future__ import annotations

import pytest
import torch

from medseg.core.plan import Plan
from medseg.core.recipe import smallest_divisor
from medseg.errors import InvalidPlan
from medseg.networks.build import build_member, build_network
from medseg.networks.ensemble import joined_weights
from tests.plans import tiny_plan

SEGRESNET = {"kind": "segresnet", "filters": (8, 16, 32), "residual_units": (1, 2, 1)}


def planned(**network: object) -> Plan:
    plan = tiny_plan()
    return plan.model_copy(update={"network": plan.network.model_copy(update=network)})


@pytest.mark.parametrize("kind", ["unet", "segresnet"])
def test_ensemble_is_the_mean_of_its_members(kind: str) -> None:
    plan = planned(**(SEGRESNET if kind == "segresnet" else {}), members=3)
    torch.manual_seed(0)
    members = [build_member(plan).eval() for _ in range(3)]
    ensemble = build_network(plan).eval()
    ensemble.load_state_dict(joined_weights([member.state_dict() for member in members]))
    image = torch.rand((1, 1, 16, 16, 16))
    with torch.inference_mode():
        torch.testing.assert_close(ensemble(image), sum(member(image) for member in members) / 3)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({**SEGRESNET, "filters": (8, 16, 16)}, "doubles them at each level"),
        ({**SEGRESNET, "filters": (6, 12, 24)}, "multiple of 8 filters"),
        ({**SEGRESNET, "strides": (2, (2, 2, 1))}, "halves the grid at each level"),
        ({**SEGRESNET, "residual_units": (1, 2)}, "3 levels need as many residual_units"),
        ({"residual_units": (1, 2, 1)}, "one number of residual_units"),
        ({"kind": "plain_conv_unet", "residual_units": (1, 2)}, "3 levels need as many residual_units"),
        ({"kind": "plain_conv_unet", "decoder_units": (1, 2, 2)}, "2 levels need as many decoder_units"),
        (
            {"kind": "plain_conv_unet", "kernels": (3, 3)},
            r"3 levels need as many kernels, with odd sides; got \(3, 3\)",
        ),
        ({"kind": "plain_conv_unet", "kernels": (3, 3, (2, 3, 3))}, "with odd sides"),
        ({"kind": "plain_conv_unet", "filters": (8,), "strides": ()}, "two levels or more"),
        ({"kind": "residual_encoder_unet", "instance_heads": True}, "has no instance_heads"),
        ({"kind": "residual_encoder_unet", "dropout": 0.1}, "has no dropout"),
        ({"kind": "plain_conv_unet", "strides": (4, 4)}, "one voxel at the coarsest level"),
    ],
)
def test_what_a_kind_of_network_cannot_be_is_refused(network: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidPlan, match=said):
        build_network(planned(**network))


def test_segresnet_keeps_the_grid() -> None:
    with torch.inference_mode():
        assert build_network(planned(**SEGRESNET)).eval()(torch.zeros((1, 1, 8, 12, 16))).shape == (1, 2, 8, 12, 16)


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
