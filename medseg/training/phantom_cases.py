"""Phantoms among the training cases: several lesions in a scan, and none at all.

Scans that were cut around one tumor each cannot teach a network that a scan may hold several lesions, or none. Phantoms
can; a small share of them is enough, and too small to teach the look of a phantom.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.plan import Plan
from medseg.core.semantic import SemanticMap
from medseg.core.volume import Volume
from medseg.phantoms.crowd import Content, CrowdRequest, make_crowd
from medseg.phantoms.make import make_phantom
from medseg.training.datasets import training_case
from medseg.transforms.augment import TrainingCase

__all__ = ["phantom_cases"]

_N_PHANTOMS = 36
_FIRST_SEED = 1_000_000  # far from the seeds that a demonstration or a test takes
_N_CROWDS = 48
_CROWDS: tuple[Content, ...] = ("touching", "mixed", "touching", "lobulated", "touching", "isolated")
_CROWD_MM = (168.0, 168.0, 170.0)
_CROWD_SPACING = (4.0, 4.0, 3.27)
_CROWD_DIAMETERS_MM = (16.0, 70.0)
_EMPTY_SIDES = (16, 24, 32, 40, 48, 64, 96)  # voxels, of scans of nothing; the larger ones fill every window
_EMPTY_SPACING = (4.0, 4.0, 4.0)


def phantom_cases(plan: Plan, n: int = _N_PHANTOMS) -> list[TrainingCase]:
    """PET phantoms on the network's grid, and scans of nothing; none if the plan's `phantom_share` is 0.

    Every third phantom is a body without lesions. For instance heads there are crowds of touching lesions too.
    """
    if plan.training.phantom_share == 0:
        return []
    cases = []
    for number in range(n):
        phantom = make_phantom(
            "pet", _FIRST_SEED + number, n_lesions=0 if number % 3 == 0 else None, touching=number % 3 == 1
        )
        cases.append(_case(f"phantom_{number}", phantom.volume, phantom.lesions.array, plan))
    crowds = range(_N_CROWDS) if plan.network.instance_heads else ()
    return [*cases, *(_crowd(number, plan) for number in crowds), *(_nothing(side, plan) for side in _EMPTY_SIDES)]


def _crowd(number: int, plan: Plan) -> TrainingCase:
    smallest, largest = _CROWD_DIAMETERS_MM
    request = CrowdRequest(
        _CROWDS[number % len(_CROWDS)],
        kind="pet",
        extent_mm=_CROWD_MM,
        spacing_mm=_CROWD_SPACING,
        is_seam_visible=number % 5 < 3,
        smallest_mm=smallest,
        largest_mm=largest,
    )
    made = make_crowd(request, _FIRST_SEED + number)
    return _case(f"crowd_{number}", made.volume, made.lesions.array, plan)


def _nothing(side: int, plan: Plan) -> TrainingCase:
    shape = (side, side, 2 * side)
    grid = Geometry(shape, np.diag([*(plan.spacing_mm or _EMPTY_SPACING), 1.0]))
    volume = Volume(np.zeros((1, *shape), dtype=np.float32), grid, ("pet",))
    return _case(f"nothing_{side}", volume, np.zeros(shape), plan)


def _case(case_id: str, volume: Volume, lesions: NDArray[Any], plan: Plan) -> TrainingCase:
    reference = SemanticMap((lesions > 0).astype(np.uint8), volume.geometry, plan.labels)
    return training_case(case_id, volume, reference, plan, lesions.astype(np.int32))
