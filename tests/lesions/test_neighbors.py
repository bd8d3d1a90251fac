from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.core.semantic import SemanticMap
from medseg.lesions.bodies import list_voxels
from medseg.lesions.measure import measure_lesions
from medseg.lesions.neighbors import LesionSurfaces, neighbor_columns

from .scenes import ball, lesion_map, make_grid


def scattered(seed: int, n: int, geometry: Geometry) -> np.ndarray:
    """Boxes of many sizes, one large one among them."""
    random = np.random.default_rng(seed)
    labels, number = np.zeros(geometry.shape, np.uint16), 0
    for size in [(14, 12, 6), *random.integers(1, 4, (n, 3)).tolist()]:
        low = [int(random.integers(0, full - s + 1)) for full, s in zip(geometry.shape, size, strict=True)]
        part = tuple(slice(start, start + s) for start, s in zip(low, size, strict=True))
        if not labels[part].any():
            number += 1
            labels[part] = number
    return labels


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("skew", [0.0, 0.6])
def test_the_nearest_lesion_is_the_one_that_all_pairs_of_voxels_show(seed, skew):
    affine = np.diag([0.8, 0.9, 3.0, 1.0])
    affine[0, 1] = skew
    geometry = Geometry((40, 36, 20), affine)
    labels = scattered(seed, 40, geometry)
    voxels = list_voxels(lesion_map(labels, geometry))
    columns = neighbor_columns(voxels, LesionSurfaces(voxels))
    world = [geometry.to_world(np.argwhere(labels == n)) for n in range(1, int(labels.max()) + 1)]
    for index, own in enumerate(world):
        distances = [np.inf if other == index else cdist(own, there).min() for other, there in enumerate(world)]
        assert columns["nearest_lesion_distance_mm"][index] == pytest.approx(min(distances), abs=1e-9)
        assert distances[columns["nearest_lesion_id"][index] - 1] == pytest.approx(min(distances), abs=1e-6)


def test_lesions_that_share_faces_are_in_contact():
    labels = np.zeros((6, 6, 6), np.uint16)
    labels[1:3, 1:5, 1:5], labels[3:5, 1:5, 1:5], labels[5, 5, 5] = 1, 2, 3
    rows = measure_lesions(lesion_map(labels, make_grid((6, 6, 6), (1.0, 2.0, 3.0)))).rows
    assert [row["n_contacts"] for row in rows] == [1, 1, 0]
    assert [row["contact_area_mm2"] for row in rows] == [96.0, 96.0, 0.0]  # 4 x 4 faces of 2 x 3 mm
    assert [row["nearest_lesion_id"] for row in rows] == [2, 1, 2]
    assert rows[0]["nearest_lesion_distance_mm"] == pytest.approx(1.0)
    assert rows[2]["nearest_lesion_distance_mm"] == pytest.approx(np.sqrt(1 + 4 + 9))


def test_a_single_lesion_has_no_neighbor():
    (row,) = measure_lesions(lesion_map(np.ones((3, 3, 3)))).rows
    assert row["nearest_lesion_id"] is row["nearest_lesion_distance_mm"] is row["nearest_centroid_distance_mm"] is None
    assert (row["n_contacts"], row["contact_area_mm2"]) == (0, 0.0)


ORGANS = LabelScheme(classes={1: "lung", 5: "liver"})


def in_organs(labels, organs, geometry):
    organ_map = SemanticMap(organs.astype(np.uint8), geometry, ORGANS)
    return measure_lesions(lesion_map(labels, geometry), organs=organ_map)


def test_a_lesion_in_the_middle_of_an_organ_knows_how_deep_it_lies():
    geometry = make_grid((60, 60, 30), (1.0, 1.0, 2.0))
    organs = 5 * ball(geometry, (30, 30, 30), 20.0)
    (row,) = in_organs(ball(geometry, (30, 30, 30), 5.0), organs, geometry).rows
    assert (row["organ"], row["organ_overlap"], row["organ_distance_mm"]) == ("liver", 1.0, 0.0)
    assert row["organ_boundary_distance_mm"] == pytest.approx(15.0, abs=1.5)


def test_an_organ_map_with_a_hole_for_the_lesion_makes_it_no_surface_lesion():
    geometry = make_grid((60, 60, 30), (1.0, 1.0, 2.0))
    lesion = ball(geometry, (30, 30, 30), 5.0)
    organs = 5 * (ball(geometry, (30, 30, 30), 20.0) & ~ball(geometry, (31, 30, 30), 5.0))
    (row,) = in_organs(lesion, organs, geometry).rows
    assert row["organ"] == "liver"
    assert row["organ_overlap"] < 0.3
    (whole,) = in_organs(lesion, 5 * ball(geometry, (30, 30, 30), 20.0), geometry).rows
    assert row["organ_boundary_distance_mm"] < whole["organ_boundary_distance_mm"]


def test_a_lesion_beside_all_organs_has_the_nearest_one_at_a_negative_depth():
    geometry = make_grid((40, 10, 10))
    organs, labels = np.zeros(geometry.shape), np.zeros(geometry.shape)
    organs[:5], organs[30:] = 1, 5
    labels[20:23, 4:6, 4:6] = 1
    table = in_organs(labels, organs, geometry)
    (row,) = table.rows
    assert (row["organ"], row["organ_overlap"], row["organ_distance_mm"]) == ("liver", 0.0, 8.0)
    assert row["organ_boundary_distance_mm"] == -8.0
    assert table.totals["organs"] == {"liver": {"n_lesions": 1, "volume_ml": 0.0, "tlg_suv_ml": None}}


def test_a_lesion_far_from_all_organs_has_none():
    geometry = make_grid((100, 4, 4))
    organs, labels = np.zeros(geometry.shape), np.zeros(geometry.shape)
    organs[:5], labels[90:92] = 1, 1
    (row,) = in_organs(labels, organs, geometry).rows
    assert [row[name] for name in row if name.startswith("organ")] == [None] * 5


def test_burden_is_the_volume_of_lesion_in_each_organ():
    geometry = make_grid((20, 10, 10))
    organs, labels = np.ones(geometry.shape), np.zeros(geometry.shape)
    organs[10:] = 5
    labels[5:12] = 1
    totals = in_organs(labels, organs, geometry).totals["organs"]
    assert totals["lung"] == {"n_lesions": 1, "volume_ml": pytest.approx(0.5), "tlg_suv_ml": None}
    assert totals["liver"] == {"n_lesions": 0, "volume_ml": pytest.approx(0.2), "tlg_suv_ml": None}
