"""Texture families of the IBSI, by the library MIRP where it is installed."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.column import Column, Value
from medseg.core.lesions import LesionMap
from medseg.core.table import LesionTable
from medseg.core.volume import Volume
from medseg.lesions.bodies import LesionVoxels, list_voxels

__all__ = ["add_textures", "has_textures"]

_FAMILIES = {"cm": "co-occurrence", "rlm": "run length", "szm": "size zone", "dzm": "distance zone"} | {
    "ngt": "neighborhood gray tone difference",
    "ngl": "neighboring gray level dependence",
}
_SETTINGS = re.compile(r"_(d1|a0\.0|3d_v_mrg|3d|fbs_w[0-9.]+)(?=_|$)")
_SMALLEST_BOX = 3


def has_textures() -> bool:
    """Whether MIRP is installed: `pip install mirp` (license EUPL-1.2)."""
    return find_spec("mirp") is not None


def add_textures(table: LesionTable, lesions: LesionMap, volume: Volume) -> tuple[LesionTable, tuple[str, ...]]:
    """The table with the IBSI's texture features of the first channel.

    Matrices are of the whole lesion in three dimensions, merged over directions, neighbors one voxel away, intensities
    in bins 25 wide (0.25 in SUV) from multiples of that; voxels are taken as they are, without interpolation.

    Parameters
    ----------
    table
        What `measure_lesions` returned.
    lesions, volume
        What was measured.

    Returns
    -------
    The table with one column a feature, and what is to be told: without MIRP the table as it was.

    References
    ----------
    Zwanenburg A et al. Radiology 295:328 (2020), and J Open Source Softw 9:6413 (2024) on MIRP.
    """
    if not has_textures():
        note = (
            "MIRP is not installed: radiomics are the IBSI's shape and intensity families only, without texture "
            "(pip install mirp adds it)"
        )
        return table, (note,)
    width = 0.25 if volume.units[0] == "suv" else 25.0
    voxels = list_voxels(lesions)
    rows = [_features(voxels, number, volume.array[0], width) for number in range(1, voxels.n_lesions + 1)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = (*table.columns, *(_column(name, width) for name in names))
    values = {column.name: [row[column.name] for row in table] for column in table.columns}
    values |= {name: [row.get(name) for row in rows] for name in names}
    return LesionTable.of_columns(values, columns, table.totals), ()


def _column(name: str, width: float) -> Column:
    family = _FAMILIES[name.split("_")[1]]
    return Column(
        name,
        "number",
        "",
        f"Texture, {family} matrix, bins {width:g} wide: {name.split('_', 2)[2].replace('_', ' ')}.",
        null="no scan; the matrix is empty",
        source="IBSI (Zwanenburg 2020), by MIRP",
    )


def _features(voxels: LesionVoxels, number: int, channel: NDArray[Any], width: float) -> dict[str, Value]:
    """Features of one lesion, in a box with air around it."""
    from mirp import extract_features

    box = voxels.box(number, (1, 1, 1))
    mask = voxels.labels[box] == number
    margin = [(max(0, _SMALLEST_BOX - size),) * 2 for size in mask.shape]
    values = np.pad(channel[box], margin, mode="edge").transpose(2, 1, 0)
    mask = np.pad(mask, margin).transpose(2, 1, 0)
    low = float(np.floor(values[mask].min() / width) * width)
    with _silent():
        found = extract_features(
            image=np.ascontiguousarray(values),
            mask=np.ascontiguousarray(mask.astype(np.uint8)),
            base_feature_families=["cm", "rlm", "szm", "dzm", "ngtdm", "ngldm"],
            base_discretisation_method="fixed_bin_size",
            base_discretisation_bin_width=width,
            resegmentation_intensity_range=[low, float(values[mask].max())],
            base_cm_spatial_method="3d_volume_merge",
            base_rlm_spatial_method="3d_volume_merge",
        )
    return _renamed(found)


def _renamed(found: Sequence[Any]) -> dict[str, Value]:
    if not found or not len(found[0]):
        return {}
    features: dict[str, Value] = {}
    for name, value in found[0].iloc[0].items():
        if str(name).split("_")[0] in _FAMILIES:
            number = float(value)
            features[f"texture_{_SETTINGS.sub('', str(name))}"] = number if np.isfinite(number) else None
    return features


@contextmanager
def _silent() -> Iterator[None]:
    """MIRP reports every lesion on stdout; a table may go there."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
