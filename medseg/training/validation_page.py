"""The page of a cross-validation: curves, every case, and pictures of the worst, in one HTML file."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path

from medseg.core.lesions import LesionMap
from medseg.core.volume import Volume
from medseg.evaluation.charts import Chart, Series, draw
from medseg.evaluation.page_style import STYLE
from medseg.pages.frame import write_page
from medseg.reports.display import gray_window
from medseg.reports.figures import overview
from medseg.training.operating_point import OperatingPoint
from medseg.training.operating_text import as_html
from medseg.training.scores import CaseScore, CrossValidation
from medseg.training.training_log import LOG_NAME, read_log

__all__ = ["draw_case", "write_validation_page"]

_N_WORST = 4
_MOST_SERIES = 2  # colors of the style sheet
_COLUMNS = ("case", "fold", "Dice", "Dice, cut anew", "reference ml", "predicted ml", "found", "false")
_SIDES = ("reference", "predicted")


def draw_case(
    folder: Path, case_id: str, volume: Volume, modality: str, reference: LesionMap, predicted: LesionMap
) -> None:
    """Keep a picture of a case with the reference lesions outlined, and one with the predicted ones."""
    window = gray_window(volume.array[0], modality, projection=True)
    for side, lesions in zip(_SIDES, (reference, predicted), strict=True):
        path = _picture(folder, case_id, side)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(overview(volume, lesions, window))


def write_validation_page(validation: CrossValidation, work: Path, point: OperatingPoint | None = None) -> Path:
    """Write `cross_validation.html` into a work folder: logs and pictures of its folds, and how a point was chosen.

    Returns
    -------
    The page. It holds pictures of patients, and so lies beside the checkpoints and not in the bundle.

    Raises
    ------
    OutputNotWritable
        If the folder cannot be written.
    """
    path = work / "cross_validation.html"
    body = [
        f"<p>{validation.n_folds} folds, {len(validation.cases)} cases, each scored once by a network that was trained "
        f"on other folds. Dice {escape(str(validation.dice))}; lesions found {validation.n_found} of "
        f"{validation.n_reference}, {validation.n_false} false.</p>",
        *([] if point is None else as_html(point)),
        "<h2>Curves</h2>",
        f'<div class="grid">{"".join(_curves(work, validation))}</div>',
        "<h2>Cases</h2>",
        _table(validation.cases),
        "<h2>Worst cases</h2>",
        *(_shown(work, case) for case in _worst(validation.cases)),
    ]
    write_page(
        path, "Cross-validation", "\n".join(body), style=STYLE + "figure img { max-width: 100%; height: auto; }\n"
    )
    return path


def _picture(folder: Path, case_id: str, side: str) -> Path:
    """A file's name says nothing of the case."""
    return folder / "pictures" / f"{hashlib.sha256(case_id.encode()).hexdigest()[:16]}_{side}.webp"


def _worst(cases: Sequence[CaseScore]) -> list[CaseScore]:
    known = [case for case in cases if case.dice is not None]
    return sorted(known, key=lambda case: (case.dice, case.case_id))[:_N_WORST]


def _curves(work: Path, validation: CrossValidation) -> list[str]:
    """A chart of the loss of each network; one of Dice and lesion F1 where it was validated while training."""
    charts = []
    for fold in sorted({case.fold for case in validation.cases}):
        for log in sorted((work / f"fold_{fold}").rglob(LOG_NAME)):
            records, name = read_log(log.parent), log.parent.relative_to(work).as_posix()
            series = [_series(records, "loss")], [_series(records, "dice"), _series(records, "lesion_f1")]
            for what, shown in zip(("loss", "validation"), series, strict=True):
                drawn = tuple(one for one in shown if one.points)[:_MOST_SERIES]
                if drawn:
                    title = f"{name.replace('_', ' ')}: {what}"
                    chart = draw(Chart(title, "step", what, drawn))
                    charts.append(f"<figure><figcaption>{escape(title)}</figcaption>{chart}</figure>")
    return charts


def _series(records: Sequence[dict[str, float]], column: str) -> Series:
    points = tuple((float(record["step"]), float(record[column])) for record in records if column in record)
    return Series(column.replace("_", " "), points, is_curve=len(points) > 1)


def _table(cases: Sequence[CaseScore]) -> str:
    head = "".join(f'<th scope="col">{escape(word)}</th>' for word in _COLUMNS)
    rows = []
    for case in cases:
        figures = ["-" if value is None else f"{value:.3f}" for value in (case.dice, case.dice_recut)]
        cells = [str(case.fold), *figures, f"{case.reference_ml:.2f}", f"{case.predicted_ml:.2f}"]
        cells += [f"{case.n_found} of {case.n_reference}", str(case.n_false)]
        rows.append(f"<tr><th>{escape(case.case_id)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _shown(work: Path, case: CaseScore) -> str:
    figures = []
    for side in _SIDES:
        path = _picture(work / f"fold_{case.fold}", case.case_id, side)
        if path.is_file():
            source = f"data:image/webp;base64,{b64encode(path.read_bytes()).decode()}"
            text = f"{escape(case.case_id)}, Dice {case.dice:.3f}: {side} lesions"
            figures.append(f'<figure><figcaption>{text}</figcaption><img alt="{text}" src="{source}"></figure>')
    return f'<div class="grid">{"".join(figures)}</div>'
