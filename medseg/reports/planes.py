"""Planes: how a slice of any grid is turned into a picture that a radiologist reads at once.

Radiological convention: the patient's right lies on the viewer's left, the front is up in axial pictures, the head is
up in coronal and sagittal ones, and sagittal pictures look at the patient's left side, with the front on the left.
Which array axis runs where, and which way, is worked out from the affine; an oblique grid is shown along its own axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from numpy.typing import NDArray

from medseg.core.geometry import Geometry

__all__ = ["Plane", "View", "plane_of"]

View = Literal["axial", "coronal", "sagittal"]

# The anatomical directions that go down and to the right of the picture.
_DIRECTIONS: dict[View, tuple[str, str]] = {"axial": ("P", "L"), "coronal": ("I", "L"), "sagittal": ("I", "P")}
_OPPOSITE = dict(zip("LRPAIS", "RLAPSI", strict=True))


@dataclass(frozen=True)
class Plane:
    """One way to look at a grid.

    Parameters
    ----------
    view
        "axial", "coronal" or "sagittal".
    axis
        The voxel axis (0, 1 or 2) that is looked along.
    down, right
        The voxel axes that run down and across the picture.
    flip_down, flip_right
        True where the voxel axis grows the other way.
    spacing_mm
        (2,) float, millimeters of a voxel down and across.
    """

    view: View
    axis: int
    down: int
    right: int
    flip_down: bool
    flip_right: bool
    spacing_mm: tuple[float, float]

    @property
    def marks(self) -> tuple[str, str, str, str]:
        """The anatomical directions at the top, right, bottom and left edge."""
        down, right = _DIRECTIONS[self.view]
        return (_OPPOSITE[down], right, down, _OPPOSITE[right])

    def show(self, flat: NDArray[Any]) -> NDArray[Any]:
        """Turn a slice or projection into picture order.

        Parameters
        ----------
        flat
            2-D, any dtype, the two voxel axes other than `axis` in their order.

        Returns
        -------
        The same values as rows from top to bottom and columns from left to right.
        """
        picture = flat.T if self.down > self.right else flat
        return picture[:: -1 if self.flip_down else 1, :: -1 if self.flip_right else 1]

    def extent(self, box: tuple[slice, slice, slice], shape: tuple[int, int, int]) -> tuple[slice, slice]:
        """Rows and columns, in picture order, that a box of voxels takes in a grid of that shape."""
        return (
            _turned(box[self.down], shape[self.down], self.flip_down),
            _turned(box[self.right], shape[self.right], self.flip_right),
        )


def plane_of(geometry: Geometry, view: View) -> Plane:
    """How a grid is looked at in one view.

    Parameters
    ----------
    geometry
        The grid, in any orientation.
    view
        "axial", "coronal" or "sagittal".

    Examples
    --------
    >>> import numpy as np
    >>> plane = plane_of(Geometry((10, 10, 5), np.diag([2.0, 2.0, 3.0, 1.0])), "axial")
    >>> plane.axis, plane.flip_right, plane.marks
    (2, True, ('A', 'L', 'P', 'R'))
    """
    if view not in get_args(View):
        raise ValueError(f"a view is one of {', '.join(get_args(View))}; got {view!r}")
    down, flip_down = _axis_towards(geometry, _DIRECTIONS[view][0])
    right, flip_right = _axis_towards(geometry, _DIRECTIONS[view][1])
    spacing = (geometry.spacing[down], geometry.spacing[right])
    return Plane(view, 3 - down - right, down, right, flip_down, flip_right, spacing)


def _axis_towards(geometry: Geometry, direction: str) -> tuple[int, bool]:
    """The voxel axis that runs along an anatomical direction, and whether it grows the other way."""
    codes = geometry.axcodes
    if direction in codes:
        return codes.index(direction), False
    return codes.index(_OPPOSITE[direction]), True


def _turned(part: slice, size: int, flip: bool) -> slice:
    return slice(size - part.stop, size - part.start) if flip else part
