"""Draw the pictures of docs/explanation/semantic-or-instance.md.

python docs/pictures.py [--model BUNDLE]

One phantom of touching lesions, cut through its largest group: the image, the semantic map, and what each method makes
of it. With a model the semantic map and the offsets are the network's own; without one there is no panel of offsets.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FOLDER = Path(__file__).resolve().parent / "explanation" / "pictures"
SEED = 42
SCALE = 4
COLORS = np.array(
    [
        [20, 20, 24], [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0],
        [204, 121, 167], [170, 170, 170],
    ],
    dtype=np.uint8,
)  # fmt: skip


def gray(plane: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(m, n, 3) uint8 of intensities, from the 1st to the 99.5th percentile."""
    low, high = np.percentile(plane, (1.0, 99.5))
    values = np.clip((plane - low) / (high - low), 0.0, 1.0) * 255
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def colored(plane: NDArray[np.integer]) -> NDArray[np.uint8]:
    """(m, n, 3) uint8 of lesion numbers, background dark."""
    numbers = plane.astype(int)
    shown: NDArray[np.uint8] = COLORS[np.where(numbers == 0, 0, (numbers - 1) % (len(COLORS) - 1) + 1)]
    return shown


def panels(model: str | None) -> list[NDArray[np.uint8]]:
    """The pictures side by side: image, semantic map, components, watershed, and offsets with a model."""
    import medseg
    from medseg.core.labels import BINARY_LESION
    from medseg.core.plan import SeparationPlan
    from medseg.core.semantic import SemanticMap
    from medseg.phantoms.crowd import CrowdRequest, make_crowd

    crowd = make_crowd(CrowdRequest("touching", extent_mm=(64.0, 64.0, 64.0), smallest_mm=10.0), SEED)
    truth = np.asarray(crowd.lesions.array)
    semantic = SemanticMap((truth > 0).astype(np.uint8), crowd.volume.geometry, BINARY_LESION)
    methods = ["components", "watershed"]
    if model is not None:
        semantic, _ = medseg.load_segmenter(model, device="cpu", engine="torch").segment(crowd.volume)
        methods.append("offsets")
    k = int(np.argmax([np.unique(truth[:, :, k]).size * 1000 + (truth[:, :, k] > 0).sum() for k in range(64)]))
    shown = [gray(crowd.volume.array[0, :, :, k]), colored((semantic.array[:, :, k] > 0).astype(int) * 8)]
    for method in methods:
        lesions = medseg.separate_lesions(semantic, SeparationPlan(method=method))  # type: ignore[arg-type]
        shown.append(colored(lesions.array[:, :, k]))
    return [*shown, colored(truth[:, :, k])]


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    chosen = parser.parse_args()
    gap = np.full((64, 2, 3), 255, dtype=np.uint8)
    row = [part for panel in panels(chosen.model) for part in (panel, gap)][:-1]
    joined = np.concatenate(row, axis=1)
    FOLDER.mkdir(exist_ok=True)
    picture = Image.fromarray(joined).resize(
        (joined.shape[1] * SCALE, joined.shape[0] * SCALE), Image.Resampling.NEAREST
    )
    picture.save(FOLDER / "separation.png", optimize=True)
    sys.stdout.write(f"{FOLDER / 'separation.png'} written\n")


if __name__ == "__main__":
    main()
