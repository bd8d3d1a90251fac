"""Training cases in memory, on the network's grid and with the network's intensities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medseg.core.geometry import Geometry
from medseg.core.plan import Plan
from medseg.core.scan import Scan
from medseg.core.semantic import SemanticMap
from medseg.errors import GridMismatch
from medseg.io.label_files import read_semantic
from medseg.io.manifest import DataManifest, ManifestCase, verify_case
from medseg.io.resample import resample_linear
from medseg.io.scan import read_scan
from medseg.transforms.augment import draw_patch, training_augmentation
from medseg.transforms.border import geometry_of
from medseg.transforms.keys import IMAGE, LABEL
from medseg.transforms.preprocess import network_input

__all__ = ["LabelledCase", "TrainingCase", "batches", "load_case", "read_cases"]


@dataclass(frozen=True, eq=False)
class LabelledCase:
    """A case of a manifest whose files have been verified: the scan, and its reference map on the same grid."""

    case_id: str
    scan: Scan
    reference: SemanticMap
    fold: int | None


@dataclass(frozen=True, eq=False)
class TrainingCase:
    """A case as the network sees it: image (C, I, J, K) float32 and label (1, I, J, K) float32 class numbers."""

    case_id: str
    image: torch.Tensor
    label: torch.Tensor


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
    reference = read_semantic(root / case.label.path, scheme=manifest.scheme)
    if not reference.geometry.matches(scan.geometry):
        raise GridMismatch(
            f"{case.case_id}: the reference {case.label.path} lies on {reference.geometry!r}, the scan on "
            f"{scan.geometry!r}; references must be drawn on the scan's own grid"
        )
    return LabelledCase(case.case_id, scan, reference, case.fold)


def load_case(case: LabelledCase, plan: Plan) -> TrainingCase:
    """Bring a case onto the network's grid; the reference by the most probable class of interpolated one-hot maps."""
    image = network_input(plan)({IMAGE: case.scan})[IMAGE]
    label = _resampled_classes(case.reference, geometry_of(image), plan.labels.highest + 1)
    return TrainingCase(case.case_id, image.as_tensor(), label)


def _resampled_classes(reference: SemanticMap, grid: Geometry, n_classes: int) -> torch.Tensor:
    one_hot = np.stack([reference.array == number for number in range(n_classes)]).astype(np.float32)
    classes = resample_linear(one_hot, reference.geometry, grid).argmax(axis=0)
    return torch.from_numpy(classes[None].astype(np.float32))


def batches(cases: Sequence[TrainingCase], plan: Plan, first_step: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches from a step on: images (B, C, *patch) and labels (B, 1, *patch).

    Which case a patch comes from, and how it is drawn, follow from the plan's seed and the step alone, so that a
    resumed training sees what an uninterrupted one would have seen.
    """
    augmentation = training_augmentation(plan)
    step = first_step
    while True:
        pairs = [
            draw_patch(augmentation, {IMAGE: cases[index].image, LABEL: cases[index].label}, seed)
            for index, seed in _draws(len(cases), plan.training.batch_size, plan.training.seed, step)
        ]
        yield torch.stack([image for image, _ in pairs]), torch.stack([label for _, label in pairs])
        step += 1


def _draws(n_cases: int, batch_size: int, seed: int, step: int) -> list[tuple[int, int]]:
    """(case index, sample seed) of each patch in a step; each epoch goes through all cases in a new order."""
    numbers = range(step * batch_size, (step + 1) * batch_size)
    return [(_shuffled(n_cases, seed, n // n_cases)[n % n_cases], _sample_seed(seed, n)) for n in numbers]


def _shuffled(n_cases: int, seed: int, epoch: int) -> list[int]:
    order: list[int] = np.random.default_rng([seed, epoch]).permutation(n_cases).tolist()
    return order


def _sample_seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
