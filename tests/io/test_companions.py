"""Scans, organs and probabilities beside a lesion map: each on its grid, or brought onto it and noted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.errors import ChannelMismatch, GridMismatch, InvalidLabelMap, UsageError
from medseg.io.companions import load_channels, read_organs, read_probabilities
from medseg.io.scan import read_scan

from .nifti_files import save

GRID = Geometry((8, 8, 6), np.diag([2.0, 2.0, 3.0, 1.0]))
FINE = np.diag([1.0, 1.0, 1.5, 1.0])


def ramp(shape, step_mm) -> np.ndarray:
    return (np.arange(shape[0]) * step_mm)[:, None, None] + np.zeros(shape)


@pytest.fixture
def pet(tmp_path):
    return read_scan(save(np.ones((8, 8, 6), np.float32), tmp_path / "pet.nii.gz", affine=GRID.affine))


def test_a_second_scan_on_another_grid_is_interpolated_and_noted(tmp_path, pet):
    ct = read_scan(save(ramp((16, 16, 12), 1.0).astype(np.float32), tmp_path / "ct.nii.gz", affine=FINE))
    volume = load_channels([pet, ct], GRID, ["suv", "stored"])
    assert volume.channels == ("pet", "ct")
    assert volume.units == ("suv", "stored")
    np.testing.assert_allclose(volume.array[1], ramp((8, 8, 6), 2.0), atol=1e-5)
    assert any(note.startswith("ct: interpolated linearly") for note in volume.notes)


def test_the_first_scan_lies_on_the_grid(tmp_path):
    ct = read_scan(save(np.zeros((16, 16, 12), np.float32), tmp_path / "ct.nii.gz", affine=FINE))
    with pytest.raises(GridMismatch, match="give the scan first that the lesions were found in"):
        load_channels([ct], GRID)


def test_a_scan_elsewhere_is_refused(tmp_path, pet):
    away = FINE.copy()
    away[0, 3] = 500.0
    ct = read_scan(save(np.zeros((16, 16, 12), np.float32), tmp_path / "ct.nii.gz", affine=away))
    with pytest.raises(GridMismatch, match="covers nothing"):
        load_channels([pet, ct], GRID)


def test_units_and_names_are_one_a_scan(pet):
    assert load_channels([pet], GRID).units == ("stored",)
    assert load_channels([pet], GRID, names=["FDG"]).channels == ("FDG",)
    with pytest.raises(UsageError, match="one each; got 2"):
        load_channels([pet], GRID, ["suv", "suv"])
    with pytest.raises(UsageError, match="got 'hu'"):
        load_channels([pet], GRID, ["hu"])
    with pytest.raises(ChannelMismatch, match="1 channel"):
        load_channels([pet], GRID, names=["a", "b"])


def organs_file(tmp_path, affine=GRID.affine, shape=(8, 8, 6)):
    array = np.zeros(shape, np.uint8)
    array[: shape[0] // 2] = 5
    return save(array, tmp_path / "organs.nii.gz", affine=affine)


def test_organs_are_named_as_totalsegmentator_numbers_them_unless_told(tmp_path):
    organs, notes = read_organs(organs_file(tmp_path), GRID)
    assert organs.scheme.classes[5] == "liver"
    assert "TotalSegmentator" in notes[0]
    (tmp_path / "organs.json").write_text(json.dumps({"5": "hepar"}))
    assert read_organs(organs_file(tmp_path), GRID)[0].scheme.classes == {5: "hepar"}
    (tmp_path / "names.csv").write_text("number,name\n5,foie\n")
    assert read_organs(organs_file(tmp_path), GRID, tmp_path / "names.csv")[0].scheme.classes == {5: "foie"}
    (tmp_path / "names.json").write_text(json.dumps({"Leber": 5}))
    assert read_organs(organs_file(tmp_path), GRID, tmp_path / "names.json")[0].scheme.classes == {5: "Leber"}


@pytest.mark.parametrize("content", ["[1, 2]", '{"a": "b"}', '{"0": "background"}'])
def test_names_that_are_none_are_refused(tmp_path, content):
    (tmp_path / "names.json").write_text(content)
    with pytest.raises(UsageError, match="organ names are"):
        read_organs(organs_file(tmp_path), GRID, tmp_path / "names.json")


def test_organs_on_another_grid_are_taken_by_nearest_voxel(tmp_path):
    organs, notes = read_organs(organs_file(tmp_path, FINE, (16, 16, 12)), GRID)
    assert organs.geometry.matches(GRID)
    assert (organs.array[:4] == 5).all()
    assert (organs.array[4:] == 0).all()
    assert "nearest voxel" in notes[-1]


def test_probabilities_lie_on_the_grid_and_between_0_and_1(tmp_path):
    good = save(np.full((8, 8, 6), 0.5, np.float32), tmp_path / "p.nii.gz", affine=GRID.affine)
    assert read_probabilities(good, GRID).shape == GRID.shape
    with pytest.raises(GridMismatch):
        read_probabilities(save(np.zeros((8, 8, 6), np.float32), tmp_path / "q.nii.gz", affine=FINE), GRID)
    with pytest.raises(InvalidLabelMap, match=r"found 0..2"):
        read_probabilities(
            save(2.0 * np.eye(8)[..., None].repeat(6, 2).astype(np.float32), tmp_path / "r.nii.gz", affine=GRID.affine),
            GRID,
        )
