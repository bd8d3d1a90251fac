"""Which predicted lesion is which reference lesion.

Two steps: candidates are the pairs that are good enough by some measure (`overlap_candidates`, `distance_candidates`,
`center_candidates`, `dilated_candidates`); an assignment chooses among them (`assign`). Scores are larger for better
pairs; a distance enters as its negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from medseg.metrics.contingency import Contingency
from medseg.metrics.overlap import pair_scores

__all__ = [
    "Assignment",
    "Candidates",
    "Matching",
    "MatchingRule",
    "Measure",
    "assign",
    "center_candidates",
    "dilated_candidates",
    "distance_candidates",
    "overlap_candidates",
]

Assignment = Literal["optimal", "greedy", "many-to-one", "merge", "all"]
Measure = Literal["iou", "dice", "overlap", "distance", "center", "dilated"]


class MatchingRule(BaseModel):
    """When a predicted lesion counts as having found a reference lesion.

    Parameters
    ----------
    assignment
        "optimal": one to one, the highest total score. "greedy": one to one, best pair first. "many-to-one": each
        prediction goes to its best reference. "merge": one to one, best pair first, and further predictions join where
        the union scores higher. "all": every candidate pair counts.
    by
        "iou", "dice"; "overlap": share of the reference's voxels that are predicted; "distance": millimeters between
        centroids; "center": the prediction's centroid lies within the radius of the reference's sphere of equal
        volume; "dilated": the prediction touches the reference grown by `dilation_voxels`.
    threshold
        Least score, or largest distance in millimeters; not used by "center" and "dilated".
    strict
        True: the threshold itself is not enough.
    most_pairs_first
        "optimal" seeks the largest number of pairs before the highest total.
    epsilon
        Added to numerator and denominator of IoU and Dice, as some published scripts do.
    dilation_voxels
        Steps of an 18-neighbor dilation, for "dilated".
    spare_candidates
        A prediction that is good enough for a reference, but was not chosen for it, is no false positive.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    assignment: Assignment = "optimal"
    by: Measure = "iou"
    threshold: float = Field(default=0.5, ge=0.0)
    strict: bool = True
    most_pairs_first: bool = False
    epsilon: float = 0.0
    dilation_voxels: int = Field(default=0, ge=0)
    spare_candidates: bool = False


@dataclass(frozen=True, eq=False)
class Candidates:
    """Pairs that may match: lesion numbers from 1, (M,) int64 each, and scores, (M,) float64, larger is better."""

    prediction: NDArray[np.int64]
    reference: NDArray[np.int64]
    score: NDArray[np.float64]

    def chosen(self, which: NDArray[Any]) -> Candidates:
        """Some of the pairs, by a bool mask or by positions."""
        return Candidates(self.prediction[which], self.reference[which], self.score[which])


@dataclass(frozen=True, eq=False)
class Matching:
    """The pairs that count, among P predicted and R reference lesions.

    A reference lesion in any pair is a true positive; one in none is a false negative; a prediction in none is a
    false positive, unless it is spared.
    """

    pairs: Candidates
    n_prediction: int
    n_reference: int
    spared: NDArray[np.bool_]

    @property
    def found(self) -> NDArray[np.bool_]:
        """(R,) bool, which reference lesions are in a pair."""
        found = np.zeros(self.n_reference, dtype=np.bool_)
        found[self.pairs.reference - 1] = True
        return found

    @property
    def used(self) -> NDArray[np.bool_]:
        """(P,) bool, which predictions are in a pair."""
        used = np.zeros(self.n_prediction, dtype=np.bool_)
        used[self.pairs.prediction - 1] = True
        return used


def overlap_candidates(table: Contingency, rule: MatchingRule) -> Candidates:
    """The pairs that share voxels and reach the threshold of IoU, Dice or overlap."""
    scores = pair_scores(table, rule.by, rule.epsilon)
    everything = Candidates(table.prediction, table.reference, scores)
    return everything.chosen(scores > rule.threshold if rule.strict else scores >= rule.threshold)


def distance_candidates(
    prediction_mm: NDArray[np.float64], reference_mm: NDArray[np.float64], rule: MatchingRule
) -> Candidates:
    """The pairs of centroids (P, 3) and (R, 3), millimeters, that lie no further apart than the threshold."""
    candidates = _close_pairs(prediction_mm, reference_mm, rule.threshold)
    return candidates.chosen(-candidates.score < rule.threshold) if rule.strict else candidates


def center_candidates(
    prediction_mm: NDArray[np.float64], reference_mm: NDArray[np.float64], radius_mm: NDArray[np.float64]
) -> Candidates:
    """The pairs in which the predicted center lies nearer to the reference's than that reference's radius (R,)."""
    candidates = _close_pairs(prediction_mm, reference_mm, float(radius_mm.max(initial=0.0)))
    return candidates.chosen(-candidates.score < radius_mm[candidates.reference - 1])


def dilated_candidates(
    prediction: NDArray[Any], reference: NDArray[Any], boxes: Sequence[tuple[slice, ...]], n_steps: int
) -> Candidates:
    """The pairs in which the prediction touches the grown reference, scored by the voxels that it shares with it.

    Parameters
    ----------
    prediction, reference
        (I, J, K) unsigned integer, lesion numbers.
    boxes
        One half-open box a reference lesion, around its voxels.
    n_steps
        Steps of a dilation by the 18 neighbors of a voxel.
    """
    found: list[tuple[int, int, int]] = []
    neighbors = ndimage.generate_binary_structure(3, 2)
    for number, box in enumerate(boxes, start=1):
        wide = tuple(
            slice(max(0, part.start - n_steps), min(size, part.stop + n_steps))
            for part, size in zip(box, reference.shape, strict=True)
        )
        near = prediction[wide]
        if not near.any():
            continue
        grown = reference[wide] == number
        if n_steps:
            grown = ndimage.binary_dilation(grown, structure=neighbors, iterations=n_steps)
        touched, counts = np.unique(near[grown], return_counts=True)
        found += [(int(p), number, int(n)) for p, n in zip(touched, counts, strict=True) if p]
    columns = np.array(sorted(found), dtype=np.int64).reshape(-1, 3)
    return Candidates(columns[:, 0], columns[:, 1], columns[:, 2].astype(np.float64))


def _close_pairs(prediction_mm: NDArray[np.float64], reference_mm: NDArray[np.float64], reach_mm: float) -> Candidates:
    if not len(prediction_mm) or not len(reference_mm):
        return Candidates(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    tree = cKDTree(prediction_mm)
    near = tree.query_ball_point(reference_mm, np.nextafter(reach_mm, np.inf) * (1 + 1e-12))
    reference = np.repeat(np.arange(len(reference_mm)), [len(found) for found in near])
    prediction = np.array([number for found in near for number in found], dtype=np.int64)
    distance = np.linalg.norm(prediction_mm[prediction] - reference_mm[reference], axis=1)
    kept = distance <= reach_mm
    order = np.lexsort((reference[kept], prediction[kept]))
    return Candidates(prediction[kept][order] + 1, reference[kept][order] + 1, -distance[kept][order])


def assign(candidates: Candidates, table: Contingency, rule: MatchingRule) -> Matching:
    """Choose among candidate pairs.

    Parameters
    ----------
    candidates
        Pairs that are good enough.
    table
        Voxel counts, for the sizes and for unions ("merge").
    rule
        Which assignment. Ties go to the lower reference number, then the lower prediction number.

    References
    ----------
    Kuhn HW. The Hungarian method for the assignment problem. Naval Res Logist Q 2:83 (1955).
    """
    chosen = {
        "optimal": lambda: _optimal(candidates, rule),
        "greedy": lambda: _greedy(candidates, one_to_one=True),
        "many-to-one": lambda: _greedy(candidates, one_to_one=False),
        "merge": lambda: _merge(candidates, table, rule),
        "all": lambda: candidates,
    }[rule.assignment]()
    spared = np.zeros(table.n_prediction, dtype=np.bool_)
    if rule.spare_candidates:
        spared[candidates.prediction - 1] = True
    return Matching(chosen, table.n_prediction, table.n_reference, spared)


def _best_first(candidates: Candidates) -> list[tuple[int, int, int]]:
    """Position, prediction and reference of the candidates, best first."""
    order = np.lexsort((candidates.prediction, candidates.reference, -candidates.score))
    return list(
        zip(order.tolist(), candidates.prediction[order].tolist(), candidates.reference[order].tolist(), strict=True)
    )


def _greedy(candidates: Candidates, *, one_to_one: bool) -> Candidates:
    kept: list[int] = []
    predictions: set[int] = set()
    references: set[int] = set()
    for position, prediction, reference in _best_first(candidates):
        if prediction in predictions or (one_to_one and reference in references):
            continue
        predictions.add(prediction)
        references.add(reference)
        kept.append(position)
    return candidates.chosen(np.sort(np.array(kept, dtype=np.intp)))


def _optimal(candidates: Candidates, rule: MatchingRule) -> Candidates:
    """Hungarian assignment within each group of lesions that candidates connect: groups are small, lesions many."""
    if not candidates.score.size:
        return candidates
    _, rows = np.unique(candidates.prediction, return_inverse=True)
    _, columns = np.unique(candidates.reference, return_inverse=True)
    n_rows = int(rows.max()) + 1
    links = coo_array((np.ones(rows.size), (rows, n_rows + columns)), shape=(n_rows + int(columns.max()) + 1,) * 2)
    _, group = connected_components(links, directed=False)
    order = np.argsort(group[rows], kind="stable")
    starts = np.flatnonzero(np.diff(group[rows][order], prepend=-1))
    kept = [
        positions
        if positions.size == 1
        else positions[_assigned(rows[positions], columns[positions], positions, candidates, rule)]
        for positions in np.split(order, starts[1:])
    ]
    return candidates.chosen(np.sort(np.concatenate(kept)))


def _assigned(
    rows: NDArray[Any], columns: NDArray[Any], positions: NDArray[Any], candidates: Candidates, rule: MatchingRule
) -> NDArray[np.bool_]:
    """Which candidates of one group the assignment takes."""
    _, row = np.unique(rows, return_inverse=True)
    _, column = np.unique(columns, return_inverse=True)
    score = candidates.score[positions]
    if rule.most_pairs_first or rule.by == "distance":  # a bonus that outweighs every difference of scores
        score = score - score.min() + (np.ptp(score) + 1.0) * (min(row.max(), column.max()) + 1)
    gain = np.zeros((int(row.max()) + 1, int(column.max()) + 1))
    gain[row, column] = score
    taken = np.zeros(gain.shape, dtype=np.bool_)
    taken[linear_sum_assignment(gain, maximize=True)] = True
    chosen: NDArray[np.bool_] = taken[row, column]
    return chosen


def _merge(candidates: Candidates, table: Contingency, rule: MatchingRule) -> Candidates:
    """Best pair first; a further prediction joins a found reference if the union scores higher than without it."""
    shared = dict(
        zip(zip(table.prediction.tolist(), table.reference.tolist(), strict=True), table.shared_voxels, strict=True)
    )
    everything = Candidates(table.prediction, table.reference, pair_scores(table, rule.by, rule.epsilon))
    good = set(zip(candidates.prediction.tolist(), candidates.reference.tolist(), strict=True))
    union: dict[int, tuple[int, int, float]] = {}
    taken: set[int] = set()
    kept: list[int] = []
    for position, prediction, reference in _best_first(everything):
        if prediction in taken:
            continue
        size, common, before = union.get(reference, (0, 0, -1.0))
        if before < 0 and (prediction, reference) not in good:
            continue
        size += int(table.prediction_voxels[prediction - 1])
        common += int(shared[prediction, reference])
        score = _union_score(size, common, int(table.reference_voxels[reference - 1]), rule)
        if score > before:
            union[reference] = (size, common, score)
            taken.add(prediction)
            kept.append(position)
    return everything.chosen(np.sort(np.array(kept, dtype=np.intp)))


def _union_score(size: int, common: int, reference: int, rule: MatchingRule) -> float:
    if rule.by == "iou":
        return common / (size + reference - common)
    return 2 * common / (size + reference) if rule.by == "dice" else common / reference
