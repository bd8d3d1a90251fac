"""Thousands of lesions: right, and without a step whose cost is lesions times voxels."""

from __future__ import annotations

import time

import numpy as np
import pytest

from medseg.core.lesions import Lesion, LesionMap
from medseg.evaluation.case import evaluate_case
from tests.evaluation.maps import grid_of


def cubes(n_side: int, spread: int = 4) -> LesionMap:
    """n_side ** 3 cubes of 8 voxels on a lattice."""
    shape = (n_side * spread,) * 3
    cells = np.stack(np.meshgrid(*(np.arange(n_side),) * 3, indexing="ij"), axis=-1).reshape(-1, 3) * spread
    array = np.zeros(shape, dtype=np.uint16)
    for i in range(2):
        for j in range(2):
            for k in range(2):
                array[cells[:, 0] + i, cells[:, 1] + j, cells[:, 2] + k] = np.arange(1, len(cells) + 1)
    return LesionMap(array, grid_of(shape), (Lesion("lesion"),) * len(cells))


def shifted(lesions: LesionMap) -> LesionMap:
    return LesionMap(np.roll(lesions.array, 1, axis=0), lesions.geometry, lesions.lesions)


def test_five_thousand_lesions_are_matched_one_by_one() -> None:
    reference = cubes(18)
    scores = evaluate_case(shifted(reference), reference, "autopet", overlap_only=True)
    assert reference.n_lesions == 5832
    assert (scores.tp, scores.fp, scores.fn) == (5832, 0, 0)
    assert {round(row.iou or 0.0, 9) for row in scores.lesions} == {round(1 / 3, 9)}
    assert (scores.n_merges, scores.n_splits) == (0, 0)


@pytest.mark.slow
def test_five_thousand_lesions_have_distances_and_diameters() -> None:
    reference = cubes(18)
    scores = evaluate_case(reference, reference)
    assert {row.hd95_mm for row in scores.lesions} == {0.0}
    assert all(row.reference_diameter_mm for row in scores.lesions)


@pytest.mark.slow
def test_cost_grows_with_the_voxels_and_not_with_lesions_times_voxels() -> None:
    """The same voxels, 11 times the lesions: less than 11 times the time."""
    few, many = cubes(8, spread=18), cubes(18, spread=8)  # 512 and 5,832 lesions on 144 ** 3 voxels
    seconds: dict[int, list[float]] = {few.n_lesions: [], many.n_lesions: []}
    for reference in (few, many) * 3:  # the least of three in turn: other work on the machine only adds
        start = time.process_time()
        evaluate_case(shifted(reference), reference, overlap_only=True)
        seconds[reference.n_lesions].append(time.process_time() - start)
    assert min(seconds[many.n_lesions]) < 11.4 * max(min(seconds[few.n_lesions]), 0.05)
