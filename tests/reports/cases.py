"""Cases made by hand for the report tests."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.labels import BINARY_LESION
from medseg.core.lesions import Lesion, LesionMap, label_dtype
from medseg.core.plan import ChannelPlan, InferencePlan, IntensityPlan, NetworkPlan, Plan
from medseg.core.provenance import Provenance
from medseg.core.recipe import recipe_of
from medseg.core.result import CaseResult
from medseg.core.scan import Scan
from medseg.core.semantic import SemanticMap
from medseg.core.volume import Volume
from medseg.lesions.measure import measure_lesions

ORIENTATIONS = [(order, flips) for order in permutations(range(3)) for flips in product((False, True), repeat=3)]
"""All 48 ways to store one grid."""


def make_lesions(array: NDArray[Any], geometry: Geometry, class_name: str = "lesion") -> LesionMap:
    n = int(array.max())
    return LesionMap(array.astype(label_dtype(n)), geometry, (Lesion(class_name),) * n)


def make_result(
    array: NDArray[Any],
    lesions: NDArray[Any],
    geometry: Geometry,
    *,
    case_id: str = "case_1",
    notes: tuple[str, ...] = (),
    modality: str = "PT",
    class_name: str = "lesion",
    units: str = "suv",
) -> CaseResult:
    volume = Volume(array[None], geometry, ("pet",), notes)
    lesion_map = make_lesions(lesions, geometry, class_name)
    channel = ChannelPlan(name="pet", modality=modality, units=units, intensity=IntensityPlan(low=0.0, high=20.0))
    plan = Plan(
        name="a_model",
        channels=(channel,),
        labels=BINARY_LESION,
        spacing_mm=None,
        network=NetworkPlan(),
        inference=InferencePlan(patch_size=(16, 16, 16)),
    )
    provenance = Provenance(
        model_name="a_model",
        weights_sha256="ab" * 32,
        plan_sha256=recipe_of(plan).sha256,
        inputs_sha256=("cd" * 32,),
        device="cpu",
        engine="torch",
        precision="float32",
        versions={"python": "3.11", "medseg": "0.1.0"},
        notes=notes,
    )
    return CaseResult(
        scan=Scan(case_id, ((Path("scan.nii.gz"),),), "nifti", geometry),
        volume=volume,
        semantic=SemanticMap((lesions > 0).astype(np.uint8), geometry, BINARY_LESION),
        lesions=lesion_map,
        table=measure_lesions(lesion_map, volume, case_id),
        recipe=recipe_of(plan),
        provenance=provenance,
        seconds={"read": 0.1},
    )


def spots(n_lesions: int) -> tuple[NDArray[np.float32], NDArray[np.uint16], Geometry]:
    """A PET-like scan with that many lesions of one voxel each, in a row of planes."""
    geometry = Geometry((40, 40, 12), np.diag([4.0, 4.0, 4.0, 1.0]))
    lesions = np.zeros(geometry.shape, dtype=np.uint16)
    places = [(i, j, k) for k in range(1, 12, 2) for j in range(1, 40, 2) for i in range(1, 40, 2)]
    for number, place in enumerate(places[:n_lesions], start=1):
        lesions[place] = number
    return (1.0 + 8.0 * (lesions > 0)).astype(np.float32), lesions, geometry


def asymmetric_case() -> tuple[NDArray[np.float32], NDArray[np.uint16], Geometry]:
    """On a RAS grid: lesion 1 at the patient's right, front and head end; lesion 2 in one of its slices, far behind."""
    geometry = Geometry((40, 30, 20), np.diag([2.0, 3.0, 4.0, 1.0]))
    lesions = np.zeros(geometry.shape, dtype=np.uint16)
    lesions[30:36, 22:27, 14:17] = 1
    lesions[29, 22:27, 15] = 1  # slice 15 is the largest
    lesions[4:8, 3:6, 15:17] = 2
    ramp = np.linspace(0.0, 1.0, 40)[:, None, None] + np.linspace(0.0, 0.5, 30)[:, None]
    return (ramp + 7.0 * (lesions == 1) + 4.0 * (lesions == 2)).astype(np.float32), lesions, geometry


def stored(
    array: NDArray[Any], geometry: Geometry, order: tuple[int, ...], flips: tuple[bool, ...]
) -> tuple[NDArray[Any], Geometry]:
    """The same scan with its axes in another order and direction; every voxel stays where it is in the world."""
    affine = geometry.affine.copy()
    for axis, (old, flip) in enumerate(zip(order, flips, strict=True)):
        affine[:3, axis] = geometry.affine[:3, old] * (-1.0 if flip else 1.0)
        if flip:
            affine[:3, 3] += geometry.affine[:3, old] * (geometry.shape[old] - 1)
    turned = array.transpose(order)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    return turned, Geometry(turned.shape, affine)
