"""What ties the objects of a result together: a hash of what they are made from, and the identifier of each lesion."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.lesions import LesionMap
from medseg.dicom.source import Algorithm, SourceSeries, derived_uid

__all__ = ["content_hash", "tracking_identifiers"]


def content_hash(array: NDArray[Any], source: SourceSeries, algorithm: Algorithm) -> str:
    """A hash of all that an object is made from: labels, series, what is told of patient and study, algorithm."""
    where = np.flatnonzero(array)  # most voxels are background
    digest = hashlib.sha256(f"{array.shape}".encode())
    digest.update(where.astype("<u8").tobytes())
    digest.update(array[np.unravel_index(where, array.shape)].astype("<u4").tobytes())
    header = [f"{element.keyword}={element.value}" for element in source.header]
    parts = [source.series_uid, *map(str, source.slices), str(algorithm), *header]
    digest.update("\0".join(parts).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def tracking_identifiers(lesions: LesionMap, source: SourceSeries, algorithm: Algorithm) -> tuple[tuple[str, str], ...]:
    """Tracking identifier and unique identifier of each lesion, the same in every object of one result."""
    content = content_hash(lesions.array, source, algorithm)
    return tuple((f"Lesion {n}", derived_uid("lesion", content, str(n))) for n in range(1, lesions.n_lesions + 1))
