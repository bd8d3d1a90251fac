"""An archive through `medseg batch`, `medseg segment` in a loop, and `monai.bundle run`: cases per hour, in one run.

    python benchmarks/speed_batch.py [--scans 40] [--rounds 2] [--memory 10 200] [-o results.json]

All three run the shipped bundle sarcoma_pet over the same phantoms, as processes of their own, start-up included, one
after the other in each round. MONAI writes what the bundle's own configuration says; medseg also writes pages and the
tables of the archive. Of `medseg batch` it is also told how much of the time between the first case's start and the
last one's end the network was running, and what it needs in memory for few and for many cases.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import medseg
from benchmarks.process_tree import cost_of

BUNDLE = Path(medseg.__file__).parents[1] / "bundles" / "sarcoma_pet"
MEDSEG = [sys.executable, "-m", "medseg"]


def write_scans(folder: Path, n_scans: int) -> list[Path]:
    """PET phantoms, no two alike."""
    folder.mkdir(parents=True)
    paths = []
    for number in range(n_scans):
        volume = medseg.make_phantom(kind="pet", seed=number % 40).volume
        array = volume.array[0].copy()
        array[0, 0, 0] += number / 1000  # no two files have the same bytes
        paths.append(folder / f"scan_{number:03d}.nii.gz")
        nib.save(nib.Nifti1Image(array, volume.geometry.affine), paths[-1])
    return paths


def batch(folder: Path, out: Path) -> dict[str, float]:
    """`medseg batch`: seconds in all, and the share of those with cases in work in which the network ran."""
    command = [*MEDSEG, "batch", str(folder), "--model", str(BUNDLE), "-o", str(out), "--json"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    times: dict[str, list[float]] = {"start": [], "done": []}
    for line in process.stderr:
        event = json.loads(line)["event"] if line.startswith("{") else ""
        if event in times:
            times[event].append(time.perf_counter())
    assert process.wait() == 0
    wall_s = time.perf_counter() - start
    results = [json.loads(path.read_text()) for path in out.glob("*/result.json")]
    stages: dict[str, float] = {}
    for result in results:
        for stage, seconds in result["seconds"].items():
            stages[stage] = stages.get(stage, 0.0) + seconds
    print("  seconds in stages:", {name: round(seconds, 1) for name, seconds in stages.items()}, flush=True)
    return {"wall_s": wall_s, "busy": stages["network"] / (max(times["done"]) - min(times["start"])), **stages}


def loop(paths: Sequence[Path], out: Path) -> dict[str, float]:
    """`medseg segment`, one process a scan."""
    start = time.perf_counter()
    for path in paths:
        command = [*MEDSEG, "segment", str(path), "--model", str(BUNDLE), "-o", str(out / path.stem), "--quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return {"wall_s": time.perf_counter() - start}


def monai_run(folder: Path, out: Path) -> dict[str, float]:
    """`monai.bundle run` over the folder, the model loaded once."""
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(BUNDLE / "configs" / "inference.json")]
    command += ["--bundle_root", str(BUNDLE), "--dataset_dir", str(folder), "--output_dir", str(out)]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall_s = time.perf_counter() - start
    n_written, n_scans = len(list(out.rglob("*.nii.gz"))), len(list(folder.iterdir()))
    assert n_written >= n_scans, f"MONAI wrote {n_written} maps of {n_scans} scans"
    return {"wall_s": wall_s}


def peak_memory(n_cases: int, root: Path) -> dict[str, float]:
    """Highest memory of `medseg batch` and its workers over an archive of so many cases."""
    folder, out = root / f"memory_{n_cases}", root / f"memory_out_{n_cases}"
    write_scans(folder, n_cases)
    command = [*MEDSEG, "batch", str(folder), "--model", str(BUNDLE), "-o", str(out), "--quiet"]
    return {"n_cases": n_cases, **cost_of(command, dict(os.environ), root / "log.txt")}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory", type=int, nargs="*", default=[10, 200])
    parser.add_argument("-o", "--output", type=Path)
    how = parser.parse_args()
    rounds: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        paths = write_scans(root / "in", how.scans)
        shape = nib.load(paths[0]).shape
        print(f"{how.scans} scans of {' x '.join(map(str, shape))} voxels", flush=True)
        for number in range(how.rounds):
            one = {
                "batch": batch(root / "in", root / f"batch_{number}"),
                "monai": monai_run(root / "in", root / f"monai_{number}"),
                "segment": loop(paths, root / f"loop_{number}"),
            }
            rounds.append(one)
            for tool, cost in one.items():
                busy = f", network busy {cost['busy']:.0%}" if "busy" in cost else ""
                pace = 3600 * how.scans / cost["wall_s"]
                print(f"  {tool:8} {cost['wall_s']:7.1f} s, {pace:6.0f} cases an hour{busy}", flush=True)
            for folder in root.glob(f"*_{number}"):
                shutil.rmtree(folder)
        memory = [peak_memory(n_cases, root) for n_cases in how.memory]
        for cost in memory:
            print(f"  {cost['n_cases']:4} cases: {cost['peak_mib']:.0f} MiB at most", flush=True)
    for peer in ("monai", "segment"):
        ratios = [one[peer]["wall_s"] / one["batch"]["wall_s"] for one in rounds]
        print(f"medseg batch is {statistics.median(ratios):.2f} times as fast as {peer} {np.round(ratios, 2)}")
    print(f"the network is busy {statistics.median(one['batch']['busy'] for one in rounds):.0%} of the time")
    if how.output is not None:
        result = {"n_scans": how.scans, "shape": shape, "rounds": rounds, "memory": memory}
        how.output.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
