"""The DICOM objects of one case: segmentations, report and structure set, written together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medseg.core.colors import LESION_COLORS
from medseg.core.lesions import LesionMap
from medseg.core.provenance import Provenance
from medseg.core.scan import Scan
from medseg.core.semantic import SemanticMap
from medseg.core.table import LesionTable
from medseg.dicom.source import Algorithm
from medseg.io.dicom_labels import write_dicom
from medseg.io.dicom_source import read_source
from medseg.lesions.long_axis import long_axes

if TYPE_CHECKING:
    from medseg.dicom.seg import SegKind

__all__ = ["DICOM_FILES", "algorithm_of", "write_dicom_results"]

DICOM_FILES = ("lesions.seg.dcm", "semantic.seg.dcm", "lesions.sr.dcm", "lesions.rtstruct.dcm")
"""What may be written for a case; a case without lesions has the report only."""


def write_dicom_results(
    scan: Scan,
    semantic: SemanticMap,
    lesions: LesionMap,
    table: LesionTable,
    algorithm: Algorithm,
    folder: Path,
    *,
    kind: SegKind = "binary",
    rtstruct: bool = False,
    is_suv: bool = False,
    keep_identifiers: bool = False,
) -> tuple[str, ...]:
    """Write the DICOM objects of a case into a folder.

    Parameters
    ----------
    scan
        A DICOM series; the first channel is what the objects refer to.
    semantic, lesions, table
        The result, on the scan's grid.
    algorithm
        What made it.
    folder
        Where to; files there are replaced.
    kind
        How segmentations are stored, see `medseg.dicom.seg.lesion_seg`.
    rtstruct
        Also write a structure set.
    is_suv
        True if the intensities of the table are SUV by body weight.
    keep_identifiers
        Write who the patient is into the objects, see `medseg.io.dicom_source.read_source`.

    Returns
    -------
    The names of the files: of `DICOM_FILES` those that this case has.

    Raises
    ------
    UsageError
        If the scan is not DICOM.
    OutputNotWritable
        If the folder cannot be written.
    """
    from medseg.dicom.report import measurement_report  # a quarter of a second that most cases have no use for
    from medseg.dicom.rtstruct import structure_set
    from medseg.dicom.seg import lesion_seg, semantic_seg

    source = read_source(scan, keep_identifiers=keep_identifiers)
    objects = {}
    seg = lesion_seg(lesions, source, algorithm, LESION_COLORS, kind) if lesions.n_lesions else None
    if seg is not None:
        objects["lesions.seg.dcm"] = seg
    if semantic.n_foreground_voxels:
        objects["semantic.seg.dcm"] = semantic_seg(semantic, source, algorithm, LESION_COLORS, kind)
    units = scan.dicom[0].units if scan.dicom else None
    axes = long_axes(table)
    objects["lesions.sr.dcm"] = measurement_report(
        lesions, table, source, algorithm, seg, axes, is_suv=is_suv, units=units
    )
    if rtstruct and lesions.n_lesions:
        objects["lesions.rtstruct.dcm"] = structure_set(lesions, source, algorithm, LESION_COLORS)
    for name, dataset in objects.items():
        write_dicom(dataset, folder / name)
    return tuple(objects)


def algorithm_of(provenance: Provenance) -> Algorithm:
    """How objects name what made a result: the model, medseg's version, the hashes of weights and plan."""
    return Algorithm(
        provenance.model_name,
        provenance.versions.get("medseg", "unknown"),
        (f"weights SHA-256: {provenance.weights_sha256}", f"plan SHA-256: {provenance.plan_sha256}"),
    )
