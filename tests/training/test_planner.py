"""What the cases look like decides the plan."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.io.manifest import DataManifest
from medseg.training.planner import Fingerprint, plan_training


def manifest(units: str = "suv") -> DataManifest:
    file = {"path": "image.nii.gz", "sha256": "0" * 64}
    return DataManifest(
        name="m", description="d", source="s", licence="l", licence_url="u", attribution="a", root=".",
        channels=({"name": "c", "modality": "PT", "units": units},),
        labels={1: "tumor"},
        cases=({"case_id": "a", "images": [file], "label": file},),
    )  # fmt: skip


def fingerprint(extent_mm: tuple[float, float, float] = (200.0, 160.0, 240.0)) -> Fingerprint:
    inside = np.linspace(-100, 300, 1001).astype(np.float32)
    return Fingerprint((4.0, 4.0, 3.0), extent_mm, (inside,))


def test_grid_is_the_median_spacing_and_small_scans_fit_one_window() -> None:
    plan = plan_training(manifest(), fingerprint())
    assert plan.spacing_mm == (4.0, 4.0, 3.0)
    assert plan.inference.patch_size == (56, 40, 80)


def test_a_core_must_rise_by_a_voxel_to_be_a_lesion_of_its_own() -> None:
    assert plan_training(manifest(), fingerprint()).separation.h_min_mm == 4.0


@pytest.mark.parametrize("extent", [(2000.0, 2000.0, 1500.0), (600.0, 600.0, 1800.0)])
def test_large_scans_get_a_window_of_their_aspect_within_the_budget(extent: tuple[float, float, float]) -> None:
    patch = plan_training(manifest(), fingerprint(extent)).inference.patch_size
    assert all(side % 8 == 0 for side in patch)
    assert 0.6 < np.prod(patch) / (64 * 64 * 112) < 1.4
    aspect = np.array(patch) * (4.0, 4.0, 3.0) / np.array(extent)
    assert aspect.max() / aspect.min() < 1.4


def test_uptake_is_taken_by_its_root_and_stored_values_by_their_percentiles() -> None:
    uptake = plan_training(manifest("suv"), fingerprint()).channels[0]
    assert (uptake.units, uptake.intensity.transform, uptake.intensity.low) == ("suv", "sqrt", 0.0)
    assert uptake.intensity.shift == 1.0  # air is not the 0 that lies beyond a scan
    stored = plan_training(manifest("stored"), fingerprint()).channels[0].intensity
    assert stored.low == pytest.approx(-98.0)
    assert stored.high == pytest.approx(298.0)
    assert stored.shift == pytest.approx(100.0, abs=0.5)
    assert stored.scale == pytest.approx(400 / np.sqrt(12), rel=0.02)


def test_phantoms_train_along_where_they_look_like_the_scans() -> None:
    assert plan_training(manifest("suv"), fingerprint()).training.phantom_share > 0
    assert plan_training(manifest("stored"), fingerprint()).training.phantom_share == 0
