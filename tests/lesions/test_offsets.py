"""Separation by centers and offsets: exact on exact evidence, deterministic, and nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medseg.core.evidence import InstanceEvidence
from medseg.core.geometry import Geometry
from medseg.core.labels import BINARY_LESION
from medseg.core.plan import SeparationPlan
from medseg.core.semantic import SemanticMap
from medseg.errors import GridMismatch, UsageError
from medseg.lesions.cells import Cells
from medseg.lesions.offsets import _Votes
from medseg.lesions.orientation import CanonicalView
from medseg.lesions.separate import separate_lesions
from medseg.phantoms.crowd import CrowdRequest, make_crowd

OFFSETS = SeparationPlan(method="offsets")


def exact_evidence(lesions: np.ndarray, geometry: Geometry, noise_mm: float = 0.0, seed: int = 0) -> InstanceEvidence:
    """What a perfect network would say; offsets with noise."""
    spacing = np.array(geometry.spacing)
    center = np.zeros(lesions.shape)
    offsets = np.zeros((3, *lesions.shape))
    index = np.moveaxis(np.indices(lesions.shape), 0, -1) * spacing
    for number in range(1, lesions.max() + 1):
        own = lesions == number
        middle = index[own].mean(axis=0)
        nearest = index[own][np.linalg.norm(index[own] - middle, axis=1).argmin()]
        sigma = max(1.0, 0.4 * np.cbrt(own.sum() * spacing.prod()) * 0.62)
        center = np.maximum(center, np.exp(-((index - nearest) ** 2).sum(axis=-1) / (2 * sigma**2)))
        offsets[:, own] = (nearest - index[own]).T
    offsets += np.random.default_rng(seed).normal(0.0, noise_mm, offsets.shape) if noise_mm else 0.0
    return InstanceEvidence(center, offsets, geometry)


def semantic_of(lesions: np.ndarray, geometry: Geometry, evidence: InstanceEvidence | None) -> SemanticMap:
    return SemanticMap((lesions > 0).astype(np.uint8), geometry, BINARY_LESION, evidence=evidence)


def crowd_maps(
    seed: int = 2, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), overlap: tuple[float, float] = (0.0, 0.4)
) -> tuple[np.ndarray, Geometry]:
    request = CrowdRequest(
        "touching", extent_mm=(48.0, 48.0, 48.0), spacing_mm=spacing, overlap=overlap, smallest_mm=8.0, largest_mm=18.0
    )
    made = make_crowd(request, seed)
    return np.array(made.lesions.array, dtype=np.int64), made.lesions.geometry


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 0.8, 3.0), (0.8, 0.8, 5.0)])
def test_exact_evidence_gives_back_the_instances(spacing: tuple[float, float, float]) -> None:
    lesions, geometry = crowd_maps(spacing=spacing)
    found = separate_lesions(semantic_of(lesions, geometry, exact_evidence(lesions, geometry)), OFFSETS)
    assert np.array_equal(found.array, lesions)
    assert found.method == "offsets"
    assert all(lesion.split_from_component is not None for lesion in found.lesions)
    assert all(lesion.vote_spread_mm == pytest.approx(0.0, abs=1e-6) for lesion in found.lesions)
    assert all(lesion.score == pytest.approx(1.0, abs=0.02) for lesion in found.lesions)


def test_on_thick_slices_centers_are_looked_for_as_finely_as_the_network_saw_them() -> None:
    fine = Geometry((40, 40, 40), np.eye(4))
    index = np.moveaxis(np.indices(fine.shape), 0, -1)
    lesions = np.where(np.linalg.norm(index - (16, 20, 12), axis=-1) <= 7, 1, 0)
    lesions[np.linalg.norm(index - (16, 20, 19.5), axis=-1) <= 3.5] = 2  # its center lies between two slices
    nearest = ndimage.distance_transform_edt(lesions == 0, return_distances=False, return_indices=True)
    exact = exact_evidence(lesions, fine)
    offsets = exact.offsets_mm[:, *nearest] + nearest - np.indices(fine.shape)  # votes do not end where the lesion does
    evidence = InstanceEvidence(exact.center, offsets, fine)
    slices = Geometry((40, 40, 8), np.array([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 5.0, 2.0], [0, 0, 0, 1]]))
    layers = np.stack([(lesions == n).reshape(40, 40, 8, 5).sum(axis=-1) for n in (0, 1, 2)])
    foreground = (layers[1:].sum(axis=0) > 2).astype(np.int64)
    found = np.asarray(separate_lesions(semantic_of(foreground, slices, evidence), OFFSETS).array)
    assert found.max() == 2
    alone = [found[(foreground > 0) & (layers[3 - n] == 0)] for n in (1, 2)]  # voxels that one lesion has to itself
    assert [len(of_one) > 20 for of_one in alone] == [True, True]
    assert [np.unique(of_one).tolist() for of_one in alone] == [[1], [2]]


def test_auto_takes_offsets_where_there_is_evidence_and_the_watershed_where_not() -> None:
    lesions, geometry = crowd_maps()
    with_evidence = semantic_of(lesions, geometry, exact_evidence(lesions, geometry))
    assert separate_lesions(with_evidence).method == "offsets"
    assert separate_lesions(semantic_of(lesions, geometry, None)).method == "watershed"
    with pytest.raises(UsageError, match="instance heads"):
        separate_lesions(semantic_of(lesions, geometry, None), OFFSETS)


def test_no_peak_leaves_the_component_whole_and_no_voxel_is_lost() -> None:
    lesions, geometry = crowd_maps()
    silent = InstanceEvidence(np.zeros(lesions.shape), np.zeros((3, *lesions.shape)), geometry)
    components = separate_lesions(semantic_of(lesions, geometry, None), SeparationPlan(method="components"))
    found = separate_lesions(semantic_of(lesions, geometry, silent), OFFSETS)
    assert np.array_equal(found.array, components.array)
    assert all(lesion.split_from_component is None for lesion in found.lesions)
    for seed in range(5):
        random = np.random.default_rng(seed)
        noise = InstanceEvidence(random.random(lesions.shape), random.normal(0, 9, (3, *lesions.shape)), geometry)
        noisy = separate_lesions(semantic_of(lesions, geometry, noise), OFFSETS)
        assert np.array_equal(noisy.array > 0, lesions > 0)
        for number in range(1, components.n_lesions + 1):  # no lesion reaches over two components
            inside = set(np.unique(noisy.array[components.array == number]).tolist())
            assert not inside & set(np.unique(noisy.array[(components.array != number) & (lesions > 0)]).tolist())


def test_lesions_are_connected_whatever_the_votes_say() -> None:
    lesions, geometry = crowd_maps()
    evidence = exact_evidence(lesions, geometry, noise_mm=3.0)
    found = separate_lesions(semantic_of(lesions, geometry, evidence), OFFSETS)
    for number in range(1, found.n_lesions + 1):
        assert ndimage.label(found.array == number, np.ones((3, 3, 3)))[1] == 1


def test_poor_votes_of_a_large_lesion_are_not_taken_for_those_of_a_small_one() -> None:
    index = np.moveaxis(np.indices((40, 32, 32)), 0, -1)
    lesions = np.where(np.linalg.norm(index - (13, 16, 16), axis=-1) <= 10, 1, 0)
    lesions[np.linalg.norm(index - (27, 16, 16), axis=-1) <= 4] = 2
    geometry = Geometry(lesions.shape, np.eye(4))
    exact = exact_evidence(lesions, geometry)
    evidence = InstanceEvidence(exact.center, 0.05 * exact.offsets_mm, geometry)  # votes hardly leave
    found = np.asarray(separate_lesions(semantic_of(lesions, geometry, evidence), OFFSETS).array)
    assert found.max() == 2
    assert np.count_nonzero(found != lesions) <= 0.02 * np.count_nonzero(lesions)


def test_a_vote_that_is_right_decides_whatever_lies_nearer() -> None:
    index = np.moveaxis(np.indices((64, 40, 40)), 0, -1)
    lesions = np.where(np.linalg.norm(index - (44, 20, 20), axis=-1) <= 15, 1, 0)
    rod = (np.abs(index - (15, 20, 20)) <= (13, 2, 2)).all(axis=-1)  # its end is nearer to the ball, in radii of both
    lesions[rod & (lesions == 0)] = 2
    geometry = Geometry(lesions.shape, np.eye(4))
    found = separate_lesions(semantic_of(lesions, geometry, exact_evidence(lesions, geometry)), OFFSETS)
    assert np.array_equal(found.array, lesions)


def test_two_peaks_that_all_voxels_leave_for_one_place_are_one_lesion() -> None:
    lesions = np.zeros((30, 14, 14), dtype=np.int64)
    lesions[2:28, 2:12, 2:12] = 1
    geometry = Geometry(lesions.shape, np.eye(4))
    evidence = exact_evidence(lesions, geometry)
    center = np.array(evidence.center)
    center[6, 7, 7] = center[22, 7, 7] = 0.9
    found = separate_lesions(
        semantic_of(lesions, geometry, InstanceEvidence(center, evidence.offsets_mm, geometry)), OFFSETS
    )
    assert found.n_lesions == 1


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
def test_partition_is_the_same_in_any_orientation(axes: tuple[int, int, int]) -> None:
    lesions, geometry = crowd_maps(spacing=(0.8, 0.8, 3.0))
    evidence = exact_evidence(lesions, geometry, noise_mm=1.5)
    straight = separate_lesions(semantic_of(lesions, geometry, evidence), OFFSETS).array
    for flips in ((1, 1, 1), (-1, 1, -1), (-1, -1, -1)):
        turned, turned_geometry = reoriented(lesions, geometry, axes, flips)
        own = InstanceEvidence(
            reoriented(np.array(evidence.center), geometry, axes, flips)[0],
            np.stack(
                [
                    reoriented(np.array(evidence.offsets_mm[axis]), geometry, axes, flips)[0] * sign
                    for axis, sign in zip(axes, flips, strict=True)
                ]
            ),
            turned_geometry,
        )
        for given in (own, evidence):  # evidence on its own grid means the same
            found = separate_lesions(semantic_of(turned, turned_geometry, given), OFFSETS).array
            assert np.array_equal(found, reoriented(np.array(straight), geometry, axes, flips)[0])


def reoriented(
    array: np.ndarray, geometry: Geometry, axes: tuple[int, int, int], flips: tuple[int, ...]
) -> tuple[np.ndarray, Geometry]:
    """An array with its axes permuted, then mirrored, and its grid."""
    affine = geometry.affine[:, [*axes, 3]].copy()
    turned = array.transpose(axes)
    for axis, sign in enumerate(flips):
        if sign < 0:
            turned = np.flip(turned, axis)
            affine[:3, 3] += affine[:3, axis] * (turned.shape[axis] - 1)
            affine[:3, axis] *= -1
    return np.ascontiguousarray(turned), Geometry(turned.shape, affine)


def test_partition_is_the_same_in_a_larger_scan() -> None:
    lesions, geometry = crowd_maps()
    evidence = exact_evidence(lesions, geometry, noise_mm=1.5)
    straight = separate_lesions(semantic_of(lesions, geometry, evidence), OFFSETS).array
    wide = np.pad(lesions, ((3, 5), (0, 2), (7, 1)))
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.to_world([-3, 0, -7])
    found = separate_lesions(semantic_of(wide, Geometry(wide.shape, affine), evidence), OFFSETS).array
    assert np.array_equal(found[3:-5, :-2, 7:-1], straight)


def test_evidence_on_a_coarser_grid_is_interpolated() -> None:
    lesions, geometry = crowd_maps(overlap=(0.0, 0.2))  # centers less than three of its voxels apart are one on it
    fine = exact_evidence(lesions, geometry)
    affine = geometry.affine.copy()
    affine[:3, :3] *= 2
    coarse = Geometry(tuple(-(-n // 2) for n in geometry.shape), affine)
    evidence = InstanceEvidence(fine.center[::2, ::2, ::2], fine.offsets_mm[:, ::2, ::2, ::2], coarse)
    found = separate_lesions(semantic_of(lesions, geometry, evidence), OFFSETS)
    assert found.n_lesions == lesions.max()
    pairs = np.bincount(lesions.ravel() * (found.n_lesions + 1) + found.array.ravel(), minlength=0)
    table = np.pad(pairs, (0, (lesions.max() + 1) * (found.n_lesions + 1) - pairs.size)).reshape(lesions.max() + 1, -1)
    assert table[1:, 1:].max(axis=1).sum() > 0.9 * np.count_nonzero(lesions)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("shift_mm", [-1000.0, 1000.0])
def test_evidence_of_another_place_is_refused(axis: int, shift_mm: float) -> None:
    lesions, geometry = crowd_maps()
    affine = geometry.affine.copy()
    affine[axis, 3] += shift_mm
    away = InstanceEvidence(np.ones((4, 4, 4)), np.ones((3, 4, 4, 4)), Geometry((4, 4, 4), affine))
    with pytest.raises(GridMismatch, match="evidence of the same case"):
        separate_lesions(semantic_of(lesions, geometry, away), OFFSETS)
    nothing = np.zeros_like(lesions)
    assert separate_lesions(semantic_of(nothing, geometry, away), OFFSETS).n_lesions == 0


def test_evidence_of_another_shape_than_its_grid_is_refused() -> None:
    with pytest.raises(GridMismatch, match="offsets_mm"):
        InstanceEvidence(np.ones((4, 4, 4)), np.ones((3, 4, 4, 5)), Geometry((4, 4, 4), np.eye(4)))


@pytest.mark.parametrize("axis", range(3))
def test_a_ripple_of_the_heat_is_no_second_lesion_and_a_dip_is(axis: int) -> None:
    lesions = np.zeros((24, 24, 24), dtype=np.int64)
    lesions[4:20, 8:16, 8:16] = 1
    lesions = np.moveaxis(lesions, 0, axis)
    geometry = Geometry(lesions.shape, np.eye(4))
    along = np.moveaxis(np.indices(lesions.shape)[axis], axis, 0)
    for dip, n_expected in ((0.0, 1), (0.05, 1), (0.15, 2)):
        # two peaks, equal or one a little lower, of which each voxel votes for the nearer one
        profile = np.interp(along, (4, 8, 12, 16, 20), (0.1, 0.8, 0.78 * (1 - dip), 0.78, 0.1))
        ways = np.where(along < 12, 8, 16) - along
        offsets = np.zeros((3, *lesions.shape))
        offsets[axis] = np.moveaxis(ways, 0, axis)
        others = [a for a in range(3) if a != axis]
        falloff = np.exp(-sum((np.indices(lesions.shape)[a] - 12) ** 2 for a in others) / 20)
        evidence = InstanceEvidence(np.moveaxis(profile, 0, axis) * falloff, offsets, geometry)
        found = separate_lesions(semantic_of(lesions, geometry, evidence), OFFSETS)
        assert found.n_lesions == n_expected, dip


def test_a_center_that_its_own_voxels_do_not_vote_for_is_none() -> None:
    lesions = np.zeros((28, 16, 16), dtype=np.int64)
    lesions[3:25, 4:12, 4:12] = 1
    geometry = Geometry(lesions.shape, np.eye(4))
    x, y, z = np.indices(lesions.shape).astype(float)
    far = (y - 8) ** 2 + (z - 8) ** 2
    heat = np.maximum(np.exp(-((x - 10) ** 2 + far) / 18), 0.6 * np.exp(-((x - 22) ** 2 + far) / 6))
    for votes_for_second, n_expected in ((False, 1), (True, 2)):
        to = np.where((x > 18) & votes_for_second, 22, 10)
        evidence = InstanceEvidence(heat, np.stack([to - x, 8 - y, 8 - z]), geometry)
        found = separate_lesions(semantic_of(lesions, geometry, evidence), OFFSETS)
        assert found.n_lesions == n_expected
        assert np.array_equal(found.array > 0, lesions > 0)


def test_a_cell_goes_to_the_nearest_of_the_peaks_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    mask = np.ones((14, 15, 16), dtype=bool)
    cells = Cells.of(mask, (1, 1, 2), CanonicalView.of(Geometry(mask.shape, np.diag([1.0, 1.0, 2.0, 1.0]))))
    heat = random.random(len(cells.cell_places))
    votes = _Votes(cells, heat, random.normal(0.0, 3.0, (len(heat), 3)), OFFSETS)
    first = np.argsort(-heat)[:40]
    monkeypatch.setattr(_Votes, "_nearest_in_radii", lambda self, owner, peaks: owner)
    owner, peaks = votes._shared_out(first)
    assert 1 < len(peaks) < len(first)  # some went, one by one
    away = np.linalg.norm(votes._votes[:, None] - votes._positions[peaks], axis=2)
    np.testing.assert_array_equal(owner, away.argmin(axis=1))
