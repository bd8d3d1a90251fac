from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from medseg.core.labels import LabelScheme
from medseg.errors import InvalidLabelMap
from medseg.io.label_files import read_lesions, read_semantic
from tests.io.nifti_files import save


def labels_at(**voxels: tuple[int, int, int]) -> np.ndarray:
    """A map (3, 4, 5) int32: n5=(0, 0, 0) puts 5 there."""
    array = np.zeros((3, 4, 5), np.int32)
    for name, voxel in voxels.items():
        array[voxel] = int(name[1:])
    return array


def test_zero_and_one_are_background_and_lesion(tmp_path):
    semantic = read_semantic(save(labels_at(n1=(2, 3, 4)).astype(np.float32), tmp_path / "a.nii"))
    assert semantic.array.dtype == np.uint8
    assert semantic.n_foreground_voxels == semantic.array[2, 3, 4] == 1
    assert dict(semantic.scheme.classes) == {1: "lesion"}


def test_other_numbers_become_classes_of_their_own(tmp_path):
    semantic = read_semantic(save(labels_at(n2=(0, 0, 0), n300=(0, 0, 1)), tmp_path / "a.nii"))
    assert semantic.array.dtype == np.uint16
    assert dict(semantic.scheme.classes) == {2: "class_2", 300: "class_300"}


def test_number_that_the_scheme_does_not_name_is_refused(tmp_path):
    path = save(labels_at(n2=(0, 0, 0)), tmp_path / "a.nii")
    assert read_semantic(path, LabelScheme(classes={1: "core", 2: "edema"})).array.max() == 2
    with pytest.raises(InvalidLabelMap, match=r"a\.nii: .*\[2\]"):
        read_semantic(path, LabelScheme(classes={1: "core"}))


@pytest.mark.parametrize("bad", [0.5, 1.002, -1.0, np.nan, np.inf, 1e17])
@pytest.mark.parametrize("read", [read_semantic, read_lesions])
def test_numbers_that_are_no_labels_are_refused(tmp_path, bad, read):
    array = labels_at(n1=(0, 0, 0)).astype(np.float64)
    array[1, 1, 1] = bad
    with pytest.raises(InvalidLabelMap, match=r"a\.nii: a label map holds"):
        read(save(array, tmp_path / "a.nii"))


def test_negative_integer_label_is_refused(tmp_path):
    with pytest.raises(InvalidLabelMap, match="-3"):
        read_lesions(save(-labels_at(n3=(0, 0, 0)), tmp_path / "a.nii"))


def test_class_number_above_65535_is_refused_but_a_lesion_number_is_not(tmp_path):
    path = save(labels_at(n70000=(0, 0, 0)), tmp_path / "a.nii")
    with pytest.raises(InvalidLabelMap, match="70000"):
        read_semantic(path)
    assert read_lesions(path).n_lesions == 1


def test_stored_slope_is_applied_to_labels(tmp_path):
    path = save(labels_at(n10=(0, 0, 0), n20=(1, 1, 1)), tmp_path / "a.nii", scl_slope=0.1)
    semantic = read_semantic(path)
    assert (semantic.array[0, 0, 0], semantic.array[1, 1, 1]) == (1, 2)


def test_numbers_from_one_to_n_are_kept_whatever_their_volume(tmp_path):
    array = labels_at(n1=(0, 0, 0), n2=(2, 2, 2))
    array[2, 2, 3] = 2
    lesions = read_lesions(save(array, tmp_path / "a.nii"))
    assert not lesions.renumbered
    assert lesions.method == "read"
    np.testing.assert_array_equal(lesions.array, array)
    assert lesions.array.dtype == np.uint16


def test_gaps_renumber_by_volume_then_world_position(tmp_path):
    array = labels_at(n4=(0, 0, 0), n9=(2, 0, 0), n7=(1, 3, 4))
    array[1, 3, 3] = 7
    lesions = read_lesions(save(array, tmp_path / "a.nii"))
    assert lesions.renumbered
    assert lesions.array[1, 3, 3] == lesions.array[1, 3, 4] == 1  # the larger
    assert lesions.array[2, 0, 0] == 2  # i = 2 lies at x = 37 mm, i = 0 at x = 40 mm
    assert lesions.array[0, 0, 0] == 3


def test_renumbering_does_not_depend_on_how_the_grid_is_stored(tmp_path):
    array = labels_at(n4=(0, 0, 0), n9=(2, 0, 0), n7=(1, 3, 4), n30=(1, 1, 1))
    image = nib.load(save(array, tmp_path / "a.nii"))
    turned = nib.orientations.io_orientation(np.array([[0, 0, -1.0, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]))
    image.as_reoriented(turned).to_filename(tmp_path / "b.nii")
    first, second = read_lesions(tmp_path / "a.nii"), read_lesions(tmp_path / "b.nii")
    assert first.geometry.axcodes != second.geometry.axcodes
    for number in range(1, 5):
        place = first.geometry.to_world(np.argwhere(first.array == number))
        np.testing.assert_allclose(second.geometry.to_world(np.argwhere(second.array == number)), place, atol=1e-4)


def test_empty_maps_are_read(tmp_path):
    path = save(labels_at(), tmp_path / "a.nii")
    assert read_lesions(path).n_lesions == 0
    assert not read_lesions(path).renumbered
    assert read_semantic(path).n_foreground_voxels == 0
