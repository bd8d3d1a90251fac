"""How well touching lesions come apart, through a trained network, from the image.

    python benchmarks/accuracy_separation.py --seeds 900000:900240 -o accuracy.json
    python benchmarks/accuracy_separation.py --kind pet --model sarcoma_pet --seeds 900000:900120 -o accuracy_pet.json

Each seed is one fresh scan, made by `medseg.phantoms.crowd`: a block of CT-like tissue in which lesions of 4 to 30 mm
touch or overlap by 0 to 40 % of the smaller one's volume (before each voxel gets one owner), with a visible seam or
without, or single lesions, smooth or lobed. Slices are 1, 3 or 5 mm thick in turn. With `--kind pet` it is a block of
PET-like tissue with lesions of 16 to 70 mm on the grids of scanners. The network sees the image; all
three methods get the network's own semantic map, as does the limit: the best that any separation of it could be.
A hit is IoU > 0.5. Intervals are paired bootstraps over scans.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import medseg
from medseg.core.plan import SeparationPlan
from medseg.inference.segmenter import Segmenter
from medseg.lesions.separate import separate_lesions
from medseg.phantoms.crowd import Content, Crowd, CrowdRequest, make_crowd
from medseg.phantoms.crowd_paint import BlockKind

METHODS = ("components", "watershed", "offsets")
LIMIT = "limit"  # each voxel of the semantic map goes to the nearest lesion of the truth: no separation does better
SPACINGS = {
    "ct": ((1.0, 1.0, 1.0), (0.8, 0.8, 3.0), (0.8, 0.8, 5.0)),
    "pet": ((4.0, 4.0, 3.27), (5.4688, 5.4688, 3.27), (4.0, 4.0, 5.0)),
}
# in turn: contents, and whether seams are visible
SCENES: tuple[tuple[Content, bool], ...] = (
    ("touching", True),
    ("touching", False),
    ("isolated", True),
    ("touching", True),
    ("lobulated", True),
)
EXTENT_MM = {"ct": (64.0, 64.0, 66.0), "pet": (168.0, 168.0, 170.0)}
DIAMETERS_MM = {"ct": (4.0, 30.0), "pet": (16.0, 70.0)}
N_RESAMPLED = 10_000


@dataclass
class LesionRow:
    """One reference lesion: what it is, and how each method fared with it."""

    scan: int
    spacing: str
    scene: str
    is_seam_visible: bool
    overlap: float
    is_touching: bool
    iou: dict[str, float]
    n_pieces: dict[str, int]


@dataclass
class ScanRow:
    """One scan: how many lesions there are and how many each method finds, hits and those of them that are false."""

    scan: int
    spacing: str
    scene: str
    is_seam_visible: bool
    n_reference: int
    n_found: dict[str, int]
    n_false: dict[str, int]
    dice: float


def request_of(seed: int, kind: BlockKind) -> CrowdRequest:
    """What the scan of a seed is like."""
    content, is_seam_visible = SCENES[seed % len(SCENES)]
    spacing = SPACINGS[kind][seed // len(SCENES) % len(SPACINGS[kind])]
    smallest, largest = DIAMETERS_MM[kind]
    return CrowdRequest(
        content,
        kind=kind,
        extent_mm=EXTENT_MM[kind],
        spacing_mm=spacing,
        is_seam_visible=is_seam_visible,
        smallest_mm=smallest,
        largest_mm=largest,
    )


def overlaps(prediction: NDArray[np.integer], reference: NDArray[np.integer]) -> tuple[NDArray[np.float64], ...]:
    """(n, m) shared voxels, and (n, m) IoU, of reference lesions 1..n and predicted ones 1..m."""
    n, m = int(reference.max()), int(prediction.max())
    joint = np.bincount(reference.ravel().astype(np.int64) * (m + 1) + prediction.ravel(), minlength=(n + 1) * (m + 1))
    table = joint.reshape(n + 1, m + 1).astype(np.float64)
    shared = table[1:, 1:]
    union = table[1:].sum(axis=1)[:, None] + table[:, 1:].sum(axis=0) - shared
    return shared, shared / np.maximum(union, 1)


def touches(reference: NDArray[np.integer]) -> NDArray[np.bool_]:
    """(n,) whether each lesion has a 26-neighbor of another lesion."""
    from scipy import ndimage

    array = reference.astype(np.int32)
    highest = ndimage.maximum_filter(array, size=3)
    lowest = ndimage.minimum_filter(np.where(array == 0, np.iinfo(np.int32).max, array), size=3)
    near = (array > 0) & ((highest != array) | (lowest != array))
    found = np.zeros(int(array.max()) + 1, dtype=bool)
    found[np.unique(array[near])] = True
    return found[1:]


def run_scan(
    seed: int, kind: BlockKind, segmenter: Segmenter, plans: dict[str, SeparationPlan]
) -> tuple[list[LesionRow], ScanRow]:
    """Segment one scan and separate it by each method."""
    crowd: Crowd = make_crowd(request_of(seed, kind), seed)
    semantic, _ = segmenter.segment(crowd.volume)
    reference = np.asarray(crowd.lesions.array)
    spacing = " x ".join(f"{s:g}" for s in crowd.request.spacing_mm)
    is_touching = touches(reference)
    rows = [
        LesionRow(
            seed, spacing, crowd.request.content, crowd.request.is_seam_visible, truth.overlap, bool(near), {}, {}
        )
        for truth, near in zip(crowd.truths, is_touching, strict=True)
    ]
    foreground = semantic.array > 0
    both = np.count_nonzero(foreground) + np.count_nonzero(reference)
    dice = 2 * np.count_nonzero(foreground & (reference > 0)) / both if both else 1.0
    scan = ScanRow(
        seed, spacing, crowd.request.content, crowd.request.is_seam_visible, len(rows), {}, {}, round(dice, 4)
    )
    found_by = {}
    for method, plan in plans.items():
        is_silent = semantic.evidence is None and method == "offsets"  # nothing found at all
        found = np.asarray(separate_lesions(semantic, SeparationPlan(method="components") if is_silent else plan).array)
        if method == "components":
            found_by[LIMIT] = to_nearest_lesions(found, reference, crowd.request.spacing_mm)
        found_by[method] = found
    for method, found in found_by.items():
        shared, iou = overlaps(found, reference)
        best = iou.max(axis=1, initial=0.0)
        sizes = np.bincount(found.ravel(), minlength=found.max() + 1)[1:]
        own_sizes = np.bincount(reference.ravel(), minlength=len(rows) + 1)[1:]
        # a piece: a found lesion that lies mostly in this one and is not a crumb (5 % of it)
        is_piece = (shared > 0.5 * sizes) & (shared > 0.05 * own_sizes[:, None])
        for row, value, n_pieces in zip(rows, best.tolist(), is_piece.sum(axis=1).tolist(), strict=True):
            row.iou[method], row.n_pieces[method] = value, n_pieces
        scan.n_found[method] = int(found.max())
        scan.n_false[method] = int(found.max()) - int((iou > 0.5).any(axis=0).sum())
    return rows, scan


def to_nearest_lesions(
    components: NDArray[np.integer], reference: NDArray[np.integer], spacing_mm: Sequence[float]
) -> NDArray[np.int64]:
    """Components split among the lesions of the truth that they overlap, each voxel to the nearest one."""
    from scipy import ndimage

    nearest = ndimage.distance_transform_edt(
        reference == 0, sampling=spacing_mm, return_distances=False, return_indices=True
    )
    owner = np.where(components > 0, reference[tuple(nearest)], 0)
    hit = np.unique(components[reference > 0])
    owner[~np.isin(components, hit)] = 0
    _, numbers = np.unique(np.stack([components.ravel(), owner.ravel()]), axis=1, return_inverse=True)
    has_background = bool((components == 0).any())
    return np.asarray(numbers, dtype=np.int64).reshape(components.shape) + (0 if has_background else 1)


def f1_and_pq(rows: Sequence[LesionRow], n_false: int, method: str) -> tuple[float, float]:
    """F1 and panoptic quality (Kirillov 2019) at IoU > 0.5."""
    hits = [row.iou[method] for row in rows if row.iou[method] > 0.5]
    denominator = len(hits) + 0.5 * n_false + 0.5 * (len(rows) - len(hits))
    return (len(hits) / denominator, sum(hits) / denominator) if denominator else (float("nan"),) * 2


Chosen = Callable[[LesionRow], bool]


def summarize(
    lesions: Sequence[LesionRow], scans: Sequence[ScanRow], chosen: Chosen, *, counts_false: bool
) -> dict[str, object]:
    """F1 and PQ of each method over some lesions, and paired differences with 95 % intervals over scans.

    False lesions of a scan count where all its lesions are chosen alike (`counts_false`); where lesions are chosen by
    their overlap, a scan's false lesions are shared out by the part of its lesions that is chosen.
    """
    by_scan: dict[int, list[LesionRow]] = {}
    for row in lesions:
        if chosen(row):
            by_scan.setdefault(row.scan, []).append(row)
    scan_of = {scan.scan: scan for scan in scans}
    keys = sorted(by_scan)
    table = {}
    for method in (*METHODS, LIMIT):
        per_scan = []
        for key in keys:
            rows, scan = by_scan[key], scan_of[key]
            hits = [row.iou[method] for row in rows if row.iou[method] > 0.5]
            share = 1.0 if counts_false else len(rows) / max(scan.n_reference, 1)
            per_scan.append((len(hits), sum(hits), len(rows), share * scan.n_false[method]))
        table[method] = np.array(per_scan, dtype=np.float64).reshape(-1, 4)
    rng = np.random.default_rng(0)
    draws = rng.integers(len(keys), size=(N_RESAMPLED, len(keys))) if keys else np.zeros((1, 0), dtype=int)
    weights = np.stack([np.bincount(draw, minlength=len(keys)) for draw in draws]) if keys else np.zeros((1, 0))
    result: dict[str, object] = {"n_scans": len(keys), "n_lesions": int(table["offsets"][:, 2].sum())}
    drawn = {}
    for method in (*METHODS, LIMIT):
        total = _scores(table[method].sum(axis=0))
        drawn[method] = _scores(weights @ table[method])
        result[method] = {name: _with_interval(total[n], drawn[method][n]) for n, name in enumerate(("f1", "pq"))}
    for other in ("components", "watershed"):
        result[f"offsets - {other}"] = {
            name: _with_interval(
                _scores(table["offsets"].sum(axis=0))[n] - _scores(table[other].sum(axis=0))[n],
                drawn["offsets"][n] - drawn[other][n],
            )
            for n, name in enumerate(("f1", "pq"))
        }
    return result


def _scores(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    hits, quality, n_reference, n_false = np.moveaxis(sums, -1, 0)
    denominator = np.maximum(hits + 0.5 * n_false + 0.5 * (n_reference - hits), 1e-9)
    return hits / denominator, quality / denominator


def _with_interval(value: float | NDArray[np.float64], drawn: NDArray[np.float64]) -> list[float]:
    low, high = np.percentile(drawn, (2.5, 97.5))
    return [round(float(value), 4), round(float(low), 4), round(float(high), 4)]


def report(lesions: Sequence[LesionRow], scans: Sequence[ScanRow]) -> dict[str, object]:
    """All figures."""
    groups: dict[str, tuple[Chosen, bool]] = {
        "touching, visible seam": (lambda r: r.scene == "touching" and r.is_seam_visible, True),
        "touching, no visible seam": (lambda r: r.scene == "touching" and not r.is_seam_visible, True),
        "isolated": (lambda r: r.scene == "isolated", True),
        "lobed": (lambda r: r.scene == "lobulated", True),
    }
    for low, high in ((0.0, 0.1), (0.1, 0.2), (0.2, 0.4)):
        groups[f"touching, visible seam, overlap {low:.0%} to {high:.0%}"] = (
            lambda r, low=low, high=high: (
                r.scene == "touching" and r.is_seam_visible and low <= r.overlap < high + (high == 0.4)
            ),
            False,
        )
    for spacing in sorted({row.spacing for row in lesions}):
        groups[f"touching, visible seam, {spacing} mm"] = (
            lambda r, spacing=spacing: r.scene == "touching" and r.is_seam_visible and r.spacing == spacing,
            True,
        )
    lobed = [row for row in lesions if row.scene == "lobulated"]
    return {
        "groups": {
            name: summarize(lesions, scans, chosen, counts_false=whole) for name, (chosen, whole) in groups.items()
        },
        "lobed lesions split": {
            method: [sum(row.n_pieces[method] > 1 for row in lobed), len(lobed)] for method in METHODS
        },
        "mean absolute error of the count per scan": {
            method: round(float(np.mean([abs(scan.n_found[method] - scan.n_reference) for scan in scans])), 3)
            for method in (*METHODS, LIMIT)
        },
        "dice of the semantic map": round(float(np.mean([scan.dice for scan in scans if scan.n_reference])), 4),
        "n_scans": len(scans),
        "n_lesions": len(lesions),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="phantom_lesions")
    parser.add_argument("--kind", choices=("ct", "pet"), default="ct", help="of the scans")
    parser.add_argument("--seeds", default="900000:900240", help="first:past the last")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="of the SeparationPlan of offsets")
    chosen = parser.parse_args()
    first, stop = (int(part) for part in chosen.seeds.split(":"))
    segmenter = medseg.load_segmenter(chosen.model, device="cpu", engine="torch")
    own = segmenter.recipe.separation.model_dump()
    changes = {key: json.loads(value) for key, value in (item.split("=") for item in chosen.set)}
    plans = {method: SeparationPlan(**{**own, **changes, "method": method}) for method in METHODS}
    lesions, scans = [], []
    start = time.process_time()
    for seed in range(first, stop):
        rows, scan = run_scan(seed, chosen.kind, segmenter, plans)
        lesions.extend(rows)
        scans.append(scan)
    result = {"seeds": chosen.seeds, "model": chosen.model, "kind": chosen.kind, **report(lesions, scans)}
    result["cpu_s"] = round(time.process_time() - start, 1)
    text = json.dumps(result, indent=1)
    print(text)
    if chosen.output:
        chosen.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
