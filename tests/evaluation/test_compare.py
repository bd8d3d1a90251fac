"""Two systems on the same scans: known differences, symmetry, and what the verdict may say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg.errors import UsageError
from medseg.evaluation.case import evaluate_case
from medseg.evaluation.compare import Comparison, compare_cases, compare_systems
from medseg.evaluation.page import write_comparison_page
from medseg.metrics.presets import get_convention
from tests.evaluation.maps import lesion_map
from tests.io.nifti_files import save

N = 8


def touching(seed: int) -> np.ndarray:
    """Two lesions that touch, of 12 and 20 mm, and one alone; a little different in each case."""
    array = np.zeros((48, 24, 24), dtype=np.uint8)
    array[2 : 14 + seed % 3, 4:12, 4:12], array[14 + seed % 3 : 34, 4:14, 4:14], array[38:42, 2:6, 16:20] = 1, 2, 3
    return array


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Semantic maps, the lesion maps of the same voxels, and the reference."""
    root = tmp_path_factory.mktemp("systems")
    for number in range(N):
        array = touching(number)
        found = np.where((array == 3) & (number % 4 == 0), 0, array).astype(np.uint8)
        for name, side in (("semantic", (found > 0).astype(np.uint8)), ("lesions", found), ("reference", array)):
            (root / name).mkdir(exist_ok=True)
            save(side, root / name / f"case_{number}.nii.gz", affine=np.diag([1.0, 1.0, 1.0, 1.0]))
    return root / "semantic", root / "lesions", root / "reference"


@pytest.fixture(scope="module")
def comparison(folders: tuple[Path, Path, Path]) -> Comparison:
    return compare_systems(
        *folders, names=("components", "instances"), input_kinds=("semantic", "lesions", "lesions"), resamples=500
    )


def test_the_verdict_says_what_separation_adds(comparison: Comparison) -> None:
    """Same voxels: masks and the total volume are equal; counts, volumes and diameters of lesions are not."""
    assert comparison.same_foreground
    verdicts = {name: figure.verdict for name, figure in comparison.figures.items()}
    assert verdicts["dice"] == verdicts["nsd"] == verdicts["total_volume_error_ml"] == "equal"
    for name in ("count_error", "n_merges", "f1", "pq", "lesion_volume_error_ml", "diameter_error_mm"):
        assert verdicts[name] == "b", name
    assert verdicts["measurable_sensitivity"] == verdicts["measurable_count_error"] == "b"
    assert comparison.verdict[0] == (
        "On these 8 scans of 8 patients: instances is better than components in detection, counts, volumes, diameters "
        "and measurable lesions; no difference is shown in masks."
    )
    assert "same voxels in every case" in comparison.verdict[1]


def test_figures_are_those_by_hand(comparison: Comparison) -> None:
    """Components merge two lesions in every case; instances are perfect but for two missed lesions of 64 mm3."""
    figures = comparison.figures
    assert (figures["n_merges"].a, figures["n_merges"].b) == (1.0, 0.0)
    assert (figures["count_error"].a, figures["count_error"].b) == (10 / 8, 2 / 8)
    assert figures["lesion_volume_error_ml"].b == pytest.approx(2 * 0.064 / 24)
    assert figures["measurable_sensitivity"].b == 1.0
    assert figures["count_error"].difference.value == pytest.approx(-1.0)


def test_swapped_systems_swap_every_figure(folders: tuple[Path, Path, Path], comparison: Comparison) -> None:
    semantic, lesions, reference = folders
    swapped = compare_systems(
        lesions, semantic, reference, input_kinds=("lesions", "semantic", "lesions"), resamples=500
    )
    for name, figure in comparison.figures.items():
        other = swapped.figures[name]
        assert (figure.a, figure.b) == (other.b, other.a)
        assert {"a": "b", "b": "a"}.get(figure.verdict, figure.verdict) == other.verdict
        if figure.difference.low is not None:
            assert other.difference.high == pytest.approx(-figure.difference.low, abs=1e-12)


def test_a_system_is_equal_to_itself(folders: tuple[Path, Path, Path]) -> None:
    _, lesions, reference = folders
    found = compare_systems(lesions, lesions, reference, resamples=50)
    assert {figure.verdict for figure in found.figures.values()} == {"equal"}
    assert "better" not in found.verdict[0]


def test_one_patient_proves_nothing(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text("case_id,patient_id\n" + "".join(f"case_{n},same\n" for n in range(N)))
    found = compare_systems(*folders, input_kinds=("semantic", "lesions", "lesions"), groups=table, resamples=50)
    assert (found.n_cases, found.n_patients) == (8, 1)
    assert "nothing can be concluded" in found.verdict[0]
    assert all(figure.verdict in ("equal", "not shown") for figure in found.figures.values())


def test_noise_is_seldom_called_a_difference() -> None:
    """Two systems that err alike at random: about one interval in twenty leaves out 0."""
    rng = np.random.default_rng(0)
    reference = lesion_map(touching(0))
    bad = lesion_map(np.where(touching(0) == 3, 0, touching(0)))
    scores = {
        found: evaluate_case(reference if found else bad, reference, overlap_only=True) for found in (True, False)
    }
    claimed = 0
    for trial in range(60):
        drawn = rng.random((2, 20)) < 0.5
        cases = [[scores[bool(d)].model_copy(update={"case_id": f"{n}"}) for n, d in enumerate(row)] for row in drawn]
        found = compare_cases(*cases, get_convention("default"), resamples=400, seed=trial)
        claimed += found.figures["sensitivity"].verdict in ("a", "b")
    assert claimed <= 9


def test_a_case_that_one_system_lacks_is_an_error(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, lesions, reference = folders
    few = tmp_path / "few"
    few.mkdir()
    (few / "case_0.nii.gz").write_bytes((lesions / "case_0.nii.gz").read_bytes())
    with pytest.raises(UsageError, match="lacks 7 of 8"):
        compare_systems(few, lesions, reference)


def test_two_systems_of_one_name_are_refused(folders: tuple[Path, Path, Path]) -> None:
    with pytest.raises(UsageError, match="two names"):
        compare_systems(*folders, names=("A", "A"))


def test_scores_of_other_cases_are_refused() -> None:
    case = evaluate_case(lesion_map(touching(0)), lesion_map(touching(0)), overlap_only=True)
    other = case.model_copy(update={"case_id": "other"})
    with pytest.raises(UsageError, match="same cases"):
        compare_cases([case], [other], get_convention("default"))


def test_the_page_holds_verdict_and_charts_and_is_the_same_twice(comparison: Comparison, tmp_path: Path) -> None:
    pages = [tmp_path / "1.html", tmp_path / "2.html"]
    for page in pages:
        write_comparison_page(comparison, page)
    text = pages[0].read_text()
    assert text == pages[1].read_text()
    assert comparison.verdict[0] in text
    assert text.count("<svg") == 4
    assert "://" not in text
    assert "<script" not in text
