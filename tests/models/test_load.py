"""One door to any model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medseg.core.plan import Plan
from medseg.core.recipe import recipe_of
from medseg.errors import InvalidBundle, InvalidPlan, UnknownModel
from medseg.models.bundle import PLAN_PATH, WEIGHTS_PATH
from medseg.models.export import write_bundle
from medseg.models.load import load_segmenter
from medseg.models.shipped import find_model, shipped_bundles
from medseg.networks.build import build_network
from tests.plans import tiny_plan


def bundle(folder: Path, plan: Plan | None = None) -> Path:
    plan = plan or tiny_plan()
    weights = build_network(plan).state_dict()
    write_bundle(
        folder, plan, weights, description="d", data_source="s", n_cases=1, model_card="# card\n", eval_metrics=None
    )
    return folder


def test_written_bundle_loads_with_its_plan_and_weights(tmp_path: Path) -> None:
    torch.manual_seed(5)
    segmenter = load_segmenter(bundle(tmp_path / "tiny"), device="cpu")
    assert segmenter.recipe == recipe_of(tiny_plan())
    assert len(segmenter.weights_sha256) == 64
    torch.manual_seed(5)
    expected = build_network(tiny_plan()).state_dict()
    saved = torch.load(tmp_path / "tiny" / WEIGHTS_PATH, weights_only=True)
    assert all(torch.equal(saved[name], expected[name]) for name in expected)


def test_shipped_bundle_is_found_by_name_and_a_path_wins() -> None:
    shipped = shipped_bundles()
    assert "sarcoma_pet" in shipped
    assert find_model("sarcoma_pet") == shipped["sarcoma_pet"]
    assert find_model(shipped["sarcoma_pet"]) == shipped["sarcoma_pet"]


def test_unknown_model_lists_the_shipped_ones() -> None:
    with pytest.raises(UnknownModel, match=r"no model 'sarcoma_pe'.*shipped are: .*sarcoma_pet"):
        find_model("sarcoma_pe")


def test_folder_that_is_no_bundle_says_what_lacks(tmp_path: Path) -> None:
    with pytest.raises(InvalidBundle, match=r"neither configs/plan\.json \(medseg\), configs/inference\.json"):
        load_segmenter(tmp_path, device="cpu")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidBundle, match="this is a file of another kind"):
        load_segmenter(tmp_path / "file", device="cpu")
    folder = bundle(tmp_path / "tiny")
    (folder / WEIGHTS_PATH).unlink()
    with pytest.raises(InvalidBundle, match=r"no weights at models/model\.pt"):
        load_segmenter(folder, device="cpu")


def test_misspelt_plan_key_is_answered_with_the_right_one(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "tiny")
    text = (folder / PLAN_PATH).read_text().replace('"patch_size"', '"patch_sise"')
    (folder / PLAN_PATH).write_text(text)
    with pytest.raises(InvalidPlan, match=r"plan\.json.*patch_sise; did you mean 'patch_size'"):
        load_segmenter(folder, device="cpu")


def test_weights_of_another_plan_are_refused(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "tiny")
    plan = tiny_plan(n_channels=2)
    (folder / PLAN_PATH).write_text(plan.to_json())
    with pytest.raises(InvalidBundle, match="do not fit"):
        load_segmenter(folder, device="cpu")
