"""Scan: a case_id and at least one file for each channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.core.scan import DicomIdentifiers, Scan
from medseg.errors import ScanError

GRID = Geometry((2, 3, 4), np.eye(4))


def test_scan_has_as_many_channels_as_file_lists():
    scan = Scan("p01", ((Path("a.nii.gz"),), (Path("b.nii.gz"),)), "nifti", GRID)
    assert scan.n_channels == 2
    assert repr(scan).startswith("Scan('p01', nifti, 2 channel(s), Geometry(")


def test_scan_without_a_case_id_is_refused():
    with pytest.raises(ScanError, match="case_id"):
        Scan("", ((Path("a.nii.gz"),),), "nifti", GRID)


@pytest.mark.parametrize("files", [(), ((),), ((Path("a.dcm"),), ())])
def test_channel_without_files_is_refused_by_case(files):
    with pytest.raises(ScanError, match=r"p01: .* at least one file"):
        Scan("p01", files, "dicom", GRID)


def test_repr_shows_no_dicom_identifiers():
    identifiers = DicomIdentifiers("1.2.3.4", "1.2.3.5", None)
    scan = Scan("p01", ((Path("a.dcm"),),), "dicom", GRID, "PT", (identifiers,))
    assert "1.2.3" not in repr(scan)
