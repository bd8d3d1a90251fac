"""The viewer's part of a page: its frame, what it shows as JSON, and the packed voxels."""

from __future__ import annotations

import base64
import json
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.colors import LESION_COLORS
from medseg.core.result import CaseResult
from medseg.lesions.foreground import find_foreground, lesion_centroids
from medseg.reports.display import gray_window
from medseg.reports.page_style import VIEWER
from medseg.reports.viewer_data import ViewerGrid, viewer_voxels

__all__ = ["SCRIPT", "viewer_section"]

SCRIPT = files("medseg.reports").joinpath("assets/viewer.js").read_text(encoding="utf-8")
"""The script of the viewer; the page's policy allows this text and no other."""

_CT_WINDOWS = {
    "soft tissue": (-160, 240),
    "lung": (-1350, 150),
    "liver": (-20, 140),
    "bone": (-450, 1050),
    "brain": (0, 80),
}
_PET_TOPS = (5, 10, 20)
_PICTURES = {
    "axial": ("Axial", "seen from the feet, the patient's right on the left"),
    "coronal": ("Coronal", "seen from the front, the patient's right on the left"),
    "sagittal": ("Sagittal", "seen from the left, the front on the left"),
    "mip": ("Maximum intensity projection", "from the front; click a lesion to go there"),
}


def viewer_section(result: CaseResult, modality: str | None, unit: str, axes: NDArray[np.float64]) -> tuple[str, str]:
    """HTML of the viewer, and of the data that it reads.

    Parameters
    ----------
    result
        The case.
    modality, unit
        DICOM modality code, and what intensities are called.
    axes
        (n, 2, 3) RAS+ millimeters, ends of each longest diameter.

    Returns
    -------
    The section, and the data blocks, which no browser runs.
    """
    voxels = viewer_voxels(result.volume, result.lesions, modality)
    names = [name for name in _PICTURES if name != "mip" or modality == "PT"]
    section = Template(VIEWER).substitute(
        unit=escape(unit), note=escape(voxels.note), views="\n".join(_view(name) for name in names)
    )
    page = {
        "shape": list(voxels.grid.geometry.shape),
        "spacing_mm": list(voxels.grid.geometry.spacing),
        "lps": voxels.grid.lps.tolist(),
        "levels": [float(f"{level:.6g}") for level in voxels.levels],
        "label_bytes": voxels.label_bytes,
        "unit": unit,
        "colors": [list(color) for color in LESION_COLORS],
        "windows": _windows(result, modality),
        "lesions": _lesions(result, voxels.grid, axes),
        "table": {
            "columns": list(result.table.column_names),
            "rows": [[_plain(row[name]) for name in result.table.column_names] for row in result.table],
        },
    }
    blocks = [
        f'<script type="application/json" id="case-data">{_json(page)}</script>',
        _block("scan-voxels", voxels.scan),
        _block("lesion-voxels", voxels.lesions),
    ]
    return section, "\n".join(blocks)


def _view(name: str) -> str:
    title, how = _PICTURES[name]
    slider = (
        "" if name == "mip" else f'<input type="range" id="slider-{name}" min="0" step="1" aria-label="{title} slice">'
    )
    return (
        f'<figure><canvas id="view-{name}" tabindex="0" role="application" aria-label="{title} picture, {escape(how)}. '
        f'Arrow keys move the crosshair, Page Up and Page Down change the slice." aria-describedby="where"></canvas>'
        f"{slider}<figcaption>{title}, {escape(how)}</figcaption></figure>"
    )


def _windows(result: CaseResult, modality: str | None) -> list[dict[str, Any]]:
    """Presets, the one to begin with first."""
    usual = gray_window(result.volume.array[0], modality)
    if modality == "CT":
        return [
            {"name": name, "low": low, "high": high, "inverted": False} for name, (low, high) in _CT_WINDOWS.items()
        ]
    first = {"name": "automatic", "low": _short(usual.low), "high": _short(usual.high), "inverted": usual.inverted}
    if modality == "PT":
        tops = [{"name": f"0 to {top}", "low": 0, "high": top, "inverted": True} for top in _PET_TOPS]
        return [first, *tops, {**first, "name": "white on black", "inverted": False}]
    width = usual.high - usual.low
    wide = {**first, "name": "wide", "high": _short(usual.high + width)}
    narrow = {**first, "name": "narrow", "low": _short(usual.low + width / 4), "high": _short(usual.high - width / 4)}
    return [first, wide, narrow, {**first, "name": "inverted", "inverted": True}]


def _lesions(result: CaseResult, grid: ViewerGrid, axes: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Centroid and ends of the longest diameter of each lesion, in voxels of the page's grid."""
    n = result.lesions.n_lesions
    centers = grid.from_world(lesion_centroids(find_foreground(result.lesions.array), n, result.lesions.geometry))
    ends = grid.from_world(axes)
    return [
        {"center": [round(v, 3) for v in center], "ends": [[round(v, 3) for v in end] for end in pair]}
        for center, pair in zip(centers.tolist(), ends.tolist(), strict=True)
    ]


def _plain(value: object) -> object:
    """NumPy numbers as plain ones."""
    return value.item() if isinstance(value, np.generic) else value


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def _json(value: object) -> str:
    """JSON that cannot end the element it stands in, whatever the texts in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _block(name: str, content: bytes) -> str:
    return f'<script type="application/gzip" id="{name}">{base64.b64encode(content).decode("ascii")}</script>'
