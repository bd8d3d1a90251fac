"""CPU time and memory of evaluating many lesions, beside panoptica, MONAI and DeepMind's surface-distance.

    python benchmarks/speed_evaluation.py [--lesions 200] [--shape 512 512 600] [--panoptica-python PYTHON]
        [--surface-distance-python PYTHON] [--only NAME ...] [--out FILE.json]

The scene: ellipsoids of 2 to 24 voxels half axes that do not touch, spread over the grid; the prediction has each of
them moved and resized a little, one in ten by much, and one in fourteen left out. Each measurement runs in a process
of its own: arrays are loaded, then CPU seconds (user and system, all threads) are taken around the work, and memory
as the peak of the process beyond what it held with the arrays loaded. panoptica and surface-distance live in
environments of their own.

What the others are given: panoptica both instance maps as arrays, with IoU, Dice and relative volume difference,
which follow from overlaps. MONAI and surface-distance one matched pair at a time, cut out to the box of the pair by
the caller ("crops", which is the best case for them), and the whole volume for a few pairs, extrapolated ("whole").
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SPACING = (0.8, 0.8, 1.0)
TOLERANCE_MM = 1.0
N_WHOLE = 2


def paint(labels: np.ndarray, number: int, center: np.ndarray, axes: np.ndarray) -> None:
    """Write an ellipsoid into a label map, cut at the edges."""
    low = np.maximum(np.floor(center - axes).astype(int), 0)
    high = np.minimum(np.ceil(center + axes).astype(int) + 1, labels.shape)
    grids = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    inside = sum(((g - c) / a) ** 2 for g, c, a in zip(grids, center, axes, strict=True)) <= 1
    part = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    part[inside & (part == 0)] = number


def scene(shape: tuple[int, ...], n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and reference: uint16, numbers 1..n without gaps."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(n ** (1 / 3)))
    cells = rng.permutation(np.stack(np.unravel_index(np.arange(side**3), (side,) * 3), axis=1))[:n]
    cell = np.array(shape) / side
    largest = min(20.0, cell.min() / 2.6)
    prediction, reference = (np.zeros(shape, dtype=np.uint16) for _ in range(2))
    n_predicted = 0
    for number, place in enumerate(cells, start=1):
        axes = np.exp(rng.uniform(np.log(1.9), np.log(largest), 1)) * rng.uniform(0.8, 1.2, 3)
        center = (place + 0.5) * cell
        paint(reference, number, center, axes)
        if rng.random() < 0.93:
            n_predicted += 1
            shift = 0.4 if rng.random() < 0.1 else 0.08
            paint(prediction, n_predicted, center + rng.normal(0, shift, 3) * axes, axes * rng.uniform(0.9, 1.12))
    return prediction, reference


def measured(work: object) -> dict[str, object]:
    """CPU seconds, wall seconds and peak memory beyond the present of a call, and what it returned."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts from here
    before = peak_mib("VmRSS")
    cpu, wall = cpu_seconds(), time.perf_counter()
    result = work()  # type: ignore[operator]
    return {
        "cpu_s": round(cpu_seconds() - cpu, 3),
        "wall_s": round(time.perf_counter() - wall, 3),
        "mib_above": round(peak_mib("VmHWM") - before),
        "result": result,
    }


def cpu_seconds() -> float:
    """Of this process and all its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_mib(field: str) -> float:
    """A line of the kernel's account of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return float(line.split()[1]) / 1024


def load(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The two label maps."""
    return np.load(folder / "prediction.npy"), np.load(folder / "reference.npy")


def medseg_maps(folder: Path):
    """A function that makes lesion maps of the arrays, which are loaded already."""
    from medseg.core.geometry import Geometry
    from medseg.core.lesions import Lesion, LesionMap

    arrays = load(folder)
    grid = Geometry(arrays[0].shape, np.diag([*SPACING, 1.0]))
    return lambda: [LesionMap(array, grid, (Lesion("lesion"),) * int(array.max())) for array in arrays]


def run_medseg_overlap(folder: Path) -> dict[str, object]:
    """From arrays in memory to PQ and every overlap-based row; making the two lesion maps is in the time."""
    from medseg.evaluation.case import evaluate_case

    maps = medseg_maps(folder)

    def work() -> object:
        scores = evaluate_case(*maps(), "panoptica", overlap_only=True, tolerance_mm=TOLERANCE_MM)
        return {"tp": scores.tp, "fp": scores.fp, "fn": scores.fn, "pq": scores.pq, "rows": len(scores.lesions)}

    return measured(work)


def run_medseg_all(folder: Path) -> dict[str, object]:
    """Every figure of `medseg evaluate`: surfaces of lesions and of the whole, diameters too."""
    from medseg.evaluation.case import evaluate_case

    maps = medseg_maps(folder)

    def work() -> object:
        scores = evaluate_case(*maps(), "default", tolerance_mm=TOLERANCE_MM)
        return {"tp": scores.tp, "hd95_mm": scores.hd95_mm, "nsd": scores.nsd}

    return measured(work)


def pairs_and_boxes(prediction: np.ndarray, reference: np.ndarray):
    """Matched pairs by largest overlap and the box about both, for the tools that are given one pair at a time."""
    from scipy import ndimage

    boxes = [ndimage.find_objects(array) for array in (prediction, reference)]
    pairs = []
    for number, box in enumerate(boxes[1], start=1):
        near = prediction[box][reference[box] == number]
        near = near[near > 0]
        if near.size:
            other = int(np.bincount(near).argmax())
            joint = tuple(
                slice(max(0, min(a.start, b.start) - 1), max(a.stop, b.stop) + 1)
                for a, b in zip(box, boxes[0][other - 1], strict=True)
            )
            pairs.append((other, number, joint))
    return pairs


def run_medseg_surfaces(folder: Path) -> dict[str, object]:
    """HD95, ASSD and NSD of every matched pair."""
    from medseg.evaluation.distances import Outlined
    from medseg.lesions.foreground import find_foreground, lesion_boxes

    sides = medseg_maps(folder)()
    pairs = pairs_and_boxes(*load(folder))

    def work() -> object:
        outlined = [
            Outlined(side, lesion_boxes(find_foreground(side.array), side.n_lesions), np.empty(0)) for side in sides
        ]
        found = [outlined[0].distances((p,), outlined[1], (r,), TOLERANCE_MM) for p, r, _ in pairs]
        return {
            "n": len(found),
            "hd95": float(np.mean([d.hd95_mm for d in found])),
            "nsd": float(np.mean([d.nsd for d in found])),
        }

    return measured(work)


def run_medseg_crops(folder: Path) -> dict[str, object]:
    """HD95, ASSD and NSD of every matched pair, cut out by the caller as for the other tools."""
    from medseg.metrics.surface import hausdorff, surface_dice, surface_distances, surface_of, symmetric_average

    prediction, reference = load(folder)
    pairs = pairs_and_boxes(prediction, reference)

    def one(p: int, r: int, box: tuple[slice, ...]) -> tuple[float, float]:
        sides = [surface_of(array[box] == number, SPACING) for array, number in ((prediction, p), (reference, r))]
        found = surface_distances(*sides, SPACING)
        symmetric_average(found)
        return hausdorff(found), surface_dice(found, TOLERANCE_MM)

    return measured(lambda: np.mean([one(*pair) for pair in pairs], axis=0).tolist())


def run_surface_distance(folder: Path, whole: bool = False) -> dict[str, object]:
    """HD95 and NSD of matched pairs by DeepMind's package."""
    import surface_distance as sd

    prediction, reference = load(folder)
    pairs = pairs_and_boxes(prediction, reference)
    chosen = pairs[:N_WHOLE] if whole else pairs

    def one(p: int, r: int, box: object) -> tuple[float, float]:
        part = (slice(None),) * 3 if whole else box
        found = sd.compute_surface_distances(reference[part] == r, prediction[part] == p, SPACING)
        return sd.compute_robust_hausdorff(found, 95), sd.compute_surface_dice_at_tolerance(found, TOLERANCE_MM)

    result = measured(lambda: np.mean([one(*pair) for pair in chosen], axis=0).tolist())
    return extrapolated(result, len(chosen), len(pairs))


def run_monai(folder: Path, whole: bool = False) -> dict[str, object]:
    """HD95 and NSD of matched pairs by MONAI."""
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    torch.set_num_threads(1)
    prediction, reference = load(folder)
    pairs = pairs_and_boxes(prediction, reference)
    chosen = pairs[:N_WHOLE] if whole else pairs

    def one(p: int, r: int, box: object) -> tuple[float, float]:
        part = (slice(None),) * 3 if whole else box
        masks = [torch.from_numpy(a[part] == n)[None, None] for a, n in ((prediction, p), (reference, r))]
        hd = compute_hausdorff_distance(*masks, include_background=True, percentile=95, spacing=SPACING)
        nsd = compute_surface_dice(*masks, [TOLERANCE_MM], include_background=True, spacing=SPACING, use_subvoxels=True)
        return float(hd), float(nsd)

    result = measured(lambda: np.mean([one(*pair) for pair in chosen], axis=0).tolist())
    return extrapolated(result, len(chosen), len(pairs))


def extrapolated(result: dict[str, object], n: int, n_all: int) -> dict[str, object]:
    """A result with what all pairs would take."""
    if n < n_all:
        result["cpu_s_of_all"] = round(float(result["cpu_s"]) / n * n_all, 1)  # type: ignore[arg-type]
    return {**result, "n": n, "n_all": n_all}


def run_panoptica(folder: Path) -> dict[str, object]:
    """PQ and overlap-based figures by panoptica."""
    from panoptica import InputType, NaiveThresholdMatching, Panoptica_Evaluator
    from panoptica.metrics import Metric

    prediction, reference = load(folder)
    evaluator = Panoptica_Evaluator(
        expected_input=InputType.UNMATCHED_INSTANCE,
        instance_matcher=NaiveThresholdMatching(),
        instance_metrics=[Metric.DSC, Metric.IOU, Metric.RVD],
        global_metrics=[Metric.DSC],
    )

    def work() -> object:
        result = evaluator.evaluate(prediction, reference, voxelspacing=SPACING, verbose=False)
        result = result["ungrouped"] if isinstance(result, dict) else result
        return {"tp": int(result.tp), "fp": int(result.fp), "fn": int(result.fn), "pq": float(result.pq)}

    return measured(work)


RUNS = {
    "medseg, overlaps": run_medseg_overlap,
    "medseg, everything": run_medseg_all,
    "medseg, surfaces of pairs": run_medseg_surfaces,
    "medseg, crops": run_medseg_crops,
    "surface-distance, crops": run_surface_distance,
    "surface-distance, whole": lambda folder: run_surface_distance(folder, whole=True),
    "MONAI, crops": run_monai,
    "MONAI, whole": lambda folder: run_monai(folder, whole=True),
    "panoptica": run_panoptica,
}


def main() -> None:
    """Make the scene, run each measurement in a process of its own, and show what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lesions", type=int, default=200)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 600))
    parser.add_argument("--panoptica-python")
    parser.add_argument("--surface-distance-python")
    parser.add_argument("--only", nargs="+", choices=RUNS)
    parser.add_argument("--run", choices=RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(RUNS[options.run](options.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        sides = scene(tuple(options.shape), options.lesions)
        for name, array in zip(("prediction", "reference"), sides, strict=True):
            np.save(Path(folder) / f"{name}.npy", array)
        sizes = np.bincount(sides[1].ravel())[1:]
        report: dict[str, object] = {
            "scene": {
                "shape": list(options.shape),
                "n_reference": int(sides[1].max()),
                "n_prediction": int(sides[0].max()),
                "foreground_voxels": int(np.count_nonzero(sides[0] | sides[1])),
                "smallest_largest_voxels": [int(sizes.min()), int(sizes.max())],
            }
        }
        print(json.dumps(report["scene"]))
        del sides
        for name in options.only or RUNS:
            python = {"panoptica": options.panoptica_python}.get(name, sys.executable)
            if name.startswith("surface-distance"):
                python = options.surface_distance_python
            if python is None:
                continue
            command = [python, __file__, "--run", name, "--folder", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            report[name] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else done.stderr[-500:]
            print(f"{name:<28} {json.dumps(report[name])}", flush=True)
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
