"""Chosen columns: the same values as among all columns, and nothing measured for others."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.columns_context import LESION_FIELDS, TOTALS
from medseg.core.labels import LabelScheme
from medseg.core.semantic import SemanticMap
from medseg.core.table import COLUMNS
from medseg.core.volume import Volume
from medseg.errors import UsageError
from medseg.lesions import channels, measure, shape
from medseg.lesions.measure import measure_lesions

from .scenes import ball, grid_over, lesion_map


def scene():
    """Four lesions of several sizes, one hollow, one of a single voxel; PET with CT, organs, probabilities."""
    geometry = grid_over(30.0, (1.5, 1.5, 3.0))
    labels = np.zeros(geometry.shape, dtype=np.uint16)
    for number, (center, radius) in enumerate((((8, 8, 9), 6.0), ((21, 20, 18), 5.0), ((6, 24, 24), 3.0)), start=1):
        labels[ball(geometry, center, radius)] = number
    labels[14, 13, 6] = 0
    labels[0, 0, 10] = 4
    random = np.random.default_rng(3)
    volume = Volume(
        random.gamma(2.0, 2.0, (2, *geometry.shape)).astype(np.float32),
        geometry,
        ("pet", "CT"),
        units=("suv", "stored"),
    )
    organs = np.ones(geometry.shape, dtype=np.uint8)
    organs[12:] = 2
    scheme = LabelScheme(classes={1: "liver", 2: "spleen"})
    return lesion_map(labels, geometry), volume, SemanticMap(organs, geometry, scheme), random.random(geometry.shape)


def measured(columns=None):
    lesions, volume, organs, probabilities = scene()
    return measure_lesions(
        lesions, volume, organs=organs, probabilities=probabilities.astype(np.float32), columns=columns
    )


@pytest.fixture(scope="module")
def full():
    return measured()


def test_every_column_alone_has_the_values_that_it_has_among_all(full):
    for name in full.column_names:
        for own, row in zip(measured([name]).rows, full.rows, strict=True):
            assert own == {key: row[key] for key in ("case_id", "lesion_id", name)}


@pytest.mark.parametrize(
    "chosen",
    [
        ["volume_ml", "longest_diameter_mm"],
        ["suv_*", "mtv_*", "*organ*"],
        ["ct_*", "*_density_*"],
        ["is_*", "has_*", "nearest_*", "*_rim_3mm_mean", "integrated_intensity", "ct_integrated_intensity"],
        ["*"],
    ],
)
def test_chosen_columns_stand_in_the_usual_order_with_the_same_values_units_and_kinds(full, chosen):
    table = measured(chosen)
    places = [full.columns.index(column) for column in table.columns]
    assert places == sorted(places)
    assert table.column_names[:2] == ("case_id", "lesion_id")
    assert list(table.rows) == [{name: row[name] for name in table.column_names} for row in full.rows]


def test_totals_are_those_of_the_full_table_or_null(full):
    table = measured(["volume_ml", "suv_max", "longest_diameter_mm", "centroid_?_lps_mm"])
    held = {"n_lesions", "volume_ml", "suv_max", "longest_diameter_sum_mm", "largest_longest_diameter_mm"}
    held.add("dissemination_mm")
    for total in TOTALS:
        assert table.totals[total.name] == (full.totals[total.name] if total.name in held else None)
    assert "organs" not in table.totals
    burden = measured(["organ"]).totals["organs"]
    assert burden == {name: {**organ, "tlg_suv_ml": None} for name, organ in full.totals["organs"].items()}
    assert measured(["organ", "tlg_suv_ml"]).totals["organs"] == full.totals["organs"]


def test_an_unknown_name_is_refused_with_the_nearest_ones():
    with pytest.raises(UsageError, match="no column 'volumen_ml'; did you mean volume_ml"):
        measured(["mean", "volumen_ml"])
    with pytest.raises(UsageError, match=r"no column 'xyz_\*'"):
        measured(["xyz_*"])
    with pytest.raises(UsageError, match="list of names"):
        measured("volume_ml")
    with pytest.raises(UsageError, match="names or patterns; got 3"):
        measured([3])


def test_columns_of_a_channel_that_is_not_there_are_unknown():
    with pytest.raises(UsageError, match="no column 'ct_mean'"):
        measure_lesions(scene()[0], columns=["ct_mean"])


def test_without_lesions_the_chosen_header_is_left():
    lesions, volume, organs, _ = scene()
    empty = lesion_map(np.zeros(lesions.geometry.shape), lesions.geometry)
    for chosen in ([], ["volume_ml", "*_axis_mm", "suv_peak"], ["*_density_*", "is_*", "organ"]):
        table = measure_lesions(empty, volume, organs=organs, columns=chosen)
        assert (len(table), table.column_names[:2]) == (0, ("case_id", "lesion_id"))
    assert measure_lesions(empty, volume, columns=["volume_ml"]).totals["volume_ml"] == 0.0


def test_what_no_chosen_column_needs_is_not_computed(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("measured without need")

    for module, names in (
        (shape, ("cell_patterns", "hull_of", "crofton_area", "measure_slices", "axis_columns", "padded")),
        (measure, ("find_hosts", "confidence_columns")),
        (channels, ("lesion_shells", "uptake_columns")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, refuse)
    row = measured(["volume_ml", "centroid_i", "mean", "ct_max", "bbox_k_min"]).rows[0]
    assert row["volume_ml"] > 0
    with pytest.raises(AssertionError, match="without need"):
        measured(["sphericity"])


def test_a_table_of_chosen_columns_prints_the_first_of_them():
    header, *rows = str(measured(["volume_ml", "class_name", "std"])).splitlines()
    assert header.split() == ["lesion_id", "class_name", "volume_ml", "std"]
    assert [row.split()[:2] for row in rows] == [[str(n), "lesion"] for n in (1, 2, 3, 4)]


def test_every_column_belongs_to_something_that_is_measured(full):
    filled = {name for name in full.column_names if any(row[name] is not None for row in full.rows)}
    assert {column.name for column in COLUMNS} - filled <= {
        *(column.name for column in LESION_FIELDS),
        *("ct_window", "entropy_bin25_bits", "uniformity_bin25"),
    }
