"""From a scan to what the network sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import NormalizeIntensity

from medseg.core.geometry import Geometry
from medseg.core.plan import IntensityPlan
from medseg.core.steps import NnunetChannel
from medseg.core.volume import Volume
from medseg.transforms.border import geometry_of
from medseg.transforms.intensity import map_intensity
from medseg.transforms.prepare_nnunet import normalized_as_nnunet
from medseg.transforms.preprocess import MapIntensityd, network_input
from tests.plans import tiny_plan


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (IntensityPlan(low=-1, high=9), [-1.0, 0.0, 4.0, 9.0]),
        (IntensityPlan(low=0, high=9, transform="sqrt"), [0.0, 0.0, 2.0, 3.0]),
        (IntensityPlan(low=0, high=9, shift=4, scale=2), [-2.0, -2.0, 0.0, 2.5]),
        (IntensityPlan(low=0, high=9, transform="sqrt", shift=1, scale=0.5), [-2.0, -2.0, 2.0, 4.0]),
    ],
)
def test_intensities_are_clipped_transformed_shifted_and_scaled(plan: IntensityPlan, expected: list[float]) -> None:
    values = torch.tensor([-5.0, 0.0, 4.0, 100.0])
    torch.testing.assert_close(map_intensity(values, plan), torch.tensor(expected))


@pytest.mark.parametrize("how", ["scan", "nonzero"])
def test_intensities_are_standardized_by_the_scan_as_monai_and_nnunet_do(how: str) -> None:
    values = torch.randn((1, 6, 7, 8), generator=torch.Generator().manual_seed(0)) * 40 + 300
    values[:, :2] = 0.0
    plan = IntensityPlan(low=-1000, high=1000, standardize=how)
    ours = map_intensity(values[0], plan)
    monai = NormalizeIntensity(nonzero=how == "nonzero", channel_wise=True)(values)[0]
    torch.testing.assert_close(ours, monai)
    inside = values[0].numpy() != 0
    masked = NnunetChannel(scheme="zscore", is_masked=how == "nonzero")
    nnunet = normalized_as_nnunet(values[0].numpy(), masked, inside)
    np.testing.assert_allclose(ours.numpy(), nnunet, atol=1e-5)
    assert (ours[:2] == 0).all() == (how == "nonzero")


def test_standardized_intensities_are_then_clipped_and_an_even_scan_stays_finite() -> None:
    values = torch.tensor([1.0, 1.0, 1.0, 5.0])
    plan = IntensityPlan(low=-1, high=1, standardize="scan", scale=0.5)
    torch.testing.assert_close(map_intensity(values, plan)[3], torch.tensor(2.0))
    for even in (torch.full((4,), 7.0), torch.zeros(4)):
        for how in ("scan", "nonzero"):
            assert map_intensity(even, plan.model_copy(update={"standardize": how})).tolist() == [0.0] * 4


def test_a_bundles_configuration_gives_mappings_as_json() -> None:
    plans = [IntensityPlan(low=0, high=1), IntensityPlan(low=0, high=9, standardize="scan")]
    image = torch.rand((2, 4, 4, 4), generator=torch.Generator().manual_seed(0)) * 20
    given = MapIntensityd(["image"], [plan.model_dump(mode="json") for plan in plans])({"image": image})["image"]
    assert torch.equal(given, MapIntensityd(["image"], plans)({"image": image})["image"])


def test_network_grid_has_the_plans_orientation_and_spacing() -> None:
    affine = np.array([[0.0, 0.0, -3.0, 90.0], [-2.0, 0.0, 0.0, 10.0], [0.0, 1.0, 0.0, 0.0], [0, 0, 0, 1.0]])
    geometry = Geometry((20, 30, 10), affine)
    volume = Volume(np.ones((1, *geometry.shape), dtype=np.float32), geometry, ("PET",))
    grid = geometry_of(network_input(tiny_plan(spacing_mm=(4.0, 5.0, 6.0)))({"image": volume})["image"])
    assert grid.axcodes == "RAS"
    np.testing.assert_allclose(grid.spacing, (4.0, 5.0, 6.0), atol=1e-6)


def test_each_channel_has_its_own_mapping() -> None:
    geometry = Geometry((4, 4, 4), np.eye(4))
    plan = tiny_plan(spacing_mm=None, n_channels=2)
    second = plan.channels[1].model_copy(update={"intensity": IntensityPlan(low=0, high=1, scale=0.1)})
    plan = plan.model_copy(update={"channels": (plan.channels[0], second)})
    volume = Volume(np.full((2, 4, 4, 4), 7.0, dtype=np.float32), geometry, ("PET", "CT"))
    image = network_input(plan)({"image": volume})["image"].as_tensor()
    assert image[:, 0, 0, 0].tolist() == [7.0, 10.0]


def test_without_a_spacing_the_scans_own_grid_stays() -> None:
    geometry = Geometry((4, 5, 6), np.diag([1.1, 2.2, 3.3, 1.0]))
    volume = Volume(np.random.default_rng(0).normal(size=(1, 4, 5, 6)).astype(np.float32), geometry, ("PET",))
    image = network_input(tiny_plan(spacing_mm=None))({"image": volume})["image"]
    np.testing.assert_array_equal(np.asarray(image.as_tensor()), volume.array)
    np.testing.assert_array_equal(geometry_of(image).affine, geometry.affine)
