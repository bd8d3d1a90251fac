"""The IBSI's digital phantom and PyRadiomics' own cases, by the figures that their authors publish."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.lesions.intensity import histogram_entropy
from medseg.lesions.measure import measure_lesions

from .scenes import lesion_map

DATA = Path(os.environ.get("MEDSEG_TEST_DATA", "../shared/data")) / "volumes"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not (DATA / "ibsi").is_dir(), reason=f"no public cases in {DATA}"),
]

IBSI = {
    "morph_volume": ("mesh_volume_ml", 1000.0),
    "morph_area_mesh": ("mesh_area_mm2", 1.0),
    "morph_comp_1": ("compactness_1", 1.0),
    "morph_sph_dispr": ("spherical_disproportion", 1.0),
    "morph_asphericity": ("asphericity", 1.0),
    "morph_diam": ("mesh_diameter_mm", 1.0),
    "morph_pca_min_axis": ("minor_axis_mm", 1.0),
    "morph_pca_elongation": ("elongation", 1.0),
    "morph_vol_dens_aabb": ("volume_density_box", 1.0),
    "morph_vol_dens_aee": ("volume_density_ellipsoid", 1.0),
    "morph_vol_dens_conv_hull": ("volume_density_hull", 1.0),
    "morph_integ_int": ("integrated_intensity", 1.0),
    "stat_var": ("variance", 1.0),
    "stat_kurt": ("kurtosis", 1.0),
    "stat_min": ("min", 1.0),
    "stat_p90": ("p90", 1.0),
    "stat_iqr": ("iqr", 1.0),
    "stat_mad": ("mean_absolute_deviation", 1.0),
    "stat_medad": ("median_absolute_deviation", 1.0),
    "stat_qcod": ("quartile_coefficient", 1.0),
    "stat_rms": ("rms", 1.0),
    # The phantom's intensities are whole numbers, so its histogram of bins 1 wide has the same statistics.
    "ih_var": ("variance", 1.0),
    "ih_kurt": ("kurtosis", 1.0),
    "ih_rmad": ("robust_mean_absolute_deviation", 1.0),
    "ih_cov": ("coefficient_of_variation", 1.0),
    "ih_range": ("range", 1.0),
}
# Consensus values of the reference manual's tables that the file of the phantom leaves out (three digits).
MANUAL = {
    "morph_vol_approx": (592.0, "volume_ml", 1000.0),
    "morph_av": (0.698, "mesh_area_per_volume_per_mm", 1.0),
    "morph_sphericity": (0.843, "sphericity", 1.0),
    "morph_com": (0.672, "center_of_mass_shift_mm", 1.0),
    "stat_mean": (2.15, "mean", 1.0),
    "stat_skew": (1.08, "skewness", 1.0),
    "stat_rmad": (1.11, "robust_mean_absolute_deviation", 1.0),
    "stat_cov": (0.812, "coefficient_of_variation", 1.0),
    "stat_energy": (567.0, "energy", 1.0),
}


@pytest.fixture(scope="module")
def phantom():
    stem = str(DATA / "ibsi" / "ibsi_1_digital_phantom_")
    mask, image = nibabel.load(f"{stem}mask.nii.gz"), nibabel.load(f"{stem}phantom.nii.gz")
    geometry = Geometry(mask.shape, mask.affine)
    inside = np.asanyarray(mask.dataobj) > 0
    values = np.asanyarray(image.dataobj).astype(np.float32)
    row = measure_lesions(lesion_map(inside, geometry), Volume(values[None], geometry, ("x",))).rows[0]
    with Path(f"{stem}reference.csv").open() as file:
        reference = {tag: (value, tolerance) for value, tolerance, tag in csv.reader(file, delimiter=";")}
    return row, reference, values[inside]


@pytest.mark.parametrize("tag", IBSI)
def test_the_digital_phantom_has_the_consensus_value(phantom, tag):
    row, reference, _ = phantom
    column, factor = IBSI[tag]
    value, tolerance = map(float, reference[tag])
    measured = row[column] * factor
    if tolerance:
        assert measured == pytest.approx(value, abs=tolerance)
    else:
        assert float(f"{measured:.3g}") == value


@pytest.mark.parametrize("tag", MANUAL)
def test_the_digital_phantom_has_the_value_of_the_manual(phantom, tag):
    value, column, factor = MANUAL[tag]
    assert float(f"{phantom[0][column] * factor:.3g}") == value


def test_entropy_of_the_phantom_is_that_of_its_whole_numbers(phantom):
    assert float(f"{histogram_entropy(phantom[2].astype(np.float64), 1.0)[0]:.3g}") == float(
        phantom[1]["ih_entropy"][0]
    )


PYRADIOMICS = {
    "shape_Maximum3DDiameter": "mesh_diameter_mm",
    "shape_Sphericity": "sphericity",
    "shape_SurfaceVolumeRatio": "mesh_area_per_volume_per_mm",
    "shape_MeshVolume": "mesh_volume_ml",
    "shape_SurfaceArea": "mesh_area_mm2",
    "shape_MajorAxisLength": "major_axis_mm",
    "shape_MinorAxisLength": "minor_axis_mm",
    "shape_LeastAxisLength": "least_axis_mm",
    "shape_Elongation": "elongation",
    "shape_Flatness": "flatness",
    "shape_VoxelVolume": "volume_ml",
    "firstorder_InterquartileRange": "iqr",
    "firstorder_Skewness": "skewness",
    "firstorder_Uniformity": "uniformity_bin25",
    "firstorder_Median": "median",
    "firstorder_RobustMeanAbsoluteDeviation": "robust_mean_absolute_deviation",
    "firstorder_MeanAbsoluteDeviation": "mean_absolute_deviation",
    "firstorder_Maximum": "max",
    "firstorder_90Percentile": "p90",
    "firstorder_Minimum": "min",
    "firstorder_Entropy": "entropy_bin25_bits",
    "firstorder_Range": "range",
    "firstorder_Variance": "variance",
    "firstorder_10Percentile": "p10",
    "firstorder_Kurtosis": "kurtosis",
    "firstorder_Mean": "mean",
}
OF_THE_MESH = {"shape_Sphericity", "shape_SurfaceVolumeRatio", "shape_MeshVolume", "shape_SurfaceArea"}


def pyradiomics_case(name: str):
    label = sitk.ReadImage(str(DATA / "pyradiomics" / f"{name}_label.nrrd"))
    affine = np.eye(4)
    affine[:3, :3] = np.array(label.GetDirection()).reshape(3, 3) * label.GetSpacing()
    affine[:3, 3] = label.GetOrigin()
    affine[:2] *= -1
    array = sitk.GetArrayFromImage(label).T == 1
    geometry, volume = Geometry(array.shape, affine), None
    image = DATA / "pyradiomics" / f"{name}_image.nrrd"
    if image.is_file():
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(image))).T.astype(np.float32)
        volume = Volume(values[None], geometry, ("mr",))
    row = dict(measure_lesions(lesion_map(array, geometry), volume).rows[0])
    # Stated differences: ml; kurtosis without 3; covariance that divides by the number of voxels, not by one less.
    biased = np.sqrt((row["n_voxels"] - 1) / row["n_voxels"])
    row |= {name: row[name] * 1000.0 for name in ("mesh_volume_ml", "volume_ml")}
    row |= {name: row[name] * biased for name in ("major_axis_mm", "minor_axis_mm", "least_axis_mm")}
    if row["kurtosis"] is not None:
        row["kurtosis"] += 3.0
    entries = json.loads((DATA / "manifest.json").read_text())["entries"]
    reference = next(e["reference"] for e in entries if e["file"].endswith(f"{name}_label.nrrd"))
    return row, {key.removeprefix("original_"): value for key, value in reference.items()}


def test_lung1_has_pyradiomics_figures():
    row, reference = pyradiomics_case("lung1")
    shared = [name for name in PYRADIOMICS if name in reference]
    assert len(shared) == 11
    for name in shared:
        assert row[PYRADIOMICS[name]] == pytest.approx(reference[name], rel=1e-6), name


def test_brain1_has_pyradiomics_figures_but_for_the_triangles_of_rare_cells():
    """A cell whose mesh crosses six edges or more can be cut into triangles in several ways, and the IBSI names none.

    PyRadiomics 3.0.1 itself measures 6438.82 mm2 and 16147.51 mm3 here, not its stored 6433.73 and 16149.50.
    """
    row, reference = pyradiomics_case("brain1")
    for name in PYRADIOMICS:
        tolerance = 3e-3 if name in OF_THE_MESH else 1e-6
        assert row[PYRADIOMICS[name]] == pytest.approx(reference[name], rel=tolerance), name
    assert row["mesh_area_mm2"] == pytest.approx(6438.8216, rel=2e-3)
    assert row["mesh_volume_ml"] == pytest.approx(16147.5118, rel=1e-3)
