"""Shared fixtures: where the real scans lie, and a model small enough for any test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from torch import nn

    from medseg.core.plan import Plan

# a busy machine is no failure: how long an example takes is nothing that a test judges
settings.register_profile("medseg", deadline=None)
settings.load_profile("medseg")

_DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans: MEDSEG_TEST_DATA, by default ../shared/data beside the checkout."""
    folder = Path(os.environ.get("MEDSEG_TEST_DATA", _DEFAULT_DATA))
    if not folder.is_dir():
        pytest.skip(f"no real scans at {folder}; set MEDSEG_TEST_DATA to their folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the tests' own: what is found fastest in a test stays out of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle folder whose network calls everything above about 3 SUV a lesion.

    A U-Net as any other (three levels, half resolution inside), its weights set by hand and not trained: on a phantom
    it finds what a threshold finds, on an empty scan nothing.
    """
    import torch

    from medseg.models.bundle import PLAN_PATH, WEIGHTS_PATH
    from medseg.networks.build import build_network

    folder = tmp_path_factory.mktemp("models") / "tiny"
    plan = _tiny_plan()
    torch.manual_seed(0)
    network = build_network(plan)
    _make_threshold(network, 3.0**0.5)
    for path in (PLAN_PATH, WEIGHTS_PATH):
        (folder / path).parent.mkdir(parents=True)
    (folder / PLAN_PATH).write_text(plan.to_json(), encoding="utf-8")
    torch.save(network.state_dict(), folder / WEIGHTS_PATH)
    return folder


def _tiny_plan() -> Plan:
    from medseg.core.labels import BINARY_LESION
    from medseg.core.plan import ChannelPlan, InferencePlan, IntensityPlan, NetworkPlan, Plan

    intensity = IntensityPlan(low=0.0, high=20.0, transform="sqrt")
    return Plan(
        name="tiny",
        channels=(ChannelPlan(name="pet", modality="PT", units="suv", intensity=intensity),),
        labels=BINARY_LESION,
        spacing_mm=None,
        # batch normalization that has seen no data leaves its input alone; instance normalization never does
        network=NetworkPlan(filters=(4, 8, 16), strides=(2, 2), residual_units=1, norm="batch"),
        inference=InferencePlan(patch_size=(32, 32, 32), overlap=0.25, windows_per_batch=2),
    )


def _make_threshold(network: nn.Module, threshold: float) -> None:
    """Set the weights so that the lesion's logit is (input - threshold) and background's is 0."""
    import torch

    state = network.state_dict()
    for name, values in state.items():
        if name.startswith(("model.0.", "model.2.")) and ".adn." not in name:
            values.zero_()
    weights = {name: values for name, values in state.items() if values.ndim == 5}
    weights["model.0.residual.weight"][0, 0, 1, 1, 1] = 1.0  # every second voxel, past all convolutions
    tent = torch.tensor([0.5, 1.0, 0.5])  # back to full resolution, linearly between them
    weights["model.2.0.conv.weight"][0, 1] = tent[:, None, None] * tent[:, None] * tent
    # the last unit adds its input to its convolution, which is only a bias here
    state["model.2.1.conv.unit0.conv.bias"][1] = -threshold
    network.load_state_dict(state)
