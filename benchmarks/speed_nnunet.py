"""Processor time and memory of nnU-Net v2 models: medseg beside `nnUNetv2_predict_from_modelfolder`, in turn.

    PYTHON_OF_NNUNET benchmarks/make_nnunet_models.py MODELS --presets full plain
    python benchmarks/speed_nnunet.py MODELS --nnunet ENVIRONMENT_WITH_NNUNET/bin [--preset full] [--rounds 2]
        [--shape 512 512 200] [--spacing 0.75 0.75 1.5] [--precision auto float32] [--mirror]

"full" is nnU-Net's standard 3d_fullres network (six stages, 32 to 320 features, windows of 128 voxels). Both use the
same windows, folds and flips, the same number of threads, and read and write compressed NIfTI; start-up counts.
Waiting OpenMP threads sleep in both, for spinning is no work. What medseg finds out about the machine once (which
engine is fastest for a network) it finds in the first of its runs here, which is told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from accuracy_nnunet import KINDS, THREADS
from process_tree import cost_of
from scipy import ndimage


def write_scan(file: Path, shape: tuple[int, ...], spacing: tuple[float, ...]) -> Path:
    """A CT-like body with lesions and noise, int16."""
    rng = np.random.default_rng(7)
    along = [(np.arange(n) + 0.5) / n * 2 - 1 for n in shape]
    inside = (along[0][:, None] ** 2 + along[1][None] ** 2 < 0.81)[..., None] & np.ones(shape[2], bool)
    array = np.where(inside, 40.0, -1000.0).astype(np.float32)
    extent = np.array(shape) * spacing
    for _ in range(40):
        center, radius = rng.uniform(0.25, 0.75, 3) * extent, rng.uniform(8, 20, 3)
        low = np.maximum(((center - radius) / spacing).astype(int), 0)
        high = np.minimum(((center + radius) / spacing).astype(int) + 1, shape)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        grid = np.meshgrid(
            *[(np.arange(a, b) + 0.5) * s for a, b, s in zip(low, high, spacing, strict=True)], indexing="ij"
        )
        distance = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, center, radius, strict=True))
        array[box] = np.where(distance < 1, 300.0, array[box])
    array += ndimage.zoom(rng.normal(0, 25, [n // 2 for n in shape]), 2, order=0)[: shape[0], : shape[1], : shape[2]]
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.round(array).astype(np.int16), np.diag([*spacing, 1.0])), file)
    return file


def nnunet_command(
    binaries: Path, model: Path, source: Path, target: Path, folds: list[str], mirror: bool
) -> list[str]:
    """nnU-Net's own command, with its own number of preprocessing and export processes."""
    command = [str(binaries / "nnUNetv2_predict_from_modelfolder"), "-i", str(source), "-o", str(target)]
    command += ["-m", str(model), "-f", *folds, "-device", "cpu"]
    return command if mirror else [*command, "--disable_tta"]


def segment_one(model: str, scan: str, target: str, precision: str, mirror: str, *folds: str) -> None:
    """What a process of medseg's does: a scan on disk to labels on disk."""
    from medseg import load_segmenter, load_volume, read_scan
    from medseg.inference.options import RunOptions
    from medseg.io.nifti import write_labels

    options = RunOptions(mirror=mirror == "True", keeps_probability=False)
    segmenter = load_segmenter(model, device="cpu", folds=list(folds), precision=precision, options=options)  # type: ignore[arg-type]
    semantic, notes = segmenter.segment(load_volume(read_scan(scan), units=segmenter.units))
    write_labels(semantic.array, semantic.geometry, Path(target))
    print(segmenter.engine, segmenter.precision, *notes, sep="; ")


def dice(first: Path, second: Path) -> tuple[float | None, int]:
    """Dice of the foregrounds of two label maps, and the number of voxels that differ."""
    one, other = (np.asarray(nib.load(path).dataobj) for path in (first, second))
    total = int((one > 0).sum() + (other > 0).sum())
    return (2 * int(((one > 0) & (other > 0)).sum()) / total if total else None), int((one != other).sum())


def main() -> None:
    """Alternate the two and print the medians with their ratios."""
    if len(sys.argv) > 1 and sys.argv[1] == "--one":
        segment_one(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--nnunet", type=Path, required=True, help="folder with nnUNetv2_predict_from_modelfolder")
    parser.add_argument("--preset", default="full")
    parser.add_argument("--folds", nargs="+", default=["0"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shape", type=int, nargs=3, default=[512, 512, 200])
    parser.add_argument("--spacing", type=float, nargs=3, default=[0.75, 0.75, 1.5])
    parser.add_argument("--precision", nargs="+", default=["auto"])
    parser.add_argument("--mirror", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    (model,) = (path.parent for path in (arguments.models / arguments.preset).glob("*/plans.json"))
    with tempfile.TemporaryDirectory() as scratch:
        rows = compare(model, Path(scratch), arguments)
    print(json.dumps(rows, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def compare(model: Path, scratch: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """All rounds of one model."""
    environment = {**os.environ, **THREADS}
    theirs_environment = {**environment, **{f"nnUNet_{kind}": str(scratch) for kind in KINDS}}
    theirs_environment.pop("PYTHONPATH", None)
    scan = write_scan(scratch / "in" / "case_0000.nii.gz", tuple(arguments.shape), tuple(arguments.spacing))
    environment["XDG_CACHE_HOME"] = str(scratch / "cache")
    runs: dict[str, list[dict[str, float]]] = {}
    labels: dict[str, Path] = {}
    for number in range(arguments.rounds):
        target = scratch / f"theirs{number}"
        command = nnunet_command(arguments.nnunet, model, scan.parent, target, arguments.folds, arguments.mirror)
        runs.setdefault("nnunet", []).append(cost_of(command, theirs_environment, scratch / "theirs.log"))
        for precision in arguments.precision:
            labels[precision] = scratch / f"ours_{precision}.nii.gz"
            asked = [str(model), str(scan), str(labels[precision]), precision, str(arguments.mirror), *arguments.folds]
            command = [sys.executable, __file__, "--one", *asked]
            kinds = (
                [f"medseg {precision}, first run", f"medseg {precision}"] if number == 0 else [f"medseg {precision}"]
            )
            for kind in kinds:
                runs.setdefault(kind, []).append(cost_of(command, environment, scratch / "ours.log"))
                print(
                    kind, runs[kind][-1], (scratch / "ours.log").read_text().strip()[-300:], file=sys.stderr, flush=True
                )
        print("nnunet", runs["nnunet"][-1], file=sys.stderr, flush=True)
    rows: dict[str, object] = {
        "model": model.parent.name,
        "shape": arguments.shape,
        "threads": THREADS["OMP_NUM_THREADS"],
    }
    rows["processor"] = torch.backends.cpu.get_cpu_capability()
    medians = {
        kind: {key: statistics.median(run[key] for run in found) for key in found[0]} for kind, found in runs.items()
    }
    for kind, figures in medians.items():
        rows[kind] = {
            **{key: round(value, 1) for key, value in figures.items()},
            **{f"{key}_share": round(value / medians["nnunet"][key], 3) for key, value in figures.items()},
        }
    for precision, path in labels.items():
        value, n_differing = dice(path, scratch / f"theirs{arguments.rounds - 1}" / "case.nii.gz")
        rows[f"dice {precision}"] = {"dice": value, "n_differing": n_differing}
    return rows


if __name__ == "__main__":
    main()
