"""Which axes of a grid run where, as nibabel finds it, and MONAI with it."""

from __future__ import annotations

import nibabel as nib
import numpy as np

from medseg.core.geometry import Geometry

__all__ = ["turn_to"]


def turn_to(geometry: Geometry, axcodes: str) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """How axes must be put in order and turned so that they run as axis codes say.

    Parameters
    ----------
    geometry
        A grid, oblique or not.
    axcodes
        Three letters, as "RAS".

    Returns
    -------
    axes
        Which axis of the grid becomes the first, the second, the third.
    is_flipped
        For each axis of the grid, whether it must be turned round.
    """
    now = nib.orientations.io_orientation(geometry.affine)  # type: ignore[no-untyped-call]
    wanted = nib.orientations.axcodes2ornt(axcodes)  # type: ignore[no-untyped-call]
    change = nib.orientations.ornt_transform(now, wanted)  # type: ignore[no-untyped-call]
    first, second, third = (int(axis) for axis in np.argsort(change[:, 0]))
    i, j, k = (bool(direction < 0) for direction in change[:, 1])
    return (first, second, third), (i, j, k)
