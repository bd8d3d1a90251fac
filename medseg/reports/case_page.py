"""The page of one case: viewer, table, key images and provenance in one HTML file that needs nothing else.

No script, font or picture is loaded from elsewhere: the page opens from a USB stick, in an archive, behind a firewall.
Without script there are still the table and the key images. The page holds no time, so that two runs on the same scan
write the same bytes.
"""

from __future__ import annotations

import base64
from html import escape
from os import PathLike
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medseg.core.colors import LESION_COLORS
from medseg.core.result import CaseResult
from medseg.core.table import Column, LesionTable, Value
from medseg.lesions.long_axis import long_axes
from medseg.pages.frame import SORT_SCRIPT, write_page
from medseg.reports.display import GrayWindow, gray_window
from medseg.reports.figures import key_image, overview
from medseg.reports.niivue import NIIVUE_STYLE, NIIVUE_VIEW_SCRIPT, niivue_data, niivue_script, niivue_section
from medseg.reports.page_style import STYLE
from medseg.reports.viewer import SCRIPT, viewer_section

__all__ = ["MOST_KEY_IMAGES", "Viewer", "write_case_page"]

Viewer = Literal["canvas", "niivue"]

MOST_KEY_IMAGES = 50
"""More lesions than this have their row in the table, but no picture."""

_NO_UNIT = {"text", "integer", "flag"}
_DIGITS = {"ml": 3, "mm": 1, "scan": 2}
_UNIT_SUFFIXES = ("_lps_mm", "_ml", "_mm3", "_mm2", "_mm", "_suv", "_hu")


def write_case_page(result: CaseResult, path: str | PathLike[str], viewer: Viewer = "canvas") -> None:
    """Write `report.html` of one case.

    Parameters
    ----------
    result
        What `medseg.segment_case` returned.
    path
        The file; replaced if it is there.
    viewer
        "canvas": three planes, by our own script. "niivue": these, and NiiVue for 3-D, which adds 1.1 MB.

    Raises
    ------
    OutputNotWritable
        If the folder cannot be written.
    """
    values, modality = result.volume.array[0], _modality(result)
    axes = long_axes(result.table)
    projections = overview(result.volume, result.lesions, gray_window(values, modality, projection=True))
    planes, data = viewer_section(result, modality, _scan_unit(result), axes)
    is_3d = viewer == "niivue"
    main = [
        f'<dl class="facts">\n{_definitions(_summary(result))}\n</dl>',
        planes,
        niivue_section() if is_3d else "",
        f"<h2>Lesions</h2>\n{_lesion_section(result, gray_window(values, modality), axes)}",
        _figure(projections, _overview_caption(result), _OVERVIEW_ALT),
        _notes(result),
        f'<h2>How it was made</h2>\n<dl class="provenance">\n{_definitions(_provenance(result))}\n</dl>',
    ]
    write_page(
        path,
        result.case_id,
        "\n".join(main),
        style=STYLE + (NIIVUE_STYLE if is_3d else ""),
        data=f"{data}\n{niivue_data()}" if is_3d else data,
        script=SORT_SCRIPT + SCRIPT + (NIIVUE_VIEW_SCRIPT if is_3d else ""),
        later_scripts=[niivue_script()] if is_3d else [],
    )


_OVERVIEW_ALT = "Maximum intensity projections from the front and from the left, lesions outlined."


def _modality(result: CaseResult) -> str | None:
    """What the scan says of itself, or, where its format does not, what the model was made for."""
    return result.scan.modality or result.recipe.channels[0].modality


def _summary(result: CaseResult) -> dict[str, str]:
    lesions, geometry = result.lesions, result.scan.geometry
    volume_ml = int((lesions.array > 0).sum()) * geometry.voxel_volume_ml
    spacing = " x ".join(f"{s:.4g}" for s in geometry.spacing)
    return {
        "Lesions": str(lesions.n_lesions),
        "Total volume": f"{volume_ml:.3f} ml",
        **_quality(result.table),
        "Model": result.provenance.model_name,
        "Device": f"{result.provenance.device}, {result.provenance.precision}",
        "Scan": f"{' x '.join(map(str, geometry.shape))} voxels of {spacing} mm, {geometry.axcodes}",
        "Separation": _separation(result),
    }


def _quality(table: LesionTable) -> dict[str, str]:
    """What is to be looked at twice, where the table knows of it."""
    n_cut = sum(bool(row.get("touches_border")) for row in table)
    return {"Quality": f"{n_cut} lesion(s) touch the border of the scan: they may go on beyond it"} if n_cut else {}


def _separation(result: CaseResult) -> str:
    lesions = result.lesions
    if not lesions.n_removed:
        return lesions.method
    return (
        f"{lesions.method}; {lesions.n_removed} below the minimum volume left out ({lesions.removed_volume_ml:.3f} ml)"
    )


def _overview_caption(result: CaseResult) -> str:
    text = "Maximum intensity projections, from the front and from the left."
    if result.lesions.n_lesions:
        text += " Lesions are outlined and numbered as in the table."
    return text


def _lesion_section(result: CaseResult, window: GrayWindow, axes: NDArray[np.float64]) -> str:
    if not result.lesions.n_lesions:
        return '<p class="none">No lesion found.</p>'
    return f"{_table(result)}\n<h2>Key images</h2>\n{_key_images(result, window, axes)}"


def _table(result: CaseResult) -> str:
    columns = _shown_columns(result.table)
    scan_unit = _scan_unit(result)
    head = "".join(
        f'<th scope="col" title="{escape(column.definition)}"><button type="button">'
        f"{escape(_heading(column, scan_unit))}</button></th>"
        for column in columns
    )
    body = "\n".join(
        f'<tr data-lesion="{row["lesion_id"]}">{"".join(_cell(row[column.name], column) for column in columns)}</tr>'
        for row in result.table
    )
    return (
        '<p class="screen"><button type="button" id="copy">Copy the table as CSV</button> '
        '<span id="copied" role="status"></span></p>\n'
        '<div class="scroll" role="region" aria-label="Lesions" tabindex="0"><table id="lesions" class="sortable">\n'
        "<caption>Positions are DICOM patient coordinates (LPS: x to the patient's left, y to the back, z to the head)."
        " All columns are in lesions.csv and in what is copied.</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _shown_columns(table: LesionTable) -> list[Column]:
    """The few that people look for; all of them are in lesions.csv."""
    return [column for column in table.columns if column.is_key]


def _scan_unit(result: CaseResult) -> str:
    if result.recipe.channels[0].units == "suv":
        return "SUV"
    return "HU" if _modality(result) == "CT" else "scan unit"


def _heading(column: Column, scan_unit: str) -> str:
    """Words and unit: "longest diameter (mm)"."""
    suffix = next((suffix for suffix in _UNIT_SUFFIXES if column.name.endswith(suffix)), "")
    words = column.name.removesuffix(suffix).replace("_id", "").replace("_", " ")
    unit = scan_unit if column.unit == "scan" else column.unit
    return f"{words} ({unit})" if unit and column.kind not in _NO_UNIT else words


def _cell(value: Value, column: Column) -> str:
    exact = "" if value is None else escape(str(value))
    if column.name == "lesion_id" and isinstance(value, int):
        return f'<th scope="row" data-value="{exact}">{_swatch(value)}<button type="button">{value}</button></th>'
    kind = "text" if column.kind in {"text", "flag"} else "number"
    if column.name == "touches_border" and value:
        kind += " flag"
    return f'<td class="{kind}" data-value="{exact}">{escape(_text(value, column))}</td>'


def _text(value: Value, column: Column) -> str:
    if value is None:
        return "-"
    if column.kind == "flag":
        return "yes" if value else "no"
    if column.kind == "number":
        return f"{value:.{_DIGITS.get(column.unit, 2)}f}"
    return str(value)


def _swatch(lesion_id: int) -> str:
    return f'<span class="swatch color-{(lesion_id - 1) % len(LESION_COLORS) + 1}"></span>'


def _key_images(result: CaseResult, window: GrayWindow, axes: NDArray[np.float64]) -> str:
    n_shown = min(result.lesions.n_lesions, MOST_KEY_IMAGES)
    figures = [_key_figure(result, window, lesion_id, axes[lesion_id - 1]) for lesion_id in range(1, n_shown + 1)]
    note = (
        "Axial slice of the longest diameter, which is drawn, seen from the feet: the patient's right is on the left."
    )
    if result.lesions.n_lesions > n_shown:
        note += f" Shown are the {n_shown} largest of {result.lesions.n_lesions} lesions."
    grid = "\n".join(figures)
    return f'<p>{escape(note)}</p>\n<div class="grid">\n{grid}\n</div>'


def _key_figure(result: CaseResult, window: GrayWindow, lesion_id: int, ends: NDArray[np.float64]) -> str:
    row, geometry = result.table.rows[lesion_id - 1], result.lesions.geometry
    axis = geometry.axial_axis
    slice_index = round(float(geometry.to_voxel(ends)[0, axis]))
    caption = (
        f"Lesion {lesion_id}: {row['volume_ml']:.3f} ml, {row['longest_diameter_mm']:.1f} mm, "
        f"slice {'ijk'[axis]} = {slice_index}"
    )
    picture = key_image(result.volume, result.lesions, window, lesion_id, slice_index, ends)
    alt = f"Axial slice through lesion {lesion_id}, outlined, with its longest diameter."
    return _figure(picture, caption, alt, _swatch(lesion_id))


def _figure(picture: bytes, caption: str, alt: str, before: str = "") -> str:
    data = base64.b64encode(picture).decode("ascii")
    return (
        f'<figure><img src="data:image/webp;base64,{data}" alt="{escape(alt)}">'
        f"<figcaption>{before}{escape(caption)}</figcaption></figure>"
    )


def _provenance(result: CaseResult) -> dict[str, str]:
    provenance = result.provenance
    return {
        "Weights (SHA-256)": provenance.weights_sha256,
        "Plan (SHA-256)": provenance.plan_sha256,
        **{
            f"Input {n}, {channel} (SHA-256)": sha256
            for n, (channel, sha256) in enumerate(
                zip(result.volume.channels, provenance.inputs_sha256, strict=False), start=1
            )
        },
        "Engine": f"{provenance.engine}, {provenance.device}, {provenance.precision}",
        "Versions": ", ".join(f"{name} {version}" for name, version in provenance.versions.items()),
    }


def _notes(result: CaseResult) -> str:
    if not result.provenance.notes:
        return ""
    items = "\n".join(f"<li>{escape(note)}</li>" for note in result.provenance.notes)
    return f"<h2>Notes</h2>\n<ul>\n{items}\n</ul>"


def _definitions(entries: dict[str, str]) -> str:
    return "\n".join(f"<div><dt>{escape(term)}</dt><dd>{escape(text)}</dd></div>" for term, text in entries.items())
