"""Separation from the semantic mask alone, against instances that people drew.

    python benchmarks/accuracy_real_instances.py DATA -o real.json

DATA holds `volumes/kits23_instances` (kidney tumors and cysts, one to three annotators; its license allows
tests only) and `volumes/ms` (masks without instances: how many lesions each method makes of them). A hit is IoU >
0.5. Beside each method stands how well the second and third annotator agree with the first, instance by instance.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from accuracy_separation import overlaps
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.labels import BINARY_LESION
from medseg.core.plan import SeparationPlan
from medseg.core.semantic import SemanticMap
from medseg.io.label_files import read_lesions, read_semantic
from medseg.lesions.separate import separate_lesions

METHODS = ("components", "watershed")


def scores(found: NDArray[np.integer], reference: NDArray[np.integer]) -> dict[str, float]:
    """Hits, numbers of lesions, sum of the hits' IoU."""
    _, iou = overlaps(found, reference)
    best = iou.max(axis=1, initial=0.0)
    return {
        "hits": int((best > 0.5).sum()),
        "n_found": int(found.max()),
        "n_reference": int(reference.max()),
        "sum_iou": round(float(best[best > 0.5].sum()), 4),
    }


def separated(mask: NDArray[np.bool_], geometry: Geometry, method: str) -> NDArray[np.integer]:
    """Lesion numbers of a mask by one method."""
    semantic = SemanticMap(mask.astype(np.uint8), geometry, BINARY_LESION)
    return np.asarray(separate_lesions(semantic, SeparationPlan(method=method)).array)  # type: ignore[arg-type]


def kits_case(folder: Path) -> dict[str, object]:
    """One case: each method and each further annotator against the first annotator."""
    first = read_lesions(folder / "instances.nii.gz")
    reference = np.asarray(first.array)
    rows: dict[str, object] = {m: scores(separated(reference > 0, first.geometry, m), reference) for m in METHODS}
    for path in sorted(folder.glob("instances_annotator*.nii.gz")):
        rows[path.name.split(".")[0].removeprefix("instances_")] = scores(
            np.asarray(read_lesions(path).array), reference
        )
    return rows


def pooled(cases: dict[str, dict[str, object]]) -> dict[str, dict[str, float]]:
    """F1 and PQ over all cases that have a row of a name."""
    table: dict[str, dict[str, float]] = {}
    for name in sorted({name for case in cases.values() for name in case}):
        rows = [case[name] for case in cases.values() if name in case]
        hits, found, reference, iou = (
            sum(row[key] for row in rows)  # type: ignore[index]
            for key in ("hits", "n_found", "n_reference", "sum_iou")
        )
        half = 0.5 * (found + reference)
        table[name] = {
            "n_cases": len(rows),
            "n_reference": reference,
            "n_found": found,
            "f1": round(hits / half, 4),
            "pq": round(iou / half, 4),
            "count_error": round(float(np.mean([abs(r["n_found"] - r["n_reference"]) for r in rows])), 3),  # type: ignore[index]
        }
    return table


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    chosen = parser.parse_args()
    folders = sorted((chosen.data / "volumes" / "kits23_instances").glob("case_*"))
    cases = {folder.name: kits_case(folder) for folder in folders}
    three = {name: case for name, case in cases.items() if "annotator2" in case}
    counts = {}
    for path in sorted((chosen.data / "volumes" / "ms").rglob("*lesion.nii.gz")):
        classes = read_semantic(path)
        name = path.parent.name if path.name == "lesion.nii.gz" else path.name.split("_")[0]
        counts[name] = {m: int(separated(classes.array > 0, classes.geometry, m).max()) for m in METHODS}
    result = {
        "kits23, all cases": pooled(cases),
        "kits23, cases of three annotators": pooled(three),
        "kits23, each case": cases,
        "ms, number of lesions": counts,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if chosen.output:
        chosen.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
