"""Size of what is written for 300 lesions on a CT of 512 x 512 x 300 voxels, and processor time to write and read it.

    python benchmarks/size_of_results.py CT.nii.gz

A CT is interpolated to that grid of 0.7 x 0.7 x 1.5 mm, with noise of 15 HU added so that it packs as badly as a
thin-slice scan does, and stored as a DICOM series. 300 balls of 3 to 8 mm radius are its lesions; none touches another.
What is read back is compared with them voxel for voxel.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from balls import box_of_ball, is_in_ball
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy.ndimage import zoom

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import medseg
from medseg.core.colors import LESION_COLORS
from medseg.core.result import CaseResult
from medseg.core.scan import Scan
from medseg.dicom.report import measurement_report
from medseg.dicom.rtstruct import structure_set
from medseg.dicom.seg import lesion_seg
from medseg.dicom.source import SourceSeries
from medseg.io.dicom_labels import write_dicom
from medseg.io.dicom_results import algorithm_of
from medseg.io.dicom_source import read_source
from medseg.lesions.long_axis import long_axes
from medseg.reports.case_page import write_case_page
from tests.dicom.results import result_on
from tests.io.dicom_files import write_series
from tests.reports.cases import make_lesions

SHAPE, SPACING_MM = (512, 512, 300), (0.7, 0.7, 1.5)
N_LESIONS = 300


def main(path: Path) -> None:
    """Print a row an object."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_scan(path, folder / "series")
        scan = medseg.read_scan(folder / "series")
        lesions = make_lesions(balls(), scan.geometry)
        result, measured_s = timed(lambda: result_on(scan, lesions))
        print(f"{lesions.n_lesions} lesions; read and measured in {measured_s:.1f} s of processor\n")
        print("| what | frames | MB | written in | read in | same voxels |\n|---|---|---|---|---|---|")
        for name, write in objects(result, scan).items():
            file = folder / name
            _, written_s = timed(lambda write=write, file=file: write(file))  # type: ignore[misc]
            show(file, written_s, result)


def objects(result: CaseResult, scan: Scan) -> dict[str, Callable[[Path], object]]:
    """How each is written; the source's headers are read once, before."""
    lesions, source, algorithm = result.lesions, read_source(scan), algorithm_of(result.provenance)
    binary = lesion_seg(lesions, source, algorithm, LESION_COLORS, "binary")

    def report() -> Dataset:
        return measurement_report(lesions, result.table, source, algorithm, binary, long_axes(result.table))

    return {
        "binary.seg.dcm": lambda file: write_dicom(seg(result, source, "binary"), file),
        "labelmap.seg.dcm": lambda file: write_dicom(seg(result, source, "labelmap"), file),
        "lesions.sr.dcm": lambda file: write_dicom(report(), file),
        "lesions.rtstruct.dcm": lambda file: write_dicom(
            structure_set(lesions, source, algorithm, LESION_COLORS), file
        ),
        "report.html": lambda file: write_case_page(result, file),
        "niivue.html": lambda file: write_case_page(result, file, "niivue"),
    }


def seg(result: CaseResult, source: SourceSeries, kind: Any) -> Dataset:
    """The lesions as a segmentation."""
    return lesion_seg(result.lesions, source, algorithm_of(result.provenance), LESION_COLORS, kind)


def show(file: Path, written_s: float, result: CaseResult) -> None:
    """A row: size, seconds, and whether the lesions come back."""
    frames = read_s = same = ""
    if ".seg." in file.name or ".rtstruct." in file.name:
        read, seconds = timed(lambda: medseg.read_lesions(file, like=result.lesions.geometry))
        read_s, same = f"{seconds:.1f} s", str(np.array_equal(read.array, result.lesions.array))
    if ".seg." in file.name:
        from pydicom import dcmread

        frames = str(dcmread(file, stop_before_pixels=True).NumberOfFrames)
    cells = (file.name, frames, f"{file.stat().st_size / 1e6:.1f}", f"{written_s:.1f} s", read_s, same)
    print("| " + " | ".join(cells) + " |", flush=True)


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and the seconds of processor that it took."""
    start = time.process_time()
    return action(), time.process_time() - start


def write_scan(path: Path, folder: Path) -> None:
    """A CT as a DICOM series on the grid."""
    volume = medseg.load_volume(medseg.read_scan(path))
    factors = [new / old for new, old in zip(SHAPE, volume.geometry.shape, strict=True)]
    array = zoom(volume.array[0], factors, order=1)
    array += np.random.default_rng(0).normal(0.0, 15.0, array.shape).astype(np.float32)
    stored = np.clip(np.rint(array), -1024, 3071).astype("<i2")

    def edit(dataset: Dataset, k: int) -> None:
        dataset.Columns, dataset.Rows = SHAPE[:2]
        dataset.PixelSpacing = [SPACING_MM[1], SPACING_MM[0]]
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.PixelData = np.ascontiguousarray(stored[:, :, k].T).tobytes()

    write_series(folder, SHAPE[2], step=(0.0, 0.0, SPACING_MM[2]), edit=edit)


def balls() -> NDArray[np.uint16]:
    """Balls of 3 to 8 mm radius at random places of the grid, a voxel or more between any two."""
    rng = np.random.default_rng(1)
    lesions = np.zeros(SHAPE, dtype=np.uint16)
    number = 0
    while number < N_LESIONS:
        reach = rng.uniform(3.0, 8.0) / np.array(SPACING_MM)
        center = rng.uniform(reach + 2, np.array(SHAPE) - reach - 3)
        box = box_of_ball(center, reach)
        if lesions[box].any():
            continue
        number += 1
        lesions[box][is_in_ball(box, center, reach)] = number
    return lesions


if __name__ == "__main__":
    main(Path(sys.argv[1]))
