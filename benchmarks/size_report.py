"""Size of the page of a CT of 512 x 512 x 300 voxels, and processor time to make it.

    python benchmarks/size_report.py CT.nii.gz

A CT is interpolated to that grid, with noise of 15 HU added so that it packs as badly as a thin-slice scan does, and 27
balls are its lesions.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from balls import box_of_ball, is_in_ball
from scipy.ndimage import zoom

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import medseg
from medseg.core.geometry import Geometry
from medseg.reports.case_page import write_case_page
from tests.reports.cases import make_result

SHAPE = (512, 512, 300)


def main(path: Path) -> None:
    """Print a row a viewer."""
    volume = medseg.load_volume(medseg.read_scan(path))
    factors = [new / old for new, old in zip(SHAPE, volume.geometry.shape, strict=True)]
    array = zoom(volume.array[0], factors, order=1)
    array += np.random.default_rng(0).normal(0.0, 15.0, array.shape).astype(np.float32)
    affine = volume.geometry.affine.copy()
    affine[:3, :3] /= factors
    geometry = Geometry(SHAPE, affine)
    result = make_result(array, balls(geometry), geometry, modality="CT", units="stored")
    print("| viewer | MB | CPU s |\n|---|---|---|")
    for viewer in ("canvas", "niivue"):
        with tempfile.TemporaryDirectory() as folder:
            page, start = Path(folder, "report.html"), time.process_time()
            write_case_page(result, page, viewer)  # type: ignore[arg-type]
            print(f"| {viewer} | {page.stat().st_size / 1e6:.1f} | {time.process_time() - start:.1f} |")


def balls(geometry: Geometry) -> np.ndarray:
    """27 balls of 5 to 18 mm radius, in the middle two thirds of the grid."""
    lesions = np.zeros(geometry.shape, dtype=np.uint16)
    grid = np.array([(a, b, c) for a in (1, 2, 3) for b in (1, 2, 3) for c in (1, 2, 3)]) / 4.0
    for number, place in enumerate(grid, start=1):
        center = place * geometry.shape
        reach = (5.0 + number / 2.0) / np.array(geometry.spacing)
        box = box_of_ball(center, reach)
        lesions[box][is_in_ball(box, center, reach)] = number
    return lesions


if __name__ == "__main__":
    main(Path(sys.argv[1]))
