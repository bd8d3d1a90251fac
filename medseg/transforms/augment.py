"""Training samples: a case turned, scaled, cut and varied in intensity; every sample is a function of one seed.

A scan is often cut around its lesions with a margin, and where it ends says something of where they are. Turning such a
scan inside its old box would lose that and teach a margin that no scan has. So a sample is framed anew: the box lies
around the turned lesions with the case's own margins. A share of the samples is cut to random margins instead, down to
parts without a lesion, so that the network does not rely on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from monai.transforms import GaussianSmooth
from numpy.typing import NDArray
from torch.nn.functional import grid_sample

from medseg.core.plan import IntensityPlan, Plan
from medseg.transforms.instance_targets import LesionCenters, find_centers, instance_targets

__all__ = ["TrainingCase", "draw_sample"]

_ROLL = 0.1  # radians about the body's long axis; patients are rolled more than they are tipped
_TIP = 0.05
_ZOOM = (0.65, 1.25)  # log scale between
_STRETCH = 0.05  # of each axis on its own, log scale
_GAIN = 0.25  # log scale
_GAMMA = 0.2  # log scale
_GAMMA_PIVOT = 3.0  # stored unit that the curve leaves where it is
_SMOOTHING = (0.4, 0.9)  # voxels
_NOISE = 0.12  # network intensity
_PART_WITHOUT_LESION = 0.2  # of the cut samples
_LEAST_SHARE_OF_MARGIN = -0.1  # cut samples may lose a rim of the lesion
# voxels a side at the coarsest level: in bfloat16 oneDNN (torch 2.13) gets the weight gradients of thinner ones wrong
_LEAST_BOTTOM = 3


Box = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class TrainingCase:
    """A case as the network sees it.

    Parameters
    ----------
    case_id
        Its name.
    image
        (C, I, J, K) float32, network intensities.
    label
        (1, I, J, K) float32 class numbers.
    spacing_mm
        (3,) millimeters.
    lesions
        (1, I, J, K) float32 lesion numbers, 0 for background; None where instances are unknown.
    """

    case_id: str
    image: torch.Tensor
    label: torch.Tensor
    spacing_mm: tuple[float, float, float]
    lesions: torch.Tensor | None = None

    @cached_property
    def centers(self) -> LesionCenters:
        """Where the lesions of the whole case have their centers, and how large they are."""
        return find_centers(None if self.lesions is None else self.lesions[0].numpy(), self.spacing_mm)

    @cached_property
    def lesion_voxels(self) -> NDArray[np.float64]:
        """(n, 3) indices of the voxels inside lesions."""
        return np.argwhere(self.label[0].numpy() > 0).astype(np.float64)


def draw_sample(
    case: TrainingCase, plan: Plan, divisor: tuple[int, int, int], seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """One sample of a case, the same for the same seed.

    Parameters
    ----------
    case
        The case.
    plan
        Largest window, share of samples that are cut, intensities.
    divisor
        What each side of the sample is rounded up to a multiple of.
    seed
        0 or above.

    Returns
    -------
    Image (1, C, i, j, k) and label (1, 1, i, j, k) float32; what lies beyond the frame is 0 in both, the same that
    inference pads with. For a network with instance heads the label is (1, 8, i, j, k), see `instance_targets`.
    """
    rng = np.random.default_rng(seed)
    is_varied = plan.training.variation_share == 1 or rng.random() < plan.training.variation_share
    turn = _draw_turn(rng, np.array(case.spacing_mm), plan.orientation) if is_varied else _draw_mirror(rng)
    box = _draw_box(rng, case, turn, plan)
    box = _window_in(rng, box, case, turn, plan)
    sides = np.maximum(np.round(box[1] - box[0] + 1), 1).astype(int)
    padded = [max(_LEAST_BOTTOM * d, -(-int(side) // d) * d) for side, d in zip(sides, divisor, strict=True)]
    if not is_varied:
        box = _on_voxels(box, np.array(case.image.shape[1:]), np.array(padded))
    grid, inside = _sampling_grid(case.image.shape[1:], turn, box, sides, padded)
    image = grid_sample(case.image[None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    label = _sampled_classes(case.label, grid, plan.labels.highest)
    image = _vary_intensities(image[0], plan, rng) if is_varied else image[0]
    label = label * inside
    if plan.network.instance_heads:
        label = torch.cat([label, _sampled_targets(case, label, grid, turn, box, inside)])
    return (image * inside)[None], label[None]


def _sampled_targets(
    case: TrainingCase,
    label: torch.Tensor,
    grid: torch.Tensor,
    turn: NDArray[np.float64],
    box: Box,
    inside: torch.Tensor,
) -> torch.Tensor:
    """(6, i, j, k) targets of the instance heads, from the centers of the whole case turned with the sample."""
    numbers = None
    if case.lesions is not None:
        nearest = grid_sample(case.lesions[None], grid, mode="nearest", padding_mode="zeros", align_corners=False)
        numbers = (nearest[0, 0] * inside * (label[0] > 0)).numpy().astype(np.int32)
    about = (np.array(case.image.shape[1:]) - 1) / 2
    middle = (np.array(label.shape[1:]) - 1) / 2 - (box[0] + box[1]) / 2
    centers = np.linalg.solve(turn, (case.centers.voxels - about).T).T + middle
    radii = case.centers.radii_mm / np.cbrt(abs(np.linalg.det(turn)))
    moved = LesionCenters(centers, radii)
    return torch.from_numpy(instance_targets(label[0].numpy() > 0, numbers, moved, case.spacing_mm))


def _sampled_classes(label: torch.Tensor, grid: torch.Tensor, highest: int) -> torch.Tensor:
    """(1, i, j, k) most probable class where the grid points; nearest neighbors would give lesions a stepped face."""
    one_hot = torch.cat([label == number for number in range(1, highest + 1)]).float()
    shares = grid_sample(one_hot[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    background = 1 - shares.sum(dim=0, keepdim=True)
    return torch.cat([background, shares]).argmax(dim=0, keepdim=True).float()


def _draw_turn(rng: np.random.Generator, spacing: NDArray[np.float64], orientation: str) -> NDArray[np.float64]:
    """(3, 3) from voxels of the sample to voxels of the case: mirrored, turned in millimeters, scaled."""
    long_axis = next(axis for axis, code in enumerate(orientation) if code in "SI")
    angles = rng.uniform(-1.0, 1.0, 3) * np.where(np.arange(3) == long_axis, _ROLL, _TIP)
    mirror = np.where(rng.random(3) < 0.5, -1.0, 1.0)
    zoom = np.exp(rng.uniform(*np.log(_ZOOM)) + rng.uniform(-_STRETCH, _STRETCH, 3))
    rotation = _rotation(angles)
    turned: NDArray[np.float64] = np.diag(1 / spacing) @ rotation @ np.diag(mirror * spacing / zoom)
    return turned


def _draw_mirror(rng: np.random.Generator) -> NDArray[np.float64]:
    """(3, 3) as `_draw_turn`, mirrored only."""
    return np.diag(np.where(rng.random(3) < 0.5, -1.0, 1.0))


def _on_voxels(box: Box, shape: NDArray[np.int_], padded: NDArray[np.int_]) -> Box:
    """The frame moved by less than a voxel, so that a mirrored sample's voxels fall on voxels of the case."""
    # voxel n of the sample lies at n - (padded - 1) / 2 + middle about the case's center, (shape - 1) / 2
    middle = (box[0] + box[1]) / 2
    of_whole = (shape - padded) / 2  # what has to be added for a whole number
    moved = np.round(middle + of_whole) - of_whole - middle
    return box[0] + moved, box[1] + moved


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    product = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [other for other in range(3) if other != axis]
        about = np.eye(3)
        about[[i, j], [i, j]] = np.cos(angle)
        about[i, j], about[j, i] = -np.sin(angle), np.sin(angle)
        product = product @ about
    return product


def _draw_box(rng: np.random.Generator, case: TrainingCase, turn: NDArray[np.float64], plan: Plan) -> Box:
    """The sample's frame, in its own voxels about the case's center."""
    shape = np.array(case.image.shape[1:])
    low, high = _extent(_corners(shape), turn)
    is_cut = rng.random() < plan.training.crop_share
    if not len(case.lesion_voxels):
        return _cut_anywhere(rng, low, high) if is_cut else (low, high)
    lesion_low, lesion_high = _extent(case.lesion_voxels - (shape - 1) / 2, turn)
    margins = _own_margins(case, turn)
    if is_cut:
        margins = margins * rng.uniform(_LEAST_SHARE_OF_MARGIN, 1.0, (2, 3))
    box = lesion_low - margins[0], lesion_high + margins[1]
    if is_cut and rng.random() < _PART_WITHOUT_LESION:
        axis = int(rng.integers(3))
        if rng.random() < 0.5:
            box[1][axis] = max(lesion_low[axis] - 1, box[0][axis])
        else:
            box[0][axis] = min(lesion_high[axis] + 1, box[1][axis])
    return box


def _own_margins(case: TrainingCase, turn: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 3) voxels from the lesions' box to the case's faces, as the sample's axes run; millimeters are kept.

    Angles are small and axes do not change places, so only mirrored axes swap their ends.
    """
    shape = np.array(case.image.shape[1:])
    margins = np.stack([case.lesion_voxels.min(axis=0), shape - 1 - case.lesion_voxels.max(axis=0)])
    mirrored = np.diag(turn) < 0
    return np.where(mirrored, margins[::-1], margins)


def _cut_anywhere(rng: np.random.Generator, low: NDArray[np.float64], high: NDArray[np.float64]) -> Box:
    cut = rng.uniform(0.0, 0.35, (2, 3)) * (high - low)
    return low + cut[0], high - cut[1]


def _window_in(rng: np.random.Generator, box: Box, case: TrainingCase, turn: NDArray[np.float64], plan: Plan) -> Box:
    """The frame itself if it fits the largest window, else a window in it, often about a voxel of a lesion."""
    low, high = box
    sides = np.minimum(high - low, np.array(plan.inference.patch_size) - 1.0)
    if (sides == high - low).all():
        return box
    center = rng.uniform(low, high)
    if len(case.lesion_voxels) and rng.random() < plan.training.foreground_share:
        voxel = case.lesion_voxels[rng.integers(len(case.lesion_voxels))]
        center = np.linalg.solve(turn, voxel - (np.array(case.image.shape[1:]) - 1) / 2)
    start = np.clip(center - sides / 2, low, high - sides)
    return start, start + sides


def _corners(shape: NDArray[np.int_]) -> NDArray[np.float64]:
    """(8, 3) outermost voxel centers about the grid's center."""
    signs = np.stack(np.meshgrid(*[(-0.5, 0.5)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return signs * (shape - 1)


def _extent(voxels: NDArray[np.float64], turn: NDArray[np.float64]) -> Box:
    turned = np.linalg.solve(turn, voxels.T)
    return turned.min(axis=1), turned.max(axis=1)


def _sampling_grid(
    shape: torch.Size, turn: NDArray[np.float64], box: Box, sides: NDArray[np.int_], padded: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each voxel of the padded sample lies in the case, as `grid_sample` wants it, and which are in the frame."""
    axes = [torch.arange(side, dtype=torch.float32) - (side - 1) / 2 for side in padded]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    inside = (offsets.abs() <= torch.from_numpy(sides / 2)).all(dim=-1).float()
    middle = torch.from_numpy((box[0] + box[1]) / 2).float()
    extent = torch.tensor(shape, dtype=torch.float32)
    voxels = (offsets + middle) @ torch.from_numpy(turn.T).float() + (extent - 1) / 2
    return (2 * (voxels + 0.5) / extent - 1).flip(-1)[None], inside


def _vary_intensities(image: torch.Tensor, plan: Plan, rng: np.random.Generator) -> torch.Tensor:
    """Gain and gamma of each channel, then blur and noise of all."""
    varied = [_vary(channel, own.intensity, rng) for channel, own in zip(image, plan.channels, strict=True)]
    image = torch.stack(varied)
    if rng.random() < 0.2:
        image = GaussianSmooth(float(rng.uniform(*_SMOOTHING)))(image)
    if rng.random() < 0.3:
        noise = torch.Generator().manual_seed(int(rng.integers(2**63)))
        image = image + torch.randn(image.shape, generator=noise) * float(rng.uniform(0.0, _NOISE))
    return image


def _vary(channel: torch.Tensor, plan: IntensityPlan, rng: np.random.Generator) -> torch.Tensor:
    """Uptake is scaled about zero and bent, as dose, weight and time to scan do; other intensities about their mean."""
    gain, gamma = np.exp(rng.uniform(-1.0, 1.0, 2) * (_GAIN, _GAMMA))
    is_bent = rng.random() < 0.5
    if plan.transform != "sqrt":
        return channel * float(gain)
    root = (channel * plan.scale + plan.shift).clamp(min=0.0) * float(np.sqrt(gain))
    if is_bent:
        pivot = _GAMMA_PIVOT**0.5
        root = pivot * (root / pivot) ** float(gamma)
    return (root - plan.shift) / plan.scale
