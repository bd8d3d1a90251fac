"""CaseResult: everything about one case lies on the scan's grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.core.labels import BINARY_LESION
from medseg.core.lesions import Lesion, LesionMap
from medseg.core.plan import ChannelPlan, InferencePlan, IntensityPlan, NetworkPlan, Plan
from medseg.core.provenance import Provenance
from medseg.core.recipe import recipe_of
from medseg.core.result import CaseFailure, CaseResult
from medseg.core.scan import Scan
from medseg.core.semantic import SemanticMap
from medseg.core.table import COLUMNS, LesionTable
from medseg.core.volume import Volume
from medseg.errors import GridMismatch

GRID = Geometry((2, 3, 4), np.eye(4))
SHIFTED = Geometry((2, 3, 4), np.array([[1.0, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
ROUNDED = Geometry((2, 3, 4), np.array([[1.0, 0, 0, 1e-4], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))


def _lesions(grid: Geometry, n: int = 1) -> LesionMap:
    array = np.zeros(grid.shape, dtype=np.uint16)
    array.ravel()[:n] = np.arange(1, n + 1)
    return LesionMap(array, grid, (Lesion("lesion"),) * n)


def _result(**changes) -> CaseResult:
    intensity = IntensityPlan(low=0.0, high=1.0)
    parts = {
        "scan": Scan("p01", ((Path("a.nii.gz"),),), "nifti", GRID),
        "volume": Volume(np.zeros((1, 2, 3, 4)), GRID, ("ct",)),
        "semantic": SemanticMap(np.zeros(GRID.shape, dtype=np.uint8), GRID, BINARY_LESION),
        "lesions": _lesions(GRID),
        "table": LesionTable(({column.name: None for column in COLUMNS},)),
        "recipe": recipe_of(
            Plan(
                name="m",
                channels=(ChannelPlan(name="ct", modality="CT", intensity=intensity),),
                labels=BINARY_LESION,
                spacing_mm=None,
                network=NetworkPlan(),
                inference=InferencePlan(patch_size=(8, 8, 8)),
            )
        ),
        "provenance": Provenance(
            model_name="m",
            weights_sha256="",
            plan_sha256="",
            inputs_sha256=(),
            device="cpu",
            engine="torch",
            precision="float32",
            versions={},
        ),
        "seconds": {"load": 0.1},
    }
    return CaseResult(**(parts | changes))


def test_result_takes_its_name_from_the_scan():
    assert _result().case_id == "p01"
    assert repr(_result()) == "CaseResult('p01', 1 lesion(s))"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("volume", Volume(np.zeros((1, 2, 3, 4)), SHIFTED, ("ct",))),
        ("semantic", SemanticMap(np.zeros(GRID.shape, dtype=np.uint8), SHIFTED, BINARY_LESION)),
        ("lesions", _lesions(SHIFTED)),  # the message says "lesion map"
    ],
)
def test_part_on_another_grid_is_refused_by_name(name: str, part):
    with pytest.raises(GridMismatch, match=f"p01: the {name[:6]}"):
        _result(**{name: part})


def test_rounding_of_the_affine_is_no_other_grid():
    assert _result(lesions=_lesions(ROUNDED)).lesions.n_lesions == 1


@pytest.mark.parametrize("n_lesions", [0, 2])
def test_table_needs_one_row_a_lesion(n_lesions: int):
    with pytest.raises(GridMismatch, match=f"1 table rows for {n_lesions} lesions"):
        _result(lesions=_lesions(GRID, n_lesions))


def test_failure_says_where_and_why():
    failure = CaseFailure("p02", "read", "no such file")
    assert (failure.case_id, failure.stage, failure.error) == ("p02", "read", "no such file")
    with pytest.raises(AttributeError):
        failure.stage = "other"  # type: ignore[misc]
