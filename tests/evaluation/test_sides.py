"""The sides of a comparison: grids, classes, scores, what a semantic map becomes."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.core.lesions import Lesion, LesionMap
from medseg.core.semantic import SemanticMap
from medseg.errors import GridMismatch, InvalidLabelMap
from medseg.evaluation.case import evaluate_case
from medseg.evaluation.sides import check_grids, lesions_of, with_scores
from medseg.metrics.presets import PRESETS
from tests.evaluation.maps import CLASSES, grid_of, lesion_map, semantic_map


def test_another_shape_is_refused_with_both_grids() -> None:
    with pytest.raises(
        GridMismatch, match=r"p07: the prediction lies on .*4 x 4 x 4.* and the reference on .*4 x 4 x 5"
    ):
        check_grids(grid_of((4, 4, 4)), grid_of((4, 4, 5)), "p07")


@pytest.mark.parametrize("degrees", [-1.0, 1.0])
def test_a_turned_grid_is_refused(degrees: float) -> None:
    """A rotation leaves origin and spacing; only the corners tell."""
    angle = np.deg2rad(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    with pytest.raises(GridMismatch, match="mm apart"):
        check_grids(Geometry((40, 40, 40), affine), grid_of((40, 40, 40)), "case")


def test_rounding_of_an_affine_is_no_mismatch() -> None:
    affine = np.eye(4)
    affine[:3, 3] = 1e-4
    check_grids(Geometry((40, 40, 40), affine), grid_of((40, 40, 40)), "case")


def test_components_keep_their_class_and_lesion_maps_are_taken_as_they_are() -> None:
    array = np.zeros((8, 8, 8), dtype=np.uint8)
    array[1:3, 1:3, 1:4], array[5:7, 5:7, 5:7] = 2, 3
    found = lesions_of(semantic_map(array), PRESETS["kirillov"], None, is_reference=True, name="case")
    assert [lesion.class_name for lesion in found.lesions] == ["ED", "ET"]
    given = lesion_map(array)
    assert lesions_of(given, PRESETS["brats2023-gli"], None, is_reference=True, name="case") is given


def test_dilation_merges_the_reference_only() -> None:
    array = np.zeros((20, 6, 6), dtype=np.uint8)
    array[2:4, 2:4, 2:4], array[8:10, 2:4, 2:4] = 3, 3
    sides = [
        lesions_of(
            semantic_map(array), PRESETS["brats2023-gli"], "ET", is_reference=is_reference, name="case"
        ).n_lesions
        for is_reference in (False, True)
    ]
    assert sides == [2, 1]


def test_a_lesion_scores_the_highest_probability_within_it() -> None:
    array = np.zeros((6, 6, 6), dtype=np.uint8)
    array[0:2, 0, 0], array[4, 4, 4] = 1, 2
    probability = np.full(array.shape, 0.3)
    probability[1, 0, 0], probability[4, 4, 4] = 0.8, 0.6
    assert with_scores(lesion_map(array), probability) == (0.8, 0.6)
    assert with_scores(lesion_map(array, scores=(0.1, 0.2)), None) == (0.1, 0.2)


def test_the_probability_gives_calibration_of_voxels_and_a_wrong_shape_is_refused() -> None:
    array = np.zeros((6, 6, 6), dtype=np.uint8)
    array[1:4, 1:4, 1:4] = 1
    side = lesion_map(array)
    scores = evaluate_case(side, side, probability=np.where(array, 0.9, 0.0))
    assert (scores.calibration.n, scores.calibration.ece) == (27, pytest.approx(0.1))
    with pytest.raises(GridMismatch, match="probability has shape"):
        evaluate_case(side, side, probability=np.zeros((6, 6, 5)))


def test_figures_do_not_depend_on_orientation_or_memory_order() -> None:
    rng = np.random.default_rng(3)
    first = (rng.random((9, 8, 7)) < 0.15).astype(np.uint8) * 3
    second = np.where(rng.random(first.shape) < 0.8, first, 0).astype(np.uint8)
    grid = Geometry(first.shape, np.diag([0.7, 1.1, 2.5, 1.0]))
    turned = Geometry(first.shape[::-1], np.array([[0, 0, 0.7, 0], [0, 1.1, 0, 0], [2.5, 0, 0, 0], [0, 0, 0, 1.0]]))
    for preset in ("default", "brats2023-met", "autopet"):
        scores = [
            evaluate_case(SemanticMap(p, g, CLASSES), SemanticMap(r, g, CLASSES), preset)
            for p, r, g in ((second, first, grid), (second.T, first.T, turned), (second.copy("F"), first, grid))
        ]
        for name in ("tp", "fp", "fn", "pq", "dice", "hd95_mm", "assd_mm", "nsd"):
            values = [getattr(one, name) for one in scores]
            assert values[1:] == pytest.approx(values[:1] * 2), name


def test_a_map_of_many_lesions_with_gaps_is_still_refused() -> None:
    array = np.zeros((4, 4, 4), dtype=np.uint16)
    array[0, 0, 0], array[1, 1, 1] = 1, 3
    with pytest.raises(InvalidLabelMap, match=r"missing \[2\]"):
        LesionMap(array, grid_of(array.shape), (Lesion("x"),) * 3)
