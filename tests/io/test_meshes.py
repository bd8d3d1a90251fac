"""Meshes: closed, outward, in place, of the right size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.core.lesions import Lesion, LesionMap
from medseg.errors import UsageError
from medseg.io.meshes import Mesh, lesion_meshes, write_meshes


def _ball(affine: np.ndarray) -> LesionMap:
    i, j, k = np.indices((40, 40, 40)) - 20
    array = (i**2 + j**2 + k**2 <= 15**2).astype(np.uint16)
    return LesionMap(array, Geometry(array.shape, affine), (Lesion("lesion"),))


@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_a_ball_encloses_its_volume_and_lies_where_it_is(flip: float) -> None:
    affine = np.diag([flip * 2.0, 1.0, 1.5, 1.0])
    affine[:3, 3] = (5.0, -7.0, 11.0)
    lesions = _ball(affine)
    (mesh,) = lesion_meshes(lesions)
    assert mesh.volume_mm3 == pytest.approx(int(lesions.array.sum()) * 3.0, rel=0.02)  # outward: above 0
    center = affine @ (20, 20, 20, 1)
    np.testing.assert_allclose(mesh.vertices.mean(axis=0), center[:3] * (-1, -1, 1), atol=0.1)


def test_every_edge_belongs_to_two_triangles() -> None:
    array = np.zeros((6, 6, 6), dtype=np.uint16)
    array[0:3, 0:2, 0] = 1  # at the border of the grid
    array[4, 4, 4] = array[5, 5, 5] = 2
    lesions = LesionMap(array, Geometry(array.shape, np.eye(4)), (Lesion("lesion"),) * 2)
    for mesh in lesion_meshes(lesions):
        edges = np.concatenate([mesh.triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
        _, counts = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
        assert (counts == 2).all()


def test_stl_and_obj_say_that_they_are_lps_and_hold_the_same_triangles(tmp_path: Path) -> None:
    meshes = lesion_meshes(_ball(np.eye(4)))
    write_meshes(meshes, ["Lesion 1"], tmp_path / "a.stl")
    write_meshes(meshes, ["Lesion 1"], tmp_path / "a.obj")
    stl = (tmp_path / "a.stl").read_bytes()
    assert b"SPACE=LPS" in stl[:80]
    assert not stl.startswith(b"solid")  # which would make it a text STL
    n = int(np.frombuffer(stl[80:84], "<u4")[0])
    assert n == len(meshes[0].triangles) == (len(stl) - 84) // 50
    corners = np.frombuffer(stl[84:], np.dtype([("n", "<f4", 3), ("c", "<f4", (3, 3)), ("a", "<u2")]))["c"]
    lines = (tmp_path / "a.obj").read_text().splitlines()
    assert "SPACE=LPS" in lines[0]
    assert lines[1] == "o Lesion_1"
    vertices = np.array([line.split()[1:] for line in lines if line.startswith("v ")], dtype=float)
    triangles = np.array([line.split()[1:] for line in lines if line.startswith("f ")], dtype=int) - 1
    np.testing.assert_allclose(vertices[triangles], corners, atol=1e-4)


def test_no_lesion_makes_an_empty_file(tmp_path: Path) -> None:
    write_meshes([], [], tmp_path / "a.stl")
    assert (tmp_path / "a.stl").stat().st_size == 84


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.stl or \.obj"):
        write_meshes([Mesh(np.empty((0, 3)), np.empty((0, 3), dtype=np.intp))], ["a"], tmp_path / "a.ply")
