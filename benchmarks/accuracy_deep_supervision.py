"""Whether deep supervision helps: the planner's network trained with and without it on PET phantoms, side by side.

    python benchmarks/accuracy_deep_supervision.py [--steps 150] [--seeds 0 1 2] [--grid-mm 8]

For each seed both are trained from the same weights on the same samples, and scored on fresh phantoms: mean Dice, and
F1 of lesions (one to one, IoU above 0.5). Steps are equal; the time that each takes is given too, in processor seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from medseg.core.labels import LabelScheme
from medseg.core.plan import ChannelPlan, InferencePlan, IntensityPlan, Plan, SeparationPlan, TrainingPlan, with_changes
from medseg.core.semantic import SemanticMap
from medseg.evaluation.case import evaluate_case
from medseg.inference.options import RunOptions
from medseg.inference.segmenter import Segmenter
from medseg.lesions.separate import separate_lesions
from medseg.networks.build import build_network
from medseg.phantoms.make import Phantom, make_phantom
from medseg.training.datasets import training_case
from medseg.training.loop import fit
from medseg.training.rules import choose_network

CPU = torch.device("cpu")
FIRST_HELD_OUT = 500


def main() -> None:
    """Train both for each seed, and print a line for each and the mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--grid-mm", type=float, default=8.0)
    parser.add_argument("--cases", type=int, default=12)
    options = parser.parse_args()
    training = [phantom(number, options.grid_mm) for number in range(options.cases)]
    held_out = [phantom(FIRST_HELD_OUT + number, options.grid_mm) for number in range(options.cases)]
    figures: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
    for seed in options.seeds:
        for is_deep in figures:
            plan = plan_of(options.steps, seed, options.grid_mm, is_deep=is_deep)
            figures[is_deep].append(scored(training, held_out, plan))
            show(f"seed {seed}, deep supervision {is_deep}", figures[is_deep][-1])
    for is_deep, found in figures.items():
        show(f"mean, deep supervision {is_deep}", tuple(np.mean(found, axis=0)))
    difference = np.subtract(figures[True], figures[False])[:, :2]
    print(f"differences by seed: Dice {np.round(difference[:, 0], 4)}, lesion F1 {np.round(difference[:, 1], 4)}")


def phantom(seed: int, grid_mm: float) -> Phantom:
    """A noisy PET phantom on a coarse grid."""
    side = round(256 / grid_mm)
    return make_phantom("pet", seed, smallest_mm=2 * grid_mm, shape=(side,) * 3, spacing_mm=(grid_mm,) * 3, noise=2.0)


def plan_of(steps: int, seed: int, grid_mm: float, *, is_deep: bool) -> Plan:
    """One of the planner's networks, its intensities of PET."""
    network = choose_network()[0].model_copy(update={"members": 1})
    intensity = IntensityPlan(low=0.0, high=25.0, transform="sqrt", shift=1.0, scale=1.0)
    plan = Plan(
        name="phantoms",
        channels=(ChannelPlan(name="PET", modality="PT", units="suv", intensity=intensity),),
        labels=LabelScheme(classes={1: "lesion"}),
        spacing_mm=(grid_mm,) * 3,
        network=network,
        inference=InferencePlan(patch_size=(round(256 / grid_mm),) * 3),
        training=TrainingPlan(steps=steps, seed=seed),
    )
    return with_changes(plan, {"training": {"deep_supervision": is_deep}})


def scored(training: list[Phantom], held_out: list[Phantom], plan: Plan) -> tuple[float, float, float]:
    """Mean Dice, lesion F1, processor seconds of the training."""
    cases = [
        training_case(str(number), one.volume, reference_of(one, plan), plan, one.lesions.array.astype(np.int32))
        for number, one in enumerate(training)
    ]
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        weights = fit(cases, plan, Path(folder), device=CPU)
    seconds = time.process_time() - start
    network = build_network(plan)
    network.load_state_dict(weights)
    segmenter = Segmenter(network, plan, device="cpu", engine="torch", options=RunOptions(mirror=False))
    found = []
    for number, one in enumerate(held_out):
        semantic, _ = segmenter.segment(one.volume)
        predicted = separate_lesions(semantic, plan.separation)
        reference = separate_lesions(reference_of(one, plan), SeparationPlan(method="components"))
        found.append(evaluate_case(predicted, reference, case_id=str(number), overlap_only=True))
    n_right, n_wrong = sum(one.tp for one in found), sum(one.fp + one.fn for one in found)
    dice = [one.dice for one in found if one.dice is not None]
    return float(np.mean(dice)), 2 * n_right / (2 * n_right + n_wrong), seconds


def reference_of(one: Phantom, plan: Plan) -> SemanticMap:
    """Where the lesions of a phantom are."""
    return SemanticMap((one.lesions.array > 0).astype(np.uint8), one.volume.geometry, plan.labels)


def show(what: str, figures: tuple[float, ...]) -> None:
    """One line."""
    dice, f1, seconds = figures
    print(f"{what}: Dice {dice:.4f}, lesion F1 {f1:.4f}, {seconds:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    main()
