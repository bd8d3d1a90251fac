"""Lesion maps from one form to another: NIfTI, DICOM SEG, RTSTRUCT, meshes, lists of names; the form by the suffix."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from medseg.core.colors import LESION_COLORS
from medseg.core.lesions import LesionMap
from medseg.core.scan import Scan
from medseg.dicom.equipment import SOFTWARE_VERSION
from medseg.dicom.rtstruct import structure_set
from medseg.dicom.seg import SegKind, lesion_seg
from medseg.dicom.source import Algorithm
from medseg.errors import UsageError
from medseg.io.dicom_labels import write_dicom
from medseg.io.dicom_source import read_source
from medseg.io.label_files import read_lesions
from medseg.io.label_names import lesion_names, write_label_names
from medseg.io.meshes import MESH_SUFFIXES, lesion_meshes, write_meshes
from medseg.io.nifti import write_labels
from medseg.io.regrid import lesions_on_grid

__all__ = ["OUTPUT_FORMS", "convert_lesions"]

OUTPUT_FORMS = ".nii, .nii.gz, .seg.dcm, .rtstruct.dcm, .stl, .obj, .ctbl (3D Slicer), .label.txt (ITK-SNAP)"
_BY_HAND_OR_NOT = Algorithm("unknown; converted by medseg", SOFTWARE_VERSION, is_automatic=False)


def convert_lesions(
    path: str | PathLike[str],
    output: str | PathLike[str],
    like: Scan | None = None,
    *,
    only: Sequence[str] = (),
    kind: SegKind = "binary",
    algorithm: Algorithm | None = None,
    keep_identifiers: bool = False,
) -> LesionMap:
    """Read lesions in one form and write them in another; voxel for voxel, nothing is resampled.

    Parameters
    ----------
    path
        NIfTI, NRRD, MetaImage, DICOM SEG or RTSTRUCT.
    output
        A file; its suffix says the form: see `OUTPUT_FORMS`. `.dcm` alone is a SEG.
    like
        The scan whose grid the result is to lie on, whatever the order and direction of its axes; for DICOM the series
        that it refers to. A map without one stays on its own grid; an RTSTRUCT needs one to be read.
    only
        Labels of the segments or regions of a DICOM object to read; all of them if empty.
    kind
        How a SEG is stored, see `medseg.dicom.seg.lesion_seg`.
    algorithm
        What found the lesions, for DICOM; by default "unknown", semiautomatic.
    keep_identifiers
        Write who the patient is into DICOM objects.

    Returns
    -------
    The lesions as they were written.

    Raises
    ------
    UsageError
        If the suffix is unknown, or DICOM is asked for without a DICOM series.
    GridMismatch
        If the lesions do not lie on the grid of the scan.
    InvalidLabelMap
        If the map holds no lesion numbers, or none at all for DICOM.
    ScanNotFound, UnreadableImage, UnsupportedDimensions, InvalidGeometry, ScanTooLarge, OutputNotWritable
        As `medseg.read_lesions` and the writers.
    """
    target = Path(output)
    form = _form(target)
    lesions = read_lesions(path, like=like.geometry if like else None, only=only)
    if like is not None:
        lesions = lesions_on_grid(lesions, like.geometry, str(path))
    if form == "dcm":
        if like is None:
            raise UsageError(f"{target}: a DICOM object refers to a series; give it (--like SERIES)")
        source = read_source(like, keep_identifiers=keep_identifiers)
        maker = algorithm or _BY_HAND_OR_NOT
        is_rtstruct = target.name.lower().endswith((".rtstruct.dcm", ".rt.dcm"))
        if is_rtstruct:
            write_dicom(structure_set(lesions, source, maker, LESION_COLORS), target)
        else:
            write_dicom(lesion_seg(lesions, source, maker, LESION_COLORS, kind), target)
    elif form == "nifti":
        write_labels(lesions.array, lesions.geometry, target, like=_header_source(like))
    elif form == "mesh":
        write_meshes(lesion_meshes(lesions), lesion_names(lesions), target)
    else:
        write_label_names(lesion_names(lesions), target)
    return lesions


def _form(output: Path) -> str:
    name = output.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return "nifti"
    if name.endswith(".dcm"):
        return "dcm"
    if output.suffix.lower() in MESH_SUFFIXES:
        return "mesh"
    if name.endswith((".ctbl", ".label.txt")):
        return "names"
    raise UsageError(f"{output}: the suffix says what to write; one of {OUTPUT_FORMS}")


def _header_source(like: Scan | None) -> Path | None:
    return like.files[0][0] if like is not None and like.format == "nifti" else None
