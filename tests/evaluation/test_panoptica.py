"""The panoptica preset beside panoptica 2.1.7 on its own spine files; each deliberate difference has its test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.core.lesions import Lesion, LesionMap
from medseg.core.semantic import SemanticMap
from medseg.evaluation.case import evaluate_case
from medseg.evaluation.scores import CaseScores
from medseg.io.label_files import read_semantic
from medseg.lesions.numbering import number_lesions
from medseg.metrics.presets import PRESETS, Convention

pytestmark = pytest.mark.real_data

PANOPTICA = PRESETS["panoptica"]
GROUPS = {"vertebra": range(1, 11), "ivd": range(101, 111), "sacrum": range(26, 27), "endplate": range(201, 209)}
DISTANCES = ("sq_assd", "sq_hd", "sq_hd95", "sq_nsd")


def variant(**rule: object) -> Convention:
    return PANOPTICA.model_copy(update={"matching": PANOPTICA.matching.model_copy(update=rule)})


def spine(real_data: Path, kind: str, *, reverse_spacing: bool = True) -> list[SemanticMap]:
    """Prediction and reference; the spacing as panoptica's run took it, or as the file says."""
    maps = []
    for side in ("pred", "ref"):
        read = read_semantic(real_data / "oracles" / "spine" / kind / f"{side}.nii.gz")
        spacing = read.geometry.spacing[::-1] if reverse_spacing else read.geometry.spacing
        maps.append(SemanticMap(read.array, Geometry(read.geometry.shape, np.diag([*spacing, 1.0])), read.scheme))
    return maps


def instances(classes: SemanticMap, numbers: Sequence[int] | None = None) -> LesionMap:
    """Each class number one instance; only some of them."""
    array = classes.array if numbers is None else np.where(np.isin(classes.array, numbers), classes.array, 0)
    numbered, old = number_lesions(array, classes.geometry)
    return LesionMap(numbered, classes.geometry, (Lesion("structure"),) * old.size)


def expected_of(real_data: Path, case: str, group: str = "ungrouped") -> dict[str, Any]:
    reference = json.loads((real_data / "oracles" / "spine_reference.json").read_text())
    return dict(reference["cases"][case]["groups"][group])


def assert_equal(scores: CaseScores, expected: dict[str, Any], without: Sequence[str] = ()) -> None:
    """Every figure within 1e-9, and every reference instance's own."""
    rows = expected.pop("reference_instances")
    counts = {
        "n_ref_instances": scores.n_reference,
        "n_pred_instances": scores.n_prediction,
        "tp": scores.tp,
        "fp": scores.fp,
        "fn": scores.fn,
    }
    got = {**scores.values, **counts}
    for name, value in expected.items():
        if name not in without:
            assert got[name] == pytest.approx(value, abs=1e-9, rel=1e-12), name
    mine = sorted((row.iou or 0.0, row.dice or 0.0) for row in scores.lesions if row.outcome == "tp")
    theirs = sorted((row["sq"], row["sq_dsc"]) for row in rows if row["is_matched"])
    assert np.allclose(mine, theirs, rtol=0, atol=1e-9)


SEMANTIC = {
    "semantic_example": PANOPTICA,
    "semantic_all_metrics": PANOPTICA,
    "semantic_bipartite": variant(assignment="optimal"),
    "semantic_many2one": variant(assignment="many-to-one"),
}


@pytest.mark.parametrize("case", SEMANTIC)
def test_semantic_input_is_separated_and_matched_as_by_panoptica(real_data: Path, case: str) -> None:
    scores = evaluate_case(*spine(real_data, "semantic"), SEMANTIC[case])
    assert_equal(scores, expected_of(real_data, case))


def test_unmatched_instances_are_matched_as_by_panoptica(real_data: Path) -> None:
    prediction, reference = map(instances, spine(real_data, "unmatched_instance"))
    assert_equal(evaluate_case(prediction, reference, "panoptica"), expected_of(real_data, "unmatched_ungrouped"))


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("case", ["unmatched_config", "matched_example"])
def test_groups_of_structures_score_as_in_panoptica(real_data: Path, case: str, group: str) -> None:
    convention = variant(by="dice") if case == "matched_example" else PANOPTICA
    sides = [instances(side, GROUPS[group]) for side in spine(real_data, "matched_instance")]
    assert_equal(evaluate_case(*sides, convention), expected_of(real_data, case, group))


def test_difference_merged_predictions_are_still_counted_each(real_data: Path) -> None:
    """panoptica reports 85 predictions after merging 89; the number predicted is 89 whatever the matching."""
    scores = evaluate_case(*spine(real_data, "semantic"), variant(assignment="merge"))
    expected = expected_of(real_data, "semantic_merge")
    assert (scores.n_prediction, expected["n_pred_instances"]) == (89, 85)
    assert_equal(scores, expected, without=("n_pred_instances",))


def test_difference_distances_take_the_spacing_of_the_axis_they_run_along(real_data: Path) -> None:
    """An image read through SimpleITK has its axes reversed, its spacing not: panoptica's run measured 3.3 mm slices
    along the wrong axis. With the spacing reversed medseg's distances are panoptica's to 1e-9 (the tests above)."""
    scores = evaluate_case(*spine(real_data, "semantic", reverse_spacing=False), "panoptica")
    expected = expected_of(real_data, "semantic_all_metrics")
    assert abs((scores.values["sq_hd"] or 0.0) - expected["sq_hd"]) > 1.0
    names = [name for name in expected if name.startswith(DISTANCES)]
    assert_equal(scores, expected, without=names)


def test_difference_connectivity_and_classes_are_a_choice_of_the_preset_not_of_a_library(real_data: Path) -> None:
    """panoptica's other backend gives one structure of PQ 0.948 where its default gives 73 of PQ 0.659."""
    sides = spine(real_data, "semantic")
    as_scipy = PANOPTICA.model_copy(update={"connectivity": 6, "unite_classes": True})
    assert_equal(evaluate_case(*sides, as_scipy), expected_of(real_data, "semantic_scipy6"))
    assert evaluate_case(*sides, "panoptica").tp == 73
