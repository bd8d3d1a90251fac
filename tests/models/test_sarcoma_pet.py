"""What the shipped model says where the answer is known: of nothing, and of phantoms."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import medseg
from medseg.core.geometry import Geometry
from medseg.core.plan import Plan, SeparationPlan, with_changes
from medseg.core.recipe import recipe_of
from medseg.core.volume import Volume
from medseg.demo import found_lesions
from medseg.models.shipped import find_model
from medseg.training.operating_point import OperatingPoint
from medseg.training.scores import CrossValidation
from tests.cli.commands import run_well

UNSEEN_SEEDS = (1, 2, 3)  # training draws its phantoms from seed 1,000,000 on


@cache
def segmenter() -> medseg.inference.segmenter.Segmenter:
    return medseg.load_segmenter("sarcoma_pet", device="cpu")


@pytest.mark.parametrize("shape", [(40, 40, 40), (30, 64, 20), (128, 128, 90)])
def test_a_scan_of_nothing_gives_an_empty_table_with_its_header(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    nib.save(nib.Nifti1Image(np.zeros(shape, np.float32), np.diag([4.0, 4.0, 4.0, 1.0])), tmp_path / "nothing.nii.gz")
    run_well("segment", tmp_path / "nothing.nii.gz", "--model", "sarcoma_pet", "-o", tmp_path / "out", "-q")
    table = pd.read_csv(tmp_path / "out" / "lesions.csv")
    assert len(table) == 0
    assert table.columns[:3].tolist() == ["case_id", "lesion_id", "class_name"]
    assert {"volume_ml", "longest_diameter_mm", "suv_max"} <= set(table.columns)
    assert not np.asarray(nib.load(tmp_path / "out" / "semantic.nii.gz").dataobj).any()


@pytest.mark.parametrize("precision", ["exact", "float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (9, 9, 9), (3, 9, 40)])
def test_a_scan_of_a_few_millimeters_is_segmented_by_torch_alone(shape: tuple[int, int, int], precision: str) -> None:
    smallest = medseg.load_segmenter("sarcoma_pet", device="cpu", engine="torch", precision=precision)
    scan = np.random.default_rng(0).uniform(0.0, 9.0, (1, *shape)).astype(np.float32)
    semantic, _ = smallest.segment(Volume(scan, Geometry(shape, np.eye(4)), ("PET",)))
    assert semantic.array.shape == shape
    assert np.isfinite(semantic.probability).all()


def test_noise_of_air_is_no_lesion_and_what_was_left_out_is_told() -> None:
    grid = Geometry((40, 40, 60), np.diag([4.0, 4.0, 3.27, 1.0]))
    noise = np.random.default_rng(0).gamma(1.0, 0.05, (1, *grid.shape)).astype(np.float32)
    semantic, notes = segmenter().segment(Volume(noise, grid, ("PET",)))
    assert noise.max() < 1.0
    assert semantic.n_foreground_voxels == 0
    assert all("nowhere reaches 1" in note for note in notes)


@pytest.mark.slow
def test_half_of_the_lesions_of_phantoms_are_found() -> None:
    found: list[bool] = []
    for seed in UNSEEN_SEEDS:
        phantom = medseg.make_phantom("pet", seed)
        semantic, _ = segmenter().segment(phantom.volume)
        found += found_lesions(phantom.lesions, medseg.separate_lesions(semantic, segmenter().recipe.separation))
    assert np.mean(found) >= 0.5


def test_the_cards_figures_are_those_of_the_saved_scores() -> None:
    folder = find_model("sarcoma_pet") / "docs"
    saved = CrossValidation.model_validate_json((folder / "cross_validation.json").read_text())
    card = (folder / "README.md").read_text()
    assert f"* Dice {saved.dice}\n" in card
    assert f"* Dice {saved.dice_recut} on the same patients cut anew" in card
    assert saved.dice.mean == pytest.approx(np.mean([case.dice for case in saved.cases]))
    plan = Plan.from_json((folder.parent / "configs" / "plan.json").read_text())
    before_heads = {  # of which the first was chosen afterwards, on held-out maps
        "inference": {"foreground_threshold": None},
        "network": {"instance_heads": False},
        "separation": {name: getattr(SeparationPlan(), name) for name in ("peak_heat", "peak_prominence")},
    }
    trained = with_changes(plan.model_copy(update={"heads_training": None}), before_heads)
    assert saved.plan_sha256 == trained.sha256
    point = OperatingPoint.model_validate_json((folder / "operating_point.json").read_text())
    assert point.chosen.settings.foreground_threshold == plan.inference.foreground_threshold == 0.4
    assert point.before.figures.dice == pytest.approx(saved.dice.mean)
    assert segmenter().recipe == recipe_of(plan)
    assert len(saved.cases) == 26
