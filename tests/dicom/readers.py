"""Objects of one result shown to every reader at hand: what each says of them, and whether the lesions come back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gdcm
import highdicom as hd
import numpy as np
import SimpleITK as sitk
from pydicom import dcmread

import medseg
from medseg.core.geometry import Geometry
from medseg.core.lesions import Lesion, LesionMap
from medseg.core.scan import Scan
from medseg.errors import MedsegError
from medseg.io.dicom_series import list_series
from tests.dicom.results import result_on

NAMES = ("lesions.seg.dcm", "semantic.seg.dcm", "lesions.sr.dcm", "lesions.rtstruct.dcm")


def loadable_stacks(folder: Path) -> Iterator[tuple[str, Scan]]:
    """Every stack of a folder that can be read, with gaps interpolated where that is the only way."""
    for choice in list_series(folder).choices:
        for allow_gaps in (False, True):
            try:
                scan = medseg.read_scan(folder, series=choice.name, allow_gaps=allow_gaps)
            except MedsegError:
                continue
            yield f"{folder.name} {choice.name}{' --allow-gaps' if allow_gaps else ''}", scan
            break


def scattered_lesions(geometry: Geometry) -> LesionMap:
    """Lesions of many shapes: a ball with a hole, a box at the border, two that touch, specks; empty slices between."""
    i, j, k = np.indices(geometry.shape)
    size = np.array(geometry.shape)
    array = np.zeros(geometry.shape, dtype=np.uint16)
    center = size * (0.35, 0.4, 0.5)
    distance = np.sqrt(((i - center[0]) / 9) ** 2 + ((j - center[1]) / 7) ** 2 + ((k - center[2]) / 2) ** 2)
    array[(distance < 1) & (distance > 0.3)] = 1
    array[: size[0] // 9, size[1] // 2 : size[1] // 2 + 5, : max(1, size[2] // 3)] = 2
    array[size[0] // 9 : size[0] // 6, size[1] // 2 : size[1] // 2 + 3, : max(1, size[2] // 3)] = 3
    array[size[0] - 3, size[1] - 4, size[2] - 1] = 4
    array[size[0] - 4, size[1] - 5, size[2] - 1] = 5
    return LesionMap(array, geometry, tuple(Lesion(name) for name in ("lesion", "tumor", "cyst", "metastasis", "x")))


def write_all(scan: Scan, folder: Path, kind: str = "binary") -> tuple[Path, LesionMap]:
    """All objects of a result, with the patient as an archive wants it."""
    lesions = scattered_lesions(scan.geometry)
    result = result_on(scan, lesions)
    return medseg.write_case(
        result, folder, rtstruct=True, keep_identifiers=True, dicom=True, seg_kind=kind, overwrite=True
    ), lesions  # type: ignore[arg-type]


def find(name: str) -> str | None:
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def _run(*command: object) -> tuple[int, list[str]]:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, errors="replace", check=False
    )
    return done.returncode, (done.stdout + done.stderr).splitlines()


def dciodvfy_errors(path: Path) -> list[str]:
    _, lines = _run(find("dciodvfy"), path)
    return [line for line in lines if line.startswith("Error")]


def dcentvfy_errors(paths: list[Path]) -> list[str]:
    """What is not the same in all objects though it should be."""
    _, lines = _run(find("dcentvfy"), *paths)
    return [line for line in lines if line.startswith("Error")]


def _same(found: dict[int, set[tuple[float, ...]]], scan: Scan, lesions: LesionMap) -> bool:
    """Whether voxel centers (LPS, rounded) of each lesion are ours."""
    ours = {}
    for lesion in range(1, lesions.n_lesions + 1):
        world = scan.geometry.to_world(np.argwhere(lesions.array == lesion)) * [-1, -1, 1]
        ours[lesion] = {tuple(point) for point in (np.round(world, 2) + 0.0).tolist()}
    return {n: _loose(p) for n, p in found.items()} == {n: _loose(p) for n, p in ours.items()}


def _loose(points: set[tuple[float, ...]]) -> set[tuple[int, ...]]:
    """Points in steps of a tenth of a millimeter."""
    return {tuple(round(value * 10) for value in point) for point in points}


def read_by_medseg(folder: Path, scan: Scan, lesions: LesionMap) -> bool:
    return all(
        np.array_equal(medseg.read_lesions(folder / name, like=scan.geometry).array, lesions.array)
        for name in ("lesions.seg.dcm", "lesions.rtstruct.dcm")
    )


def read_by_pydicom(folder: Path, scan: Scan, lesions: LesionMap) -> bool:
    """By the frames alone: each pixel's place is what its frame says."""
    dataset = dcmread(folder / "lesions.seg.dcm")
    shared = dataset.SharedFunctionalGroupsSequence[0]
    is_labelmap = dataset.get("SegmentationType") == "LABELMAP"
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    found: dict[int, set[tuple[float, ...]]] = {}
    for frame, groups in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        measures = (groups if "PixelMeasuresSequence" in groups else shared).PixelMeasuresSequence[0]
        plane = (groups if "PlaneOrientationSequence" in groups else shared).PlaneOrientationSequence[0]
        axes = np.array(plane.ImageOrientationPatient, dtype=float).reshape(2, 3)
        steps = np.array([axes[1] * float(measures.PixelSpacing[0]), axes[0] * float(measures.PixelSpacing[1])])
        origin = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        segment = 1 if is_labelmap else int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        for value in np.unique(frame[frame > 0]).tolist():
            points = np.argwhere(frame == value) @ steps + origin
            found.setdefault(value * segment, set()).update(tuple(p) for p in (np.round(points, 2) + 0.0).tolist())
    codes = [item.ConceptNameCodeSequence[0].CodeMeaning for item in dcmread(folder / "lesions.sr.dcm").ContentSequence]
    return _same(found, scan, lesions) and "Imaging Measurements" in codes


def read_by_highdicom(folder: Path, scan: Scan, lesions: LesionMap) -> bool:
    """As volumes; highdicom makes none of a tilted series, whose slices are read one by one instead."""
    seg = hd.seg.segread(folder / "lesions.seg.dcm")
    report = hd.sr.srread(folder / "lesions.sr.dcm").content
    if len(report.get_volumetric_roi_measurement_groups()) != lesions.n_lesions:
        return False
    if _is_sheared(scan.geometry):
        uids = [str(dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in scan.files[0]]
        read = seg.get_pixels_by_source_instance(uids, combine_segments=True, relabel=False)
        return np.array_equal(read.transpose(2, 1, 0), lesions.array)
    found = {}
    for lesion in seg.segment_numbers:
        volume = seg.get_volume(segment_numbers=[lesion], combine_segments=True, relabel=True, rtol=0.02)
        voxels = np.argwhere(volume.array > 0)
        world = voxels @ volume.affine[:3, :3].T + volume.affine[:3, 3]
        found[int(lesion)] = {tuple(point) for point in (np.round(world, 2) + 0.0).tolist()}
    return _same(found, scan, lesions)


def _is_sheared(geometry: Geometry) -> bool:
    """Whether slices lie beside each other along their own axes, as with a tilted gantry."""
    axes = geometry.affine[:3, :3] / geometry.spacing
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 0.01)


def read_by_dcmqi(folder: Path, scan: Scan, lesions: LesionMap) -> bool:
    code, _ = _run(
        *(find("segimage2itkimage"), "--inputDICOM", folder / "lesions.seg.dcm", "--outputDirectory", folder),
        *("-t", "nrrd", "--mergeSegments", "-p", "dcmqi"),
    )
    told, _ = _run(
        *(find("tid1500reader"), "--inputDICOM", folder / "lesions.sr.dcm", "--outputMetadata", folder / "sr.json")
    )
    images = sorted(folder.glob("dcmqi*.nrrd"))
    if code or told or len(images) != 1:
        return False
    image = sitk.ReadImage(str(images[0]))
    array = sitk.GetArrayFromImage(image).T
    found = {}
    for lesion in np.unique(array[array > 0]).tolist():
        points = [image.TransformIndexToPhysicalPoint(index) for index in np.argwhere(array == lesion).tolist()]
        found[int(lesion)] = {tuple(point) for point in (np.round(points, 2) + 0.0).tolist()}
    return _same(found, scan, lesions)


def read_by_itk(folder: Path, scan: Scan, lesions: LesionMap) -> bool:
    """As frames: SimpleITK knows no segments. As many as are stored, of the right size."""
    path = folder / "lesions.seg.dcm"
    dataset = dcmread(path, stop_before_pixels=True)
    size = sitk.ReadImage(str(path)).GetSize()
    return size == (dataset.Columns, dataset.Rows, dataset.NumberOfFrames)


def read_by_gdcm(folder: Path, scan: Scan, lesions: LesionMap) -> bool:
    for name in NAMES:
        reader = gdcm.Reader()
        reader.SetFileName(str(folder / name))
        if not reader.Read():
            return False
    image = gdcm.ImageReader()
    image.SetFileName(str(folder / "lesions.seg.dcm"))
    return bool(image.Read()) and image.GetImage().GetDimension(0) == scan.geometry.shape[0]


def read_by_dcmtk(folder: Path, scan: Scan, lesions: LesionMap) -> bool:
    codes = [_run(find("dcmdump"), "-q", folder / name)[0] for name in NAMES]
    code, lines = _run(find("dsrdump"), folder / "lesions.sr.dcm")
    return not any(codes) and code == 0 and sum("Long axis" in line for line in lines) == 2 * lesions.n_lesions


READERS: dict[str, Callable[[Path, Scan, LesionMap], bool]] = {
    "medseg": read_by_medseg,
    "pydicom": read_by_pydicom,
    "highdicom": read_by_highdicom,
    "dcmqi": read_by_dcmqi,
    "SimpleITK": read_by_itk,
    "GDCM": read_by_gdcm,
    "dcmtk": read_by_dcmtk,
}
NEEDS = {"dcmqi": "segimage2itkimage", "dcmtk": "dsrdump"}
