"""The page of one case: summary, overview, table and key images in one HTML file that needs nothing else.

No script, no font, no picture from elsewhere: the page opens from a USB stick, in an archive, behind a firewall. It
holds no time, so that two runs on the same scan write the same bytes.
"""

from __future__ import annotations

import base64
from html import escape
from os import PathLike
from pathlib import Path
from string import Template

from medseg.core.colors import lesion_color
from medseg.core.result import CaseResult
from medseg.core.table import Column, LesionTable, Value
from medseg.io.atomic import atomic_path
from medseg.reports.display import GrayWindow, gray_window
from medseg.reports.figures import key_image, key_slices, overview
from medseg.reports.page_style import PAGE, STYLE

__all__ = ["MOST_KEY_IMAGES", "write_case_page"]

MOST_KEY_IMAGES = 50
"""More lesions than this have their row in the table, but no picture."""

_NO_UNIT = {"text", "integer", "flag"}
_DIGITS = {"ml": 3, "mm": 1, "scan": 2}
_UNIT_SUFFIXES = ("_lps_mm", "_ml", "_mm3", "_mm2", "_mm", "_suv", "_hu")


def write_case_page(result: CaseResult, path: str | PathLike[str]) -> None:
    """Write `report.html` of one case.

    Parameters
    ----------
    result
        What `medseg.segment_case` returned.
    path
        The file; replaced if it is there.

    Raises
    ------
    OutputNotWritable
        If the folder cannot be written.
    """
    values, modality = result.volume.array[0], _modality(result)
    projections = overview(result.volume, result.lesions, gray_window(values, modality, projection=True))
    page = Template(PAGE).substitute(
        style=STYLE,
        case_id=escape(result.case_id),
        summary=_definitions(_summary(result)),
        overview=_figure(projections, _overview_caption(result), _OVERVIEW_ALT),
        lesions=_lesion_section(result, gray_window(values, modality)),
        provenance=_definitions(_provenance(result)),
        notes=_notes(result),
    )
    with atomic_path(Path(path)) as temporary:
        # A file name that is not UTF-8 reaches case_id as lone surrogates: written as character references.
        temporary.write_text(page, encoding="utf-8", errors="xmlcharrefreplace", newline="\n")


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
        "Model": result.provenance.model_name,
        "Device": f"{result.provenance.device}, {result.provenance.precision}",
        "Scan": f"{' x '.join(map(str, geometry.shape))} voxels of {spacing} mm, {geometry.axcodes}",
        "Separation": _separation(result),
    }


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


def _lesion_section(result: CaseResult, window: GrayWindow) -> str:
    if not result.lesions.n_lesions:
        return '<p class="none">No lesion found.</p>'
    return f"{_table(result)}\n<h2>Key images</h2>\n{_key_images(result, window)}"


def _table(result: CaseResult) -> str:
    columns = _shown_columns(result.table)
    scan_unit = _scan_unit(result)
    head = "".join(
        f'<th scope="col" title="{escape(column.definition)}">{escape(_heading(column, scan_unit))}</th>'
        for column in columns
    )
    body = "\n".join(
        f"<tr>{''.join(_cell(row[column.name], column) for column in columns)}</tr>" for row in result.table
    )
    return (
        '<div class="scroll"><table>\n<caption>Positions are DICOM patient coordinates (LPS: x to the patient\'s left, '
        "y to the back, z to the head). All columns are in lesions.csv.</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _shown_columns(table: LesionTable) -> list[Column]:
    """All but what the page says already, and voxel indices, which mean something to programs only."""
    return [column for column in table.columns if column.name != "case_id" and not column.name.startswith("bbox_")]


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
    if column.name == "lesion_id" and isinstance(value, int):
        return f'<th scope="row">{_swatch(value)}{value}</th>'
    kind = "text" if column.kind in {"text", "flag"} else "number"
    return f'<td class="{kind}">{escape(_text(value, column))}</td>'


def _text(value: Value, column: Column) -> str:
    if value is None:
        return "-"
    if column.kind == "flag":
        return "yes" if value else "no"
    if column.kind == "number":
        return f"{value:.{_DIGITS.get(column.unit, 2)}f}"
    return str(value)


def _swatch(lesion_id: int) -> str:
    return f'<span class="swatch" style="background:rgb{lesion_color(lesion_id)}"></span>'


def _key_images(result: CaseResult, window: GrayWindow) -> str:
    n_shown = min(result.lesions.n_lesions, MOST_KEY_IMAGES)
    slices = key_slices(result.lesions).tolist()
    figures = [_key_figure(result, window, lesion_id, slices[lesion_id - 1]) for lesion_id in range(1, n_shown + 1)]
    note = "Axial slice in which the lesion is largest, seen from the feet: the patient's right is on the left."
    if result.lesions.n_lesions > n_shown:
        note += f" Shown are the {n_shown} largest of {result.lesions.n_lesions} lesions."
    grid = "\n".join(figures)
    return f'<p>{escape(note)}</p>\n<div class="grid">\n{grid}\n</div>'


def _key_figure(result: CaseResult, window: GrayWindow, lesion_id: int, slice_index: int) -> str:
    row = result.table.rows[lesion_id - 1]
    axis = "ijk"[result.lesions.geometry.axial_axis]
    caption = f"Lesion {lesion_id}: {row['volume_ml']:.3f} ml, slice {axis} = {slice_index}"
    png = key_image(result.volume, result.lesions, window, lesion_id, slice_index)
    return _figure(png, caption, f"Axial slice through lesion {lesion_id}, outlined.", _swatch(lesion_id))


def _figure(png: bytes, caption: str, alt: str, before: str = "") -> str:
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape(alt)}">'
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
