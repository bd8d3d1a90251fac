"""Only the largest component of a class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.lesions.components import Connectivity, label_components

__all__ = ["keep_largest"]


def keep_largest(
    classes: NDArray[np.unsignedinteger], numbers: Sequence[int], connectivity: Connectivity
) -> NDArray[np.unsignedinteger]:
    """Set all but the largest component of some classes to background, in place.

    Parameters
    ----------
    classes
        (I, J, K) uint8 or uint16, class of each voxel.
    numbers
        The classes; the others stay as they are.
    connectivity
        6, 18 or 26.

    Returns
    -------
    The same array. Of components of one size the first in memory stays.
    """
    boxes = ndimage.find_objects(classes, max(numbers)) if numbers else []
    for number in numbers:
        box = boxes[number - 1] if number else None
        if box is None:
            continue
        part = classes[box]
        labels, n_components = label_components((part == number).astype(np.uint8), connectivity)
        if n_components > 1:
            sizes = np.bincount(labels.ravel(order="K"), minlength=n_components + 1)
            sizes[0] = 0
            part[(labels > 0) & (labels != sizes.argmax())] = 0
    return classes
