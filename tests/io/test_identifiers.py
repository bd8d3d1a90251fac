"""Identifiers are there when asked for, and names never are."""

from __future__ import annotations

import json

import numpy as np

from medseg.io.identifiers import read_identifiers
from medseg.io.scan import read_scan
from tests.cli.commands import run_well
from tests.io.dicom_files import SERIES_UID, set_tag, write_series
from tests.io.nifti_files import save


def test_dicom_says_ids_and_uids_but_no_name(tmp_path):
    write_series(tmp_path, edit=set_tag("PatientID", "CANARY-ID"))
    (record,) = read_identifiers(read_scan(tmp_path))
    assert record["patient_id"] == "CANARY-ID"
    assert record["series_instance_uid"] == SERIES_UID
    assert record["accession_number"] is None
    assert "CANARY^NAME" not in str(record)


def test_a_volume_file_says_where_it_lies(tmp_path):
    path = save(np.zeros((3, 4, 5), np.float32), tmp_path / "p07.nii.gz")
    assert read_identifiers(read_scan(path)) == [{"file": str(path)}]


def test_result_holds_them_only_when_asked(tmp_path, tiny_bundle):
    tags = {"PatientID": "CANARY-ID", "Units": "GML", "Modality": "PT"}
    write_series(tmp_path / "pet", edit=lambda dataset, _: dataset.update(tags))
    for name, options in (("without", []), ("with", ["--keep-identifiers"])):
        out = tmp_path / name
        run_well("segment", tmp_path / "pet", "--model", tiny_bundle, "-o", out, "-q", *options)
        written = "".join(path.read_text() for path in out.iterdir() if path.suffix in {".json", ".csv", ".html"})
        assert ("CANARY-ID" in written) == (name == "with")
        assert ("identifiers" in json.loads((out / "result.json").read_text())) == (name == "with")
