"""Volume, area and diameter of analytic bodies: medseg beside SimpleITK, scikit-image and PyRadiomics, in one table.

python benchmarks/accuracy_measurement.py [--pyradiomics PYTHON] [--offsets 40]

Balls, ellipsoids and boxes of 5 to 12 mm radius, straight and turned, lie at a low-discrepancy lattice of sub-voxel
offsets on three grids. For each body and grid: mean error (bias) in percent of volume and area, and in millimeters the
mean and the largest error of the longest diameter in space and within axial slices (of the sections that the slices
really cut). PyRadiomics runs in the Python that is named, as it needs its own environment.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from skimage.measure import regionprops_table

from medseg.core.geometry import Geometry
from medseg.core.lesions import Lesion, LesionMap
from medseg.lesions.crofton import ellipsoid_area
from medseg.lesions.measure import measure_lesions

GRIDS = ((1.0, 1.0, 1.0), (0.8, 0.8, 3.0), (0.8, 0.8, 5.0))
BODIES = {
    "ball, r 5": ("ellipsoid", (5.0, 5.0, 5.0), False),
    "ball, r 10": ("ellipsoid", (10.0, 10.0, 10.0), False),
    "ellipsoid, 5 8 12": ("ellipsoid", (5.0, 8.0, 12.0), False),
    "ellipsoid, 5 8 12, turned": ("ellipsoid", (5.0, 8.0, 12.0), True),
    "ellipsoid, 5 5 15, turned": ("ellipsoid", (5.0, 5.0, 15.0), True),
    "box, 5 5 5": ("box", (5.0, 5.0, 5.0), False),
    "box, 10 10 10": ("box", (10.0, 10.0, 10.0), False),
    "box, 5 8 12": ("box", (5.0, 8.0, 12.0), False),
    "box, 5 8 12, turned": ("box", (5.0, 8.0, 12.0), True),
}
STEPS = np.array([0.8191725134, 0.6710436067, 0.5497004779])
PYRADIOMICS = """
import json, logging, sys
import numpy as np, SimpleITK as sitk
import radiomics
from radiomics.shape import RadiomicsShape
radiomics.logger.setLevel(logging.ERROR)
data, rows = np.load(sys.argv[1]), []
for key in data.files:
    mask = sitk.GetImageFromArray(np.ascontiguousarray(data[key].T.astype(np.uint8)))
    mask.SetSpacing(json.loads(key.split("|")[1]))
    shape = RadiomicsShape(mask, mask, label=1)
    shape.enableAllFeatures()
    found = shape.execute()
    rows.append([float(found[name]) for name in
                 ("MeshVolume", "SurfaceArea", "Maximum3DDiameter", "Maximum2DDiameterSlice")])
print(json.dumps(rows))
"""


def turn() -> NDArray[np.float64]:
    """One rotation for all turned bodies."""
    return np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]


def masks(
    body: tuple[str, tuple[float, ...], bool], spacing: tuple[float, ...], n_offsets: int
) -> Iterator[tuple[NDArray[np.bool_], float]]:
    """The body at each offset, and its longest section in the slices of the grid, mm."""
    kind, semi_axes, is_turned = body
    basis = turn() if is_turned else np.eye(3)
    half = float(np.linalg.norm(semi_axes))
    shape = np.array([2 * int(np.ceil(half / step)) + 5 for step in spacing])
    for number in range(n_offsets):
        center = (shape // 2 + (number * STEPS + 0.5) % 1.0) * spacing
        axes = np.ogrid[tuple(slice(0, n) for n in shape)]
        places = [axis * step - c for axis, step, c in zip(axes, spacing, center, strict=True)]
        own = [sum(basis[row, column] * places[row] for row in range(3)) for column in range(3)]
        shares = [np.abs(place) / radius for place, radius in zip(own, semi_axes, strict=True)]
        inside = sum(s * s for s in shares) <= 1 if kind == "ellipsoid" else np.maximum.reduce(shares) < 1
        yield inside, longest_section(kind, semi_axes, basis, np.arange(shape[2]) * spacing[2] - center[2])


def longest_section(
    kind: str, semi_axes: tuple[float, ...], basis: NDArray[np.float64], heights: NDArray[np.float64]
) -> float:
    """Longest chord within planes of these heights above the center, mm."""
    longest = 0.0
    form = basis @ np.diag(1.0 / np.square(semi_axes)) @ basis.T
    for height in heights.tolist():
        if kind == "ellipsoid":
            share = 1.0 - height**2 * (form[2, 2] - form[:2, 2] @ np.linalg.solve(form[:2, :2], form[:2, 2]))
            if share > 0:
                longest = max(longest, 2.0 * np.sqrt(share / np.linalg.eigvalsh(form[:2, :2])[0]))
        else:
            corners = box_section(np.array(semi_axes), basis, height)
            if len(corners) > 1:
                longest = max(longest, float(np.linalg.norm(corners[:, None] - corners[None], axis=-1).max()))
    return longest


def box_section(semi_axes: NDArray[np.float64], basis: NDArray[np.float64], height: float) -> NDArray[np.float64]:
    """Where the edges of a box cross a plane."""
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    corners = (signs * semi_axes) @ basis.T
    points = []
    for first in range(8):
        for second in range(first):
            if np.abs(signs[first] - signs[second]).sum() == 2:
                low, high = corners[first], corners[second]
                if (low[2] - height) * (high[2] - height) <= 0 and low[2] != high[2]:
                    points.append(low + (height - low[2]) / (high[2] - low[2]) * (high - low))
    return np.array(points).reshape(-1, 3)


def by_medseg(mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> list[float]:
    """Volume, Crofton area, Feret diameter and longest diameter by medseg."""
    lesions = LesionMap(mask.astype(np.uint16), Geometry(mask.shape, np.diag([*spacing, 1.0])), (Lesion("body"),))
    row = measure_lesions(lesions).rows[0]
    names = ("volume_ml", "crofton_area_mm2", "feret_diameter_mm", "longest_diameter_mm")
    return [float(row[name]) * (1000.0 if name == "volume_ml" else 1.0) for name in names]  # type: ignore[arg-type]


def by_simpleitk(mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> list[float]:
    """The same by SimpleITK, which has no diameter within slices."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(mask.T.astype(np.uint8)))
    image.SetSpacing(spacing)
    found = sitk.LabelShapeStatisticsImageFilter()
    found.ComputeFeretDiameterOn()
    found.Execute(image)
    return [found.GetPhysicalSize(1), found.GetPerimeter(1), found.GetFeretDiameter(1), np.nan]


def by_skimage(mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> list[float]:
    """The same by scikit-image, its area by marching cubes."""
    from skimage.measure import marching_cubes, mesh_surface_area

    corners, faces, _, _ = marching_cubes(np.pad(mask, 1).astype(float), 0.5, spacing=spacing)
    found = regionprops_table(mask.astype(np.uint8), spacing=spacing, properties=["area", "feret_diameter_max"])
    return [found["area"][0], mesh_surface_area(corners, faces), found["feret_diameter_max"][0], np.nan]


def truth_of(body: tuple[str, tuple[float, ...], bool]) -> tuple[float, float, float]:
    """Volume, area and longest diameter."""
    kind, (a, b, c), _ = body
    if kind == "box":
        return 8 * a * b * c, 8 * (a * b + a * c + b * c), 2 * float(np.linalg.norm((a, b, c)))
    return 4 / 3 * np.pi * a * b * c, float(ellipsoid_area(np.array((a, b, c)))), 2 * max(a, b, c)


def row_of(tool: str, found: NDArray[np.float64], truth: tuple[float, ...], sections: NDArray[np.float64]) -> str:
    """One line of the table."""
    volume, area = (100 * (found[:, n].mean() / truth[n] - 1) for n in (0, 1))
    space, plane = found[:, 2] - truth[2], found[:, 3] - sections
    cells = [f"{volume:+.1f}", f"{area:+.1f}", f"{space.mean():+.2f}", f"{np.abs(space).max():.2f}"]
    cells += ["", ""] if np.isnan(plane).all() else [f"{plane.mean():+.2f}", f"{np.abs(plane).max():.2f}"]
    return f"| {tool} | {' | '.join(cells)} |"


def main() -> None:
    """Measure every body on every grid with every tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pyradiomics", help="Python of an environment with PyRadiomics")
    parser.add_argument("--offsets", type=int, default=40)
    arguments = parser.parse_args()
    print("| body, grid, tool | volume % | area % | 3-D diameter mm, mean | largest | in slices mm, mean | largest |")
    print("|---|---|---|---|---|---|---|")
    for spacing in GRIDS:
        for name, body in BODIES.items():
            made = list(masks(body, spacing, arguments.offsets))
            truth, sections = truth_of(body), np.array([section for _, section in made])
            head = f"{name}, {' x '.join(f'{step:g}' for step in spacing)}"
            for tool, measure in (("medseg", by_medseg), ("SimpleITK", by_simpleitk), ("skimage", by_skimage)):
                found = np.array([measure(mask, spacing) for mask, _ in made])
                print(row_of(f"{head}, {tool}", found, truth, sections), flush=True)
            if arguments.pyradiomics:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "masks.npz"
                    np.savez_compressed(path, **{f"{n}|{list(spacing)}": mask for n, (mask, _) in enumerate(made)})
                    command = [arguments.pyradiomics, "-c", PYRADIOMICS, str(path)]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                found = np.array(json.loads(done.stdout.splitlines()[-1]))
                print(row_of(f"{head}, PyRadiomics", found, truth, sections), flush=True)


if __name__ == "__main__":
    sys.exit(main())
