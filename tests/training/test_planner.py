"""What the cases look like decides the plan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.core.plan import with_changes
from medseg.core.scan import Scan
from medseg.core.volume import Units, Volume
from medseg.errors import TrainingError, UsageError
from medseg.io.manifest import DataManifest
from medseg.io.scan import load_volume
from medseg.training.fingerprint import Fingerprint, take_fingerprint
from medseg.training.planner import Budget, Planned, plan_training, plan_with_reasons, within_minutes
from medseg.training.preparation import plan_manifest, read_training_data
from medseg.training.reasons import PlanReasons, Reason
from medseg.training.step_cost import training_bytes
from medseg.training.train import train
from tests.plans import tiny_plan
from tests.training.cases import write_data_set


def manifest(units: str = "suv", modality: str = "PT") -> DataManifest:
    file = {"path": "image.nii.gz", "sha256": "0" * 64}
    return DataManifest(
        name="m", description="d", source="s", licence="l", licence_url="u", attribution="a", root=".",
        channels=({"name": "c", "modality": modality, "units": units},),
        labels={1: "tumor"},
        cases=({"case_id": "a", "images": [file], "label": file},),
    )  # fmt: skip


def fingerprint(extent_mm: tuple[float, float, float] = (200.0, 160.0, 240.0)) -> Fingerprint:
    inside = np.linspace(-100, 300, 1001).astype(np.float32)
    return Fingerprint((4.0, 4.0, 3.0), extent_mm, extent_mm, (inside,), (0.1,))


def test_grid_is_the_median_spacing_and_small_scans_fit_one_window() -> None:
    plan = plan_training(manifest(), fingerprint())
    assert plan.spacing_mm == (4.0, 4.0, 3.0)
    assert plan.inference.patch_size == (56, 40, 80)


def test_a_core_must_rise_by_a_voxel_to_be_a_lesion_of_its_own() -> None:
    assert plan_training(manifest(), fingerprint()).separation.h_min_mm == 4.0


@pytest.mark.parametrize(
    ("lesion_ml", "spacing", "why"),
    [
        (300.0, (5.81, 5.81, 5.81), "then holds a typical scan whole"),
        (100 * 4.0 * 4.0 * 3.5 / 1000, (4.0, 4.0, 3.0), "median voxel spacing"),  # 117 voxels of the scans' grid
        (1000 * 4.0 * 4.0 * 4.0 / 1000, (4.0, 4.0, 4.0), "then holds more of a scan"),
    ],
)
def test_a_grid_is_coarser_where_windows_are_small_and_lesions_large(
    lesion_ml: float, spacing: tuple[float, float, float], why: str
) -> None:
    body = replace(fingerprint((500.0, 400.0, 450.0)), lesions_mm3=(("a", 1000 * lesion_ml), ("b", 1000 * lesion_ml)))
    planned = plan_with_reasons(manifest(), body)
    assert planned.plan.spacing_mm == spacing
    assert why in planned.reasons[0].why
    a_tenth_small = replace(body, lesions_mm3=(*[("a", 1000 * lesion_ml)] * 8, ("b", 10.0), ("c", 10.0)))
    assert plan_training(manifest(), a_tenth_small).spacing_mm == (4.0, 4.0, 3.0)


def test_the_finest_axes_are_coarsened_first() -> None:
    thick = replace(fingerprint((150.0, 160.0, 250.0)), spacing_mm=(1.0, 1.0, 3.0), lesions_mm3=(("a", 5e5),))
    x, y, z = plan_training(manifest(), thick).spacing_mm
    assert x == y == pytest.approx((150 * 160 * 250 / (64 * 64 * 112) / 3) ** 0.5, abs=0.01)
    assert z == 3.0


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
    stored = plan_training(manifest("stored", "CT"), fingerprint()).channels[0].intensity
    assert stored.low == pytest.approx(-98.0)
    assert stored.high == pytest.approx(298.0)
    assert stored.shift == pytest.approx(100.0, abs=0.5)
    assert stored.scale == pytest.approx(400 / np.sqrt(12), rel=0.02)


@pytest.mark.parametrize(("zeros", "how", "of"), [(0.1, "scan", "all voxels"), (0.8, "nonzero", "not 0")])
def test_mr_is_taken_by_each_scans_own_mean_and_deviation(zeros: float, how: str, of: str) -> None:
    planned = plan_with_reasons(manifest("stored", "MR"), replace(fingerprint(), zero_shares=(zeros,)))
    intensity = planned.plan.channels[0].intensity
    assert (intensity.standardize, intensity.shift, intensity.scale) == (how, 0.0, 1.0)
    (told,) = (str(reason) for reason in planned.reasons if reason.field == "intensity of c")
    assert of in told
    assert "MR has no unit" in told
    assert ("80 % of a scan are exactly 0" in told) == (how == "nonzero")


def test_the_share_of_zeros_is_the_median_over_the_scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read_training_data(write_data_set(tmp_path, n_cases=3))
    shares = iter((0.5, 0.0, 0.25))

    def emptied(scan: Scan, units: Sequence[Units]) -> Volume:
        volume = load_volume(scan, units=units)
        array = volume.array.copy()
        array[..., : round(next(shares) * array.shape[-1])] = 0
        return Volume(array, volume.geometry, volume.channels, units=volume.units)

    monkeypatch.setattr("medseg.training.fingerprint.load_volume", emptied)
    assert take_fingerprint(data.cases, data.manifest).zero_shares == (0.25,)


def test_phantoms_train_along_where_they_look_like_the_scans() -> None:
    assert plan_training(manifest("suv"), fingerprint()).training.phantom_share > 0
    assert plan_training(manifest("stored"), fingerprint()).training.phantom_share == 0


def test_every_choice_has_its_reason() -> None:
    planned = plan_with_reasons(manifest("stored"), fingerprint())
    told = {reason.field: str(reason) for reason in planned.reasons}
    assert "median voxel spacing" in told["spacing_mm"]
    assert told["inference.patch_size"].startswith("inference.patch_size = 56 x 40 x 80: holds every scan whole")
    assert "percentiles" in told["intensity of c"]
    assert planned.warnings == ()
    assert planned.plan == plan_training(manifest("stored"), fingerprint())


def test_lesions_below_two_voxels_of_the_grid_are_warned_of() -> None:
    voxel = 4.0 * 4.0 * 3.0
    sizes = (("a", 2 * voxel), ("b", 1.9 * voxel), ("c", 0.5 * voxel), ("a", 900.0))
    (warning,) = plan_with_reasons(manifest(), replace(fingerprint(), lesions_mm3=sizes)).warnings
    assert warning.startswith("2 of 4 reference lesions are smaller than 2 voxels of the network's grid (4 x 4 x 3 mm")
    assert "the smallest 0.024 ml in c" in warning
    assert "(b, c)" in warning


def test_a_plan_that_is_given_is_warned_of_too(tmp_path: Path) -> None:
    path = write_data_set(tmp_path)  # blocks of 5 x 5 x 5 voxels of 4 mm, 8 ml
    assert plan_manifest(path, plan=tiny_plan(), device="cpu").warnings == ()
    (warning,) = plan_manifest(path, plan=tiny_plan(spacing_mm=(20.0, 20.0, 12.0)), device="cpu").warnings
    assert warning.startswith("4 of 4 reference lesions")
    assert list(tmp_path.glob("*.training")) == []


def test_less_memory_gives_smaller_windows_then_smaller_batches_then_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medseg.training.step_cost.resident_bytes", lambda: 400 * 2**20)  # not what pytest holds by now
    wide = replace(fingerprint((600.0, 600.0, 1800.0)), total_mm3=0.0)
    free = plan_with_reasons(manifest(), wide).plan
    needed = training_bytes(free, 0.0) / 2**20
    small = plan_with_reasons(manifest(), wide, memory_mib=0.7 * needed)
    assert np.prod(small.plan.inference.patch_size) < np.prod(free.inference.patch_size)
    assert training_bytes(small.plan, 0.0) / 2**20 < 0.75 * needed
    assert small.reasons[-1].field == "memory"
    told = {reason.field: reason.value for reason in small.reasons}
    assert told["inference.patch_size"] == " x ".join(map(str, small.plan.inference.patch_size))
    assert plan_with_reasons(manifest(), wide, memory_mib=1.5 * needed).plan == free
    with pytest.raises(TrainingError, match=r"training needs about \d+ MiB even with .* 1 MiB are allowed"):
        plan_with_reasons(manifest(), wide, memory_mib=1.0)


def test_scans_held_in_memory_count() -> None:
    plan = plan_training(manifest(), fingerprint())
    more = training_bytes(plan, 48.0 * 2**28) - training_bytes(plan, 0.0)
    assert more == pytest.approx(3 * 4 * 2**28, rel=0.02)


def test_minutes_become_steps_of_the_speed_that_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read_training_data(write_data_set(tmp_path))
    planned = plan_with_reasons(data.manifest, take_fingerprint(data.cases, data.manifest))
    monkeypatch.setattr("medseg.training.planner.seconds_a_step", lambda *_: 0.9)
    long = within_minutes(planned, data.cases, 20.0, torch.device("cpu"))
    assert (long.plan.training.steps, long.plan.network.members) == (300, 4)
    short = within_minutes(planned, data.cases, 5.0, torch.device("cpu"))
    assert (short.plan.training.steps, short.plan.network.members) == (300, 1)
    assert short.plan.training.warmup_steps == 30
    for planned_for, n in ((long, 4), (short, 1)):
        (network,) = (reason.value for reason in planned_for.reasons if reason.field == "network")
        assert network.startswith(f"{n} x segresnet")
    assert str(short.reasons[-1]) == (
        "training.steps = 300, 1 member(s): 5 minutes a network on this machine, at 0.90 s a step"
    )
    with pytest.raises(TrainingError, match=r"a step takes 0\.9 s here"):
        within_minutes(planned, data.cases, 0.001, torch.device("cpu"))


def test_a_step_is_timed_on_the_cases(tmp_path: Path) -> None:
    data = read_training_data(write_data_set(tmp_path))
    planned = within_minutes(Planned(tiny_plan()), data.cases, 0.5, torch.device("cpu"))
    seconds = float(re.search(r"at ([\d.]+) s a step", planned.reasons[-1].why)[1])
    assert planned.plan.training.steps == pytest.approx(27 / seconds, rel=0.5)


def test_a_resumed_run_keeps_the_plan_of_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, budget = write_data_set(tmp_path / "data"), Budget(minutes=0.01)
    small = with_changes(tiny_plan(), {"training": {"steps": 2}})
    monkeypatch.setattr("medseg.training.preparation.plan_with_reasons", lambda *_: Planned(small))
    monkeypatch.setattr("medseg.training.planner.seconds_a_step", lambda *_: 0.18)
    train(path, tmp_path / "bundle", budget=budget, device="cpu")
    monkeypatch.setattr("medseg.training.planner.seconds_a_step", lambda *_: 0.09)  # the machine is quicker now
    log = tmp_path / "bundle.training" / "all" / "train.log"
    before = log.read_text()
    train(path, tmp_path / "bundle", budget=budget, device="cpu", resume=True, overwrite=True)
    assert log.read_text() == before


def test_budgets_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="minutes is a number above 0; got -1"):
        Budget(minutes=-1)
    with pytest.raises(UsageError, match="has decided it already"):
        plan_manifest(write_data_set(tmp_path), plan=tiny_plan(), budget=Budget(memory_mib=4000.0), device="cpu")


def test_a_bundle_keeps_the_reasons_of_its_plan_also_when_the_run_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = with_changes(tiny_plan(), {"training": {"steps": 2}})
    planned = Planned(small, (Reason("spacing_mm", "4", "so fine"), Reason("training.seed", "0", "why not")), ("tiny",))
    monkeypatch.setattr("medseg.training.preparation.plan_with_reasons", lambda *_: planned)
    monkeypatch.setattr("medseg.training.planner.seconds_a_step", lambda *_: 0.18)
    path, budget = write_data_set(tmp_path / "data"), Budget(minutes=0.01)
    for resume in (False, True):
        bundle = train(path, tmp_path / "bundle", budget=budget, seed=7, device="cpu", resume=resume, overwrite=resume)
        kept = PlanReasons.model_validate_json((bundle / "docs" / "plan_reasons.json").read_text())
        assert kept.warnings == ("tiny",)
        told = {reason.field: (reason.value, reason.why) for reason in kept.reasons}
        assert told["spacing_mm"] == ("4", "so fine")
        assert told["training.seed"] == ("7", "asked for")
        assert told["training.steps"][0] == "3, 1 member(s)"
        card = (bundle / "docs" / "README.md").read_text()
        assert "## Why this plan\n\n* spacing_mm = 4: so fine\n" in card
        assert "* Warning: tiny\n" in card


def test_a_plan_that_was_given_says_so_in_the_card(tmp_path: Path) -> None:
    bundle = train(write_data_set(tmp_path / "data"), tmp_path / "bundle", plan=tiny_plan(steps=2), device="cpu")
    assert "It was given, and not made from the cases." in (bundle / "docs" / "README.md").read_text()
    assert not (bundle / "docs" / "plan_reasons.json").exists()
