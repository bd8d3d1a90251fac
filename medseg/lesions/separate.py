"""From a semantic map to a lesion map: the front door of separation."""

from __future__ import annotations

import logging
import math

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.lesions import Lesion, LesionMap
from medseg.core.plan import SeparationPlan
from medseg.core.semantic import SemanticMap
from medseg.lesions.components import label_components
from medseg.lesions.foreground import Foreground, find_foreground, lesion_means, lesion_voxel_counts
from medseg.lesions.numbering import number_lesions
from medseg.lesions.watershed import split_components

__all__ = ["separate_lesions"]

_log = logging.getLogger(__name__)

# An affine that went through float32 (NIfTI) carries a relative error of 2e-7 in its voxel volume.
_VOLUME_TOLERANCE = 1e-6


def separate_lesions(semantic: SemanticMap, plan: SeparationPlan | None = None) -> LesionMap:
    """Turn a map of classes into a map of lesions.

    Parameters
    ----------
    semantic
        Class of each voxel, with or without a probability map.
    plan
        Method, connectivity, minimum volume and watershed depth; None for `SeparationPlan()`. Method "auto" is the
        watershed. A lesion smaller than the minimum volume is removed; one exactly as large stays.

    Returns
    -------
    Lesions 1..n on the same grid. `method` is what ran; `score` of a lesion is its mean foreground probability, or
    None without a probability map.

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
    geometry = semantic.geometry
    method = "components" if plan.method == "components" else "watershed"
    labels, n_found = label_components(semantic.array, plan.connectivity)
    if method == "watershed":
        labels, n_found = split_components(labels, n_found, geometry, plan)
    smallest = _smallest_voxel_count(plan.minimum_volume_ml, geometry)
    n_removed, n_voxels_removed = _remove_small(labels, n_found, smallest)
    array, _ = number_lesions(labels, geometry)
    _log.info("%d lesion(s) by %s, %d below the minimum volume", n_found - n_removed, method, n_removed)
    return LesionMap(
        array=array,
        geometry=geometry,
        lesions=_describe(find_foreground(array), n_found - n_removed, semantic),
        method=method,
        n_removed=n_removed,
        removed_volume_ml=n_voxels_removed * geometry.voxel_volume_mm3 / 1000.0,
    )


def _smallest_voxel_count(minimum_volume_ml: float, geometry: Geometry) -> int:
    """The fewest voxels that make up the minimum volume, rounding errors forgiven."""
    return math.ceil(minimum_volume_ml * 1000.0 / geometry.voxel_volume_mm3 * (1.0 - _VOLUME_TOLERANCE))


def _remove_small(labels: NDArray[np.uint32], n_lesions: int, smallest: int) -> tuple[int, int]:
    """Set lesions of fewer voxels to background, in place; how many lesions and voxels went."""
    if smallest <= 1:
        return 0, 0
    foreground = find_foreground(labels)
    counts = lesion_voxel_counts(foreground, n_lesions)
    is_small = counts < smallest
    goes = is_small[foreground.numbers - 1]
    i, j, k = foreground.indices
    labels[i[goes], j[goes], k[goes]] = 0
    return int(np.count_nonzero(is_small)), int(counts[is_small].sum())


def _describe(foreground: Foreground, n_lesions: int, semantic: SemanticMap) -> tuple[Lesion, ...]:
    """Class and score of each lesion."""
    class_numbers = np.zeros(n_lesions, dtype=semantic.array.dtype)
    class_numbers[foreground.numbers - 1] = semantic.array[foreground.indices]
    names = [semantic.scheme.classes[number] for number in class_numbers.tolist()]
    if semantic.probability is None:
        return tuple(Lesion(name) for name in names)
    scores = lesion_means(foreground, n_lesions, semantic.probability[foreground.indices])
    return tuple(Lesion(name, score) for name, score in zip(names, scores.tolist(), strict=True))
