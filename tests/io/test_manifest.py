from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from medseg.errors import HashMismatch, InvalidManifest, ScanNotFound
from medseg.io.manifest import read_manifest, verify_case

SARCOMA = Path(__file__).resolve().parents[2] / "data_manifests" / "sarcoma_pet.json"


def entry(path: str, content: bytes = b"") -> dict[str, str]:
    return {"path": path, "sha256": hashlib.sha256(content).hexdigest()}


def document(**changes) -> dict[str, object]:
    cases = [
        {
            "case_id": name,
            "images": [entry(f"{name}/pet.nii", name.encode())],
            "label": entry(f"{name}/map.nii"),
            "fold": fold,
        }
        for name, fold in (("p1", 0), ("p2", None))
    ]
    return {
        "schema_version": 1,
        "name": "two",
        "description": "Two cases.",
        "source": "made here",
        "licence": "CC0",
        "licence_url": "https://creativecommons.org/publicdomain/zero/1.0/",
        "attribution": "nobody",
        "root": "data",
        "channels": [{"name": "PET", "modality": "PT", "units": "suv"}],
        "labels": {"1": "tumor"},
        "cases": cases,
        **changes,
    }


def write(folder: Path, **changes) -> Path:
    path = folder / "m.json"
    path.write_text(json.dumps(document(**changes)))
    for name in ("p1", "p2"):
        (folder / "data" / name).mkdir(parents=True, exist_ok=True)
        (folder / "data" / name / "pet.nii").write_bytes(name.encode())
        (folder / "data" / name / "map.nii").write_bytes(b"")
    return path


def test_manifest_is_read_with_its_root_beside_the_file(tmp_path):
    manifest, root = read_manifest(write(tmp_path))
    assert root == tmp_path / "data"
    assert manifest.labels == {1: "tumor"}
    assert manifest.channels[0].units == "suv"
    assert [(case.case_id, case.fold) for case in manifest.cases] == [("p1", 0), ("p2", None)]
    assert manifest.folds == (0,)
    for case in manifest.cases:
        verify_case(case, root)


def test_data_root_overrides_the_manifest(tmp_path):
    assert read_manifest(write(tmp_path), data_root="/elsewhere")[1] == Path("/elsewhere")


def test_changed_file_is_named_with_both_hashes(tmp_path):
    manifest, root = read_manifest(write(tmp_path))
    (root / "p1" / "map.nii").write_bytes(b"other")
    with pytest.raises(HashMismatch, match=r"p1: .*map\.nii") as caught:
        verify_case(manifest.cases[0], root)
    assert hashlib.sha256(b"").hexdigest() in str(caught.value)
    assert hashlib.sha256(b"other").hexdigest() in str(caught.value)
    verify_case(manifest.cases[1], root)


def test_missing_file_is_named(tmp_path):
    manifest, root = read_manifest(write(tmp_path))
    (root / "p2" / "pet.nii").unlink()
    with pytest.raises(ScanNotFound, match=r"p2: .*pet\.nii does not exist"):
        verify_case(manifest.cases[1], root)


def test_doubled_case_ids_are_refused(tmp_path):
    cases = document()["cases"]
    with pytest.raises(InvalidManifest, match="doubled: p1"):
        read_manifest(write(tmp_path, cases=[cases[0], cases[1], cases[0]]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"licens": "CC0"}, "licens: Extra inputs"),
        ({"schema_version": 2}, "schema_version"),
        ({"labels": {"0": "background"}}, "class numbers lie in 1..65535"),
        ({"labels": {}}, "labels"),
        ({"channels": []}, "channels"),
        ({"cases": []}, "cases"),
        ({"channels": [{"name": "PET", "modality": "PT", "units": "hu"}]}, r"channels\.0\.units"),
        ({"channels": [{"name": "PET", "modality": "PT"}] * 2}, r"p1 has 1 image\(s\) for 2 channel\(s\)"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, changes, message):
    with pytest.raises(InvalidManifest, match=rf"m\.json: .*{message}"):
        read_manifest(write(tmp_path, **changes))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (entry("../outside.nii"), r"cases\.0\.label\.path: .*below the manifest's root"),
        (entry("/etc/passwd"), r"cases\.0\.label\.path: .*below the manifest's root"),
        ({"path": "a.nii", "sha256": "358300bb60fb5a21"}, r"cases\.0\.label\.sha256"),
    ],
)
def test_files_outside_the_root_and_shortened_hashes_are_refused(tmp_path, file, message):
    cases = document()["cases"]
    cases[0]["label"] = file
    with pytest.raises(InvalidManifest, match=message):
        read_manifest(write(tmp_path, cases=cases))


def test_missing_or_malformed_manifest_is_refused(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InvalidManifest, match=r"none\.json cannot be read"):
        read_manifest(tmp_path / "none.json")
    with pytest.raises(InvalidManifest, match=r"bad\.json: Invalid JSON"):
        read_manifest(tmp_path / "bad.json")


def test_sarcoma_manifest_splits_26_patients_into_five_folds():
    manifest, _ = read_manifest(SARCOMA)
    names = sorted(case.case_id for case in manifest.cases)
    assert len(names) == 26
    assert manifest.folds == (0, 1, 2, 3, 4)
    order = np.random.RandomState(42).permutation(26)
    expected = {names[index]: fold for fold in range(5) for index in order[fold::5]}
    assert {case.case_id: case.fold for case in manifest.cases} == expected


@pytest.mark.real_data
def test_every_file_of_the_sarcoma_manifest_is_the_real_one(real_data):
    manifest, _ = read_manifest(SARCOMA)
    for case in manifest.cases:
        verify_case(case, real_data / "volumes" / "sts")
