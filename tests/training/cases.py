"""A tiny data set on disk: scans with one bright block each, their references, and a manifest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np


def write_data_set(folder: Path, n_cases: int = 4, n_folds: int = 2) -> Path:
    """Write scans, references and manifest.json into a folder; the manifest's path."""
    cases = []
    for number in range(n_cases):
        rng = np.random.default_rng(number)
        image = rng.random((14, 15, 16)).astype(np.float32)
        label = np.zeros(image.shape, dtype=np.uint8)
        low = rng.integers(3, 6, size=3)
        label[low[0] : low[0] + 5, low[1] : low[1] + 5, low[2] : low[2] + 5] = 1
        image[label > 0] += 8.0
        (folder / f"case_{number}").mkdir(parents=True)
        for name, array in (("image", image), ("label", label)):
            nib.save(
                nib.Nifti1Image(array, np.diag([4.0, 4.0, 4.0, 1.0])), folder / f"case_{number}" / f"{name}.nii.gz"
            )
        cases.append(
            {
                "case_id": f"case_{number}",
                "images": [listed(folder, f"case_{number}/image.nii.gz")],
                "label": listed(folder, f"case_{number}/label.nii.gz"),
                "fold": number % n_folds,
            }
        )
    manifest = {
        "name": "blocks",
        "description": "Bright blocks.",
        "source": "made in a test",
        "licence": "CC0",
        "licence_url": "https://creativecommons.org/publicdomain/zero/1.0/",
        "attribution": "nobody",
        "root": ".",
        "channels": [{"name": "PET", "modality": "PT", "units": "suv"}],
        "labels": {"1": "tumor"},
        "cases": cases,
        "notes": ["Blocks are not tumors."],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder / "manifest.json"


def listed(folder: Path, path: str) -> dict[str, str]:
    """A manifest's entry of a file."""
    return {"path": path, "sha256": hashlib.sha256((folder / path).read_bytes()).hexdigest()}
