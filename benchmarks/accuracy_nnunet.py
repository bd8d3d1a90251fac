"""Labels of nnU-Net v2 model folders: medseg in exact precision beside nnU-Net itself, voxel by voxel.

    python benchmarks/accuracy_nnunet.py MODELS --nnunet ENVIRONMENT_WITH_NNUNET/bin [--presets plain ...]
        [--scan FILE ...] [--folds 0 ...] [--mirror] [--step-size 0.5] [--precision exact] [--json OUT.json]
    python benchmarks/accuracy_nnunet.py --bundle BUNDLE --scan FILE ... --nnunet ENVIRONMENT_WITH_NNUNET/bin [...]

With `--bundle`, a medseg bundle is exported as an nnU-Net folder first: "differing" is then nnU-Net against medseg on
that folder, "bundle_differing" nnU-Net against the bundle itself, which resamples and lays windows by medseg's rules.
MODELS is what `make_nnunet_models.py` wrote. Without `--scan`, each preset's own unseen scan is used. nnU-Net runs as
`nnUNetv2_predict_from_modelfolder -device cpu` in its own environment; both use the same folds, step and mirroring.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

THREADS = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "2"),
    "OMP_WAIT_POLICY": "passive",  # on a busy machine threads that spin while they wait would count as work
}


def nnunet_labels(
    binaries: Path, model: Path, scan: list[Path], arguments: argparse.Namespace, scratch: Path
) -> tuple[np.ndarray, float]:
    """nnU-Net's labels of one scan, and the CPU seconds of all its processes."""
    source, target = scratch / "in", scratch / "out"
    source.mkdir()
    for number, path in enumerate(scan):
        shutil.copy(path, source / f"case_{number:04d}.nii.gz")
    start = cpu_of_children()
    before = previous_stage(model)
    extra: list[str] = []
    if before is not None:
        run_nnunet(binaries, before, source, scratch / "before", arguments, [])
        extra = ["-prev_stage_predictions", str(scratch / "before")]
    run_nnunet(binaries, model, source, target, arguments, extra)
    return np.asarray(nibabel.load(target / "case.nii.gz").dataobj), cpu_of_children() - start


def run_nnunet(
    binaries: Path, model: Path, source: Path, target: Path, arguments: argparse.Namespace, extra: list[str]
) -> None:
    """One call of nnU-Net's own command."""
    command = [str(binaries / "nnUNetv2_predict_from_modelfolder"), "-i", str(source), "-o", str(target)]
    command += ["-m", str(model), "-f", *folds_of(model, arguments), "-device", "cpu", "-npp", "1", "-nps", "1"]
    command += ["-step_size", str(arguments.step_size), *extra, *([] if arguments.mirror else ["--disable_tta"])]
    environment = {**os.environ, **THREADS, **{f"nnUNet_{kind}": str(source) for kind in KINDS}}
    environment.pop("PYTHONPATH", None)
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


KINDS = ("raw", "preprocessed", "results")


def previous_stage(model: Path) -> Path | None:
    """The first stage of a cascade, beside it."""
    if not model.name.endswith("3d_cascade_fullres"):
        return None
    return model.with_name(model.name.replace("3d_cascade_fullres", "3d_lowres"))


def folds_of(model: Path, arguments: argparse.Namespace) -> list[str]:
    """The folds asked for, or all that there are."""
    return arguments.folds or sorted(path.name.removeprefix("fold_") for path in model.glob("fold_*"))


def medseg_labels(model: Path, scan: list[Path], arguments: argparse.Namespace) -> tuple[np.ndarray, float]:
    """Medseg's labels of one scan, and the CPU seconds of its process, start included."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "labels.npy"
        asked = {
            "model": str(model),
            "scan": [str(path) for path in scan],
            "folds": folds_of(model, arguments),
            "mirror": arguments.mirror,
            "step_size": arguments.step_size,
            "precision": arguments.precision,
            "target": str(target),
        }
        start = cpu_of_children()
        subprocess.run(
            [sys.executable, __file__, "--one", json.dumps(asked)], check=True, env={**os.environ, **THREADS}
        )
        return np.load(target), cpu_of_children() - start


def segment_one(asked: dict[str, Any]) -> None:
    """In a process of its own: segment a scan and store the labels."""
    import medseg
    from medseg.inference.options import RunOptions
    from medseg.inference.segmenter import Segmenter
    from medseg.models.load import load_segmenter

    options = RunOptions(mirror=asked["mirror"], keeps_probability=False)
    model, folds = asked["model"], asked["folds"]
    segmenter = load_segmenter(model, device="cpu", folds=folds, precision=asked["precision"], options=options)
    stage: Segmenter | None = segmenter
    while stage is not None:
        windows = stage.recipe.windows.model_copy(update={"overlap": 1 - asked["step_size"]})
        stage.recipe = stage.recipe.model_copy(update={"windows": windows})
        stage = stage.previous
    scan = medseg.read_scan(asked["scan"] if len(asked["scan"]) > 1 else asked["scan"][0])
    semantic, _ = segmenter.segment(medseg.load_volume(scan))
    np.save(asked["target"], semantic.array)


def cpu_of_children() -> float:
    """CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare(model: Path, scan: list[Path], arguments: argparse.Namespace) -> dict[str, Any]:
    """One model on one scan through both."""
    with tempfile.TemporaryDirectory() as scratch:
        theirs, their_cpu_s = nnunet_labels(arguments.nnunet, model, scan, arguments, Path(scratch))
    ours, our_cpu_s = medseg_labels(model, scan, arguments)
    both = int(((theirs > 0) & (ours > 0)).sum())
    total = int((theirs > 0).sum() + (ours > 0).sum())
    return {
        "model": f"{model.parent.name}/{model.name.rsplit('__', 1)[-1]}",
        "scan": scan[0].name,
        "voxels": int(theirs.size),
        "foreground": int((theirs > 0).sum()),
        "differing": int((theirs != ours).sum()),
        "dice": round(2 * both / total, 6) if total else None,
        "nnunet_cpu_s": round(their_cpu_s, 1),
        "medseg_cpu_s": round(our_cpu_s, 1),
    }


def compare_exported(bundle: Path, scan: list[Path], arguments: argparse.Namespace) -> dict[str, Any]:
    """A bundle as an nnU-Net folder, through both; and the bundle itself."""
    from medseg.models.bundle import read_bundle
    from medseg.models.nnunet_export import export_nnunet

    with tempfile.TemporaryDirectory() as scratch:
        folder = export_nnunet(read_bundle(bundle), Path(scratch) / "exported" / "model")
        (Path(scratch) / "nnunet").mkdir()
        row = compare(folder, scan, arguments)
        theirs, _ = nnunet_labels(arguments.nnunet, folder, scan, arguments, Path(scratch) / "nnunet")
    ours, _ = medseg_labels(bundle, scan, arguments)
    return {**row, "model": bundle.name, "bundle_differing": int((theirs != ours).sum())}


def main() -> None:
    """Compare every model folder asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="?")
    parser.add_argument("--bundle", type=Path, help="a medseg bundle, in place of MODELS")
    parser.add_argument("--nnunet", type=Path, help="folder with nnUNetv2_predict_from_modelfolder")
    parser.add_argument("--presets", nargs="+")
    parser.add_argument("--scan", type=Path, nargs="+")
    parser.add_argument("--folds", nargs="+")
    parser.add_argument("--mirror", action="store_true")
    parser.add_argument("--step-size", type=float, default=0.5)
    parser.add_argument("--precision", default="exact")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        segment_one(arguments.one)
        return
    rows = []
    presets = arguments.presets or []
    if arguments.bundle:
        rows.append(compare_exported(arguments.bundle, arguments.scan, arguments))
        print(json.dumps(rows[-1]), flush=True)
    elif not presets:
        presets = sorted(path.parent.parent.name for path in arguments.models.glob("*/*/plans.json"))
    for preset in dict.fromkeys(presets):
        scan = arguments.scan or sorted((arguments.models / "scans" / preset).iterdir())
        for model in sorted(path.parent for path in (arguments.models / preset).glob("*/plans.json")):
            rows.append(compare(model, scan, arguments))
            print(json.dumps(rows[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
