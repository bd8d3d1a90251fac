"""Textures, where MIRP is installed; what is said where it is not."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.lesions import radiomics
from medseg.lesions.measure import measure_lesions
from medseg.lesions.radiomics import add_textures, has_textures

from .scenes import lesion_map, make_grid

DATA = Path(os.environ.get("MEDSEG_TEST_DATA", "../shared/data")) / "volumes" / "ibsi"
needs_mirp = pytest.mark.skipif(not has_textures(), reason="MIRP is not installed")


def small_case():
    geometry = make_grid((8, 8, 8))
    labels = np.zeros((8, 8, 8))
    labels[1:6, 1:6, 1:6], labels[7, 7, 7] = 1, 2
    values = np.random.default_rng(0).normal(100.0, 60.0, geometry.shape).astype(np.float32)
    return lesion_map(labels), Volume(values[None], geometry, ("ct",))


def test_without_the_library_the_table_stays_and_that_is_said(monkeypatch):
    monkeypatch.setattr(radiomics, "has_textures", lambda: False)
    lesions, volume = small_case()
    table = measure_lesions(lesions, volume)
    same, notes = add_textures(table, lesions, volume)
    assert same is table
    assert "without texture" in notes[0]


@needs_mirp
def test_every_lesion_has_its_textures_or_nulls(capsys):
    lesions, volume = small_case()
    table, notes = add_textures(measure_lesions(lesions, volume), lesions, volume)
    assert notes == ()
    textures = [column.name for column in table.columns if column.name.startswith("texture_")]
    assert len(textures) > 80
    assert all(table.rows[0][name] is not None for name in textures)
    assert capsys.readouterr().out == ""


@needs_mirp
@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no phantom in {DATA}")
def test_textures_of_the_digital_phantom_are_the_consensus(monkeypatch):
    mask, image = (nibabel.load(DATA / f"ibsi_1_digital_phantom_{name}.nii.gz") for name in ("mask", "phantom"))
    geometry = Geometry(mask.shape, mask.affine)
    inside = np.asanyarray(mask.dataobj) > 0
    values = np.asanyarray(image.dataobj).astype(np.float32)
    with (DATA / "ibsi_1_digital_phantom_reference.csv").open() as file:
        reference = {tag: value for value, _, tag in csv.reader(file, delimiter=";")}
    lesions, volume = lesion_map(inside, geometry), Volume(25.0 * values[None], geometry, ("x",))  # one number a bin
    (row,) = add_textures(measure_lesions(lesions, volume), lesions, volume)[0].rows
    checked = 0
    for name, value in row.items():
        tag = name.removeprefix("texture_")
        for suffix in ("3D_comb", "3D"):
            if name.startswith("texture_") and reference.get(f"{tag}_{suffix}"):
                assert float(f"{value:.3g}") == float(reference[f"{tag}_{suffix}"]), name
                checked += 1
    assert checked > 20
