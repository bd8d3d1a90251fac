"""Labels of zoo-style bundles: medseg beside `python -m monai.bundle run`, voxel by voxel, with CPU time and memory.

    python benchmarks/make_bundles.py BUNDLES
    python benchmarks/accuracy_bundles.py BUNDLES --output FOLDER [--shape 120 104 64] [--precision exact] [--threads 2]

Each side is a process of its own, in turn; time is user and system time of the process, memory its peak. The first run
of medseg on a machine also finds out which engine is fastest for the network, and is told apart. Both give labels only:
medseg's map of probabilities, four bytes a voxel, is left out.
The scans are phantoms with noise, oblique and flipped, so that every step has work to do.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from process_tree import cost_of
from scipy import ndimage

ALLOWED_SHARE = 1e-5  # of voxels that may differ in exact runs


def make_scan(file: Path, shape: tuple[int, int, int], spacing: tuple[float, float, float], seed: int) -> Path:
    """A body with organs and noise, in Hounsfield units, on a flipped grid."""
    random = np.random.default_rng(seed)
    blobs = ndimage.zoom(
        random.normal(size=[max(n // 12, 3) for n in shape]), [n / max(n // 12, 3) for n in shape], order=1
    )
    inside = (
        np.linalg.norm(np.stack(np.meshgrid(*[np.linspace(-1.15, 1.15, n) for n in shape], indexing="ij")), axis=0) < 1
    )
    array = np.where(inside, 60 + 180 * blobs[tuple(slice(n) for n in shape)], -1000) + random.normal(0, 12, shape)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = (0.5 * shape[0] * spacing[0], 0.4 * shape[1] * spacing[1], -100.0)
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.round(array).astype(np.int16), affine), file)
    return file


def make_mr(file: Path, shape: tuple[int, int, int], spacing: tuple[float, float, float], seed: int) -> Path:
    """The same body as MR: not negative, exactly 0 outside."""
    make_scan(file, shape, spacing, seed)
    image = nib.load(file)
    array = np.asarray(image.dataobj)
    nib.save(
        nib.Nifti1Image(np.where(array > -500, np.clip(array + 600, 1, None), 0).astype(np.int16), image.affine), file
    )
    return file


def measured(command: list[str], log: Path, folder: Path) -> dict[str, float]:
    """Run a command; its CPU seconds, wall seconds and peak MiB."""
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}
    return cost_of(command, environment, log)


def run_stock(bundle: Path, scans: list[Path], output: Path) -> tuple[np.ndarray, dict[str, float]]:
    """The bundle by MONAI's own command."""
    image: Any = str(scans[0]) if len(scans) == 1 else [str(scan) for scan in scans]
    config = next(bundle.glob("configs/inference.*"))
    overrides = {"bundle_root": str(bundle), "output_dir": str(output), "data": [{"image": image}]}
    overrides |= labels_by_nearest_neighbor(json.loads(config.read_text()))
    (output / "arguments.json").write_text(json.dumps(overrides))
    command = [
        *(sys.executable, "-m", "monai.bundle", "run", "run", "--config_file", str(config)),
        *("--meta_file", str(bundle / "configs" / "metadata.json"), "--args_file", str(output / "arguments.json")),
    ]
    figures = measured(command, output / "stock.log", bundle)
    (written,) = output.rglob("*_trans.nii.gz")
    return np.asarray(nib.load(written).dataobj), figures


def labels_by_nearest_neighbor(config: dict[str, Any]) -> dict[str, bool]:
    """An override for a bundle that interpolates class numbers linearly: there is nothing to compare with otherwise."""
    names = [transform["_target_"] for transform in config["postprocessing"]["transforms"]]
    place = names.index("Invertd") if "Invertd" in names else 0
    if "AsDiscreted" not in names[:place]:
        return {}
    return {f"postprocessing#transforms#{place}#nearest_interp": True}


def run_medseg(bundle: Path, scans: list[Path], output: Path, precision: str) -> tuple[np.ndarray, dict[str, float]]:
    """The bundle by medseg, in a process of its own."""
    target = output / f"medseg_{precision}.nii.gz"
    command = [sys.executable, __file__, "--one", str(bundle), str(target), precision, *map(str, scans)]
    figures = measured(command, output / "medseg.log", Path(__file__).resolve().parents[1])
    return np.asarray(nib.load(target).dataobj), figures


def segment_one(bundle: str, target: str, precision: str, *scans: str) -> None:
    """What `run_medseg` starts."""
    from medseg import load_segmenter, load_volume, read_scan
    from medseg.inference.options import RunOptions
    from medseg.io.freed_memory import keep_freed_memory
    from medseg.io.nifti import write_labels

    keep_freed_memory()  # as the command does
    options = RunOptions(keeps_probability=False)
    segmenter = load_segmenter(bundle, device="cpu", precision=precision, options=options)  # type: ignore[arg-type]
    semantic, _ = segmenter.segment(load_volume(read_scan(list(scans)), units=segmenter.units))
    write_labels(semantic.array, semantic.geometry, Path(target))


def compare(bundle: Path, output: Path, shape: tuple[int, int, int], precision: str) -> dict[str, Any]:
    """Both ways on one case; what differs."""
    output.mkdir(parents=True, exist_ok=True)
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    described = metadata["network_data_format"]["inputs"]["image"]
    make = make_mr if described["modality"] == "MR" else make_scan
    scans = [make(output / f"scan{n}.nii.gz", shape, (0.9, 0.9, 2.2), seed=n) for n in range(described["num_channels"])]
    stock, stock_figures = run_stock(bundle, scans, output)
    _, first_figures = run_medseg(bundle, scans, output, precision)
    own, figures = run_medseg(bundle, scans, output, precision)
    stock = stock.reshape(own.shape)
    differing = int((own != stock).sum())
    return {
        "bundle": bundle.name,
        "precision": precision,
        "n_voxels": int(own.size),
        "n_classes_seen": len(np.unique(stock)),
        "n_differing": differing,
        "share_differing": differing / own.size,
        "stock": {name: round(value, 2) for name, value in stock_figures.items()},
        "medseg, first run": {name: round(value, 2) for name, value in first_figures.items()},
        "medseg": {name: round(value, 2) for name, value in figures.items()},
    }


def main() -> None:
    """Compare every bundle in a folder."""
    if len(sys.argv) > 1 and sys.argv[1] == "--one":
        segment_one(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--shape", type=int, nargs=3, default=(120, 104, 64))
    parser.add_argument("--precision", default="exact")
    parser.add_argument("--threads", default="2", help="of both")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = arguments.threads
    results = []
    for bundle in sorted(path for path in arguments.bundles.iterdir() if (path / "configs").is_dir()):
        if arguments.only and bundle.name not in arguments.only:
            continue
        results.append(compare(bundle, arguments.output / bundle.name, tuple(arguments.shape), arguments.precision))
        print(json.dumps(results[-1]), flush=True)
    (arguments.output / "accuracy_bundles.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
