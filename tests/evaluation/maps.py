"""Lesion maps and semantic maps made from small arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.core.lesions import Lesion, LesionMap
from medseg.core.semantic import SemanticMap
from medseg.lesions.numbering import number_lesions

CLASSES = LabelScheme(classes={1: "NCR", 2: "ED", 3: "ET"})


def grid_of(shape: tuple[int, ...], spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Geometry:
    return Geometry((shape[0], shape[1], shape[2]), np.diag([*spacing, 1.0]))


def lesion_map(
    array: NDArray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), scores: tuple[float, ...] | None = None
) -> LesionMap:
    """Any numbers; numbered anew as when read from a file. Scores go to the lesions after that."""
    grid = grid_of(array.shape, spacing)
    numbered, old = number_lesions(array, grid)
    given = scores or (None,) * old.size
    return LesionMap(numbered, grid, tuple(Lesion("lesion", score) for score in given))


def semantic_map(array: NDArray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> SemanticMap:
    return SemanticMap(array.astype(np.uint8), grid_of(array.shape, spacing), CLASSES)
