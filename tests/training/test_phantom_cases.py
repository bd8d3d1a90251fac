"""Phantoms on the network's grid: some with lesions, some without, some of nothing."""

from __future__ import annotations

import pytest

from medseg.core.plan import IntensityPlan
from medseg.training.phantom_cases import phantom_cases
from tests.plans import tiny_plan


def test_phantoms_are_on_the_plans_grid_with_and_without_lesions() -> None:
    plan = tiny_plan(spacing_mm=(8.0, 8.0, 8.0), intensity=IntensityPlan(low=0, high=25, transform="sqrt", shift=1.0))
    plan = plan.model_copy(update={"training": plan.training.model_copy(update={"phantom_share": 0.1})})
    cases = phantom_cases(plan, 3)
    assert [len(case.lesion_voxels) > 0 for case in cases[:4]] == [False, True, True, False]
    assert len({case.image.shape for case in cases[3:]}) == len(cases[3:])
    assert all(case.spacing_mm == pytest.approx((8.0, 8.0, 8.0)) for case in cases)
    assert cases[1].image[cases[1].label > 0].mean() > cases[1].image.mean()
    assert cases[-1].image.unique().tolist() == [-1.0]


def test_a_plan_without_phantoms_gets_none() -> None:
    assert phantom_cases(tiny_plan()) == []
