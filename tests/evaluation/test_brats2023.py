"""The BraTS 2023 presets beside the unmodified challenge script: 9 cases x 3 tracks x 3 regions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medseg.core.semantic import SemanticMap
from medseg.evaluation.case import evaluate_case
from medseg.io.label_files import read_semantic

CASES = (
    "A_multi",
    "A_aniso",
    "B_touching_merged",
    "C_bridge",
    "D_empty_ref",
    "E_both_empty",
    "F_empty_pred",
    "G_subthreshold_only_missed",
    "H_near_miss_dice0_TP",
)
PRESETS = {"BraTS-GLI": "brats2023-gli", "BraTS-MET": "brats2023-met", "BraTS-MEN": "brats2023-men"}


def maps_of(real_data: Path, case: str) -> tuple[SemanticMap, SemanticMap]:
    folder = real_data / "lesionwise"
    return read_semantic(folder / f"{case}_pred.nii.gz"), read_semantic(folder / f"{case}_ref.nii.gz")


@pytest.mark.real_data
@pytest.mark.parametrize("case", CASES)
def test_every_column_is_that_of_the_challenge_script(real_data: Path, case: str) -> None:
    expected = json.loads((real_data / "lesionwise" / "brats2023_reference.json").read_text())["results"][case]
    prediction, reference = maps_of(real_data, case)
    n_rows = 0
    for track, regions in expected.items():
        for region, columns in regions.items():
            values = evaluate_case(prediction, reference, PRESETS[track], region=region, case_id=case).values
            assert values == pytest.approx(columns, abs=1e-6), (track, region)
            n_rows += 1
    assert n_rows == 9


@pytest.mark.real_data
def test_pediatric_and_african_tracks_follow_the_glioma_rule(real_data: Path) -> None:
    prediction, reference = maps_of(real_data, "A_multi")
    scores = [evaluate_case(prediction, reference, f"brats2023-{track}").values for track in ("gli", "ped", "ssa")]
    assert scores[0] == scores[1] == scores[2]
