"""SEG: valid, in the right place, the same again, readable by others."""

from __future__ import annotations

import subprocess
from itertools import permutations, product
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread

import medseg
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.core.lesions import LesionMap
from medseg.core.semantic import SemanticMap
from medseg.dicom.seg import SegKind, lesion_seg, semantic_seg
from medseg.dicom.seg_reader import read_seg
from medseg.errors import GridMismatch, InvalidLabelMap
from medseg.io.convert import convert_lesions
from medseg.io.nifti import write_labels
from tests.dicom.results import (
    ALGORITHM,
    COLORS,
    complaints,
    plane_orientations,
    reoriented,
    saved,
    series,
    some_lesions,
    source_of,
    step_along,
    tool,
)
from tests.io.dicom_files import set_tag
from tests.io.enhanced_files import write_enhanced

KINDS: tuple[SegKind, ...] = ("binary", "labelmap")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [3.0, -3.0])
@pytest.mark.parametrize("orientation", plane_orientations(), ids=str)
def test_lesions_come_back_voxel_for_voxel_in_every_orientation_and_slice_order(
    orientation: tuple[int, ...], length: float, kind: SegKind, tmp_path: Path
) -> None:
    scan = series(tmp_path / "ct", orientation=orientation, step=step_along(orientation, length))
    lesions = some_lesions(scan.geometry)
    path = saved(lesion_seg(lesions, source_of(scan), ALGORITHM, COLORS, kind), tmp_path / "lesions.dcm")
    back = medseg.read_lesions(path, like=scan.geometry)
    np.testing.assert_array_equal(back.array, lesions.array)
    assert back.lesions == lesions.lesions


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0, -1, 0, 0, 0, 1)])
def test_highdicom_finds_every_lesion_where_it_is(orientation: tuple[int, ...], kind: SegKind, tmp_path: Path) -> None:
    scan = series(tmp_path / "ct", orientation=orientation, step=step_along(orientation))
    lesions = some_lesions(scan.geometry)
    path = saved(lesion_seg(lesions, source_of(scan), ALGORITHM, COLORS, kind), tmp_path / "lesions.dcm")
    for lesion in range(1, 5):
        volume = hd.seg.segread(path).get_volume(segment_numbers=[lesion], combine_segments=True, relabel=True)
        voxels = np.argwhere(volume.array > 0)
        world = (voxels @ volume.affine[:3, :3].T + volume.affine[:3, 3]) * [-1, -1, 1]
        mine = scan.geometry.to_world(np.argwhere(lesions.array == lesion))
        np.testing.assert_allclose(sorted(world.tolist()), sorted(mine.tolist()), atol=1e-6)


def test_a_map_in_any_of_48_orientations_is_put_on_the_grid_of_the_series(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    lesions = some_lesions(scan.geometry)
    objects = set()
    for order, flips in product(permutations(range(3)), product((False, True), repeat=3)):
        array, geometry = reoriented(lesions.array, scan.geometry, order, flips)
        write_labels(array, geometry, tmp_path / "lesions.nii")
        convert_lesions(tmp_path / "lesions.nii", tmp_path / "lesions.seg.dcm", scan)
        objects.add((tmp_path / "lesions.seg.dcm").read_bytes())
        back = medseg.read_lesions(tmp_path / "lesions.seg.dcm", like=geometry)
        np.testing.assert_array_equal(back.array, array)
    assert len(objects) == 1  # whichever way the map is stored, the object is the same


@pytest.mark.parametrize("kind", KINDS)
def test_only_slices_that_hold_a_lesion_are_stored_and_the_grid_between_them_is_kept(
    kind: SegKind, tmp_path: Path
) -> None:
    scan = series(tmp_path / "ct")
    lesions = some_lesions(scan.geometry)
    seg = lesion_seg(lesions, source_of(scan), ALGORITHM, COLORS, kind)
    filled = sum(int((lesions.array == n).any(axis=(0, 1)).sum()) for n in range(1, 5))
    assert seg.NumberOfFrames == (filled if kind == "binary" else 3)
    own = medseg.read_lesions(saved(seg, tmp_path / "lesions.dcm"))
    np.testing.assert_array_equal(own.array, lesions.array)  # slice 2 is empty and lies between others
    assert own.geometry.matches(scan.geometry)


@pytest.mark.parametrize("kind", KINDS)
def test_the_validator_has_nothing_to_say(kind: SegKind, tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    seg = lesion_seg(some_lesions(scan.geometry), source_of(scan), ALGORITHM, COLORS, kind)
    assert complaints(saved(seg, tmp_path / "lesions.dcm")) == []


def test_a_series_without_frame_of_reference_gets_one_that_is_the_same_again(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct", edit=set_tag("FrameOfReferenceUID", None))
    seg = lesion_seg(some_lesions(scan.geometry), source_of(scan), ALGORITHM, COLORS)
    assert seg.FrameOfReferenceUID.startswith("2.25.")
    assert source_of(medseg.read_scan(tmp_path / "ct")).frame_of_reference_uid == seg.FrameOfReferenceUID
    assert complaints(saved(seg, tmp_path / "lesions.dcm")) == []


def test_a_tilted_series_keeps_its_shear(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct", step=(0.0, 0.8, 3.0))
    lesions = some_lesions(scan.geometry)
    path = saved(lesion_seg(lesions, source_of(scan), ALGORITHM, COLORS), tmp_path / "lesions.dcm")
    np.testing.assert_array_equal(medseg.read_lesions(path, like=scan.geometry).array, lesions.array)
    own = medseg.read_lesions(path)
    assert own.geometry.matches(scan.geometry)
    assert own.geometry.voxel_volume_mm3 == pytest.approx(1.5 * 2.0 * 3.0)


def test_a_multi_frame_source_is_referred_to_by_frame_number(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path, [(0.0, 0.0, 9.0), (0.0, 0.0, 3.0), (0.0, 0.0, 6.0), (0.0, 0.0, 0.0)])
    scan = medseg.read_scan(path)
    lesions = some_lesions(scan.geometry)
    seg = lesion_seg(lesions, source_of(scan), ALGORITHM, COLORS)
    source = dcmread(path)
    numbers = {}
    for groups in seg.PerFrameFunctionalGroupsSequence:
        item = groups.DerivationImageSequence[0].SourceImageSequence[0]
        assert item.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert item.ReferencedSOPClassUID == source.SOPClassUID
        numbers[float(groups.PlanePositionSequence[0].ImagePositionPatient[2])] = item.ReferencedFrameNumber
    assert numbers == {0.0: 4, 3.0: 2, 9.0: 1}
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1
    np.testing.assert_array_equal(
        medseg.read_lesions(saved(seg, tmp_path / "lesions.dcm"), like=scan.geometry).array, lesions.array
    )


def test_slices_that_were_interpolated_refer_to_no_image(tmp_path: Path) -> None:
    folder = tmp_path / "ct"
    series(folder, n_slices=5)
    (folder / "003").unlink()  # slice 2
    scan = medseg.read_scan(folder, allow_gaps=True)
    lesions = some_lesions(scan.geometry)
    array = lesions.array.copy()
    array[4, 4, 2] = 4
    seg = lesion_seg(LesionMap(array, scan.geometry, lesions.lesions), source_of(scan), ALGORITHM, COLORS)
    made_up = [
        groups
        for groups in seg.PerFrameFunctionalGroupsSequence
        if not groups.get("DerivationImageSequence") or not groups.DerivationImageSequence[0].SourceImageSequence
    ]
    assert len(made_up) == 1
    path = saved(seg, tmp_path / "lesions.dcm")
    assert complaints(path) == []
    np.testing.assert_array_equal(medseg.read_lesions(path, like=scan.geometry).array, array)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    lesions = some_lesions(scan.geometry)
    first, second = (
        saved(lesion_seg(lesions, source_of(scan), ALGORITHM, COLORS), tmp_path / f"{n}.dcm").read_bytes() for n in "ab"
    )
    assert first == second


def test_other_lesions_or_another_model_give_other_uids(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    lesions = some_lesions(scan.geometry)
    fewer = LesionMap(np.where(lesions.array == 4, 0, lesions.array), scan.geometry, lesions.lesions[:3])
    other = type(ALGORITHM)("another", "1.2", ALGORITHM.parameters)
    segs = [
        lesion_seg(lesions, source_of(scan), ALGORITHM, COLORS),
        lesion_seg(fewer, source_of(scan), ALGORITHM, COLORS),
        lesion_seg(lesions, source_of(scan), other, COLORS),
    ]
    assert len({seg.SOPInstanceUID for seg in segs}) == 3
    assert len({seg.SegmentSequence[0].TrackingUID for seg in segs}) == 3


def test_segments_name_class_code_color_and_algorithm(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    seg = lesion_seg(some_lesions(scan.geometry), source_of(scan), ALGORITHM, COLORS)
    codes = [item.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for item in seg.SegmentSequence]
    assert codes == ["Lesion", "Neoplasm, Secondary", "Cyst", "Lesion"]
    item = seg.SegmentSequence[1]
    assert (item.SegmentLabel, item.SegmentDescription) == ("Lesion 2", "Lesion 2, metastasis")
    assert item.SegmentAlgorithmType == "AUTOMATIC"
    algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("a_model", "1.2")
    assert "ab" * 32 in algorithm.AlgorithmParameters
    assert len({str(item.RecommendedDisplayCIELabValue) for item in seg.SegmentSequence}) == 2


def test_classes_of_a_semantic_map_are_segments(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    array = np.zeros(scan.geometry.shape, dtype=np.uint8)
    array[1:3, 1, 1], array[5, 4, 2] = 2, 7
    scheme = LabelScheme(classes={1: "liver", 2: "liver_tumor", 7: "spleen"})
    seg = semantic_seg(SemanticMap(array, scan.geometry, scheme), source_of(scan), ALGORITHM, COLORS)
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["liver_tumor", "spleen"]
    path = saved(seg, tmp_path / "semantic.dcm")
    assert complaints(path) == []
    back = medseg.read_lesions(path, like=scan.geometry)
    expected = np.where(array == 2, 1, np.where(array == 7, 2, 0))
    np.testing.assert_array_equal(back.array, expected)
    classes = medseg.read_semantic(path, like=scan.geometry)
    np.testing.assert_array_equal(classes.array, expected)
    assert dict(classes.scheme.classes) == {1: "liver_tumor", 2: "spleen"}


def test_no_lesion_makes_no_segmentation(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    empty = LesionMap(np.zeros(scan.geometry.shape, dtype=np.uint16), scan.geometry, ())
    with pytest.raises(InvalidLabelMap, match="1 to 65535 segments"):
        lesion_seg(empty, source_of(scan), ALGORITHM, COLORS)


def test_lesions_on_another_grid_are_refused(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    moved = Geometry(scan.geometry.shape, scan.geometry.affine + _shift(1.0))
    with pytest.raises(GridMismatch, match="series on"):
        lesion_seg(some_lesions(moved), source_of(scan), ALGORITHM, COLORS)


def _shift(millimeters: float) -> np.ndarray:
    shift = np.zeros((4, 4))
    shift[0, 3] = millimeters
    return shift


def test_a_segmentation_off_the_grid_is_refused_and_says_by_how_much(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    path = saved(lesion_seg(some_lesions(scan.geometry), source_of(scan), ALGORITHM, COLORS), tmp_path / "a.dcm")
    moved = Geometry(scan.geometry.shape, scan.geometry.affine + _shift(0.6))
    with pytest.raises(GridMismatch, match=r"0\.4 voxels beside"):
        medseg.read_lesions(path, like=moved)


def test_segments_that_share_voxels_are_refused_or_read_one_by_one(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    seg = lesion_seg(some_lesions(scan.geometry), source_of(scan), ALGORITHM, COLORS)
    everything = np.packbits(np.ones(seg.NumberOfFrames * 35, dtype=np.uint8), bitorder="little").tobytes()
    seg.PixelData = everything + b"\0" * (len(everything) % 2)
    path = saved(seg, tmp_path / "a.dcm")
    with pytest.raises(InvalidLabelMap, match=r"share \d+ voxels.*'Lesion 1', 'Lesion 2'"):
        medseg.read_lesions(path)
    assert medseg.read_lesions(path, only=["Lesion 2"]).n_lesions == 1
    with pytest.raises(InvalidLabelMap, match="no segment or region 'Lesion 9'"):
        medseg.read_lesions(path, only=["Lesion 9"])


def test_a_fractional_segmentation_counts_from_one_half(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    seg = lesion_seg(some_lesions(scan.geometry), source_of(scan), ALGORITHM, COLORS)
    bits = np.unpackbits(np.frombuffer(seg.PixelData, dtype=np.uint8), bitorder="little")[: seg.NumberOfFrames * 35]
    seg.SegmentationType, seg.SegmentationFractionalType, seg.MaximumFractionalValue = "FRACTIONAL", "PROBABILITY", 200
    seg.BitsAllocated = seg.BitsStored = 8
    seg.HighBit = 7
    values = np.where(bits > 0, 100, 99).astype(np.uint8).tobytes()
    seg.PixelData = values + b"\0" * (len(values) % 2)
    back = medseg.read_lesions(saved(seg, tmp_path / "a.dcm"), like=scan.geometry)
    np.testing.assert_array_equal(back.array, some_lesions(scan.geometry).array)


def test_an_object_of_another_kind_is_refused(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    image = dcmread(scan.files[0][0])
    with pytest.raises(InvalidLabelMap, match="no DICOM SEG"):
        read_seg(image, "image")


@pytest.mark.parametrize("kind", KINDS)
def test_dcmqi_and_itk_read_it(kind: SegKind, tmp_path: Path) -> None:
    scan = series(tmp_path / "ct", orientation=(0, 1, 0, 0, 0, -1), step=(-3.0, 0.0, 0.0))
    lesions = some_lesions(scan.geometry)
    path = saved(lesion_seg(lesions, source_of(scan), ALGORITHM, COLORS, kind), tmp_path / "lesions.dcm")
    command = [tool("segimage2itkimage"), "--inputDICOM", str(path), "--outputDirectory", str(tmp_path), "-t", "nii"]
    subprocess.run([*command, "--mergeSegments"], check=True, capture_output=True)
    (image,) = tmp_path.glob("*.nii.gz")
    back = medseg.read_lesions(image)
    world = {n: sorted(back.geometry.to_world(np.argwhere(back.array == n)).round(4).tolist()) for n in range(1, 5)}
    mine = {n: sorted(scan.geometry.to_world(np.argwhere(lesions.array == n)).round(4).tolist()) for n in range(1, 5)}
    assert world == mine
    if kind == "binary":
        assert sitk.ReadImage(str(path)).GetSize()[:2] == (7, 5)
