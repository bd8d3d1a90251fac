"""The demonstration: a synthetic scan with known lesions through a model, and how many of them it found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.core.lesions import LesionMap
from medseg.core.monitor import Progress
from medseg.core.result import CaseResult
from medseg.errors import GridMismatch
from medseg.io.atomic import atomic_folder, check_output_folder
from medseg.io.nifti import write_labels, write_volume
from medseg.io.scan import read_scan
from medseg.models.load import load_segmenter
from medseg.phantoms.make import Phantom, make_phantom
from medseg.pipeline import RESULT_FILES, segment_case, write_case

__all__ = ["DEMO_FILES", "DemoResult", "FOUND_RULE", "found_lesions", "run_demo"]

FOUND_RULE = "found: at least half of a known lesion's voxels lie in lesions of the result"

_PHANTOM_FILES = ("scan.nii.gz", "truth.nii.gz", "phantom.json")

DEMO_FILES = (*_PHANTOM_FILES, *RESULT_FILES)
"""What `run_demo` writes."""


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What came of a demonstration; `found[n - 1]` is True if known lesion n was found."""

    phantom: Phantom
    result: CaseResult
    found: tuple[bool, ...]

    @property
    def n_known(self) -> int:
        """Number of lesions in the phantom."""
        return len(self.found)

    @property
    def n_found(self) -> int:
        """Number of them that were found."""
        return sum(self.found)


def run_demo(
    folder: str | Path,
    seed: int = 0,
    *,
    model: str | Path = "sarcoma_pet",
    device: str = "auto",
    progress: Progress | None = None,
) -> DemoResult:
    """Segment a PET phantom and compare the result with the known lesions.

    Parameters
    ----------
    folder
        Output folder; an older demonstration there is replaced, anything else is not.
    seed
        0 or above; the same seed gives the same phantom.
    model
        Name of a shipped bundle, or a bundle folder; one that takes a PET in SUV.
    device
        "auto", "cpu", "cuda" or "cuda:N".
    progress
        Called with stage, units done and units in all.

    Returns
    -------
    The phantom, the result and which known lesions were found: those with at least half of their voxels in lesions of
    the result. Written to the folder are the phantom (`scan.nii.gz`, `truth.nii.gz`, `phantom.json`) and the files of
    `write_case`.

    Raises
    ------
    OutputExists
        If files of those names are there that are no older demonstration.
    OutputNotWritable
        If the folder cannot be written.
    UnknownModel, InvalidBundle
        As `load_segmenter`.
    """
    folder = Path(folder)
    is_older_demo = all((folder / name).is_file() for name in _PHANTOM_FILES)
    check_output_folder(folder, DEMO_FILES, overwrite=is_older_demo)
    segmenter = load_segmenter(model, device=device)
    phantom = make_phantom("pet", seed)
    _write_phantom(phantom, folder)
    result = segment_case(read_scan(folder / "scan.nii.gz", case_id="demo"), segmenter, progress=progress)
    write_case(result, folder, overwrite=is_older_demo)
    return DemoResult(phantom, result, found_lesions(phantom.lesions, result.lesions))


def found_lesions(known: LesionMap, predicted: LesionMap) -> tuple[bool, ...]:
    """For each known lesion, whether at least half of its voxels lie in predicted lesions.

    Raises
    ------
    GridMismatch
        If the maps lie on different grids.
    """
    if not known.geometry.matches(predicted.geometry):
        raise GridMismatch(f"the known lesions lie on {known.geometry!r}, the result on {predicted.geometry!r}")
    length = known.n_lesions + 1
    n_voxels = np.bincount(known.array.ravel(), minlength=length)[1:]
    n_covered = np.bincount(known.array[predicted.array > 0], minlength=length)[1:]
    return tuple((2 * n_covered >= n_voxels).tolist())


def _write_phantom(phantom: Phantom, folder: Path) -> None:
    with atomic_folder(folder) as draft:
        write_volume(phantom.volume, draft / "scan.nii.gz")
        write_labels(phantom.lesions.array, phantom.lesions.geometry, draft / "truth.nii.gz")
        (draft / "phantom.json").write_text(phantom.to_json(), encoding="utf-8")
