"""Images made by SimpleITK, the judge of NRRD and MetaImage, and what they say in RAS."""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK as sitk
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

TYPES: dict[str, Any] = {
    "int8": np.int8,
    "uint8": np.uint8,
    "int16": np.int16,
    "uint16": np.uint16,
    "int32": np.int32,
    "uint32": np.uint32,
    "int64": np.int64,
    "uint64": np.uint64,
    "float32": np.float32,
    "float64": np.float64,
}
_TURN = Rotation.from_euler("xyz", (10, 20, 30), degrees=True).as_matrix()


def image_on(
    dtype: Any,
    direction: NDArray[np.float64] = _TURN,
    spacing: tuple[float, float, float] = (0.7, 1.3, 2.9),
    origin: tuple[float, float, float] = (-101.25, 33.5, 12.125),
) -> sitk.Image:
    """An image of 3 x 4 x 5 voxels, every voxel another number."""
    image = sitk.GetImageFromArray(np.arange(60).reshape(5, 4, 3).astype(dtype))
    image.SetDirection(direction.ravel().tolist())
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    return image


def lps_affine(image: sitk.Image) -> NDArray[np.float64]:
    """The RAS+ affine of an image, by its own physical points."""
    corners = [image.TransformIndexToPhysicalPoint(index) for index in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    points = np.array(corners) * (-1, -1, 1)
    affine = np.eye(4)
    affine[:3, :3] = (points[1:] - points[0]).T
    affine[:3, 3] = points[0]
    return affine


@st.composite
def oblique_grids(draw: st.DrawFn) -> tuple[Any, ...]:
    """(direction, spacing, origin): any rotation, with and without a mirrored axis."""
    turn = Rotation.from_euler("xyz", draw(st.tuples(*[st.floats(-180, 180)] * 3)), degrees=True).as_matrix()
    mirror = np.diag([draw(st.sampled_from([-1.0, 1.0])), 1.0, 1.0])
    spacing = draw(st.tuples(*[st.floats(0.3, 8.0)] * 3))
    return turn @ mirror, spacing, draw(st.tuples(*[st.floats(-500, 500)] * 3))
