"""Body: a limb through the whole field of view, the same on every grid."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.phantoms.body import Tissue, draw_body, draw_texture
from medseg.phantoms.grid import make_grid, sample

GRID = make_grid((48, 48, 40), (5.0, 5.0, 6.0), "RAS", 0.0)


@pytest.fixture(scope="module", params=range(4))
def body(request):
    return draw_body(GRID, np.random.default_rng(request.param))


def test_every_tissue_is_there(body):
    tissues = sample(make_grid((96, 96, 40), (2.5, 2.5, 6.0), "RAS", 0.0), body.tissues, np.uint8)
    assert set(np.unique(tissues)) == {int(tissue) for tissue in Tissue}


def test_limb_has_air_around_it_and_runs_from_end_to_end(body):
    tissues = sample(GRID, body.tissues, np.uint8)
    assert (tissues[[0, -1]] == Tissue.AIR).all()
    assert (tissues[:, [0, -1]] == Tissue.AIR).all()
    share = (tissues != Tissue.AIR).mean(axis=(0, 1))
    assert share.min() > 0.25
    assert share.max() < 0.75


def test_fat_lies_between_muscle_and_air(body):
    along_x = body.tissues(
        np.array(body.center_mm) + np.linspace(0.0, 1.3, 500)[:, None] * [body.semi_axes_mm[0], 0, 0]
    )
    last_muscle, first_air = np.flatnonzero(along_x == Tissue.MUSCLE)[-1], np.flatnonzero(along_x == Tissue.AIR)[0]
    assert last_muscle < first_air
    assert (along_x[last_muscle + 1 : first_air] == Tissue.FAT).all()


def test_room_for_lesions_is_inside_and_off_the_warm_regions(body):
    tissues, room = sample(GRID, body.tissues, np.uint8), sample(GRID, body.room, np.bool_)
    assert room.mean() > 0.2
    assert not np.isin(tissues[room], [Tissue.AIR, Tissue.VESSEL]).any()
    # bone may lie on top of a warm region, so not every warm voxel shows; but none of those that do is free
    assert not (room & (tissues == Tissue.WARM)).any()


def test_texture_has_mean_0_and_deviation_1():
    values = draw_texture(np.random.default_rng(0)).at(np.random.default_rng(1).uniform(-2000.0, 2000.0, (50_000, 3)))
    assert values.mean() == pytest.approx(0.0, abs=0.03)
    assert values.std() == pytest.approx(1.0, abs=0.03)
