"""Every preset beside brute force on random maps, and every empty case as its table says."""

from __future__ import annotations

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.errors import InvalidLabelMap, UsageError
from medseg.evaluation.case import evaluate_case
from medseg.evaluation.scores import CaseScores, findings_of
from medseg.metrics.detection import average_precision, froc
from medseg.metrics.presets import PRESETS, get_convention
from tests.evaluation.maps import lesion_map, semantic_map
from tests.metrics import brute_force as slow

MANY = settings(max_examples=200, deadline=None)
SPACING = st.sampled_from(((1.0, 1.0, 1.0), (0.5, 1.0, 3.0)))


def score(prediction, reference, preset: str, **options) -> CaseScores:
    return evaluate_case(prediction, reference, preset, overlap_only=True, **options)


@MANY
@given(slow.maps(highest=4), st.sampled_from(("kirillov", "panoptica", "default")))
def test_panoptic_figures_are_those_of_brute_force(sides, preset: str) -> None:
    scores = score(lesion_map(sides[0]), lesion_map(sides[1]), preset)
    predictions, references = (slow.voxels_of(side) for side in sides)
    strict = preset != "panoptica"
    good = slow.candidates(predictions, references, "iou", 0.5, strict)
    tp, total = (len(good), sum(good.values())) if strict else _greedy_total(good, predictions, references)
    fp, fn = len(predictions) - tp, len(references) - tp
    assert (scores.tp, scores.fp, scores.fn) == (tp, fp, fn)
    assert scores.count_error == len(predictions) - len(references)
    if not predictions and not references:
        assert scores.pq is scores.rq is scores.sq is scores.precision is scores.sensitivity is None
        return
    assert scores.pq == pytest.approx(total / (tp + 0.5 * fp + 0.5 * fn))
    assert scores.rq == scores.f1 == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert scores.sq == (pytest.approx(total / tp) if tp else None)
    assert scores.precision == (pytest.approx(tp / len(predictions)) if predictions else None)
    assert scores.sensitivity == (pytest.approx(tp / len(references)) if references else None)


def _greedy_total(good, predictions, references) -> tuple[int, float]:
    """At exactly 0.5 two pairs may compete; any greedy choice has this number and total."""
    taken = slow.greedy(good, one_to_one=True)
    return len(taken), sum(good[pair] for pair in taken)


@MANY
@given(slow.maps(highest=4), SPACING)
def test_semantic_figures_merges_and_splits_are_those_of_brute_force(sides, spacing) -> None:
    scores = score(lesion_map(sides[0], spacing), lesion_map(sides[1], spacing), "default")
    predictions, references = (slow.voxels_of(side) for side in sides)
    p, r = (set().union(*lesions.values()) for lesions in (predictions, references))
    ml = np.prod(spacing) / 1000
    assert scores.dice == (pytest.approx(slow.dice(p, r)) if p or r else None)
    assert scores.iou == (pytest.approx(slow.iou(p, r)) if p or r else None)
    assert scores.volume_error_ml == pytest.approx((len(p) - len(r)) * ml)
    alone = [
        sum(len(a) for a in side.values() if not a & other) * ml for side, other in ((predictions, r), (references, p))
    ]
    assert [scores.false_positive_volume_ml, scores.false_negative_volume_ml] == pytest.approx(alone)
    assert scores.n_merges == slow.counts_with_several(predictions, references)
    assert scores.n_splits == slow.counts_with_several(references, predictions)


@MANY
@given(
    slow.maps(highest=3, largest=7),
    SPACING,
    st.sampled_from((("gli", 3, 50.0), ("men", 1, 50.0), ("met", 1, 2.0), ("ped", 3, 50.0), ("ssa", 3, 50.0))),
    st.sampled_from((("WT", (1, 2, 3)), ("TC", (1, 3)), ("ET", (3,)))),
)
def test_brats_counts_and_dice_are_those_of_brute_force(sides, spacing, track, region) -> None:
    name, dilation, least = track
    values = score(*(semantic_map(s, spacing) for s in sides), f"brats2023-{name}", region=region[0]).values
    masks = [np.isin(side, region[1]) for side in sides]
    expected = slow.brats2023(*masks, dilation, least, float(np.prod(spacing)))
    assert {key: values[key] for key in expected} == pytest.approx(expected)


@MANY
@given(slow.maps(highest=1, largest=6))
def test_cc_dice_is_that_of_brute_force(sides) -> None:
    reference = semantic_map(sides[1])
    scores = score(semantic_map(sides[0]), reference, "cc-metrics")
    numbered = cc3d.connected_components(np.ascontiguousarray(sides[1]), connectivity=26)  # as the script numbers
    assert scores.values["cc_dice"] == pytest.approx(slow.cc_dice(sides[0] > 0, numbered))


@MANY
@given(slow.maps(highest=2, largest=6), SPACING)
def test_autopet_volumes_and_dice_are_those_of_brute_force(sides, spacing) -> None:
    values = score(*(semantic_map(side, spacing) for side in sides), "autopet").values
    expected = slow.autopet(*sides)
    ml = np.prod(spacing) / 1000
    assert values["dice"] == (None if expected["dice"] is None else pytest.approx(expected["dice"]))
    assert values["false_positive_volume_ml"] == pytest.approx(expected["fp_voxels"] * ml)
    assert values["false_negative_volume_ml"] == pytest.approx(expected["fn_voxels"] * ml)


@MANY
@given(slow.maps(highest=1, largest=6))
def test_picai_pairs_and_false_positives_are_those_of_brute_force(sides) -> None:
    predictions, references = (slow.components(map(tuple, np.argwhere(side)), 26) for side in sides)
    if len(predictions) * len(references) > 12:  # brute force tries all choices
        return
    scores = score(*(semantic_map(side) for side in sides), "picai")
    n, total, fp, fn = slow.picai(predictions, references)
    assert (scores.tp, scores.fp, scores.fn) == (n, fp, fn)
    assert sum(row.iou or 0.0 for row in scores.lesions if row.outcome == "tp") == pytest.approx(total, abs=1e-6)


@MANY
@given(slow.maps(highest=3, n=3), SPACING, st.integers(0, 2**32 - 1))
def test_luna16_hits_are_those_of_the_script(sides, spacing, seed: int) -> None:
    """Candidates within the radius hit; the best of a lesion counts, its doubles and those at excluded ones do not."""
    rng = np.random.default_rng(seed)
    maps = [lesion_map(side, spacing) for side in sides]
    marks = [slow.voxels_of(side.array) for side in maps]
    chances = tuple(rng.choice((0.2, 0.5, 0.8), size=len(marks[0])).tolist())
    prediction = lesion_map(sides[0], spacing, scores=chances)
    scores = score(prediction, maps[1], "luna16", excluded=maps[2])
    centers = [{n: slow.centroid(v, spacing) for n, v in side.items()} for side in marks]
    radius = [{n: (len(v) * np.prod(spacing) * 3 / (4 * np.pi)) ** (1 / 3) for n, v in side.items()} for side in marks]
    left, hits, missed = set(marks[0]), [], 0
    for side in (1, 2):
        for n in marks[side]:
            found = [p for p in marks[0] if np.linalg.norm(centers[0][p] - centers[side][n]) < radius[side][n]]
            left -= set(found)
            if side == 1 and found:
                hits.append(max(chances[p - 1] for p in found))
            elif side == 1:
                missed += 1
    found = findings_of(scores)
    assert sorted(found.hit_scores.tolist()) == sorted(hits)
    assert sorted(found.false_scores.tolist()) == sorted(chances[p - 1] for p in left)
    assert found.n_missed == missed
    if hits or missed:
        false = [chances[p - 1] for p in left]
        rates = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
        expected = [slow.froc_at(hits, false, missed, 1, rate) for rate in rates]
        assert froc(found).at(rates) == pytest.approx(expected)
        assert average_precision(found) == pytest.approx(slow.average_precision(hits, false, missed))


EMPTY = np.zeros((9, 9, 9), dtype=np.uint8)
BALL = EMPTY.copy()
BALL[1:5, 1:5, 1:5] = 3
AWAY = EMPTY.copy()
AWAY[8, 8, 8] = 3
SITUATIONS = {
    "both_empty": (EMPTY, EMPTY),
    "empty_reference": (BALL, EMPTY),
    "empty_prediction": (EMPTY, BALL),
    "no_match": (AWAY, BALL),
}
PUBLISHED = {
    "brats2023-gli": {
        "both_empty": {
            "LesionWise_Score_Dice": 1.0,
            "LesionWise_Score_HD95": 0.0,
            "Legacy_Dice": 1.0,
            "Sensitivity": 1.0,
        },
        "empty_reference": {"LesionWise_Score_Dice": 0.0, "LesionWise_Score_HD95": 374.0, "Legacy_HD95": 374.0},
        "empty_prediction": {"LesionWise_Score_Dice": 0.0, "LesionWise_Score_HD95": 374.0, "Sensitivity": 0.0},
        "no_match": {"LesionWise_Score_Dice": 0.0, "LesionWise_Score_HD95": 374.0, "Num_FP": 1.0},
    },
    "cc-metrics": {
        "both_empty": {"cc_dice": 1.0},
        "empty_reference": {"cc_dice": 0.0},
        "empty_prediction": {"cc_dice": 0.0},
        "no_match": {"cc_dice": 0.0},
    },
    "autopet": {
        "both_empty": {"dice": None, "false_positive_volume_ml": 0.0, "false_negative_volume_ml": 0.0},
        "empty_reference": {"dice": None, "false_positive_volume_ml": 0.064},
        "empty_prediction": {"dice": 0.0, "false_negative_volume_ml": 0.064},
        "no_match": {"dice": 0.0, "false_positive_volume_ml": 0.001, "false_negative_volume_ml": 0.064},
    },
    "panoptica": {
        "both_empty": {"rq": None, "sq": None, "pq": None, "global_bin_dsc": None},
        "empty_reference": {"rq": 0.0, "sq": 0.0, "pq": 0.0, "global_bin_dsc": 0.0},
        "empty_prediction": {"rq": 0.0, "sq": 0.0, "pq": 0.0, "global_bin_dsc": 0.0},
        "no_match": {"rq": 0.0, "sq": 0.0, "pq": 0.0, "global_bin_dsc": 0.0},
    },
}


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("preset", PRESETS)
def test_own_figures_of_empty_cases_are_those_of_the_table(preset: str, situation: str) -> None:
    scores = evaluate_case(*(semantic_map(side) for side in SITUATIONS[situation]), preset)
    if preset.startswith("brats2023") and situation == "no_match":
        assert scores.tp == 0
    assert scores.empty_case == situation
    nothing, one_empty = situation == "both_empty", situation.startswith("empty")
    assert scores.dice == scores.iou == scores.nsd == (None if nothing else 0.0)
    assert scores.f1 == scores.pq == (None if nothing else 0.0)
    assert scores.sq is None
    assert scores.precision == (0.0 if situation in ("empty_reference", "no_match") else None)
    assert scores.sensitivity == (0.0 if situation in ("empty_prediction", "no_match") else None)
    assert (scores.hd95_mm is None) == (nothing or one_empty)
    if one_empty:
        assert scores.hd95_penalized_mm == pytest.approx(8 * 3**0.5)


@pytest.mark.parametrize(("preset", "situation"), [(p, s) for p in PUBLISHED for s in SITUATIONS])
def test_published_figures_of_empty_cases_are_those_of_the_table(preset: str, situation: str) -> None:
    values = evaluate_case(*(semantic_map(side) for side in SITUATIONS[situation]), preset).values
    for name, expected in PUBLISHED[preset][situation].items():
        assert values[name] == (None if expected is None else pytest.approx(expected)), name


def test_the_threshold_itself_counts_for_panoptica_and_not_for_kirillov() -> None:
    reference = np.zeros((1, 1, 4), dtype=np.uint8)
    reference[..., :2] = 1
    prediction = np.zeros_like(reference)
    prediction[..., :1] = 1
    sides = lesion_map(prediction), lesion_map(reference)
    assert (score(*sides, "panoptica").tp, score(*sides, "kirillov").tp) == (1, 0)


def test_an_unknown_region_or_preset_is_refused() -> None:
    sides = semantic_map(BALL), semantic_map(BALL)
    with pytest.raises(UsageError, match="has the regions WT, TC, ET; got 'XX'"):
        score(*sides, "brats2023-gli", region="XX")
    with pytest.raises(UsageError, match="no regions"):
        score(*sides, "kirillov", region="WT")
    with pytest.raises(UsageError, match="did you mean kirillov"):
        get_convention("kirilov")


def test_a_class_that_the_preset_does_not_know_is_refused() -> None:
    sides = semantic_map(BALL), semantic_map(BALL)
    convention = PRESETS["brats2023-gli"].model_copy(update={"classes": {1: "NCR"}, "regions": {"all": (1,)}})
    with pytest.raises(InvalidLabelMap, match=r"also holds \[3\]"):
        score(*sides, convention)


def test_luna16_counts_the_hundred_best_candidates_of_a_scan() -> None:
    """The script keeps those above the score of the 101st, here two ties."""
    array = np.zeros((210, 3, 3), dtype=np.uint16)
    array[::2, 1, 1] = np.arange(1, 106)
    chances = tuple([0.9] * 99 + [0.5, 0.5, 0.4, 0.3, 0.2, 0.1])
    scores = score(lesion_map(array, scores=chances), lesion_map(np.zeros_like(array)), "luna16")
    assert (scores.n_prediction, scores.fp, scores.n_ignored) == (105, 99, 6)
    assert score(lesion_map(array), lesion_map(np.zeros_like(array)), "luna16").fp == 105
