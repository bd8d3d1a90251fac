"""One scan from disk to result: read, segment, separate, measure, write."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medseg.core.monitor import Monitor, Progress
from medseg.core.plan import SeparationPlan
from medseg.core.provenance import Provenance, installed_versions
from medseg.core.recipe import Recipe
from medseg.core.result import CaseResult
from medseg.core.scan import Scan
from medseg.core.volume import Volume
from medseg.errors import MedsegError, ScanError, ScanNotFound
from medseg.io.atomic import atomic_folder, check_output_folder
from medseg.io.case_ids import new_salt, read_salt, write_salt
from medseg.io.dicom_results import DICOM_FILES, algorithm_of, write_dicom_results
from medseg.io.evidence import EVIDENCE_FILE, write_evidence
from medseg.io.identifiers import read_identifiers
from medseg.io.json_files import write_json
from medseg.io.label_names import lesion_names, write_label_names
from medseg.io.meshes import lesion_meshes, write_meshes
from medseg.io.nifti import write_labels, write_volume
from medseg.io.scan import hash_inputs, load_volume, read_scan
from medseg.io.tables import write_table
from medseg.io.volume_files import is_volume_name
from medseg.lesions.measure import measure_lesions
from medseg.lesions.separate import separate_lesions
from medseg.reports.case_page import Viewer, write_case_page

if TYPE_CHECKING:
    from medseg.dicom.seg import SegKind
    from medseg.inference.segmenter import Segmenter
    from medseg.inference.stitch import Cancel

__all__ = ["MESH_FOLDER", "OPTIONAL_FILES", "RESULT_FILES", "segment_case", "segment_folder", "write_case"]

logger = logging.getLogger(__name__)

RESULT_FILES = (
    *("semantic.nii.gz", "lesions.nii.gz", "lesions.label.txt", "lesions.ctbl"),
    *("lesions.csv", "result.json", "report.html"),
)
_PROBABILITY_FILE = "probability.nii.gz"
MESH_FOLDER = "meshes"
OPTIONAL_FILES = (*DICOM_FILES, _PROBABILITY_FILE, EVIDENCE_FILE, MESH_FOLDER)
"""What a case may have besides: DICOM objects, the probability, what instance heads say, a folder of meshes."""


def segment_case(
    scan: Scan,
    segmenter: Segmenter,
    *,
    separation: SeparationPlan | None = None,
    nan_as: float | None = None,
    weight_kg: float | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> CaseResult:
    """Find, separate and measure the lesions of one scan.

    Parameters
    ----------
    scan
        The case on disk, channels in the model's order.
    segmenter
        The model; the same one serves any number of cases.
    separation
        How lesions come apart; by default what the model's plan says.
    nan_as
        Value for NaN and infinite voxels, recorded in the provenance; None refuses such scans.
    weight_kg
        The patient's weight for SUV, where a DICOM series lacks it; recorded in the provenance.
    progress
        Called with stage, units done and units in all; told of the estimated time if it has a method `remark`.
    cancel
        An event or a function; once set or true, the case ends with `Cancelled` before the next window.

    Returns
    -------
    The result: maps on the scan's own grid, the table, provenance, seconds a stage.

    Raises
    ------
    ScanError
        If the scan cannot be read.
    ChannelMismatch
        If the scan has other channels than the model wants.
    NotEnoughMemory
        If the scan does not fit into the memory that the segmenter may use.
    Cancelled
        If `cancel` says so.

    Examples
    --------
    >>> import medseg
    >>> segmenter = medseg.load_segmenter("sarcoma_pet")  # doctest: +SKIP
    >>> medseg.segment_case(medseg.read_scan("scan.nii.gz"), segmenter).table  # doctest: +SKIP
    LesionTable(1 lesion(s), 165 columns)
    """
    monitor = Monitor(progress)
    recipe = segmenter.recipe
    if separation is not None:
        recipe = recipe.model_copy(update={"separation": separation})
    segmenter.check_channels(scan.n_channels)
    with monitor.stage("read"):
        volume = load_volume(scan, units=segmenter.units, nan_as=nan_as, weight_kg=weight_kg)
    semantic, notes = segmenter.segment(volume, monitor, cancel)
    with monitor.stage("separate"):
        lesions = separate_lesions(semantic, recipe.separation)
    with monitor.stage("measure"):
        table = measure_lesions(lesions, volume, scan.case_id, probabilities=semantic.probability)
    provenance = _provenance(scan, volume, segmenter, recipe, notes)
    return CaseResult(scan, volume, semantic, lesions, table, recipe, provenance, monitor.seconds)


def write_case(
    result: CaseResult,
    folder: str | Path,
    *,
    overwrite: bool = False,
    save_probability: bool = False,
    save_evidence: bool = False,
    keep_identifiers: bool = False,
    identified_dicom: bool = False,
    dicom: bool | None = None,
    seg_kind: SegKind = "binary",
    rtstruct: bool = False,
    mesh: Literal["stl", "obj"] | None = None,
    viewer: Viewer = "canvas",
) -> Path:
    """Write the files of one case; all of them or none.

    `semantic.nii.gz` and `lesions.nii.gz` on the scan's own grid, the names of the lesions for ITK-SNAP
    (`lesions.label.txt`) and 3D Slicer (`lesions.ctbl`), `lesions.csv`, `result.json`, `report.html`. For a DICOM
    series also `lesions.seg.dcm`, `semantic.seg.dcm` and `lesions.sr.dcm`; a case without lesions has the last only.

    Parameters
    ----------
    result
        What `segment_case` returned.
    folder
        Output folder, made if need be; other files in it are left alone.
    overwrite
        Replace a result that is there already.
    save_probability
        Also write the probability of anything but background.
    save_evidence
        Also write what a network with instance heads says of the lesions' centers, on the network's grid.
    keep_identifiers
        Also write into `result.json` what leads back to the patient's files: patient ID, accession number, study date,
        UIDs, path; and into DICOM objects who the patient is, as an archive needs it to file them. By default nothing
        identifying is written, but the UIDs and dates of study and series that tie DICOM objects to the scan.
    identified_dicom
        Write into DICOM objects alone who the patient is.
    dicom
        Whether to write DICOM objects; None does so for a DICOM series, and writes the other files even if the
        series is such that its objects cannot be written, with a warning.
    seg_kind
        "binary", or "labelmap": smaller, but old archives refuse it.
    rtstruct
        Also write `lesions.rtstruct.dcm`; needs DICOM as `dicom` does.
    mesh
        Also write the surface of each lesion, in patient millimeters (LPS): `meshes/lesion_001.stl` or `.obj`.
    viewer
        Of `report.html`: "canvas", or "niivue", which adds a 3-D view that needs WebGL.

    Returns
    -------
    The folder.

    Raises
    ------
    OutputExists
        If a result is there and `overwrite` is False.
    OutputNotWritable
        If the folder cannot be written.
    UsageError
        If DICOM objects are asked for and the scan is not DICOM.
    """
    folder = Path(folder)
    check_output_folder(folder, RESULT_FILES, overwrite=overwrite)
    like = result.scan.files[0][0] if result.scan.format == "nifti" else None
    with atomic_folder(folder) as draft:
        write_labels(result.semantic.array, result.semantic.geometry, draft / "semantic.nii.gz", like=like)
        write_labels(result.lesions.array, result.lesions.geometry, draft / "lesions.nii.gz", like=like)
        for suffix in (".label.txt", ".ctbl"):
            write_label_names(lesion_names(result.lesions), draft / f"lesions{suffix}")
        if save_probability and result.semantic.probability is not None:
            probability = Volume(result.semantic.probability[None], result.semantic.geometry, ("probability",))
            write_volume(probability, draft / _PROBABILITY_FILE)
        if save_evidence and result.semantic.evidence is not None:
            write_evidence(result.semantic.evidence, draft / EVIDENCE_FILE)
        write_table(result.table, draft / "lesions.csv")
        identifiers = {"identifiers": read_identifiers(result.scan)} if keep_identifiers else {}
        write_json({**_summary(result), **identifiers}, draft / "result.json")
        write_case_page(result, draft / "report.html", viewer)
        if dicom or rtstruct or (dicom is None and result.scan.format == "dicom"):
            _write_dicom(result, draft, dicom, seg_kind, rtstruct, keep_identifiers or identified_dicom)
        if mesh is not None:
            _write_meshes(result, draft / MESH_FOLDER, mesh)
        kept = {path.name for path in draft.iterdir()}
        if mesh is not None:
            shutil.rmtree(folder / MESH_FOLDER, ignore_errors=True)
    for name in set(OPTIONAL_FILES) - kept:  # of the result that was replaced
        _remove(folder / name)
    return folder


def segment_folder(model: str | Path, dataset_dir: str | Path, output_dir: str | Path) -> list[Path]:
    """Segment every case of a folder, as `medseg segment` does: what `monai.bundle run` calls for a bundle of medseg's.

    Parameters
    ----------
    model
        A bundle, or any other model that `load_segmenter` takes.
    dataset_dir
        Its volume files, and its folders with one DICOM series or volume file each, are a case each. Other files are
        passed over, with a warning.
    output_dir
        Each case has a folder here, named by its `case_id`: the name of its file or folder; for DICOM a salted hash,
        and the log says of which folder. Results that are there already are replaced.

    Returns
    -------
    The cases' folders.

    Raises
    ------
    ScanNotFound
        If there is no case.
    ScanError
        If cases could not be segmented, or are a second one of the same name; all others are written, and each that
        failed is named.
    """
    from medseg.models.load import load_segmenter

    found = sorted(Path(dataset_dir).glob("[!.]*"))
    entries = [path for path in found if path.is_dir() or is_volume_name(path)]
    if not entries:
        raise ScanNotFound(f"{dataset_dir} holds no volume files and no folders: nothing to segment")
    if len(found) > len(entries):
        logger.warning("%s: %d other file(s) passed over", dataset_dir, len(found) - len(entries))
    segmenter = load_segmenter(model)
    salt = read_salt(output_dir) or new_salt()
    write_salt(output_dir, salt)  # before the first case, so that a run after one that was killed names cases alike
    written, failed = [], []
    holders: dict[str, str] = {}
    for entry in entries:
        try:
            scan = _scan_named_by(entry, salt, holders)
            written.append(write_case(segment_case(scan, segmenter), Path(output_dir, scan.case_id), overwrite=True))
        except MedsegError as error:
            failed.append(f"{entry.name}: {error}")
            logger.error("%s", failed[-1])
    if failed:
        raise ScanError(f"{len(failed)} of {len(entries)} case(s) failed: {'; '.join(failed)}")
    return written


def _scan_named_by(entry: Path, salt: str, holders: dict[str, str]) -> Scan:
    """The scan of an entry of a folder, by a name that no other has: two cases never share an output folder."""
    scan = read_scan(entry, salt=salt)
    if scan.format != "dicom" and entry.is_dir():
        scan = replace(scan, case_id=entry.name)
    holder = holders.setdefault(scan.case_id.casefold(), entry.name)
    if holder != entry.name:
        raise ScanError(
            f"its case is {scan.case_id}, as that of {holder}; rename it, or leave a series out that is twice"
        )
    logger.info("%s is case %s", entry.name, scan.case_id)
    return scan


def _write_dicom(
    result: CaseResult, folder: Path, dicom: bool | None, kind: SegKind, rtstruct: bool, keep_identifiers: bool
) -> None:
    try:
        write_dicom_results(
            result.scan,
            result.semantic,
            result.lesions,
            result.table,
            algorithm_of(result.provenance),
            folder,
            kind=kind,
            rtstruct=rtstruct,
            is_suv=result.recipe.channels[0].units == "suv",
            keep_identifiers=keep_identifiers,
        )
    except Exception as error:  # series break the standard in ways no one foresees: the other results are not lost
        if dicom or rtstruct:
            raise
        logger.warning("%s: DICOM objects could not be written: %s", result.case_id, error)


def _write_meshes(result: CaseResult, folder: Path, form: str) -> None:
    folder.mkdir()
    names = lesion_names(result.lesions)
    for number, mesh in enumerate(lesion_meshes(result.lesions), start=1):
        write_meshes([mesh], [names[number - 1]], folder / f"lesion_{number:03d}.{form}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _provenance(scan: Scan, volume: Volume, segmenter: Segmenter, recipe: Recipe, notes: tuple[str, ...]) -> Provenance:
    return Provenance(
        model_name=segmenter.recipe.name,
        weights_sha256=segmenter.weights_sha256,
        plan_sha256=recipe.sha256,
        inputs_sha256=hash_inputs(scan),
        device=str(segmenter.device),
        engine=segmenter.engine,
        precision=segmenter.precision,
        versions=installed_versions(),
        notes=volume.notes + recipe.repairs + notes,
    )


def _summary(result: CaseResult) -> dict[str, object]:
    """What `result.json` holds; no patient identity, no absolute path."""
    geometry = result.scan.geometry
    lesions = result.lesions
    voxel_ml = geometry.voxel_volume_ml
    return {
        "schema_version": 1,
        "case_id": result.case_id,
        "research_use_only": True,
        "scan": {
            "format": result.scan.format,
            "modality": result.scan.modality,
            "channels": list(result.volume.channels),
            "shape": list(geometry.shape),
            "spacing_mm": list(geometry.spacing),
            "affine_ras": geometry.affine.tolist(),
            "orientation": geometry.axcodes,
        },
        "n_lesions": lesions.n_lesions,
        "lesion_volume_ml": int((lesions.array > 0).sum()) * voxel_ml,
        "totals": dict(result.table.totals),
        "semantic_volume_ml": result.semantic.n_foreground_voxels * voxel_ml,
        "separation": {
            "method": lesions.method,
            "n_removed": lesions.n_removed,
            "removed_volume_ml": lesions.removed_volume_ml,
            "scores": [lesion.score for lesion in lesions.lesions],
        },
        "plan": result.recipe.model_dump(mode="json"),
        "provenance": result.provenance.model_dump(mode="json"),
        "seconds": {stage: round(seconds, 3) for stage, seconds in result.seconds.items()},
    }
