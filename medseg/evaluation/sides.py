"""The two sides of a comparison as lesion maps, separated by the convention's own rule where they are semantic."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.geometry import Geometry
from medseg.core.lesions import Lesion, LesionMap
from medseg.core.semantic import SemanticMap
from medseg.errors import GridMismatch, InvalidLabelMap, UsageError
from medseg.lesions.components import label_components
from medseg.lesions.foreground import find_foreground
from medseg.lesions.numbering import number_lesions
from medseg.metrics.presets import Convention

__all__ = ["check_grids", "check_region", "lesions_of", "with_scores"]


def check_grids(prediction: Geometry, reference: Geometry, case_id: str) -> None:
    """Refuse two maps whose voxels lie apart.

    Raises
    ------
    GridMismatch
        If the shapes differ, or a corner of one grid lies more than 0.01 mm from that of the other.
    """
    if prediction.matches(reference):
        return
    apart = ""
    if prediction.shape == reference.shape:
        apart = f", up to {prediction.largest_displacement_mm(reference):.4g} mm apart"
    raise GridMismatch(
        f"{case_id}: the prediction lies on {prediction!r} and the reference on {reference!r}{apart}; scores need one "
        "grid: write the prediction on the reference's own grid"
    )


def check_region(convention: Convention, region: str | None, is_semantic: bool) -> str | None:
    """The region to score: the one asked for, the convention's first, or None where it has none.

    Raises
    ------
    UsageError
        If the convention has no such region.
    """
    regions = convention.regions if is_semantic else {}
    if region is None:
        return next(iter(regions), None)
    if region not in regions:
        has = f"has the regions {', '.join(regions)}" if regions else "has no regions for these maps"
        raise UsageError(f"preset {convention.name} {has}; got {region!r}")
    return region


def lesions_of(
    side: LesionMap | SemanticMap, convention: Convention, region: str | None, *, is_reference: bool, name: str
) -> LesionMap:
    """A side's lesions.

    Parameters
    ----------
    side
        A lesion map is taken as it is; a semantic map is separated into components.
    convention
        Connectivity, classes, regions, and which reference components are one lesion.
    region
        Of the convention, or None.
    is_reference
        True for the reference.
    name
        Case and side, for messages.

    Raises
    ------
    InvalidLabelMap
        If a semantic map holds a class that the convention does not know.
    """
    if isinstance(side, LesionMap):
        return side
    _check_classes(side, convention, name)
    wanted = side.array
    if region is not None:
        wanted = np.isin(side.array, convention.regions[region]).astype(np.uint8)
    elif convention.unite_classes:
        wanted = (side.array > 0).astype(np.uint8)
    labels, _ = label_components(wanted, convention.connectivity)
    if is_reference and convention.merge_dilation_voxels:
        labels = _merged_by_dilation(labels, convention)
    numbered, old = number_lesions(labels, side.geometry)
    return LesionMap(numbered, side.geometry, _classes(side, numbered, old.size, wanted is side.array), "components")


def _check_classes(side: SemanticMap, convention: Convention, name: str) -> None:
    if convention.classes is None:
        return
    unknown = sorted(set(np.unique(side.array).tolist()) - {0, *convention.classes})
    if unknown:
        raise InvalidLabelMap(
            f"{name}: preset {convention.name} knows the classes {dict(convention.classes)}; the map also holds "
            f"{unknown[:10]}. Convert the classes first, or choose another preset"
        )


def _classes(side: SemanticMap, numbered: NDArray[Any], n: int, by_class: bool) -> tuple[Lesion, ...]:
    """The class of each lesion: all voxels of a component have one unless classes were united."""
    if not by_class:
        return (Lesion("lesion"),) * n
    foreground = find_foreground(numbered)
    numbers = np.zeros(n + 1, dtype=np.int64)
    numbers[foreground.numbers] = side.array[foreground.indices]
    return tuple(Lesion(side.scheme.classes[int(number)]) for number in numbers[1:])


def _merged_by_dilation(labels: NDArray[np.uint32], convention: Convention) -> NDArray[np.uint32]:
    """Components that grow together become one."""
    reach = convention.merge_dilation_voxels
    inside = np.argwhere(labels)
    if not inside.size:
        return labels
    box = tuple(
        slice(max(0, low - reach), min(size, high + reach + 1))
        for low, high, size in zip(inside.min(axis=0), inside.max(axis=0), labels.shape, strict=True)
    )
    neighbors = ndimage.generate_binary_structure(3, 2)
    grown = ndimage.binary_dilation(labels[box] > 0, structure=neighbors, iterations=reach)
    groups, _ = label_components(grown.astype(np.uint8), convention.connectivity)
    merged = np.zeros_like(labels)
    merged[box] = np.where(labels[box] > 0, groups, 0)
    return merged


def with_scores(lesions: LesionMap, probability: NDArray[np.floating] | None) -> tuple[float | None, ...]:
    """The score of each lesion: the highest probability within it, or what the map says without one."""
    if probability is None:
        return tuple(lesion.score for lesion in lesions.lesions)
    foreground = find_foreground(lesions.array)
    scores = np.zeros(lesions.n_lesions)
    np.maximum.at(scores, foreground.numbers.astype(np.intp) - 1, probability[foreground.indices].astype(np.float64))
    return tuple(scores.tolist())
