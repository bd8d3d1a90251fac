"""Training cases in memory, on the network's grid and with the network's intensities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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
from medseg.errors import GridMismatch
from medseg.io.label_files import read_lesions, read_semantic
from medseg.io.manifest import DataManifest, ManifestCase, verify_case
from medseg.io.resample import resample_linear
from medseg.io.scan import read_scan
from medseg.transforms.augment import TrainingCase, draw_sample
from medseg.transforms.border import geometry_of
from medseg.transforms.keys import IMAGE
from medseg.transforms.preprocess import network_input

__all__ = ["Batch", "LabelledCase", "batches", "load_case", "read_cases", "training_case"]

Batch = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class LabelledCase:
    """A case of a manifest whose files have been verified: the scan, and its reference map on the same grid.

    `lesions` is (I, J, K), the number of each voxel's lesion; None where instances are unknown.
    """

    case_id: str
    scan: Scan
    reference: SemanticMap
    fold: int | None
    lesions: NDArray[np.unsignedinteger] | None = None


def read_cases(manifest: DataManifest, root: Path) -> list[LabelledCase]:
    """Verify and open every case of a manifest.

    Raises
    ------
    HashMismatch
        If a file is not the one that the manifest names.
    GridMismatch
        If a reference map lies on another grid than its scan.
    """
    return [_read_case(case, manifest, root) for case in manifest.cases]


def _read_case(case: ManifestCase, manifest: DataManifest, root: Path) -> LabelledCase:
    verify_case(case, root)
    scan = read_scan([root / image.path for image in case.images], case_id=case.case_id)
    reference, lesions = _read_reference(case, manifest, root)
    if not reference.geometry.matches(scan.geometry):
        raise GridMismatch(
            f"{case.case_id}: the reference {case.label.path} lies on {reference.geometry!r}, the scan on "
            f"{scan.geometry!r}; references must be drawn on the scan's own grid"
        )
    return LabelledCase(case.case_id, scan, reference, case.fold, lesions)


def _read_reference(
    case: ManifestCase, manifest: DataManifest, root: Path
) -> tuple[SemanticMap, NDArray[np.unsignedinteger] | None]:
    if case.lesions == "numbered":
        numbered = read_lesions(root / case.label.path)
        classes = (numbered.array > 0).astype(np.uint8)
        return SemanticMap(classes, numbered.geometry, manifest.scheme), numbered.array
    reference = read_semantic(root / case.label.path, scheme=manifest.scheme)
    return reference, (reference.array > 0).astype(np.uint8) if case.lesions == "one" else None


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
    cases: Sequence[TrainingCase], phantoms: Sequence[TrainingCase], plan: Plan, first_step: int
) -> Iterator[Batch]:
    """Endless batches from a step on: a list of samples, each an image (1, C, i, j, k) and a label (1, 1, i, j, k).

    Which case a sample comes from, and how it is drawn, follow from the plan's seed and the step alone, so that a
    resumed training sees what an uninterrupted one would have seen. Samples differ in size, as scans do.
    """
    divisor = smallest_divisor(plan.network)
    step = first_step
    while True:
        numbers = range(step * plan.training.batch_size, (step + 1) * plan.training.batch_size)
        yield [_sample(cases, phantoms, plan, divisor, number) for number in numbers]
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
