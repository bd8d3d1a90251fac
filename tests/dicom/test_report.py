"""Reports: valid, tied to segments and images, with a line that viewers draw."""

from __future__ import annotations

import subprocess
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

import medseg
from medseg.core.lesions import LesionMap
from medseg.core.scan import Scan
from medseg.dicom.report import measurement_report
from medseg.dicom.seg import lesion_seg
from medseg.errors import GridMismatch
from medseg.lesions.long_axis import long_axes
from tests.dicom.results import ALGORITHM, COLORS, complaints, saved, series, some_lesions, source_of, tool
from tests.io.dicom_files import set_tag
from tests.io.enhanced_files import write_enhanced


def _report(scan: Scan, lesions: LesionMap, **options: object) -> tuple[object, object]:
    """The report and its segmentation."""
    table = medseg.measure_lesions(lesions, medseg.load_volume(scan))
    source = source_of(scan)
    seg = lesion_seg(lesions, source, ALGORITHM, COLORS) if lesions.n_lesions else None
    return measurement_report(lesions, table, source, ALGORITHM, seg, long_axes(table), **options), seg  # type: ignore[arg-type]


def test_one_group_a_lesion_with_the_values_of_the_table(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    lesions = some_lesions(scan.geometry)
    report, seg = _report(scan, lesions)
    path = saved(report, tmp_path / "sr.dcm")
    assert complaints(path) == []
    groups = hd.sr.srread(path).content.get_volumetric_roi_measurement_groups()
    rows = medseg.measure_lesions(lesions, medseg.load_volume(scan)).rows
    assert len(groups) == len(rows) == 4
    for number, (group, row) in enumerate(zip(groups, rows, strict=True), start=1):
        values = {
            (m.name.meaning, m.derivation.meaning if m.derivation else None): (m.value, m.unit.value)
            for m in group.get_measurements()
        }
        assert values["Volume", None] == (pytest.approx(row["volume_ml"]), "ml")
        assert values["Long axis", None] == (pytest.approx(row["longest_diameter_mm"]), "mm")
        assert values["Short axis", None] == (pytest.approx(row["perpendicular_diameter_mm"]), "mm")
        assert values["Attenuation Coefficient", "Mean"] == (pytest.approx(row["mean"]), "[hnsf'U]")
        assert values["Attenuation Coefficient", "Maximum"] == (pytest.approx(row["max"]), "[hnsf'U]")
        assert group.tracking_uid == seg.SegmentSequence[number - 1].TrackingUID
        assert group.tracking_identifier == f"Lesion {number}"
        segment = group.referenced_segment
        assert segment[0].ReferencedSOPSequence[0].ReferencedSegmentNumber == number
        assert segment[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == seg.SOPInstanceUID
        slices = np.flatnonzero((lesions.array == number).any(axis=(0, 1)))
        assert len(segment.source_images_for_segmentation) == slices.size


def test_every_long_axis_is_a_line_in_the_patient(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    lesions = some_lesions(scan.geometry)
    report, _ = _report(scan, lesions)
    content = hd.sr.srread(saved(report, tmp_path / "sr.dcm")).content
    lines = {}
    for group in content.get_image_measurement_groups():
        for measurement in group.get_measurements():
            flat, item = measurement.referenced_coordinates
            pixels = scan.geometry.to_voxel(np.array(item.value) * [-1, -1, 1])
            np.testing.assert_allclose(flat.value, pixels[:, :2] + 0.5, atol=1e-3)
            image = flat.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            assert image == dcmread(scan.files[0][round(pixels[0, 2])]).SOPInstanceUID
            assert item.graphic_type.value == "POLYLINE"
            assert item.frame_of_reference_uid == source_of(scan).frame_of_reference_uid
            lines[group.tracking_identifier] = (np.array(item.value), measurement.value)
    assert sorted(lines) == [f"Lesion {n}" for n in range(1, 5)]
    for number, ends in enumerate(long_axes(medseg.measure_lesions(lesions)), start=1):
        line, length = lines[f"Lesion {number}"]
        np.testing.assert_allclose(line, ends * [-1, -1, 1], atol=1e-3)
        assert np.linalg.norm(line[1] - line[0]) == pytest.approx(length, abs=1e-4)


def test_the_observer_is_the_algorithm_with_version_and_weights(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    report, _ = _report(scan, some_lesions(scan.geometry))
    context = {
        item.ConceptNameCodeSequence[0].CodeMeaning: item.get("TextValue")
        for item in report.ContentSequence
        if item.RelationshipType == "HAS OBS CONTEXT"
    }
    assert context["Device Observer Name"] == "a_model 1.2"
    assert context["Device Observer Serial Number"] == "ab" * 32
    group = hd.sr.Comprehensive3DSR.from_dataset(report).content.get_volumetric_roi_measurement_groups()[0]
    names = [str(item.get("TextValue", "")) for item in group[0].ContentSequence]
    assert {"a_model", "1.2", "weights SHA-256: " + "ab" * 32} <= set(names)


def test_no_lesion_is_said(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    empty = LesionMap(np.zeros(scan.geometry.shape, dtype=np.uint16), scan.geometry, ())
    report, _ = _report(scan, empty)
    path = saved(report, tmp_path / "sr.dcm")
    assert complaints(path) == []
    content = hd.sr.srread(path).content
    (group,) = content.get_image_measurement_groups()
    (count,) = group.get_measurements()
    assert (count.value, count.unit.meaning) == (0, "lesions")
    assert content.get_volumetric_roi_measurement_groups() == []


def test_suv_is_told_as_suv_and_undefined_values_are_left_out(tmp_path: Path) -> None:
    scan = series(tmp_path / "pt", modality="PT", edit=set_tag("Units", "GML"))
    lesions = some_lesions(scan.geometry)
    report, _ = _report(scan, lesions, is_suv=True)
    assert "g/ml{SUVbw}" in str(report)
    source = source_of(scan)
    seg = lesion_seg(lesions, source, ALGORITHM, COLORS)
    table = medseg.measure_lesions(lesions)
    without = measurement_report(lesions, table, source, ALGORITHM, seg, long_axes(table), is_suv=True)
    assert "g/ml{SUVbw}" not in str(without)


def test_peak_and_glycolysis_of_each_lesion_are_told_where_the_table_has_them(tmp_path: Path) -> None:
    scan = series(tmp_path / "pt", modality="PT", edit=set_tag("Units", "GML"))
    lesions = some_lesions(scan.geometry)
    measured = medseg.measure_lesions(lesions, medseg.load_volume(scan, units="suv"))
    assert all(row["tlg_suv_ml"] == pytest.approx(row["mean"] * row["volume_ml"]) for row in measured)
    rows = [{**row, "suv_peak": 2.5 + n if n else None} for n, row in enumerate(measured.rows)]
    table = type(measured)(tuple(rows))
    source = source_of(scan)
    seg = lesion_seg(lesions, source, ALGORITHM, COLORS)
    report = measurement_report(lesions, table, source, ALGORITHM, seg, long_axes(table), is_suv=True, units="GML")
    path = saved(report, tmp_path / "sr.dcm")
    assert complaints(path) == []
    groups = hd.sr.srread(path).content.get_volumetric_roi_measurement_groups()
    for group, row in zip(groups, rows, strict=True):
        told = {(m.name.value, m.derivation.value if m.derivation else None): m for m in group.get_measurements()}
        glycolysis = told["126033", None]
        assert (glycolysis.value, glycolysis.unit.value) == (pytest.approx(row["tlg_suv_ml"]), "g")
        peaks = [m for (_, derivation), m in told.items() if derivation == "126031"]
        assert [(m.value, m.unit.value) for m in peaks] == (
            [] if row["suv_peak"] is None else [(row["suv_peak"], "g/ml{SUVbw}")]
        )


def test_frames_of_a_multi_frame_source_are_named(tmp_path: Path) -> None:
    scan = medseg.read_scan(write_enhanced(tmp_path, [(0.0, 0.0, 3.0 * n) for n in (2, 0, 1, 3)]))
    report, _ = _report(scan, some_lesions(scan.geometry))
    path = saved(report, tmp_path / "sr.dcm")
    assert complaints(path) == []
    group = hd.sr.srread(path).content.get_volumetric_roi_measurement_groups()[0]
    (image,) = group.referenced_segment.source_images_for_segmentation
    assert sorted(image.referenced_frame_numbers) == [2, 3]


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    lesions = some_lesions(scan.geometry)
    first, second = (saved(_report(scan, lesions)[0], tmp_path / f"{n}.dcm").read_bytes() for n in "ab")
    assert first == second


def test_a_table_of_other_lesions_is_refused(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    lesions = some_lesions(scan.geometry)
    fewer = LesionMap(np.where(lesions.array == 4, 0, lesions.array), scan.geometry, lesions.lesions[:3])
    table = medseg.measure_lesions(fewer)
    with pytest.raises(GridMismatch, match="do not describe"):
        measurement_report(lesions, table, source_of(scan), ALGORITHM, None, long_axes(table))


def test_dcmqi_reads_it(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    report, _ = _report(scan, some_lesions(scan.geometry))
    path = saved(report, tmp_path / "sr.dcm")
    out = tmp_path / "sr.json"
    command = [tool("tid1500reader"), "--inputDICOM", str(path), "--outputMetadata", str(out)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "Lesion 4" in out.read_text()
