"""Training cases in memory, on the network's grid and with the network's intensities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.geometry import Geometry
from medseg.core.plan import Plan
from medseg.core.recipe import smallest_divisor
from medseg.core.scan import Scan
from medseg.core.semantic import SemanticMap
from medseg.core.volume import Volume
from medseg.io.labelled_cases import LabelledCase
from medseg.io.resample import resample_linear
from medseg.training.team import Team
from medseg.transforms.augment import TrainingCase, draw_sample
from medseg.transforms.border import geometry_of
from medseg.transforms.keys import IMAGE
from medseg.transforms.preprocess import network_input

__all__ = ["Batch", "batches", "load_case", "training_case"]

Batch = list[tuple[torch.Tensor, torch.Tensor]]


def load_case(case: LabelledCase, plan: Plan) -> TrainingCase:
    """Bring a case onto the network's grid, as `training_case` does."""
    return training_case(case.case_id, case.scan, case.reference, plan, case.lesions)


def training_case(
    case_id: str,
    source: Scan | Volume,
    reference: SemanticMap,
    plan: Plan,
    lesions: NDArray[np.unsignedinteger] | None = None,
) -> TrainingCase:
    """Bring a scan and its reference onto the network's grid; classes by the most probable of interpolated one-hots.

    Lesion numbers go by nearest neighbor; None where they are unknown.
    """
    image = network_input(plan)({IMAGE: source})[IMAGE]
    grid = geometry_of(image)
    label = _resampled_classes(reference, grid, plan.labels.highest + 1)
    numbers = None if lesions is None else _nearest_numbers(lesions, reference.geometry, grid)
    return TrainingCase(case_id, image.as_tensor(), label, grid.spacing, numbers)


def _nearest_numbers(lesions: NDArray[np.unsignedinteger], source: Geometry, grid: Geometry) -> torch.Tensor:
    to_source = np.linalg.inv(source.affine) @ grid.affine
    nearest = ndimage.affine_transform(
        lesions.astype(np.float32), to_source[:3, :3], to_source[:3, 3], grid.shape, order=0, mode="nearest"
    )
    return torch.from_numpy(nearest[None])


def _resampled_classes(reference: SemanticMap, grid: Geometry, n_classes: int) -> torch.Tensor:
    one_hot = np.stack([reference.array == number for number in range(n_classes)]).astype(np.float32)
    classes = resample_linear(one_hot, reference.geometry, grid).argmax(axis=0)
    return torch.from_numpy(classes[None].astype(np.float32))


def batches(
    cases: Sequence[TrainingCase],
    phantoms: Sequence[TrainingCase],
    plan: Plan,
    first_step: int,
    team: Team | None = None,
) -> Iterator[Batch]:
    """Endless batches from a step on: a list of samples, each an image (1, C, i, j, k) and a label (1, 1, i, j, k).

    For one process of a team, its share of each batch.

    Which case a sample comes from, and how it is drawn, follow from the plan's seed and the step alone, so that a
    resumed training sees what an uninterrupted one would have seen. Samples differ in size, as scans do.
    """
    divisor = smallest_divisor(plan.network)
    step = first_step
    while True:
        numbers = range(step * plan.training.batch_size, (step + 1) * plan.training.batch_size)
        yield [_sample(cases, phantoms, plan, divisor, number) for number in (team or Team()).share(numbers)]
        step += 1


def _sample(
    cases: Sequence[TrainingCase],
    phantoms: Sequence[TrainingCase],
    plan: Plan,
    divisor: tuple[int, int, int],
    number: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample number n; each epoch goes through all cases in a new order, phantoms come in between by chance."""
    rng = np.random.default_rng([plan.training.seed, number])
    if phantoms and rng.random() < plan.training.phantom_share:
        case = phantoms[int(rng.integers(len(phantoms)))]
    else:
        case = cases[_shuffled(len(cases), plan.training.seed, number // len(cases))[number % len(cases)]]
    return draw_sample(case, plan, divisor, int(rng.integers(2**63)))


def _shuffled(n_cases: int, seed: int, epoch: int) -> list[int]:
    order: list[int] = np.random.default_rng([seed, epoch, n_cases]).permutation(n_cases).tolist()
    return order
