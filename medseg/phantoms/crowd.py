"""Crowds: a block of tissue full of lesions that touch, overlap, stand alone or have lobes, with exact instance truth.

Where `make_phantom` makes a whole limb with a few lesions, this makes what separation is trained and measured on: the
share of the smaller lesion that lies in the other one is drawn, the seam between two lesions is visible or not, and
lesions that are one in spite of their form stand beside them. The block is painted finer than the slices are thick and
averaged over each slice, as a scanner does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.geometry import Geometry
from medseg.core.lesions import Lesion, LesionMap, label_dtype
from medseg.core.volume import Volume
from medseg.errors import UsageError
from medseg.phantoms.crowd_paint import BlockKind, paint_block
from medseg.phantoms.groups import Group, draw_group
from medseg.phantoms.masks import MaskShape
from medseg.phantoms.shapes import Shape

__all__ = ["Content", "Crowd", "CrowdLesion", "CrowdRequest", "make_crowd"]

Content = Literal["touching", "isolated", "lobulated", "mixed", "empty"]

_FINE_MM = 1.0  # thickness of the layers that a slice is averaged from, at most
_TRIES = 40
_GAP_VOXELS = 2
_LEAST_VOXELS = 8  # of a lesion on the slices; the IoU of a smaller one takes but a few values
_LEAST_OWN_SHARE = 0.5  # of its own voxels that a lesion keeps where others overlap it


@dataclass(frozen=True)
class CrowdRequest:
    """What a crowd is like.

    Parameters
    ----------
    content
        "touching": groups of two or three in contact; "isolated": single lesions; "lobulated": single lesions with
        lobes or fingers; "mixed": of everything; "empty": tissue without lesions.
    kind
        "ct" (HU) or "pet" (SUV).
    extent_mm, spacing_mm
        (3,) millimeters of the block and of its voxels.
    overlap
        Least and largest share of the smaller lesion's volume that lies in the other, before one owner is decided.
    is_seam_visible
        Whether lesions in contact differ in intensity and have a layer of other tissue between them that is thick and
        dark enough to be seen on the slices (`paint_block`).
    smallest_mm, largest_mm
        Millimeters, range of the diameters, drawn evenly.
    masks
        Forms beside the mathematical ones.
    """

    content: Content = "mixed"
    kind: BlockKind = "ct"
    extent_mm: tuple[float, float, float] = (72.0, 72.0, 66.0)
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    overlap: tuple[float, float] = (0.0, 0.4)
    is_seam_visible: bool = True
    smallest_mm: float = 4.0
    largest_mm: float = 30.0
    masks: Sequence[MaskShape] = ()

    def __post_init__(self) -> None:
        if not 0.0 <= self.overlap[0] <= self.overlap[1] < 1.0:
            raise UsageError(f"overlap is a range within 0..1; got {self.overlap}")
        if not 0.0 < self.smallest_mm <= self.largest_mm < float("inf"):
            raise UsageError(f"diameters need 0 < smallest_mm <= largest_mm; got {self.smallest_mm}, {self.largest_mm}")


@dataclass(frozen=True)
class CrowdLesion:
    """The truth about one lesion: its form, its diameter in mm, its group (None if it stands alone).

    `overlap` is the largest share, of the smaller of two, that it has in common with a member of its group.
    """

    form: str
    diameter_mm: float
    group: int | None
    overlap: float


@dataclass(frozen=True, eq=False)
class Crowd:
    """A block and its truth: `truths[n - 1]` describes lesion n of `lesions`."""

    volume: Volume
    lesions: LesionMap
    truths: tuple[CrowdLesion, ...]
    request: CrowdRequest
    seed: int


def make_crowd(request: CrowdRequest, seed: int) -> Crowd:
    """Make a block of tissue with lesions; the same arguments give the same arrays.

    Parameters
    ----------
    request
        What it is like.
    seed
        0 or above.

    Examples
    --------
    >>> crowd = make_crowd(CrowdRequest("touching", extent_mm=(48.0, 48.0, 48.0), largest_mm=15.0), seed=1)
    >>> crowd.lesions.n_lesions == len(crowd.truths) >= 2
    True
    """
    rng = np.random.default_rng([seed, 5])
    n_layers = max(1, round(request.spacing_mm[2] / _FINE_MM))
    n_layers += 1 - n_layers % 2  # odd, so that one layer lies in the middle of the slice
    shape = [max(1, round(e / s)) for e, s in zip(request.extent_mm, request.spacing_mm, strict=True)]
    fine_spacing = (*request.spacing_mm[:2], request.spacing_mm[2] / n_layers)
    fine = Geometry((shape[0], shape[1], shape[2] * n_layers), np.diag([*fine_spacing, 1.0]))
    scene = _Scene(request, fine, n_layers)
    for wish in _wishes(request, rng):
        scene.place(wish, rng)
    painted = paint_block(
        request.kind,
        fine,
        scene.owner,
        scene.groups(),
        rng,
        is_seam_visible=request.is_seam_visible,
        n_layers=n_layers,
    )
    slices = painted.reshape(*shape[:2], shape[2], n_layers).mean(axis=3, dtype=np.float64)
    grid = _coarse_grid(fine, n_layers)
    owners = scene.on_slices()
    old = _final_order(owners, len(scene.truths))
    numbers = np.zeros(len(old) + 1, dtype=label_dtype(len(old)))
    numbers[old] = np.arange(1, len(old) + 1)
    lesions = LesionMap(numbers[owners], grid, tuple(Lesion("lesion") for _ in old), method="phantom")
    volume = Volume(slices[None].astype(np.float32), grid, (request.kind,))
    return Crowd(volume, lesions, tuple(scene.truths[int(number) - 1] for number in old), request, seed)


def _final_order(owners: NDArray[np.int32], n_lesions: int) -> NDArray[np.int_]:
    """Numbers of the lesions by descending volume, then by centroid (x, y, z), as everywhere in medseg."""
    counts = np.bincount(owners.ravel(), minlength=n_lesions + 1)[1:]
    sums = [
        np.bincount(owners.ravel(), weights=i.ravel(), minlength=n_lesions + 1)[1:] for i in np.indices(owners.shape)
    ]
    x, y, z = (np.round(total / np.maximum(counts, 1), 6) for total in sums)
    order: NDArray[np.int_] = np.lexsort((z, y, x, -counts)) + 1
    return order


def _coarse_grid(fine: Geometry, n_layers: int) -> Geometry:
    affine = fine.affine.copy()
    affine[:3, 3] += affine[:3, 2] * (n_layers - 1) / 2
    affine[:3, 2] *= n_layers
    return Geometry((fine.shape[0], fine.shape[1], fine.shape[2] // n_layers), affine)


def _wishes(request: CrowdRequest, rng: np.random.Generator) -> list[tuple[str, int]]:
    """Form and number of members of each group that is to be placed, in order."""
    if request.content == "empty":
        return []
    if request.content == "touching":
        return [("any", int(n)) for n in rng.choice([2, 2, 3, 4], size=int(rng.integers(2, 4)))]
    if request.content == "isolated":
        return [("smooth", 1)] * int(rng.integers(4, 9))
    if request.content == "lobulated":
        return [("lobed", 1)] * int(rng.integers(2, 5))
    n_groups, n_lobed, n_single = rng.integers((1, 0, 1), (4, 3, 4)).tolist()
    groups = [("any", int(n)) for n in rng.choice([2, 2, 3, 4], size=n_groups)]
    return [*groups, *[("lobed", 1)] * n_lobed, *[("any", 1)] * n_single]


class _Scene:
    """The block while lesions are placed: which lesion (from 1) owns each fine voxel."""

    def __init__(self, request: CrowdRequest, fine: Geometry, n_layers: int) -> None:
        self._request, self._fine, self._n_layers = request, fine, n_layers
        self.owner: NDArray[np.int32] = np.zeros(fine.shape, dtype=np.int32)
        self.truths: list[CrowdLesion] = []
        self._n_groups = 0
        axes = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in fine.shape), indexing="ij", sparse=True)
        self._axes = [axis * step for axis, step in zip(axes, fine.spacing, strict=True)]

    def groups(self) -> NDArray[np.int32]:
        """(n + 1,) group of each lesion, unique also for those that stand alone; entry 0 is background."""
        own = [(-1 - n if t.group is None else t.group) for n, t in enumerate(self.truths)]
        return np.array([0, *own], dtype=np.int32)

    def on_slices(self) -> NDArray[np.int32]:
        """Owner at the middle of each slice."""
        return self._slices(self.owner)

    def _slices(self, fine: NDArray[np.int32]) -> NDArray[np.int32]:
        return fine[:, :, self._n_layers // 2 :: self._n_layers]

    def place(self, wish: tuple[str, int], rng: np.random.Generator) -> None:
        """Place a group where it fits; after some tries in vain it is left out."""
        form, n_members = wish
        request = self._request
        for attempt in range(_TRIES):
            shrink = 0.97**attempt
            largest = max(request.largest_mm * shrink, request.smallest_mm)
            sizes = rng.uniform(request.smallest_mm, largest, n_members)
            center = rng.uniform(0.0, 1.0, 3) * (np.array(self._fine.shape) - 1) * self._fine.spacing
            group = draw_group(form, sizes.tolist(), request.overlap, request.masks, center, rng)
            if group is not None and self._settle(group):
                return

    def _settle(self, group: Group) -> bool:
        low, high = self._box(group.shapes)
        if (low < 0).any() or (high > self._fine.shape).any():
            return False
        box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
        owner = self._owners(group.shapes, box)
        if not self._is_free(box, owner) or not self._are_whole(owner, group.shapes, box):
            return False
        n_before = len(self.truths)
        self.owner[box][owner > 0] = owner[owner > 0] + n_before
        number = None
        if len(group.shapes) > 1:
            self._n_groups += 1
            number = self._n_groups
        for shape, form, overlap in zip(group.shapes, group.forms, group.overlaps, strict=True):
            self.truths.append(CrowdLesion(form, shape.diameter_mm, number, overlap))
        return True

    def _box(self, shapes: Sequence[Shape]) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        spacing = np.array(self._fine.spacing)
        lows = [(np.array(s.center_mm) - s.diameter_mm / 2) / spacing for s in shapes]
        highs = [(np.array(s.center_mm) + s.diameter_mm / 2) / spacing for s in shapes]
        return np.floor(np.min(lows, axis=0)).astype(int), np.ceil(np.max(highs, axis=0)).astype(int) + 1

    def _owners(self, shapes: Sequence[Shape], box: tuple[slice, ...]) -> NDArray[np.int32]:
        """Which shape (from 1) owns each voxel of a box: the one whose center is nearest in its own radii."""
        axes = [
            axis[tuple(part if n == k else slice(None) for k in range(3))]
            for n, (axis, part) in enumerate(zip(self._axes, box, strict=True))
        ]
        points = np.stack(np.broadcast_arrays(*axes), axis=-1)
        best = np.full(points.shape[:-1], np.inf)
        owner = np.zeros(best.shape, dtype=np.int32)
        for number, shape in enumerate(shapes, start=1):
            distance = np.linalg.norm(points - np.array(shape.center_mm), axis=-1) / (shape.diameter_mm / 2)
            takes = shape.contains(points) & (distance < best)
            best[takes], owner[takes] = distance[takes], number
        return owner

    def _is_free(self, box: tuple[slice, ...], owner: NDArray[np.int32]) -> bool:
        """Whether no other lesion comes within the gap."""
        gaps = (_GAP_VOXELS, _GAP_VOXELS, _GAP_VOXELS * self._n_layers)
        wide = tuple(slice(max(0, b.start - g), b.stop + g) for b, g in zip(box, gaps, strict=True))
        around = self.owner[wide] > 0
        if not around.any():
            return True
        taken = np.zeros(around.shape, dtype=bool)
        taken[tuple(slice(b.start - w.start, b.stop - w.start) for b, w in zip(box, wide, strict=True))] = owner > 0
        size = tuple(2 * g + 1 for g in gaps)
        return not (ndimage.maximum_filter(taken, size) & around).any()

    def _are_whole(self, owner: NDArray[np.int32], shapes: Sequence[Shape], box: tuple[slice, ...]) -> bool:
        """Whether each lesion keeps enough of itself, in one piece, on the fine grid and on the slices."""
        first = (self._n_layers // 2 - box[2].start) % self._n_layers
        on_slices = owner[:, :, first :: self._n_layers]
        cube = np.ones((3, 3, 3), dtype=bool)
        for number, shape in enumerate(shapes, start=1):
            for grid in (owner, on_slices) if self._n_layers > 1 else (owner,):
                own = grid == number
                if np.count_nonzero(own) < _LEAST_VOXELS or ndimage.label(own, cube)[1] != 1:
                    return False
            whole = self._owners([shape], box) > 0
            if np.count_nonzero(owner == number) < _LEAST_OWN_SHARE * np.count_nonzero(whole):
                return False
        n_parts = int(ndimage.label(on_slices > 0, cube)[1])
        return n_parts == 1  # a group is one component, else nothing has to be separated
