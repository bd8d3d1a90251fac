"""Make the training set of `bundles/phantom_lesions`: crowds of CT-like lesions, a manifest and a plan.

    python benchmarks/make_phantom_lesions.py FOLDER [--masks FOLDER_OF_LESION_MASKS]
    medseg train FOLDER/manifest.json --plan FOLDER/plan.json -o bundles/phantom_lesions

and other blocks, of thicker slices, to train on with:

    python benchmarks/make_phantom_lesions.py MORE --first 900 --cases 700 --slices 5 5 3 5 1 3
    medseg finetune bundles/phantom_lesions MORE/manifest.json -o FOLDER --steps 3600 --learning-rate 0.001

Forms are taken also from masks of real lesions, if a folder of them is given: *lesion.nii.gz, class maps.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from medseg.core.labels import BINARY_LESION
from medseg.core.plan import ChannelPlan, InferencePlan, IntensityPlan, NetworkPlan, Plan, TrainingPlan
from medseg.io.label_files import read_semantic
from medseg.io.nifti import write_labels, write_volume
from medseg.lesions.components import label_components
from medseg.phantoms.crowd import Content, CrowdRequest, make_crowd
from medseg.phantoms.masks import MaskShape, mask_shapes

FIRST_SEED = 5_000_000  # far from the seeds of benchmarks and tests
SPACINGS = {1: (1.0, 1.0, 1.0), 3: (0.8, 0.8, 3.0), 5: (0.8, 0.8, 5.0)}  # by thickness of the slices
CONTENTS: tuple[Content, ...] = (
    "touching",
    "mixed",
    "touching",
    "lobulated",
    "touching",
    "isolated",
    "mixed",
    "touching",
    "lobulated",
    "empty",
)
ATTRIBUTION = (
    "Forms of some lesions follow lesion masks of multiple sclerosis patients (Lesjak et al. 2017, doi "
    "10.1007/s12021-017-9348-7, CC BY, in the edition github.com/muschellij2/open_ms_data at 65704901f606). "
    "No voxel of any patient's scan was used."
)


def request_of(number: int, slices: list[int], masks: list[MaskShape]) -> CrowdRequest:
    """What case n is like: contents, slices and seams in turn."""
    return CrowdRequest(
        CONTENTS[number % len(CONTENTS)],
        spacing_mm=SPACINGS[slices[number // len(CONTENTS) % len(slices)]],
        is_seam_visible=number % 5 < 3,
        masks=masks,
    )


def plan(steps: int) -> Plan:
    """A small U-Net on a grid of 1 mm."""
    return Plan(
        name="phantom_lesions",
        channels=(
            ChannelPlan(
                name="CT",
                modality="CT",
                intensity=IntensityPlan(low=-100.0, high=250.0, shift=75.0, scale=50.0),
            ),
        ),
        labels=BINARY_LESION,
        spacing_mm=(1.0, 1.0, 1.0),
        network=NetworkPlan(
            filters=(16, 32, 64, 128, 128),
            strides=(1, 2, 2, 2),  # full resolution first: seams are a voxel or two wide
            instance_heads=True,
        ),
        inference=InferencePlan(patch_size=(64, 64, 64)),
        training=TrainingPlan(
            steps=steps,
            batch_size=2,
            foreground_share=0.8,
            variation_share=0.2,  # blocks are many and varied; turning them by interpolation blurs the seams
            checkpoint_every=50,
        ),
    )


def listed(folder: Path, name: str) -> dict[str, str]:
    """A manifest's entry of a file."""
    return {"path": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}


def read_masks(folder: Path | None) -> list[MaskShape]:
    """Forms of all lesions in the class maps below a folder."""
    found: list[MaskShape] = []
    for path in sorted(folder.rglob("*lesion.nii.gz")) if folder else []:
        classes = read_semantic(path)
        found.extend(mask_shapes(label_components(classes.array)[0], classes.geometry))
    return found


def main() -> None:
    """Write the set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0, help="number of the first block: others are made from others")
    parser.add_argument("--cases", type=int, default=900)
    parser.add_argument("--slices", type=int, nargs="+", choices=SPACINGS, default=[*SPACINGS], help="mm, in turn")
    parser.add_argument("--steps", type=int, default=6500)
    parser.add_argument("--masks", type=Path)
    chosen = parser.parse_args()
    folder: Path = chosen.folder
    folder.mkdir(parents=True, exist_ok=True)
    masks = read_masks(chosen.masks)
    print(f"{len(masks)} forms of real lesions")
    cases = []
    for number in range(chosen.first, chosen.first + chosen.cases):
        crowd = make_crowd(request_of(number, chosen.slices, masks), FIRST_SEED + number)
        name = f"crowd_{number:04d}"
        write_volume(crowd.volume, folder / f"{name}.nii.gz")
        write_labels(crowd.lesions.array, crowd.lesions.geometry, folder / f"{name}_lesions.nii.gz")
        cases.append(
            {
                "case_id": name,
                "images": [listed(folder, f"{name}.nii.gz")],
                "label": listed(folder, f"{name}_lesions.nii.gz"),
                "lesions": "numbered",
            }
        )
    manifest = {
        "name": "phantom_lesions",
        "description": "Synthetic blocks of tissue in CT numbers with lesions of 4 to 30 mm that touch, overlap, stand "
        "alone or have lobes; the instances are known exactly.",
        "source": "made by benchmarks/make_phantom_lesions.py",
        "licence": "CC0 1.0",
        "licence_url": "https://creativecommons.org/publicdomain/zero/1.0/",
        "attribution": ATTRIBUTION if masks else "Made by medseg.",
        "root": ".",
        "channels": [{"name": "CT", "modality": "CT"}],
        "labels": {"1": "lesion"},
        "cases": cases,
        "notes": [
            "Trained on synthetic blocks only: it shows how touching lesions come apart, and finds no lesions in "
            "patients.",
        ],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    (folder / "plan.json").write_text(plan(chosen.steps).to_json())


if __name__ == "__main__":
    main()
