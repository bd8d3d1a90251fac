"""What thresholds reach on the 26 sarcoma patients, beside the shipped model's cross-validation.

python benchmarks/accuracy_sarcoma_pet.py [DATA_ROOT]

References: SUV > 2.5; 41 % of the maximum; the best threshold for each patient, chosen with the mask in hand. The
model's figures are read from its bundle: each patient was scored by a network that never saw it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import medseg
from medseg.evaluation.cohort import bootstrap_mean
from medseg.io.labelled_cases import read_cases
from medseg.io.manifest import read_manifest
from medseg.metrics.overlap import dice
from medseg.models.shipped import find_model
from medseg.training.scores import CrossValidation

ROOT = Path(__file__).resolve().parents[1]


def threshold_scores(uptake: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Dice of each threshold rule on one patient."""
    tried = [dice(uptake > level, reference) or 0.0 for level in np.linspace(0, uptake.max(), 200)]
    return {
        "SUV > 2.5": dice(uptake > 2.5, reference) or 0.0,
        "41 % of maximum": dice(uptake >= 0.41 * uptake.max(), reference) or 0.0,
        "best threshold for each patient": max(tried),
    }


def main() -> None:
    """Print the table."""
    data_root = sys.argv[1] if len(sys.argv) > 1 else None
    manifest, root = read_manifest(ROOT / "data_manifests" / "sarcoma_pet.json", data_root)
    rows = []
    for case in read_cases(manifest, root):
        uptake = medseg.load_volume(case.scan, units="suv").array[0]
        rows.append(threshold_scores(uptake, case.reference.array > 0))
    saved = find_model("sarcoma_pet") / "docs" / "cross_validation.json"
    validation = CrossValidation.model_validate_json(saved.read_text(encoding="utf-8"))
    print(f"mean Dice over {len(rows)} patients [95 % bootstrap interval over patients]")
    for name in rows[0]:
        print(f"  {name:<34} {bootstrap_mean([row[name] for row in rows])}")
    print(f"  {'sarcoma_pet, cross-validated':<34} {validation.dice}")
    print(f"  {'the same, margins cut anew':<34} {validation.dice_recut}")


if __name__ == "__main__":
    main()
