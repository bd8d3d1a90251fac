"""Cross-validation of medseg and of nnU-Net v2 on one manifest: same patients, same folds, same budget, same scores.

    python benchmarks/accuracy_training.py --work WORK --nnunet PYTHON_OF_NNUNET [--manifest M.json] [--plan PLAN.json]
        [--budget-minutes 20] [--threads 1] [--folds 0 1 ...] [--only nnunet|medseg] [--medseg-work FOLDER] [--json OUT]

The budget is processor time: so many minutes of one core for each fold, whatever else the machine does.

* nnU-Net (by `train_nnunet.py` in its own environment; `MEDSEG_NNUNET_PYTHON` serves in place of `--nnunet`): planned,
  preprocessed, trained, and run with mirroring as it configures itself (`3d_fullres`), until the budget is spent.
  Planning, preprocessing and prediction are not charged to the budget.
* medseg: `medseg train --fold K` by the plan (default: that of the shipped bundle); reading, training and scoring are
  charged. `--medseg-work` takes the work folder of a cross-validation that is done, and its own log of seconds.

Held-out maps of both are scored by `medseg.evaluation` on the scans' own grids: Dice of each patient; lesions are the
26-connected components of both maps and of the reference, matched one to one at IoU above 0.5. Differences are medseg
minus nnU-Net, with a paired bootstrap interval over patients. What is killed and started again goes on.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from train_nnunet import DATASET, write

from medseg.core.geometry import Geometry
from medseg.core.plan import Plan
from medseg.core.semantic import SemanticMap
from medseg.core.volume import Volume
from medseg.evaluation.case import evaluate_case
from medseg.evaluation.compare import Comparison, compare_cases
from medseg.inference.peaks import without_faint
from medseg.io.label_files import read_semantic
from medseg.io.labelled_cases import LabelledCase, read_cases
from medseg.io.manifest import DataManifest, read_manifest
from medseg.metrics.overlap import dice
from medseg.metrics.presets import get_convention
from medseg.training.held_out import HeldOut, read_held_out

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ("dice", "f1", "sensitivity", "precision", "total_volume_error_ml", "nsd", "hd95_penalized_mm")
NAMES = ("nnU-Net", "medseg")


def write_nnunet_dataset(manifest: DataManifest, root: Path, raw: Path) -> None:
    """Links to the manifest's files under nnU-Net's names, and its folds as `splits_final.json`."""
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True, exist_ok=True)
    for case in manifest.cases:
        files = {f"imagesTr/{case.case_id}_{n:04d}.nii.gz": image.path for n, image in enumerate(case.images)}
        files[f"labelsTr/{case.case_id}.nii.gz"] = case.label.path
        for name, path in files.items():
            if not path.endswith(".nii.gz"):
                raise SystemExit(f"{case.case_id}: {path} is no .nii.gz file; nnU-Net reads one format a data set")
            (raw / name).unlink(missing_ok=True)
            (raw / name).symlink_to((root / path).resolve())
    write(splits(manifest), raw / "splits_final.json")
    dataset = {
        "channel_names": {str(n): channel.name for n, channel in enumerate(manifest.channels)},
        "labels": {"background": 0, **{name: number for number, name in manifest.labels.items()}},
        "numTraining": len(manifest.cases),
        "file_ending": ".nii.gz",
    }
    write(dataset, raw / "dataset.json")


def splits(manifest: DataManifest) -> list[dict[str, list[str]]]:
    """Names of the cases to train on and of those held out, fold by fold, as nnU-Net lists them."""
    folds = sorted({case.fold for case in manifest.cases if case.fold is not None})
    if folds != list(range(len(folds))) or any(case.fold is None for case in manifest.cases):
        raise SystemExit("every case of the manifest needs a fold, and folds are numbered from 0")
    return [
        {
            "train": [case.case_id for case in manifest.cases if case.fold != fold],
            "val": [case.case_id for case in manifest.cases if case.fold == fold],
        }
        for fold in folds
    ]


def run_nnunet(python: str, work: Path, folds: Sequence[int], budget: float, threads: int) -> None:
    """Whatever is not done yet of planning, training and predicting."""
    script = str(Path(__file__).with_name("train_nnunet.py"))
    common = ["--budget-minutes", str(budget), "--threads", str(threads)]
    parts = [("prepared.json", ["prepare"])]
    for fold in folds:
        parts += [(f"trained_{fold}.json", ["train", str(fold)]), (f"predicted_{fold}.json", ["predict", str(fold)])]
    for done, part in parts:
        if not (work / done).is_file():
            run_measured([python, script, str(work), *part, *common], work / f"{'_'.join(part)}.log", threads)


def run_medseg(manifest: Path, root: Path, plan: Path, work: Path, folds: Sequence[int], threads: int) -> None:
    """Train and score the folds that are not done yet; `fold_K.json` holds the processor seconds of each."""
    work.mkdir(parents=True, exist_ok=True)
    for fold in folds:
        record = work / f"fold_{fold}.json"
        before = json.loads(record.read_text()) if record.is_file() else {"cpu_s": 0.0, "is_done": False}
        if before["is_done"]:
            continue
        command = [
            sys.executable,
            "-m",
            "medseg",
            "train",
            str(manifest),
            "--data-root",
            str(root),
            "--plan",
            str(plan),
        ]
        command += ["-o", str(work / "bundle"), "--device", "cpu", "--fold", str(fold)]
        if (work / "bundle.training").is_dir():
            command.append("--resume")
        spent = run_measured(command, work / f"fold_{fold}.log", threads, record, before["cpu_s"])
        write({"cpu_s": spent, "is_done": True}, record)


def run_measured(
    command: list[str], log: Path, threads: int, record: Path | None = None, before_s: float = 0.0
) -> float:
    """Run to the end; processor seconds, with those of earlier runs that were killed, also into `record` meanwhile."""
    print(" ".join(command), flush=True)
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(variables, str(threads)), "OMP_WAIT_POLICY": "passive"}
    with log.open("a") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=environment, preexec_fn=end_with_parent
        )
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if record is not None:
                write({"cpu_s": before_s + cpu_of(process.pid), "is_done": False}, record)
            time.sleep(2)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    return before_s + usage.ru_utime + usage.ru_stime


def end_with_parent() -> None:
    """Let the kernel end this process when the one that started it is killed: two would write into one folder."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def cpu_of(pid: int) -> float:
    """Processor seconds of a process that runs, with those of its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def medseg_map(case: LabelledCase, work: Path, plan: Plan) -> SemanticMap:
    """What the fold's network made of a case that it never saw, on the scan's grid, from what cross-validation keeps.

    Raises
    ------
    SystemExit
        If its Dice is not the one that was noted when it was scored.
    """
    folder = work / f"fold_{case.fold}"
    held_out: HeldOut = read_held_out(folder, case.case_id)
    if held_out.summary.plan_sha256 != plan.sha256:
        raise SystemExit(f"{folder}: {case.case_id} was segmented by a network of another plan")
    grid = held_out.reference.geometry
    decided = SemanticMap(held_out.decided, grid, held_out.summary.labels)
    if plan.inference.least_peak is not None:
        channels = tuple(channel.name for channel in plan.channels[:1])
        decided, _ = without_faint(decided, Volume(held_out.intensity[None], grid, channels), plan.inference.least_peak)
    whole = np.zeros(case.reference.array.shape, dtype=decided.array.dtype)
    low = corner(grid, case.reference.geometry)
    whole[tuple(slice(a, a + n) for a, n in zip(low, grid.shape, strict=True))] = decided.array
    noted = {one["case_id"]: one["dice"] for one in json.loads((folder / "scores.json").read_text())["cases"]}
    found = dice(whole > 0, case.reference.array > 0)
    if found != noted[case.case_id]:
        raise SystemExit(f"{case.case_id}: Dice {found} of what was kept; {noted[case.case_id]} when it was scored")
    return SemanticMap(whole, case.reference.geometry, case.reference.scheme)


def corner(part: Geometry, whole: Geometry) -> list[int]:
    """Index in the whole grid of the first voxel of a part of it."""
    exact = whole.to_voxel(part.to_world([[0, 0, 0]]))[0]
    low = np.round(exact)
    if np.abs(exact - low).max() > 1e-3:
        raise SystemExit("what was kept of a case does not lie on the scan's grid")
    return [int(n) for n in low]


def compare(cases: Sequence[LabelledCase], predicted: Path, work: Path, plan: Plan) -> Comparison:
    """Both systems on the same cases by the same code."""
    convention = get_convention("default").model_copy(update={"input": "semantic"})
    columns = ([], [])
    for case in cases:
        nnunet = read_semantic(predicted / f"{case.case_id}.nii.gz", case.reference.scheme)
        maps = (nnunet, medseg_map(case, work, plan))
        for prediction, column in zip(maps, columns, strict=True):
            column.append(evaluate_case(prediction, case.reference, convention, case_id=case.case_id))
    return compare_cases(*columns, convention, names=NAMES)


def seconds_of_medseg(work: Path, folds: Sequence[int]) -> tuple[str, dict[int, float]]:
    """Kind and number of seconds for each fold: the measured processor time, or else what the training log says."""
    if (work.parent / f"fold_{folds[0]}.json").is_file():
        records = {fold: json.loads((work.parent / f"fold_{fold}.json").read_text()) for fold in folds}
        return "processor seconds, with reading and scoring", {fold: one["cpu_s"] for fold, one in records.items()}
    seconds = {}
    for fold in folds:
        lines = [line for log in (work / f"fold_{fold}").rglob("train.log") for line in log.read_text().splitlines()]
        seconds[fold] = sum(json.loads(line).get("seconds", 0.0) for line in lines)
    return "elapsed seconds of the steps by its log", seconds


def describe(comparison: Comparison, costs: dict[str, Any]) -> str:
    """The tables."""
    lines = [f"{'patient':<12} {'fold':>4} | {'Dice':^15} | {'lesions found':^15} | {'false':^15} | volume error, ml"]
    lines.append(f"{'':<17} | " + " | ".join(["nnU-Net  medseg"] * 4))
    for a, b in zip(comparison.cases_a, comparison.cases_b, strict=True):
        pairs = [
            (f"{x.dice or 0:.3f}", f"{x.tp}/{x.n_reference}", f"{x.fp}", f"{x.volume_error_ml:+.1f}") for x in (a, b)
        ]
        told = " | ".join(f"{x:>7} {y:>7}" for x, y in zip(*pairs, strict=True))
        lines.append(f"{a.case_id:<12} {costs['fold_of'][a.case_id]:>4} | {told}")
    lines.append(f"\n{comparison.n_cases} patients; lesions: {comparison.convention.title}")
    lines.append(f"{'':<40} {'nnU-Net':>9} {'medseg':>9}   medseg minus nnU-Net [95 %, paired]")
    for name in FIGURES:
        if name in comparison.figures:
            one = comparison.figures[name]
            low, high = one.difference.low, one.difference.high
            interval = "" if low is None or high is None else f"[{low:+.3f}, {high:+.3f}]"
            lines.append(f"{one.title:<40} {one.a:9.3f} {one.b:9.3f}   {one.difference.value:+.3f} {interval}")
    for label, cohort in zip(NAMES, (comparison.a, comparison.b), strict=True):
        f1 = cohort.micro["f1"]
        lines.append(
            f"{label}: lesion F1 of all patients together {f1.value:.3f} [{f1.low:.3f}, {f1.high:.3f}]"
            f" ({cohort.tp} found, {cohort.fn} missed, {cohort.fp} false)"
        )
    lines.append(f"\nfold | nnU-Net: training s, iterations, prediction s | medseg: {costs['medseg_seconds_are']}")
    for fold, one in costs["folds"].items():
        nnunet = f"{one['nnunet_training_cpu_s']:.0f}, {one['nnunet_iterations']}, {one['nnunet_prediction_cpu_s']:.0f}"
        lines.append(f"{fold:>4} | {nnunet:<44} | {one['medseg_s']:.0f}")
    lines.append(f"nnU-Net's planning and preprocessing: {costs['nnunet_preparation_cpu_s']:.0f} s, once")
    lines.append(f"{costs['cpu']}; {costs['threads']} thread(s); {costs['versions']}")
    return "\n".join(lines)


def costs_of(
    manifest: DataManifest, nnunet: Path, medseg: Path, folds: Sequence[int], arguments: argparse.Namespace
) -> dict[str, Any]:
    """What both spent, on what."""
    kind, seconds = seconds_of_medseg(medseg, folds)
    parts = {
        fold: [json.loads((nnunet / f"{part}_{fold}.json").read_text()) for part in ("trained", "predicted")]
        for fold in folds
    }
    ask = "import nnunetv2, torch, importlib.metadata as m; print(m.version('nnunetv2'), torch.__version__)"
    version = subprocess.run([arguments.nnunet, "-c", ask], check=True, capture_output=True, text=True).stdout.split(
        "\n"
    )[-2]
    import torch

    return {
        "budget_minutes": arguments.budget_minutes,
        "threads": arguments.threads,
        "cpu": cpu_name(),
        "versions": f"nnU-Net and its torch {version}; medseg's torch {torch.__version__}",
        "nnunet_preparation_cpu_s": json.loads((nnunet / "prepared.json").read_text())["cpu_s"],
        "nnunet_plan": json.loads((nnunet / "prepared.json").read_text())["plan"],
        "medseg_seconds_are": kind,
        "fold_of": {case.case_id: case.fold for case in manifest.cases},
        "folds": {
            fold: {
                "nnunet_training_cpu_s": trained["cpu_s"],
                "nnunet_iterations": trained["iterations"],
                "nnunet_prediction_cpu_s": predicted["cpu_s"],
                "medseg_s": seconds[fold],
            }
            for fold, (trained, predicted) in parts.items()
        },
    }


def cpu_name() -> str:
    """What the system calls its processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="what both write; a second run goes on with it")
    parser.add_argument("--manifest", type=Path, default=ROOT / "data_manifests" / "sarcoma_pet.json")
    parser.add_argument("--data-root")
    parser.add_argument("--nnunet", default=os.environ.get("MEDSEG_NNUNET_PYTHON"), help="Python with nnunetv2")
    parser.add_argument("--plan", type=Path, default=ROOT / "bundles" / "sarcoma_pet" / "configs" / "plan.json")
    parser.add_argument("--medseg-work", type=Path, help="work folder of a cross-validation by that plan that is done")
    parser.add_argument("--budget-minutes", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folds", type=int, nargs="+")
    parser.add_argument("--only", choices=("nnunet", "medseg"), help="train one of them, score neither")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not arguments.nnunet:
        parser.error("--nnunet PYTHON, or MEDSEG_NNUNET_PYTHON: the Python of an environment that has nnunetv2")
    return arguments


def main() -> None:
    """Train what is missing, score, print."""
    arguments = parse()
    manifest, found = read_manifest(arguments.manifest, arguments.data_root)
    root = found.resolve()
    folds = arguments.folds or list(range(len(splits(manifest))))
    nnunet, own = arguments.work.resolve() / "nnunet", arguments.work.resolve() / "medseg"
    if arguments.only != "medseg":
        raw = nnunet / "nnUNet_raw" / DATASET
        if not (raw / "dataset.json").is_file():
            write_nnunet_dataset(manifest, root, raw)
        run_nnunet(arguments.nnunet, nnunet, folds, arguments.budget_minutes, arguments.threads)
    if arguments.only != "nnunet" and arguments.medseg_work is None:
        run_medseg(arguments.manifest, root, arguments.plan, own, folds, arguments.threads)
    if arguments.only:
        return
    work = arguments.medseg_work or own / "bundle.training"
    cases = [case for case in read_cases(manifest, root) if case.fold in folds]
    plan = Plan.from_json(arguments.plan.read_text(), str(arguments.plan))
    comparison = compare(cases, nnunet / "predicted", work, plan)
    costs = costs_of(manifest, nnunet, work, folds, arguments)
    print(describe(comparison, costs))
    if arguments.json:
        write({"costs": costs, "comparison": comparison.model_dump(mode="json")}, arguments.json)


if __name__ == "__main__":
    main()
