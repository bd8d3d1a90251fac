"""Training on from a bundle's weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from medseg.errors import ChannelMismatch, OutputExists, TrainingError
from medseg.networks.checkpoint import read_state_dict
from medseg.training.finetune import finetune
from medseg.training.train import train
from tests.plans import tiny_plan
from tests.training.cases import write_data_set


def weights(bundle: Path) -> dict[str, torch.Tensor]:
    return read_state_dict(bundle / "models" / "model.pt")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_data_set(tmp_path / "data")


@pytest.fixture
def given(tmp_path: Path, manifest: Path) -> Path:
    plan = tiny_plan(steps=2)
    plan = plan.model_copy(update={"network": plan.network.model_copy(update={"members": 2})})
    return train(manifest, tmp_path / "given", plan=plan, device="cpu")


def edited(manifest: Path, **changes: object) -> Path:
    content = json.loads(manifest.read_text()) | changes
    path = manifest.with_name("edited.json")
    path.write_text(json.dumps(content))
    return path


def test_training_goes_on_from_the_weights(tmp_path: Path, given: Path, manifest: Path) -> None:
    options = {"device": "cpu", "steps": 1, "learning_rate": 1e-9}
    bundle = finetune(given, edited(manifest, name="other"), tmp_path / "out", cross_validate=True, **options)
    before, after = weights(given), weights(bundle)
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    fresh = weights(train(manifest, tmp_path / "fresh", plan=tiny_plan(steps=1), device="cpu"))
    assert any(not torch.allclose(fresh[name], after[f"0.{name}"], atol=1e-5) for name in fresh)
    plan = json.loads((bundle / "configs" / "plan.json").read_text())
    assert (plan["name"], plan["training"]["steps"]) == ("other", 1)
    assert "started from the weights of tiny" in (bundle / "docs" / "README.md").read_text()
    assert (bundle / "docs" / "cross_validation.json").is_file()
    with pytest.raises(OutputExists, match="--overwrite"):
        finetune(given, manifest, tmp_path / "out")


def test_the_learning_rate_is_a_tenth(tmp_path: Path, given: Path, manifest: Path) -> None:
    bundle = finetune(given, manifest, tmp_path / "out", device="cpu", steps=1)
    rates = [
        json.loads((folder / "configs" / "plan.json").read_text())["training"]["learning_rate"]
        for folder in (given, bundle)
    ]
    assert rates[1] == pytest.approx(rates[0] / 10)


def test_other_channels_are_refused(tmp_path: Path, given: Path, manifest: Path) -> None:
    other = edited(manifest, channels=[{"name": "CT", "modality": "CT", "units": "stored"}])
    with pytest.raises(
        ChannelMismatch, match=r"takes 1 channel\(s\) \(PT in suv units\).*has 1 \(CT in stored units\)"
    ):
        finetune(given, other, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out.training").exists()


@pytest.mark.parametrize("labels", [{"1": "node"}, {"1": "tumor", "2": "node"}])
def test_other_classes_are_refused_unless_the_output_starts_anew(
    tmp_path: Path, given: Path, manifest: Path, labels: dict[str, str]
) -> None:
    other = edited(manifest, labels=labels)
    with pytest.raises(TrainingError, match=r"knows the classes 1 = tumor, manifest blocks has 1 = .*--new-output"):
        finetune(given, other, tmp_path / "out", device="cpu")
    options = {"device": "cpu", "steps": 1, "learning_rate": 1e-9}
    before, after = weights(given), weights(finetune(given, other, tmp_path / "out", new_output=True, **options))
    new = {
        name
        for name in before
        if before[name].shape != after[name].shape or not torch.allclose(before[name], after[name], atol=1e-6)
    }
    assert 0 < len(new) < len(before) / 4
    assert all(len(labels) + 1 in after[name].shape for name in new)


def test_folds_are_trained_on_side_by_side_and_gathered(tmp_path: Path, given: Path, manifest: Path) -> None:
    how = {"device": "cpu", "steps": 1}
    whole = finetune(given, manifest, tmp_path / "whole", cross_validate=True, **how)
    for fold in (1, 0):
        assert finetune(given, manifest, tmp_path / "parts", folds=[fold], **how) == tmp_path / "parts.training"
    assert not (tmp_path / "parts").exists()
    log = tmp_path / "parts.training" / "fold_0" / "member_0" / "train.log"
    before = log.stat().st_mtime_ns
    parts = finetune(given, manifest, tmp_path / "parts", cross_validate=True, resume=True, **how)
    assert log.stat().st_mtime_ns == before
    for name in ("docs/cross_validation.json", "docs/README.md", "configs/plan.json"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
