"""The model card says what a network was trained by."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.core.plan import with_changes
from medseg.io.manifest import read_manifest
from medseg.training.model_card import model_card
from medseg.training.reasons import PlanReasons
from tests.plans import tiny_plan
from tests.training.cases import write_data_set


@pytest.mark.parametrize(
    ("heads", "training", "said"),
    [
        (False, {}, "Dice and cross-entropy loss, flips"),
        (
            True,
            {},
            "Dice and cross-entropy loss, squared error of the center heatmap and smooth L1 error of the offsets, les",
        ),
        (True, {"lesion_loss": "blob"}, "Dice and cross-entropy loss and blob loss, squared error"),
        (True, {"owner_weight": 0.5}, "the offsets with the error of their owner (weight 0.5), lesion by lesion"),
    ],
)
def test_losses_are_those_of_the_plan(heads: bool, training: dict[str, object], said: str, tmp_path: Path) -> None:
    plan = with_changes(tiny_plan(), {"network": {"instance_heads": heads}, "training": training})
    data, _ = read_manifest(write_data_set(tmp_path))
    assert said in model_card(plan, data, PlanReasons(plan_sha256=plan.sha256), None)
