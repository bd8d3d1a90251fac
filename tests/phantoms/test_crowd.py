"""Crowds hold what was asked for, and their truth is exact."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medseg.errors import UsageError
from medseg.phantoms.crowd import Crowd, CrowdRequest, make_crowd
from medseg.phantoms.groups import shared_fraction
from medseg.phantoms.masks import draw_mask, mask_shapes
from medseg.phantoms.shapes import Sphere

CUBE = np.ones((3, 3, 3), dtype=bool)
SPACINGS = [(1.0, 1.0, 1.0), (0.8, 0.8, 3.0), (0.8, 0.8, 5.0)]


def crowd(content: str = "touching", seed: int = 3, **changes: object) -> Crowd:
    given = {"extent_mm": (56.0, 56.0, 50.0), "largest_mm": 20.0, **changes}
    return make_crowd(CrowdRequest(content, **given), seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("spacing", SPACINGS)
def test_each_group_is_one_component_of_several_lesions(spacing: tuple[float, float, float]) -> None:
    made = crowd(spacing_mm=spacing)
    components, _ = ndimage.label(made.lesions.array > 0, CUBE)
    groups: dict[int, set[int]] = {}
    for number, truth in enumerate(made.truths, start=1):
        own = made.lesions.array == number
        assert ndimage.label(own, CUBE)[1] == 1
        assert truth.group is not None
        groups.setdefault(truth.group, set()).update(np.unique(components[own]).tolist())
    assert groups
    assert all(len(parts) == 1 for parts in groups.values())
    assert len(set.union(*groups.values())) == len(groups)
    assert made.volume.geometry.spacing == pytest.approx(spacing)


def test_overlap_is_the_share_of_the_smaller_lesion() -> None:
    ball = Sphere(20.0)
    assert shared_fraction(ball, Sphere(8.0)) == 1.0
    assert shared_fraction(ball, Sphere(8.0, center_mm=(30.0, 0.0, 0.0))) == 0.0
    # two equal balls at a distance of one radius share 5/16 of their volume
    assert shared_fraction(ball, Sphere(20.0, center_mm=(10.0, 0.0, 0.0))) == pytest.approx(5 / 16, abs=0.03)
    for seed in range(3):
        wanted = crowd(seed=seed, overlap=(0.2, 0.3))
        assert all(0.15 <= truth.overlap <= 0.35 for truth in wanted.truths)


def test_single_lesions_stand_apart() -> None:
    made = crowd("lobulated", largest_mm=24.0)
    assert {truth.form for truth in made.truths} <= {"lobulated", "infiltrating"}
    assert ndimage.label(made.lesions.array > 0, CUBE)[1] == len(made.truths)
    assert all(truth.group is None for truth in made.truths)


def test_a_seam_is_darker_than_the_lesions_only_where_it_is_visible() -> None:
    depths = []
    for is_visible in (True, False):
        made = crowd(seed=11, is_seam_visible=is_visible, smallest_mm=14.0)
        array, image = made.lesions.array.astype(np.int32), made.volume.array[0]
        inner = ndimage.binary_erosion(array > 0, CUBE, iterations=2)
        low = ndimage.minimum_filter(np.where(array > 0, array, 9999), size=3)
        is_seam = inner & (low != ndimage.maximum_filter(array, size=3))
        contrast = image[inner & ~is_seam].mean() - image[array == 0].mean()
        depths.append((image[inner & ~is_seam].mean() - image[is_seam].mean()) / contrast)
    assert depths[0] > 0.1
    assert abs(depths[1]) < 0.1


def test_same_seed_same_crowd_and_another_seed_another() -> None:
    first, again, other = crowd("mixed", 5), crowd("mixed", 5), crowd("mixed", 6)
    assert np.array_equal(first.volume.array, again.volume.array)
    assert np.array_equal(first.lesions.array, again.lesions.array)
    assert not np.array_equal(first.lesions.array, other.lesions.array)


def test_empty_crowd_has_no_lesion() -> None:
    assert crowd("empty").lesions.n_lesions == 0


def test_pet_crowd_is_uptake_above_background() -> None:
    made = crowd("isolated", kind="pet", extent_mm=(120.0, 120.0, 120.0), spacing_mm=(4.0, 4.0, 4.0), smallest_mm=15.0)
    inside = made.lesions.array > 0
    assert made.volume.array[0][inside].mean() > 2 * made.volume.array[0][~inside].mean()


@pytest.mark.parametrize("wrong", [{"overlap": (0.5, 0.2)}, {"overlap": (0.0, 1.0)}, {"smallest_mm": 0.0}])
def test_impossible_requests_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        crowd(**wrong)


def test_form_of_a_mask_is_kept_when_scaled() -> None:
    made = crowd("isolated", largest_mm=16.0, smallest_mm=12.0)
    shapes = mask_shapes(made.lesions.array, made.lesions.geometry)
    assert len(shapes) >= 1
    shape = shapes[0]
    drawn = draw_mask([shape], 2 * shape.diameter_mm, np.random.default_rng(0))
    grids = []
    for form in (shape, drawn):
        ticks = np.linspace(-0.5, 0.5, 41) * form.diameter_mm
        points = np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), axis=-1)
        grids.append(form.contains(points).sum() * (ticks[1] - ticks[0]) ** 3)
    assert grids[1] / grids[0] == pytest.approx(8.0, rel=0.05)
    voxels = np.count_nonzero(made.lesions.array == 1) * made.lesions.geometry.voxel_volume_mm3
    assert grids[0] == pytest.approx(voxels, rel=0.15)
