"""make_phantom: seeds reproduce, truths describe the voxels exactly, contacts are as asked."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from medseg.errors import UsageError
from medseg.lesions.numbering import number_lesions
from medseg.phantoms.make import Phantom, PhantomLesion, make_phantom

NEIGHBORS_26 = np.ones((3, 3, 3), dtype=bool)
THICK = {"shape": (56, 56, 16), "spacing_mm": (4.0, 4.0, 16.0)}
SMALL = {"shape": (32, 32, 40), "spacing_mm": (8.0, 8.0, 6.54)}


@cache
def made(kind: str = "pet", seed: int = 0, **arguments) -> Phantom:
    return make_phantom(kind, seed, **arguments)


CASES = [
    ("pet", 0, {}),
    ("pet", 1, {"touching": True}),
    ("pet", 2, {"at_border": True, "n_lesions": 4}),
    ("pet", 3, {"touching": True, "at_border": True, "n_lesions": 5}),
    ("pet", 4, {"smallest_mm": 2.0, "largest_mm": 6.0, "n_lesions": 12}),
    ("pet", 5, {"oblique_degrees": 15.0, "orientation": "LPS"}),
    ("ct", 6, {"touching": True}),
    ("ct", 7, {"orientation": "SAR", "n_lesions": 3}),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def phantom(request) -> Phantom:
    kind, seed, arguments = request.param
    return made(kind, seed, **arguments)


def _arrays(phantom: Phantom) -> tuple[np.ndarray, np.ndarray]:
    return phantom.volume.array, phantom.lesions.array


# --- seeds ---


@pytest.mark.parametrize("kind", ["pet", "ct"])
def test_same_arguments_give_the_same_phantom(kind: str):
    first, second = (make_phantom(kind, 11, touching=True, n_lesions=4) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(_arrays(first), _arrays(second), strict=True))
    assert first.to_json() == second.to_json()


def test_other_seeds_give_other_phantoms():
    first, second = made("pet", 20), made("pet", 21)
    assert not np.array_equal(first.volume.array, second.volume.array)
    assert not np.array_equal(first.lesions.array, second.lesions.array)


def test_noise_changes_no_lesion():
    clean, noisy = made("pet", 20, noise=0.0), made("pet", 20)
    assert np.array_equal(clean.lesions.array, noisy.lesions.array)
    assert not np.array_equal(clean.volume.array, noisy.volume.array)


# --- truths ---


def test_every_truth_counts_the_voxels_of_its_lesion(phantom: Phantom):
    counts = np.bincount(phantom.lesions.array.ravel(), minlength=1)[1:]
    assert [truth.lesion_id for truth in phantom.truths] == list(range(1, phantom.lesions.n_lesions + 1))
    assert [truth.n_voxels for truth in phantom.truths] == counts.tolist()
    assert counts.min() >= 1
    voxel_ml = phantom.lesions.geometry.voxel_volume_ml
    assert [truth.volume_ml for truth in phantom.truths] == pytest.approx((counts * voxel_ml).tolist())


def test_numbers_go_by_descending_volume_then_world_centroid(phantom: Phantom):
    geometry, array = phantom.lesions.geometry, phantom.lesions.array
    keys = []
    for number in range(1, phantom.lesions.n_lesions + 1):
        indices = np.argwhere(array == number)
        keys.append((-len(indices), *np.round(geometry.to_world(indices).mean(axis=0), 3)))
    assert keys == sorted(keys)


def test_numbers_agree_with_those_that_separation_gives(phantom: Phantom):
    numbered, old_numbers = number_lesions(phantom.lesions.array, phantom.lesions.geometry)
    assert np.array_equal(numbered, phantom.lesions.array)
    assert old_numbers.tolist() == list(range(1, phantom.lesions.n_lesions + 1))


def test_equal_volumes_are_numbered_by_centroid():
    phantom = made("pet", 1, n_lesions=8, smallest_mm=1.0, largest_mm=1.5)
    assert {truth.n_voxels for truth in phantom.truths} == {1}, "the test needs lesions of one voxel each"
    centroids = [
        tuple(phantom.lesions.geometry.to_world(np.argwhere(phantom.lesions.array == n))[0]) for n in range(1, 9)
    ]
    assert centroids == sorted(centroids)


def test_every_lesion_is_one_piece(phantom: Phantom):
    for number in range(1, phantom.lesions.n_lesions + 1):
        assert ndimage.label(phantom.lesions.array == number, NEIGHBORS_26)[1] == 1


@pytest.mark.parametrize("seed", [16, 29, 45])
def test_fingers_leave_no_islands_between_thick_slices(seed: int):
    """Seeds for which, at 16 mm slices, the first place that a lesion tried would have cut off a finger."""
    phantom = made("pet", seed, n_lesions=8, smallest_mm=20.0, largest_mm=28.0, noise=0.0, **THICK)
    assert [ndimage.label(phantom.lesions.array == n, NEIGHBORS_26)[1] for n in range(1, 9)] == [1] * 8


def test_every_lesion_lies_about_its_center(phantom: Phantom):
    geometry, slack = phantom.lesions.geometry, np.linalg.norm(phantom.lesions.geometry.spacing) / 2.0
    for truth in phantom.truths:
        points = geometry.to_world(np.argwhere(phantom.lesions.array == truth.lesion_id))
        distance = np.linalg.norm(points - truth.center_ras_mm, axis=1)
        assert distance.max() <= max(truth.diameter_mm / 2.0, slack) + 1e-6
        assert distance.min() <= slack + 1e-6, "the voxel at the center belongs to another"


def test_diameters_lie_in_the_range_asked_for():
    phantom = made("pet", 8, n_lesions=6, smallest_mm=12.0, largest_mm=30.0)
    diameters = [truth.diameter_mm for truth in phantom.truths]
    assert min(diameters) >= 12.0 - 1e-6
    assert max(diameters) <= 30.0 + 1e-6
    assert max(diameters) - min(diameters) > 1.0


def test_whole_lesions_with_a_formula_have_its_volume():
    seen = 0
    for seed in range(3):
        phantom = made("ct", seed, n_lesions=4, smallest_mm=20.0, largest_mm=45.0, noise=0.0)
        for truth in phantom.truths:
            if truth.analytic_volume_ml is not None:
                # a ball of 20 mm has about 620 voxels, some 290 on its surface; 6 sigma of half a voxel each: 51
                assert truth.volume_ml == pytest.approx(truth.analytic_volume_ml, rel=0.08)
                seen += 1
    assert seen >= 4


def test_lesions_without_a_formula_or_cut_claim_no_volume(phantom: Phantom):
    for truth in phantom.truths:
        if truth.shape in ("lobulated", "infiltrating") or truth.cut_by_border:
            assert truth.analytic_volume_ml is None


# --- contacts ---


def test_lesions_apart_are_as_many_components():
    for seed in range(4):
        phantom = made("pet", seed)
        assert ndimage.label(phantom.lesions.array > 0, NEIGHBORS_26)[1] == phantom.lesions.n_lesions
        assert all(truth.group is None and truth.contact is None for truth in phantom.truths)


@pytest.mark.parametrize(("kind", "seed"), [("pet", 1), ("pet", 2), ("ct", 6)])
def test_touching_lesions_are_fewer_components_than_lesions(kind: str, seed: int):
    phantom = made(kind, seed, touching=True)
    n_groups = len({truth.group for truth in phantom.truths if truth.group is not None})
    n_components = ndimage.label(phantom.lesions.array > 0, NEIGHBORS_26)[1]
    assert n_groups >= 1
    assert n_components == phantom.lesions.n_lesions - n_groups


@pytest.mark.parametrize(("kind", "seed"), [("pet", 1), ("pet", 2), ("ct", 6)])
def test_lesions_of_a_group_are_26_neighbors(kind: str, seed: int):
    phantom = made(kind, seed, touching=True, n_lesions=5)
    groups = {truth.group for truth in phantom.truths} - {None}
    assert groups == {1, 2}
    for group in groups:
        first, second = (truth for truth in phantom.truths if truth.group == group)
        near_first = ndimage.binary_dilation(phantom.lesions.array == first.lesion_id, NEIGHBORS_26)
        assert (phantom.lesions.array[near_first] == second.lesion_id).any()
    assert sorted(t.contact for t in phantom.truths if t.contact) == ["overlapping"] * 2 + ["touching"] * 2


def test_two_touching_lesions_are_one_component():
    phantom = made("pet", 9, touching=True, n_lesions=2)
    assert phantom.lesions.n_lesions == 2
    assert ndimage.label(phantom.lesions.array > 0, NEIGHBORS_26)[1] == 1
    assert [truth.contact for truth in phantom.truths] == ["touching", "touching"]


def test_overlapping_balls_share_no_voxel_and_each_goes_to_the_center_nearer_in_radii():
    for seed in range(20):
        phantom = made("ct", seed, touching=True, n_lesions=4, smallest_mm=10.0, largest_mm=11.9)
        pair = [truth for truth in phantom.truths if truth.contact == "overlapping"]
        if [truth.shape for truth in pair] == ["sphere", "sphere"]:
            break
    else:
        pytest.fail("no seed gave two overlapping balls")
    geometry, array = phantom.lesions.geometry, phantom.lesions.array
    points = geometry.to_world(np.moveaxis(np.indices(array.shape), 0, -1))
    radii = [np.linalg.norm(points - t.center_ras_mm, axis=-1) / (t.diameter_mm / 2.0) for t in pair]
    first, second = (radius <= 1.0 for radius in radii)
    assert (first & second).sum() > 3
    assert np.array_equal(array == pair[0].lesion_id, first & ~(second & (radii[1] < radii[0])))
    assert np.array_equal(array == pair[1].lesion_id, second & ~(first & (radii[0] < radii[1])))


# --- borders, empty, small ---


def test_lesion_at_the_border_is_cut_and_no_other():
    for seed in (2, 3):
        phantom = made("pet", seed, at_border=True, n_lesions=4)
        array = phantom.lesions.array
        faces = [array.take(end, axis) for axis in range(3) for end in (0, -1)]
        on_face = set(np.unique(np.concatenate([face.ravel() for face in faces]))) - {0}
        assert on_face == {truth.lesion_id for truth in phantom.truths if truth.cut_by_border}
        assert len(on_face) == 1


def test_border_lesion_is_truly_cut():
    """A ball that the grid cuts reaches beyond the last voxel."""
    phantom = made("pet", 2, at_border=True, n_lesions=1, smallest_mm=40.0, largest_mm=40.0)
    (truth,) = phantom.truths
    z = phantom.volume.geometry.to_voxel(truth.center_ras_mm)[2] * phantom.volume.geometry.spacing[2]
    last = (phantom.volume.geometry.shape[2] - 1) * phantom.volume.geometry.spacing[2]
    assert min(z, last - z) < truth.diameter_mm / 4.0 + 1e-6


def test_without_a_border_lesion_no_lesion_reaches_a_face():
    for seed in range(4):
        inner = made("pet", seed).lesions.array[1:-1, 1:-1, 1:-1]
        assert np.count_nonzero(inner) == np.count_nonzero(made("pet", seed).lesions.array)


@pytest.mark.parametrize("kind", ["pet", "ct"])
def test_empty_phantom_is_a_body_without_lesions(kind: str):
    phantom = made(kind, 0, n_lesions=0)
    assert phantom.truths == ()
    assert phantom.lesions.n_lesions == 0
    assert not phantom.lesions.array.any()
    assert phantom.volume.array.std() > 0.0


def test_lesions_below_the_voxel_size_have_one_voxel_each():
    phantom = made("pet", 4, smallest_mm=1.0, largest_mm=1.5, n_lesions=5)
    assert [truth.n_voxels for truth in phantom.truths] == [1] * 5


def test_a_hundred_lesions_fit_and_keep_two_voxels_between_them():
    phantom = made("pet", 0, n_lesions=100, smallest_mm=4.0, largest_mm=12.0)
    array = phantom.lesions.array.astype(int)
    assert phantom.lesions.n_lesions == 100
    highest = ndimage.maximum_filter(array, 5)[array > 0]
    lowest = ndimage.minimum_filter(np.where(array > 0, array, 101), 5)[array > 0]
    assert np.array_equal(highest, array[array > 0]), "another lesion within two voxels"
    assert np.array_equal(lowest, array[array > 0]), "another lesion within two voxels"


# --- grids ---


@pytest.mark.parametrize(("orientation", "axes"), [("LPS", (0, 1)), ("LAI", (0, 2)), ("RPS", (1,))])
def test_flipped_grid_holds_the_same_lesions_with_the_same_numbers(orientation: str, axes: tuple[int, ...]):
    straight, flipped = made("pet", 5, n_lesions=4), made("pet", 5, n_lesions=4, orientation=orientation)
    assert np.array_equal(straight.lesions.array, np.flip(flipped.lesions.array, axes))
    centers = [[truth.center_ras_mm for truth in phantom.truths] for phantom in (straight, flipped)]
    assert np.allclose(centers[0], centers[1], atol=1e-6)


def test_transposed_grid_holds_the_same_lesions_and_without_noise_the_same_scan():
    straight, turned = (made("pet", 5, n_lesions=4, orientation=o, noise=0.0) for o in ("RAS", "SRA"))
    assert np.array_equal(straight.lesions.array, turned.lesions.array.transpose(1, 2, 0))
    assert np.allclose(straight.volume.array[0], turned.volume.array[0].transpose(1, 2, 0), atol=1e-4)


@pytest.mark.parametrize("oblique_degrees", [-30.0, 15.0, 45.0])
def test_oblique_grid_keeps_truth_in_the_world(oblique_degrees: float):
    phantom = made("ct", 3, n_lesions=3, smallest_mm=25.0, largest_mm=35.0, oblique_degrees=oblique_degrees)
    for truth in phantom.truths:
        points = phantom.lesions.geometry.to_world(np.argwhere(phantom.lesions.array == truth.lesion_id))
        # the forms without a formula are lopsided by up to a third of their radius
        assert np.linalg.norm(points.mean(axis=0) - truth.center_ras_mm) < truth.diameter_mm / 6.0


# --- intensities ---


@pytest.mark.parametrize("seed", range(4))
def test_pet_is_never_negative_and_looks_like_suv(seed: int):
    array = made("pet", seed).volume.array[0]
    body = array[(array > 0.1) & (made("pet", seed).lesions.array == 0)]
    assert array.min() >= 0.0
    assert 0.3 < np.median(body) < 1.2
    assert array.max() < 40.0
    assert made("pet", seed).volume.channels == ("pet",)


@pytest.mark.parametrize("seed", range(6))
def test_lesions_of_10_mm_or_more_are_hotter_than_their_surroundings_before_noise(seed: int):
    phantom = made("pet", seed, noise=0.0, smallest_mm=10.0)
    array, lesions = phantom.volume.array[0], phantom.lesions.array
    for truth in phantom.truths:
        inside = lesions == truth.lesion_id
        ring = ndimage.binary_dilation(inside, NEIGHBORS_26, 4) & ~ndimage.binary_dilation(lesions > 0, NEIGHBORS_26, 2)
        assert array[inside].max() > 1.5 * np.median(array[ring])
        assert array[inside].max() <= 2.0 * truth.intensity


def test_rims_have_cold_cores():
    rims = 0
    for seed in range(12):
        phantom = made("pet", seed, noise=0.0, n_lesions=3, smallest_mm=40.0, largest_mm=60.0)
        for truth in phantom.truths:
            if truth.shape == "rim":
                center = np.rint(phantom.lesions.geometry.to_voxel(truth.center_ras_mm)).astype(int)
                inside = phantom.volume.array[0][phantom.lesions.array == truth.lesion_id]
                assert phantom.lesions.array[tuple(center)] == truth.lesion_id, "the core belongs to the lesion"
                assert phantom.volume.array[0][tuple(center)] < 0.6 * np.percentile(inside, 90)
                rims += 1
    assert rims >= 2


def test_ct_is_in_hounsfield_units():
    phantom = made("ct", 1, noise=0.0)
    array, inside = phantom.volume.array[0], phantom.lesions.array > 0
    assert array.min() == pytest.approx(-1000.0, abs=1.0)
    assert array.max() > 350.0
    assert 0.0 < np.median(array[inside]) < 100.0
    assert all(20.0 <= truth.intensity <= 90.0 for truth in phantom.truths)


@pytest.mark.parametrize("kind", ["pet", "ct"])
def test_noise_scales(kind: str):
    clean, once, twice = (made(kind, 1, n_lesions=1, noise=n).volume.array for n in (0.0, 1.0, 2.0))
    # PET is clipped at 0, CT at -1024; look where neither bites
    body = clean > (0.4 if kind == "pet" else -200.0)
    assert (twice - clean)[body].std() == pytest.approx(2.0 * (once - clean)[body].std(), rel=0.02)


# --- refusals and records ---


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "mr"},
        {"seed": -1},
        {"n_lesions": -1},
        {"n_lesions": 1, "touching": True},
        {"n_lesions": 0, "at_border": True},
        {"smallest_mm": 0.0},
        {"smallest_mm": 20.0, "largest_mm": 10.0},
        {"largest_mm": float("nan")},
        {"noise": -0.1},
        {"noise": float("nan")},
        {"orientation": "XYZ"},
        {"n_lesions": 3, "smallest_mm": 500.0, "largest_mm": 600.0, **SMALL},
    ],
    ids=str,
)
def test_arguments_that_cannot_be_are_refused(arguments: dict):
    with pytest.raises(UsageError):
        make_phantom(**arguments)


def test_no_room_says_what_to_do():
    with pytest.raises(UsageError, match=r"no room for 2 lesion\(s\) of 500 to 500 mm .* larger grid"):
        make_phantom(n_lesions=2, smallest_mm=500.0, largest_mm=500.0, **SMALL)


def test_json_holds_every_truth():
    phantom = made("pet", 1, touching=True)
    description = json.loads(phantom.to_json())
    assert description["kind"] == "pet"
    assert description["units"] == "SUV"
    assert np.array_equal(description["affine_ras_mm"], phantom.volume.geometry.affine)
    assert tuple(PhantomLesion.model_validate(entry) for entry in description["lesions"]) == phantom.truths


def test_repr_is_one_line():
    assert repr(made("pet", 0, n_lesions=2, **SMALL)).startswith(
        "Phantom(pet, seed 0, 2 lesion(s), Geometry(32 x 32 x 40"
    )
