"""Pairs of masks for the comparison with DeepMind's surface-distance; a number and a formula, the same everywhere.

`python tests/metrics/surface_masks.py > tests/metrics/surface_distance.json` in an environment with numpy and
surface-distance 0.1 writes the values again.
"""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

SPACINGS = ((1.0, 1.0, 1.0), (0.8, 0.8, 3.0), (2.5, 0.7, 1.3), (0.5859400033950806, 3.299999952316284, 0.58594))
N_PAIRS = 24


def pair(number: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_], tuple[float, float, float]]:
    """Two wavy bodies, some at the border, some apart, one pair of specks; and a spacing."""
    i, j, k = np.meshgrid(np.arange(15), np.arange(13), np.arange(11), indexing="ij")
    masks = []
    for side in range(2):
        shift = side * (number % 5 + (4 if number % 7 == 6 else 0))
        wave = (7 * i + 3 * j * (number % 3 + 1) + 5 * k * (side + 1)) % (11 + number)
        radius = (i - 5 - shift) ** 2 + (j - 6) ** 2 + (k - 3 - number % 4) ** 2
        masks.append(radius + wave <= 14 + number)
    if number == 0:
        masks = [(i == 2) & (j == 2) & (k == 2), (i == 12) & (j == 3) & (k == 2)]
    return masks[0], masks[1], SPACINGS[number % len(SPACINGS)]


def main() -> None:
    """Print the values of surface-distance."""
    import surface_distance as sd

    rows = []
    for number in range(N_PAIRS):
        prediction, reference, spacing = pair(number)
        found = sd.compute_surface_distances(reference, prediction, spacing)
        rows.append(
            {
                "hausdorff": {str(p): float(sd.compute_robust_hausdorff(found, p)) for p in (50, 90, 95, 100)},
                "average": [float(value) for value in sd.compute_average_surface_distance(found)],
                "dice": {
                    str(mm): float(sd.compute_surface_dice_at_tolerance(found, mm)) for mm in (0.0, 0.8, 1.0, 3.0)
                },
                "area_mm2": [float(found["surfel_areas_gt"].sum()), float(found["surfel_areas_pred"].sum())],
            }
        )
    print(json.dumps(rows, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
