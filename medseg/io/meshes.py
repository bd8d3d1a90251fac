"""Surfaces of lesions as triangles in patient millimeters, for 3-D viewers and printers: STL and OBJ.

Coordinates are LPS, as DICOM has them; the files say so in the way that 3D Slicer reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.measure import marching_cubes

from medseg.core.lesions import LesionMap
from medseg.errors import UsageError
from medseg.io.atomic import atomic_path
from medseg.lesions.foreground import find_foreground, lesion_boxes

__all__ = ["MESH_SUFFIXES", "Mesh", "lesion_mesh", "lesion_meshes", "write_meshes"]

MESH_SUFFIXES = (".stl", ".obj")
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
_STL_HEAD = b"medseg; SPACE=LPS; millimeters"


@dataclass(frozen=True, eq=False)
class Mesh:
    """A closed surface: (V, 3) float64 LPS millimeters; (T, 3) int, corners counterclockwise from outside."""

    vertices: NDArray[np.float64]
    triangles: NDArray[np.intp]

    @property
    def volume_mm3(self) -> float:
        """What the surface encloses; above 0 where its triangles face outward."""
        a, b, c = (self.vertices[self.triangles[:, n]] for n in range(3))
        return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6.0)


def lesion_mesh(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> Mesh:
    """The surface of a mask, halfway between the centers of voxels inside and outside (marching cubes).

    Parameters
    ----------
    mask
        (I, J, K) bool; outside of it is nothing.
    affine
        (4, 4) voxel index to RAS+ millimeters.

    References
    ----------
    Lewiner T et al. Efficient implementation of marching cubes' cases with topological guarantees. J Graph Tools 8:1
    (2003), as scikit-image has it. The surface cuts corners: one voxel alone encloses a sixth of its volume.
    """
    corners, triangles, _, _ = marching_cubes(np.pad(mask, 1).astype(np.float32), 0.5)  # type: ignore[no-untyped-call]
    ras = (corners.astype(np.float64) - 1.0) @ affine[:3, :3].T + affine[:3, 3]
    mesh = Mesh(ras * _RAS_TO_LPS, triangles.astype(np.intp))
    return mesh if mesh.volume_mm3 > 0 else Mesh(mesh.vertices, mesh.triangles[:, ::-1])


def lesion_meshes(lesions: LesionMap) -> list[Mesh]:
    """The surface of each lesion, in the order of their numbers."""
    boxes = lesion_boxes(find_foreground(lesions.array), lesions.n_lesions)
    meshes = []
    for number, box in enumerate(boxes, start=1):
        low, high = [part.start for part in box], [part.stop for part in box]
        meshes.append(lesion_mesh(lesions.array[box] == number, lesions.geometry.cropped(low, high).affine))
    return meshes


def write_meshes(meshes: Sequence[Mesh], names: Sequence[str], path: str | PathLike[str]) -> None:
    """Write surfaces into one file, by suffix: .stl (binary) or .obj (one object a surface).

    Raises
    ------
    UsageError
        If the suffix is neither.
    OutputNotWritable
        If the folder cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise UsageError(f"{path}: a mesh ends in {' or '.join(MESH_SUFFIXES)}; got {suffix or 'no suffix'}")
    content = _stl(meshes) if suffix == ".stl" else _obj(meshes, names).encode("utf-8", "replace")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _stl(meshes: Sequence[Mesh]) -> bytes:
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    corners = np.concatenate([mesh.vertices[mesh.triangles] for mesh in meshes]) if meshes else np.empty((0, 3, 3))
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    triangles = np.zeros(len(corners), dtype=record)
    triangles["normal"], triangles["corners"] = normals / np.where(lengths == 0, 1.0, lengths), corners
    return _STL_HEAD.ljust(80) + np.uint32(len(corners)).tobytes() + triangles.tobytes()


def _obj(meshes: Sequence[Mesh], names: Sequence[str]) -> str:
    lines = ["# medseg; SPACE=LPS; millimeters"]
    first = 1
    for mesh, name in zip(meshes, names, strict=True):
        lines.append(f"o {'_'.join(name.split())}")
        lines += [f"v {x:.6g} {y:.6g} {z:.6g}" for x, y, z in mesh.vertices.tolist()]
        lines += [f"f {a + first} {b + first} {c + first}" for a, b, c in mesh.triangles.tolist()]
        first += len(mesh.vertices)
    return "\n".join([*lines, ""])
