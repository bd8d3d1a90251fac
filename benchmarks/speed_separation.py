"""Separation of many lesions in a large scan: CPU seconds and memory beside what others take to label components.

    python benchmarks/speed_separation.py -o speed.json

2,000 lesions, most of them ellipsoids of 4 to 30 mm, a part of them touching, in 512 x 512 x 600 voxels of 0.8 x 0.8 x
1 mm, in memory. Every tool runs in a process of its own on one thread, the tools in turn, in several rounds; least of
three runs a round and of all rounds. cc3d, scipy, skimage and SimpleITK label 26-connected components; medseg also
numbers the lesions and describes them. Memory is the peak of the process above what it held before.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402 (after the number of threads is set)
from numpy.typing import NDArray  # noqa: E402

SHAPE = (512, 512, 600)
SPACING = (0.8, 0.8, 1.0)
N_LESIONS = 2000
N_RUNS = 3
TOOLS = ("cc3d", "components", "watershed", "offsets", "scipy", "skimage", "sitk")


def make_scan(seed: int = 0) -> NDArray[np.uint8]:
    """(512, 512, 600) uint8 map of 2,000 ellipsoids."""
    rng = np.random.default_rng(seed)
    scan = np.zeros(SHAPE, dtype=np.uint8)
    radii = np.exp(rng.uniform(np.log(2.0), np.log(15.0), (N_LESIONS, 1))) * rng.uniform(0.6, 1.0, (N_LESIONS, 3))
    for radius in radii:
        half = np.ceil(radius / SPACING).astype(int)
        center = rng.integers(half + 1, np.array(SHAPE) - half - 1)
        axes = [np.arange(-h, h + 1) * s / r for h, s, r in zip(half, SPACING, radius, strict=True)]
        inside = axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2 <= 1.0
        box = tuple(slice(c - h, c + h + 1) for c, h in zip(center, half, strict=True))
        scan[box] |= inside
    return scan


def runner(tool: str, scan: NDArray[np.uint8]) -> Callable[[], int]:
    """What a tool does with the scan; the number of lesions that it finds."""
    if tool == "cc3d":
        import cc3d

        return lambda: int(cc3d.connected_components(scan, connectivity=26, return_N=True)[1])
    if tool == "scipy":
        from scipy import ndimage

        return lambda: int(ndimage.label(scan, np.ones((3, 3, 3)))[1])
    if tool == "skimage":
        from skimage.measure import label

        return lambda: int(label(scan, connectivity=3, return_num=True)[1])
    if tool == "sitk":
        import SimpleITK

        image = SimpleITK.GetImageFromArray(scan)
        SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        connected = SimpleITK.ConnectedComponentImageFilter()
        connected.FullyConnectedOn()

        def with_sitk() -> int:
            connected.Execute(image)
            return int(connected.GetObjectCount())

        return with_sitk
    return with_medseg(tool, scan)


def with_medseg(tool: str, scan: NDArray[np.uint8]) -> Callable[[], int]:
    """Medseg by one of its methods; offsets from evidence on a grid of 2 mm, as a network gives it."""
    from medseg.core.evidence import InstanceEvidence
    from medseg.core.geometry import Geometry
    from medseg.core.labels import BINARY_LESION
    from medseg.core.plan import SeparationPlan
    from medseg.core.semantic import SemanticMap
    from medseg.lesions.separate import separate_lesions

    semantic = SemanticMap(scan, Geometry(SHAPE, np.diag([*SPACING, 1.0])), BINARY_LESION)
    evidence = None
    if tool == "offsets":
        shape = tuple(int(n * s / 2) for n, s in zip(SHAPE, SPACING, strict=True))
        heat = np.random.default_rng(0).random(shape, dtype=np.float32).astype(np.float16)
        offsets = np.zeros((3, *shape), dtype=np.float16)
        evidence = InstanceEvidence(heat, offsets, Geometry(shape, np.diag([2.0, 2.0, 2.0, 1.0])))
    plan = SeparationPlan(method=tool)  # type: ignore[arg-type]
    return lambda: separate_lesions(semantic, plan, evidence).n_lesions


def measure(tool: str, scan_file: Path) -> dict[str, float]:
    """CPU and wall seconds, extra peak memory, and the number of lesions of one tool, in this process."""
    scan = np.load(scan_file)
    run = runner(tool, scan)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    best, wall, found = float("inf"), float("inf"), 0
    for _ in range(N_RUNS):
        cpu, start = time.process_time(), time.perf_counter()
        found = run()
        best, wall = min(best, time.process_time() - cpu), min(wall, time.perf_counter() - start)
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"cpu_s": round(best, 3), "wall_s": round(wall, 3), "extra_mib": round(extra), "n_lesions": found}


def in_turn(tools: list[str], n_rounds: int) -> dict[str, dict[str, float]]:
    """The least time and the most memory of each tool over all rounds."""
    result: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        scan_file = Path(folder) / "scan.npy"
        np.save(scan_file, make_scan())
        for tool in tools * n_rounds:
            command = [sys.executable, __file__, "--tool", tool, "--scan", str(scan_file)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            new = json.loads(done.stdout.splitlines()[-1])
            old = result.get(tool, new)
            pick = {"cpu_s": min, "wall_s": min, "extra_mib": max, "n_lesions": max}
            result[tool] = {name: function(old[name], new[name]) for name, function in pick.items()}
    return result


def main() -> None:
    """Run the tools in turn and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", choices=TOOLS, help=argparse.SUPPRESS)
    parser.add_argument("--scan", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--tools", nargs="*", default=TOOLS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path)
    chosen = parser.parse_args()
    if chosen.tool:
        print(json.dumps(measure(chosen.tool, chosen.scan)))
        return
    result = in_turn(list(chosen.tools), chosen.rounds)
    own = result.get("components", {}).get("cpu_s", float("nan"))
    for tool, figures in result.items():
        print(f"{tool:<12} {figures['cpu_s'] / own:6.2f} x components   {figures}")
    if chosen.output:
        chosen.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
