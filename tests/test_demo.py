"""What counts as a known lesion that was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.core.lesions import Lesion, LesionMap
from medseg.demo import found_lesions, run_demo
from medseg.errors import GridMismatch

GRID = Geometry((8, 1, 1), np.eye(4))


def _lesions(*numbers: int, geometry: Geometry = GRID) -> LesionMap:
    array = np.array(numbers, dtype=np.uint16).reshape(geometry.shape)
    return LesionMap(array, geometry, (Lesion("lesion"),) * max(numbers))


def test_half_of_the_voxels_is_found_and_less_is_not() -> None:
    known = _lesions(1, 1, 1, 1, 0, 2, 2, 2)
    assert found_lesions(known, _lesions(0, 0, 1, 1, 1, 1, 0, 0)) == (True, False)


def test_pieces_of_several_lesions_count_together() -> None:
    assert found_lesions(_lesions(1, 1, 1, 1, 0, 0, 0, 0), _lesions(1, 0, 0, 2, 2, 0, 0, 0)) == (True,)


def test_nothing_predicted_finds_nothing_and_nothing_known_is_no_entry() -> None:
    assert found_lesions(_lesions(1, 0, 2, 0, 0, 0, 0, 0), _lesions(*[0] * 8)) == (False, False)
    assert found_lesions(_lesions(*[0] * 8), _lesions(*[1] * 8)) == ()


def test_maps_on_different_grids_are_refused() -> None:
    with pytest.raises(GridMismatch):
        found_lesions(_lesions(*[0] * 8), _lesions(*[0] * 8, geometry=Geometry((8, 1, 1), np.diag([2.0, 1, 1, 1]))))


def test_the_demo_compares_with_the_phantom_that_it_wrote(tmp_path: Path, tiny_bundle: Path) -> None:
    outcome = run_demo(tmp_path / "demo", seed=2, model=tiny_bundle)
    assert outcome.n_known == outcome.phantom.lesions.n_lesions == len(outcome.found)
    assert outcome.found == found_lesions(outcome.phantom.lesions, outcome.result.lesions)
    np.testing.assert_array_equal(outcome.result.volume.array, outcome.phantom.volume.array)
