"""From a scan to what the network sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg.core.geometry import Geometry
from medseg.core.plan import IntensityPlan
from medseg.core.volume import Volume
from medseg.transforms.border import geometry_of
from medseg.transforms.intensity import map_intensity
from medseg.transforms.preprocess import network_input
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
