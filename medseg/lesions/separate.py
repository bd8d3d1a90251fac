"""From a semantic map to a lesion map: the front door of separation."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medseg.core.evidence import InstanceEvidence
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.core.lesions import Lesion, LesionMap, label_dtype
from medseg.core.plan import SeparationPlan
from medseg.core.semantic import SemanticMap
from medseg.errors import UsageError
from medseg.lesions.components import connect_runs
from medseg.lesions.evidence import check_same_place
from medseg.lesions.numbering import number_runs
from medseg.lesions.offsets import split_by_offsets
from medseg.lesions.pieces import Pieces
from medseg.lesions.runs import Runs, find_runs
from medseg.lesions.watershed import split_components

__all__ = ["separate_lesions", "smallest_voxel_count"]

_log = logging.getLogger(__name__)

# An affine that went through float32 (NIfTI) carries a relative error of 2e-7 in its voxel volume.
_VOLUME_TOLERANCE = 1e-6

_Method = Literal["components", "watershed", "offsets"]


def separate_lesions(
    semantic: SemanticMap, plan: SeparationPlan | None = None, evidence: InstanceEvidence | None = None
) -> LesionMap:
    """Turn a map of classes into a map of lesions.

    Parameters
    ----------
    semantic
        Class of each voxel, with or without a probability map.
    plan
        Method and its thresholds, connectivity, minimum volume; None for `SeparationPlan()`. Method "auto" is "offsets"
        where there is evidence, else the watershed. A lesion smaller than the minimum volume is removed; one exactly as
        large stays.
    evidence
        What a network says of the lesions' centers; by default what the semantic map carries.

    Returns
    -------
    Lesions 1..n on the same grid. `method` is what ran; `score` of a lesion is its mean foreground probability (by
    offsets also times the heat at its center), or None without either.

    Raises
    ------
    GridMismatch
        If the evidence lies elsewhere than everything that the semantic map marks.
    UsageError
        If the method is "offsets" and there is no evidence, or a region that is to be merged is not in the scheme.

    Examples
    --------
    >>> from medseg.core.labels import BINARY_LESION
    >>> array = np.zeros((5, 1, 1), dtype=np.uint8)
    >>> array[[0, 2, 3]] = 1
    >>> lesions = separate_lesions(SemanticMap(array, Geometry((5, 1, 1), np.eye(4)), BINARY_LESION))
    >>> lesions.array.ravel().tolist()
    [2, 0, 1, 1, 0]
    """
    plan = plan or SeparationPlan()
    evidence = evidence if evidence is not None else semantic.evidence
    geometry = semantic.geometry
    kinds = _Kinds.of(semantic.scheme, plan.merge_regions)
    method = _method(plan, evidence, semantic)
    components, n_components = connect_runs(find_runs(semantic.array, kinds.lookup_if_any), plan.connectivity)
    pieces = _pieces(method, components, n_components, semantic, plan, evidence)
    smallest = smallest_voxel_count(plan.minimum_volume_ml, geometry)
    kept, n_removed, n_voxels_removed = _without_small(pieces.runs, len(pieces.components), smallest)
    numbered, old_numbers = number_runs(kept, geometry)
    _log.info("%d lesion(s) by %s, %d below the minimum volume", old_numbers.size, method, n_removed)
    return LesionMap(
        array=numbered.to_array(label_dtype(old_numbers.size)),
        geometry=geometry,
        lesions=_describe(numbered, semantic, kinds, pieces, old_numbers, method),
        method=method,
        n_removed=n_removed,
        removed_volume_ml=n_voxels_removed * geometry.voxel_volume_mm3 / 1000.0,
    )


@dataclass(frozen=True, eq=False)
class _Kinds:
    """What lesions are told apart by: classes, or regions that unite some. `lookup` is from class number to kind."""

    lookup: NDArray[np.uint16]
    names: dict[int, str]
    is_identity: bool

    @classmethod
    def of(cls, scheme: LabelScheme, regions: tuple[str, ...]) -> _Kinds:
        unknown = sorted(set(regions) - set(scheme.regions))
        if unknown:
            raise UsageError(
                f"merge_regions names {unknown}; the label scheme has the regions {sorted(scheme.regions)}"
            )
        lookup = np.arange(scheme.highest + 1, dtype=np.uint16)
        names = dict(scheme.classes)
        for region in regions:
            numbers = scheme.regions[region]
            lookup[list(numbers)] = min(numbers)
            names[min(numbers)] = region
        return cls(lookup, names, not regions)

    @property
    def lookup_if_any(self) -> NDArray[np.uint16] | None:
        """The lookup, or None if it changes nothing."""
        return None if self.is_identity else self.lookup


def _method(plan: SeparationPlan, evidence: InstanceEvidence | None, semantic: SemanticMap) -> _Method:
    if plan.method == "auto":
        return "watershed" if evidence is None else "offsets"
    if plan.method == "offsets" and evidence is None and semantic.n_foreground_voxels:
        raise UsageError(
            "separation by offsets needs what a network with instance heads says of the lesions' centers, and there is "
            "nothing of that here; use a model with instance heads (segment --save-evidence keeps what they say, "
            "separate --evidence takes it), or the method watershed"
        )
    return plan.method


def _pieces(
    method: _Method,
    components: Runs,
    n_components: int,
    semantic: SemanticMap,
    plan: SeparationPlan,
    evidence: InstanceEvidence | None,
) -> Pieces:
    geometry = semantic.geometry
    if method == "offsets" and evidence is not None and n_components:
        ends = np.concatenate([components.starts, components.starts + components.lengths - 1])
        check_same_place(evidence, geometry, np.stack(components.indices(ends), axis=-1))
        return split_by_offsets(components, n_components, geometry, evidence, plan)
    if method == "watershed":
        return split_components(components, n_components, geometry, plan, semantic.probability)
    return Pieces(components, np.arange(1, n_components + 1))


def smallest_voxel_count(minimum_volume_ml: float, geometry: Geometry) -> int:
    """The fewest voxels that make up the minimum volume, rounding errors forgiven."""
    return math.ceil(minimum_volume_ml * 1000.0 / geometry.voxel_volume_mm3 * (1.0 - _VOLUME_TOLERANCE))


def _without_small(runs: Runs, n_lesions: int, smallest: int) -> tuple[Runs, int, int]:
    """The runs of lesions that are large enough; how many lesions and voxels went."""
    if smallest <= 1:
        return runs, 0, 0
    counts = runs.voxel_counts(n_lesions)
    is_small = counts < smallest
    kept = runs.chosen(~is_small[runs.numbers - 1])
    return kept, int(np.count_nonzero(is_small)), int(counts[is_small].sum())


def _describe(
    runs: Runs,
    semantic: SemanticMap,
    kinds: _Kinds,
    pieces: Pieces,
    old_numbers: NDArray[np.intp],
    method: str,
) -> tuple[Lesion, ...]:
    """Class, score and origin of each lesion."""
    n_lesions = old_numbers.size
    class_numbers = kinds.lookup[runs.read(semantic.array, runs.first_places(n_lesions))]
    scores = np.full(n_lesions, np.nan)
    if semantic.probability is not None:
        scores = runs.means(n_lesions, semantic.probability)
    if pieces.heat is not None:
        heat = np.clip(pieces.heat[old_numbers - 1], 0.0, 1.0)
        scores = heat if semantic.probability is None else scores * heat
    spreads = [None] * n_lesions if pieces.spreads_mm is None else pieces.spreads_mm[old_numbers - 1].tolist()
    return tuple(
        Lesion(kinds.names[number], None if math.isnan(score) else score, method, origin, spread)
        for number, score, origin, spread in zip(
            class_numbers.tolist(), scores.tolist(), _origins(pieces.components[old_numbers - 1]), spreads, strict=True
        )
    )


def _origins(components: NDArray[np.intp]) -> list[int | None]:
    """A number for each component that several lesions come from, in the order of their first lesions."""
    counts = np.bincount(components, minlength=1)
    numbers: dict[int, int] = {}
    return [
        numbers.setdefault(component, len(numbers) + 1) if counts[component] > 1 else None
        for component in components.tolist()
    ]
