"""What losses that count lesions one by one are worth: small networks trained alike but for the loss, on crowds.

    python benchmarks/accuracy_instance_losses.py [--steps 600] [--seeds 0] [--scans 60] [-o FILE]

Six losses, from the same first weights on the same samples (figures in docs/how-to/train.md):

* voxels: Dice and cross entropy; the errors of center heatmap and offsets are means over all voxels,
* lesions: medseg's own, in which the heads' errors are means over each lesion, then over lesions,
* blob: the same with blob loss beside Dice and cross entropy (each lesion alone: the others are left out; 1 : 1),
* owner: blob, and what it costs that a vote is nearer to another lesion's center (`owner_weight` 1),
* cc: lesions, with CC-DiceCE in the place of Dice and cross entropy (each lesion in its own part of the patch, the
  voxels nearest to it),
* both: Dice and cross entropy, and CC-DiceCE, 1 : 1.

Instances are those of the truth, not components: where lesions touch, a component is several. Networks are scored on
fresh crowds (`accuracy_separation.py`): F1 at IoU > 0.5 from the network's own map and heads, and the share found of
lesions below 8 mm. Differences from "lesions" come with 95 % intervals, paired over scans.

References
----------
Kofler et al., blob loss: instance imbalance aware loss functions for semantic segmentation, IPMI 2023.
Bouteille et al., Learning to look closer: a new instance-wise loss for small cerebral lesion segmentation, 2025, arXiv
2511.17146 (CC-DiceCE).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accuracy_separation import overlaps
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

import medseg.training.loop as loop
from medseg.core.plan import Plan, SeparationPlan, with_changes
from medseg.core.semantic import SemanticMap
from medseg.inference.segmenter import Segmenter
from medseg.lesions.separate import separate_lesions
from medseg.networks.build import build_network
from medseg.networks.heads import CENTER, OFFSET
from medseg.phantoms.crowd import Content, Crowd, CrowdRequest, make_crowd
from medseg.training.datasets import training_case
from medseg.training.losses import HeadsLoss

FIRST_TRAINING, FIRST_HELD_OUT = 7_000_000, 8_000_000
SPACINGS = ((1.0, 1.0, 1.0), (0.8, 0.8, 3.0), (0.8, 0.8, 5.0))
CONTENTS: tuple[Content, ...] = ("touching", "mixed", "isolated", "lobulated")
SMALL_MM = 8.0
CPU = torch.device("cpu")
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
N_RESAMPLED = 2000


def dice_and_cross_entropy(logits: torch.Tensor, target: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Of one sample's logits (2, I, J, K), over the voxels `inside`."""
    margin = (logits[1] - logits[0])[inside]
    wanted = target[inside].float()
    probability = margin.sigmoid()
    dice = 1.0 - (2.0 * (probability * wanted).sum() + 1.0) / (probability.sum() + wanted.sum() + 1.0)
    return dice + nn.functional.binary_cross_entropy_with_logits(margin, wanted)


def cells(logits: torch.Tensor, numbers: torch.Tensor, nearest: torch.Tensor) -> torch.Tensor:
    """Mean over lesions of the loss in their cells; over the whole patch without lesions."""
    n_lesions = int(numbers.max())
    if not n_lesions:
        return dice_and_cross_entropy(logits, numbers > 0, torch.ones_like(numbers, dtype=torch.bool))
    each = [dice_and_cross_entropy(logits, numbers == n, nearest == n) for n in range(1, n_lesions + 1)]
    return torch.stack(each).mean()


class LossOfLesions(nn.Module):
    """The heads' loss of medseg with another loss of the map beside its own, or in its place."""

    def __init__(self, other: Loss, *, keeps_own: bool) -> None:
        super().__init__()
        self._own, self._other = HeadsLoss(only_heads=not keeps_own), other

    def forward(self, heads: dict[str, torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar."""
        logits = heads["semantic"].float()
        others = [self._other(one, *instances(two)) for one, two in zip(logits, label, strict=True)]
        total: torch.Tensor = self._own(heads, label) + torch.stack(others).mean()
        return total


class LossOfVoxels(HeadsLoss):
    """Every voxel counts alike, in the heads too."""

    def forward(self, heads: dict[str, torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar."""
        classes, heat, offset, weight, _ = torch.split(label[:, :7], [1, 1, 3, 1, 1], dim=1)
        in_lesions = (weight > 0).expand_as(offset)
        errors = nn.functional.smooth_l1_loss(heads[OFFSET].float() / 10, offset / 10, reduction="none", beta=0.02)
        of_offsets = errors[in_lesions].sum() / max(int(in_lesions.sum()) // 3, 1)
        of_map: torch.Tensor = self.semantic(heads["semantic"], classes)  # type: ignore[misc]
        return of_map + 100.0 * ((heads[CENTER].float() - heat) ** 2).mean() + 2.0 * of_offsets


def instances(label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers (I, J, K) of lesions, 0 outside, and of the lesion nearest to each voxel, of one sample's label.

    Those that the sample does not show are left out.
    """
    numbers = np.unique(np.append(label[7].numpy(), 0.0), return_inverse=True)[1][:-1].reshape(label.shape[1:])
    nearest = ndimage.distance_transform_edt(numbers == 0, return_distances=False, return_indices=True)
    return torch.from_numpy(numbers), torch.from_numpy(numbers[tuple(nearest)])


LOSSES: dict[str, Callable[[], nn.Module]] = {
    "voxels": LossOfVoxels,
    "lesions": HeadsLoss,
    "blob": lambda: HeadsLoss(has_blobs=True),
    "owner": lambda: HeadsLoss(has_blobs=True, owner_weight=1.0),  # the grid is one of 1 mm
    "cc": lambda: LossOfLesions(cells, keeps_own=False),
    "both": lambda: LossOfLesions(cells, keeps_own=True),
}


@dataclass
class Scored:
    """One network on one scan: hits, lesions and false ones, and of small lesions how many there are and are found."""

    content: str
    n_hits: int
    n_lesions: int
    n_false: int
    n_small: int
    n_small_hits: int


def crowd_of(number: int, first: int) -> Crowd:
    """A block of tissue with lesions of 4 to 30 mm: contents and slices in turn."""
    spacing = SPACINGS[number // len(CONTENTS) % len(SPACINGS)]
    request = CrowdRequest(CONTENTS[number % len(CONTENTS)], spacing_mm=spacing, is_seam_visible=True)
    return make_crowd(request, first + number)


def plan_of(steps: int, seed: int) -> Plan:
    """A smaller network than `bundles/phantom_lesions` has, on its grid."""
    from make_phantom_lesions import plan

    changes = {
        "network": {"filters": (16, 32, 64, 64)},
        "inference": {"patch_size": (48, 48, 48)},
        "training": {"seed": seed, "variation_share": 0.0},
    }
    shorter = plan(steps)
    network = shorter.network.model_copy(update={"strides": shorter.network.strides[:3]})
    return with_changes(shorter.model_copy(update={"network": network}), changes)


def trained(cases: list[Crowd], plan: Plan, make_loss: Callable[[], nn.Module]) -> Segmenter:
    """A network trained with a loss."""
    loop.loss_of = lambda *_, **__: make_loss()  # type: ignore[assignment]  # the one thing that differs
    ready = [
        training_case(str(n), crowd.volume, binary(crowd, plan), plan, crowd.lesions.array.astype(np.int32))
        for n, crowd in enumerate(cases)
    ]
    with tempfile.TemporaryDirectory() as folder:
        weights = loop.fit(ready, plan, Path(folder), device=CPU)
    network = build_network(plan)
    network.load_state_dict(weights)
    return Segmenter(network, plan, device="cpu", engine="torch")


def binary(crowd: Crowd, plan: Plan) -> SemanticMap:
    """Where the lesions of a crowd are."""
    return SemanticMap((crowd.lesions.array > 0).astype(np.uint8), crowd.volume.geometry, plan.labels)


def score(segmenter: Segmenter, crowd: Crowd, plan: SeparationPlan) -> Scored:
    """One scan."""
    semantic, _ = segmenter.segment(crowd.volume)
    silent = SeparationPlan(method="components")
    found = np.asarray(separate_lesions(semantic, plan if semantic.evidence is not None else silent).array)
    reference = np.asarray(crowd.lesions.array)
    _, iou = overlaps(found, reference)
    is_hit = iou.max(axis=1, initial=0.0) > 0.5
    voxels = np.bincount(reference.ravel(), minlength=len(is_hit) + 1)[1:]
    diameters = np.cbrt(6 / np.pi * voxels * np.prod(crowd.request.spacing_mm))
    is_small = diameters < SMALL_MM
    n_false = int(found.max()) - int((iou > 0.5).any(axis=0).sum())
    return Scored(
        crowd.request.content,
        int(is_hit.sum()),
        len(is_hit),
        n_false,
        int(is_small.sum()),
        int((is_hit & is_small).sum()),
    )


def figures(rows: list[Scored]) -> NDArray[np.float64]:
    """(2,): F1, and the share of small lesions that is found."""
    counts = [(row.n_hits, row.n_lesions, row.n_false, row.n_small, row.n_small_hits) for row in rows]
    n_hits, n_lesions, n_false, n_small, n_small_hits = np.sum(counts, axis=0)
    return np.array([2 * n_hits / max(n_hits + n_lesions + n_false, 1), n_small_hits / max(n_small, 1)])


def summary(rows: list[Scored], base: list[Scored]) -> dict[str, object]:
    """Figures of a loss, and by how much they differ from another's on the same scans."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(N_RESAMPLED):
        some = rng.integers(len(rows), size=len(rows))
        drawn.append(figures([rows[n] for n in some]) - figures([base[n] for n in some]))
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    own, difference = figures(rows), figures(rows) - figures(base)
    names = ("f1", f"found below {SMALL_MM:g} mm")
    return {
        name: {"value": round(own[n], 4), "minus lesions": [round(v[n], 4) for v in (difference, low, high)]}
        for n, name in enumerate(names)
    }


def main() -> None:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cases", type=int, default=160)
    parser.add_argument("--scans", type=int, default=60)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("-o", "--output", type=Path)
    chosen = parser.parse_args()
    training = [crowd_of(number, FIRST_TRAINING) for number in range(chosen.cases)]
    held_out = [crowd_of(number, FIRST_HELD_OUT) for number in range(chosen.scans)]
    rows: dict[str, list[Scored]] = {name: [] for name in chosen.losses}
    for seed in chosen.seeds:
        plan = plan_of(chosen.steps, seed)
        for name, found in rows.items():
            start = time.process_time()
            segmenter = trained(training, plan, LOSSES[name])
            seconds = time.process_time() - start
            found += [score(segmenter, crowd, plan.separation) for crowd in held_out]
            print(f"seed {seed}, {name}: {seconds:.0f} s, {figures(found[-len(held_out) :]).round(4)}", flush=True)
    base = rows.get("lesions", next(iter(rows.values())))
    result: dict[str, object] = {"options": {**vars(chosen), "output": None}}
    for name, found in rows.items():
        of_content = {}
        for content in ("all", *CONTENTS):
            kept = [n for n, row in enumerate(found) if content in ("all", row.content)]
            of_content[content] = summary([found[n] for n in kept], [base[n] for n in kept])
        result[name] = of_content
    text = json.dumps(result, indent=1)
    print(text)
    if chosen.output:
        chosen.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
