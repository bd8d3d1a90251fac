"""The metrics once more: slow, by sets of voxels and loops, so plain that one can see that they are right."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

Voxel = tuple[int, int, int]
Lesions = dict[int, set[Voxel]]
STEPS = [step for step in product((-1, 0, 1), repeat=3) if any(step)]
NEIGHBORS = {
    6: [step for step in STEPS if sum(map(abs, step)) == 1],
    18: [step for step in STEPS if sum(map(abs, step)) <= 2],
    26: STEPS,
}


@st.composite
def maps(draw: st.DrawFn, highest: int = 3, n: int = 2, largest: int = 5) -> tuple[NDArray[np.uint8], ...]:
    """Some small maps of random numbers on one grid, from empty to dense, alike or not."""
    shape = tuple(draw(st.integers(1, largest)) for _ in range(3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from((0.0, 0.1, 0.3, 0.6, 1.0)))
    first = (rng.integers(1, highest + 1, shape) * (rng.random(shape) < density)).astype(np.uint8)
    others = []
    for _ in range(n - 1):
        change = rng.random(shape) < draw(st.sampled_from((0.0, 0.2, 0.5, 1.0)))
        fresh = rng.integers(1, highest + 1, shape) * (rng.random(shape) < rng.random())
        others.append(np.where(change, fresh, first).astype(np.uint8))
    return (first, *others)


def voxels_of(array: NDArray) -> Lesions:
    """The voxels of each number."""
    lesions: Lesions = {}
    for voxel in np.ndindex(array.shape):
        if array[voxel]:
            lesions.setdefault(int(array[voxel]), set()).add(voxel)
    return lesions


def components(voxels: Iterable[Voxel], connectivity: int) -> list[set[Voxel]]:
    """Sets of voxels that touch."""
    left, found = set(voxels), []
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            voxel = edge.pop()
            part.add(voxel)
            for step in NEIGHBORS[connectivity]:
                near = tuple(a + b for a, b in zip(voxel, step, strict=True))
                if near in left:
                    left.remove(near)
                    edge.append(near)
        found.append(part)
    return found


def dilated(voxels: set[Voxel], n_steps: int, shape: tuple[int, ...]) -> set[Voxel]:
    """The voxels and their 18 neighbors, n times, inside the grid."""
    grown = set(voxels)
    for _ in range(n_steps):
        grown |= {tuple(a + b for a, b in zip(v, step, strict=True)) for v in grown for step in NEIGHBORS[18]}
        grown = {v for v in grown if all(0 <= a < n for a, n in zip(v, shape, strict=True))}
    return grown


def iou(a: set[Voxel], b: set[Voxel]) -> float:
    return len(a & b) / len(a | b)


def dice(a: set[Voxel], b: set[Voxel]) -> float:
    return 2 * len(a & b) / (len(a) + len(b))


def overlap(prediction: set[Voxel], reference: set[Voxel]) -> float:
    return len(prediction & reference) / len(reference)


def centroid(voxels: set[Voxel], spacing: Sequence[float]) -> NDArray[np.float64]:
    return np.mean(list(voxels), axis=0) * spacing


SCORES = {"iou": iou, "dice": dice, "overlap": overlap}


def candidates(predictions: Lesions, references: Lesions, by: str, threshold: float, strict: bool) -> dict:
    """Score of every pair that is good enough and shares a voxel."""
    scores = {
        (p, r): SCORES[by](predictions[p], references[r])
        for p in predictions
        for r in references
        if predictions[p] & references[r]
    }
    return {pair: s for pair, s in scores.items() if (s > threshold if strict else s >= threshold)}


def best_total(scores: Mapping[tuple[int, int], float], most_pairs: bool) -> tuple[int, float]:
    """Number of pairs and total score of the best one-to-one choice, by trying them all."""
    best = (0, 0.0)
    for size in range(1, len(scores) + 1):
        for chosen in combinations(scores, size):
            if len({p for p, _ in chosen}) == len({r for _, r in chosen}) == size:
                total = (size, sum(scores[pair] for pair in chosen))
                better = total > best if most_pairs else total[1] > best[1] + 1e-12
                best = total if better else best
    return best


def greedy(scores: Mapping[tuple[int, int], float], one_to_one: bool) -> set[tuple[int, int]]:
    """Best pair first; a tie goes to the lower reference, then the lower prediction."""
    taken: set[tuple[int, int]] = set()
    for p, r in sorted(scores, key=lambda pair: (-scores[pair], pair[1], pair[0])):
        if all(p != other for other, _ in taken) and not (one_to_one and any(r == other for _, other in taken)):
            taken.add((p, r))
    return taken


def brats2023(
    prediction: NDArray, reference: NDArray, dilation: int, least_mm3: float, voxel_mm3: float
) -> dict[str, float]:
    """Counts and lesion-wise Dice of the BraTS 2023 rule on masks."""
    shape = reference.shape
    p_voxels, r_voxels = set(map(tuple, np.argwhere(prediction))), set(map(tuple, np.argwhere(reference)))
    predictions = components(p_voxels, 26)
    grown = components(dilated(r_voxels, dilation, shape), 26)
    references = [part & r_voxels for part in grown]
    touched = [[p for p in predictions if p & dilated(r, dilation, shape)] for r in references]
    kept = [n for n, r in enumerate(references) if len(r) * voxel_mm3 > least_mm3]
    fp = sum(not any(p in parts for parts in touched) for p in predictions)
    total = sum(dice(set().union(*touched[n]), references[n]) for n in kept)
    n = len(kept) + fp
    return {
        "Num_TP": sum(bool(touched[n]) for n in kept),
        "Num_FP": fp,
        "Num_FN": sum(not touched[n] for n in kept),
        "LesionWise_Score_Dice": total / n if n else 1.0,
    }


def cc_dice(prediction: NDArray, numbered: NDArray) -> float:
    """Mean Dice over territories: every voxel belongs to the nearest component, the lower number at a tie."""
    references, territories = voxels_of(numbered), {}
    predicted = set(map(tuple, np.argwhere(prediction)))
    if not references:
        return 0.0 if predicted else 1.0
    for voxel in np.ndindex(numbered.shape):
        nearest = min((min(math.dist(voxel, v) for v in part), number) for number, part in references.items())
        territories.setdefault(nearest[1], set()).add(voxel)
    return float(np.mean([dice(predicted & territories[n], references[n]) for n in references]))


def autopet(prediction: NDArray, reference: NDArray) -> dict[str, float | None]:
    """Voxels of components without overlap, and Dice."""
    p, r = set(map(tuple, np.argwhere(prediction))), set(map(tuple, np.argwhere(reference)))
    return {
        "dice": dice(p, r) if r else None,
        "fp_voxels": sum(len(part) for part in components(p, 18) if not part & r),
        "fn_voxels": sum(len(part) for part in components(r, 18) if not part & p),
    }


def picai(predictions: list[set[Voxel]], references: list[set[Voxel]]) -> tuple[int, float, int, int]:
    """Pairs, total IoU, false positives and false negatives of the PI-CAI rule."""
    epsilon = 1e-8
    scores = {
        (p, r): (len(a & b) + epsilon) / (len(a | b) + epsilon)
        for p, a in enumerate(predictions)
        for r, b in enumerate(references)
    }
    good = {pair: score for pair, score in scores.items() if score >= 0.1}
    n, total = best_total(good, most_pairs=True)
    spared = {p for p, _ in good}
    return n, total, len(predictions) - len(spared), len(references) - n


def froc_at(hits: Sequence[float], false: Sequence[float], n_missed: int, n_scans: int, rate: float) -> float:
    """Sensitivity at a rate of false positives, linear between thresholds."""
    points = [(0.0, 0.0)]
    for threshold in sorted({*hits, *false}, reverse=True):
        points.append(
            (
                sum(score >= threshold for score in false) / n_scans,
                sum(score >= threshold for score in hits) / (len(hits) + n_missed),
            )
        )
    at_most = [point for point in points if point[0] <= rate]
    beyond = [point for point in points if point[0] > rate]
    if not beyond:
        return at_most[-1][1]
    (x0, y0), (x1, y1) = at_most[-1], beyond[0]
    return y0 + (y1 - y0) * (rate - x0) / (x1 - x0)


def average_precision(hits: Sequence[float], false: Sequence[float], n_missed: int) -> float:
    """Precision at each threshold times the sensitivity gained there."""
    total, before = 0.0, 0.0
    for threshold in sorted({*hits, *false}, reverse=True):
        tp, fp = sum(s >= threshold for s in hits), sum(s >= threshold for s in false)
        sensitivity = tp / (len(hits) + n_missed)
        total += (sensitivity - before) * tp / (tp + fp)
        before = sensitivity
    return total


def surface(mask: NDArray, areas: NDArray) -> dict[Voxel, float]:
    """Corner to area, by the eight voxels about each corner; bit 7 is the voxel before it on every axis."""
    found = {}
    for corner in product(*(range(n + 1) for n in mask.shape)):
        pattern = 0
        for bit, step in zip((128, 64, 32, 16, 8, 4, 2, 1), product((-1, 0), repeat=3), strict=True):
            voxel = tuple(a + b for a, b in zip(corner, step, strict=True))
            inside = all(0 <= a < n for a, n in zip(voxel, mask.shape, strict=True))
            pattern += bit * bool(inside and mask[voxel])
        if pattern not in (0, 255):
            found[corner] = float(areas[pattern])
    return found


def directed(from_: Mapping[Voxel, float], to: Mapping[Voxel, float], spacing: Sequence[float]) -> list:
    """(distance, area) from each piece of one surface to the other, ascending."""
    return sorted(
        (
            min(math.sqrt(sum(((a - b) * s) ** 2 for a, b, s in zip(c, other, spacing, strict=True))) for other in to),
            area,
        )
        for c, area in from_.items()
    )


def weighted_percentile(pieces: Sequence[tuple[float, float]], percent: float) -> float:
    """The first distance at which the area up to there reaches the share."""
    areas = [area for _, area in pieces]
    reached = np.cumsum(areas) / np.sum(areas)
    for (distance, _), share in zip(pieces, reached, strict=True):
        if share >= percent / 100:
            return distance
    return pieces[-1][0]


def counts_with_several(holders: Lesions, held: Lesions) -> int:
    """Lesions that hold more than half of each of several others."""
    n = Counter(h for h in holders for other in held.values() if 2 * len(holders[h] & other) > len(other))
    return sum(count > 1 for count in n.values())
