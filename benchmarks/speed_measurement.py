"""Measuring 200 lesions in a scan of 512 x 512 x 600 voxels: medseg beside scikit-image and SimpleITK.

python benchmarks/speed_measurement.py [--rounds 3] [--growth]

Each measurement is a process of its own, with the arrays in memory before it starts: seconds that the processor spent,
and peak resident memory above that before (Linux). Peers compute the columns that they share with medseg: volume, box,
centroid, axes, mean, deviation, minimum, maximum; then also Feret diameter and area. medseg computes these, and all.
--growth: cost per lesion from 10 to 10,000 lesions, and per voxel of lesion.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SHAPE, SPACING = (512, 512, 600), (0.8, 0.8, 1.0)
SETUP = """
import json, sys, time
import numpy as np
labels = np.load(sys.argv[1] + "/labels.npy")
scan = np.load(sys.argv[1] + "/scan.npy")
spacing = (0.8, 0.8, 1.0)
{imports}
def memory(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1]) / 1024
open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
before = memory("VmRSS")
start = time.process_time()
{work}
spent = time.process_time() - start
print(json.dumps({{"cpu_s": spent, "extra_mib": memory("VmHWM") - before}}))
"""
MEDSEG = """
from medseg.core.geometry import Geometry
from medseg.core.lesions import Lesion, LesionMap
from medseg.core.volume import Volume
from medseg.lesions.measure import measure_lesions
grid = Geometry(labels.shape, np.diag([*spacing, 1.0]))
lesions = LesionMap(labels, grid, (Lesion("lesion"),) * int(labels.max()))
volume = Volume(scan[None], grid, ("ct",), units="{units}")
"""
SKIMAGE = """
from skimage.measure import regionprops_table
names = ["label", "num_pixels", "area", "bbox", "centroid", "axis_major_length", "axis_minor_length", "intensity_mean",
         "intensity_std", "intensity_min", "intensity_max"]
"""
SITK = """
import SimpleITK as sitk
sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
label_image, scan_image = sitk.GetImageFromArray(labels.T), sitk.GetImageFromArray(scan.T)
for image in (label_image, scan_image):
    image.SetSpacing(spacing)
"""
SITK_WORK = """
shape, values = sitk.LabelShapeStatisticsImageFilter(), sitk.LabelIntensityStatisticsImageFilter()
{options}
shape.Execute(label_image); values.Execute(label_image, scan_image)
rows = [(shape.GetPhysicalSize(n), shape.GetBoundingBox(n), shape.GetCentroid(n), shape.GetPrincipalMoments(n),
         values.GetMean(n), values.GetStandardDeviation(n), values.GetMinimum(n), values.GetMaximum(n))
        for n in shape.GetLabels()]
"""
SHARED = ["volume_ml", "bbox_?_m??", "centroid_?_lps_mm", "m*_axis_mm", "least_axis_mm", "mean", "std", "min", "max"]
CHOSEN = "measure_lesions(lesions, volume, columns={columns})"
CASES = {
    "medseg, scan in HU": (MEDSEG.format(units="stored"), "measure_lesions(lesions, volume)"),
    "medseg, scan in SUV": (MEDSEG.format(units="suv"), "measure_lesions(lesions, volume)"),
    "medseg, no scan": (MEDSEG.format(units="stored"), "measure_lesions(lesions)"),
    "medseg, shared": (MEDSEG.format(units="stored"), CHOSEN.format(columns=SHARED)),
    "medseg, shared and Feret": (
        MEDSEG.format(units="stored"),
        CHOSEN.format(columns=[*SHARED, "feret_diameter_mm"]),
    ),
    "medseg, shared, area and Feret": (
        MEDSEG.format(units="stored"),
        CHOSEN.format(columns=[*SHARED, "crofton_area_mm2", "feret_diameter_mm"]),
    ),
    "skimage, shared": (SKIMAGE, "regionprops_table(labels, scan, properties=names, spacing=spacing)"),
    "skimage, shared and Feret": (
        SKIMAGE,
        "regionprops_table(labels, scan, properties=[*names, 'feret_diameter_max'], spacing=spacing)",
    ),
    "SimpleITK, shared": (SITK, SITK_WORK.format(options="shape.ComputePerimeterOff()")),
    "SimpleITK, shared, area and Feret": (
        SITK,
        SITK_WORK.format(options="shape.ComputePerimeterOn(); shape.ComputeFeretDiameterOn()"),
    ),
}


def ellipsoids(n: int, shape: tuple[int, ...], largest_mm: float, seed: int = 0) -> NDArray[np.uint16]:
    """Disjoint ellipsoids with radii from 2 mm, small ones more often."""
    random = np.random.default_rng(seed)
    labels, number = np.zeros(shape, np.uint16), 0
    radii = np.sort(np.exp(random.uniform(np.log(2.0), np.log(largest_mm), n)))[::-1]
    for radius in radii:
        for _ in range(200):
            semi_axes = radius * random.uniform(0.7, 1.3, 3)
            center = random.uniform(0, 1, 3) * shape * SPACING
            low = np.maximum(np.floor((center - semi_axes) / SPACING).astype(int), 0)
            high = np.minimum(np.ceil((center + semi_axes) / SPACING).astype(int) + 1, shape)
            part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            places = np.ogrid[part]
            inside = sum(
                ((place * step - c) / axis) ** 2
                for place, step, c, axis in zip(places, SPACING, center, semi_axes, strict=True)
            )
            if (inside <= 1).any() and not labels[part].any():
                number += 1
                labels[part][inside <= 1] = number
                break
    return labels


def scan_of(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Tissue of 40 with a texture that no two lesions share."""
    i, j, k = np.ogrid[tuple(slice(0, n) for n in shape)]
    scan = np.sin(0.9 * i + 0.01 * k).astype(np.float32) * np.cos(0.7 * j).astype(np.float32)
    return (40.0 + 15.0 * scan + np.sin(1.3 * k)).astype(np.float32)


def timed(folder: Path, imports: str, work: str, rounds: int) -> dict[str, float]:
    """The quickest of several fresh processes."""
    code = SETUP.format(imports=imports, work=work)
    runs = []
    for _ in range(rounds):
        done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return min(runs, key=lambda run: run["cpu_s"])


def compare(rounds: int, only: str) -> None:
    """All tools on one scan."""
    labels = ellipsoids(200, SHAPE, 16.0)
    print(f"{labels.max()} lesions, {np.count_nonzero(labels)} voxels of lesion")
    print("| what | CPU s | peak MiB above the arrays |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "labels.npy", labels)
        np.save(folder / "scan.npy", scan_of(SHAPE))
        for case, (imports, work) in CASES.items():
            if only in case:
                found = timed(folder, imports, work, rounds)
                print(f"| {case} | {found['cpu_s']:.2f} | {found['extra_mib']:.0f} |", flush=True)


def growth(rounds: int) -> None:
    """CPU ms a lesion against their number, and CPU s against voxels."""
    imports, work = CASES["medseg, scan in HU"]
    print("| lesions | voxels of lesion | CPU s | ms a lesion |\n|---|---|---|---|")
    for n, largest in ((10, 6.0), (100, 6.0), (1000, 6.0), (10_000, 6.0), (20, 10.0), (20, 20.0), (20, 40.0)):
        shape = (512, 512, 300)
        labels = ellipsoids(n, shape, largest)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            np.save(folder / "labels.npy", labels)
            np.save(folder / "scan.npy", scan_of(shape))
            spent = timed(folder, imports, work, rounds)["cpu_s"]
        n_voxels = np.count_nonzero(labels)
        print(f"| {labels.max()} | {n_voxels} | {spent:.2f} | {1000 * spent / labels.max():.2f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    arguments = parser.parse_args()
    if arguments.growth:
        growth(arguments.rounds)
    else:
        compare(arguments.rounds, arguments.only)
