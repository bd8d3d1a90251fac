"""`medseg manifest`: every layout gives the manifest that the folder means, and bad folders give none."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.errors import GridMismatch, InvalidLabelMap, InvalidManifest, OutputExists, UsageError
from medseg.io.labelled_cases import read_cases
from medseg.io.manifest import DataManifest, ManifestChannel, manifest_schema, read_manifest
from medseg.io.manifest_make import make_manifest
from tests.cli.commands import run

SHAPE = (6, 7, 8)


def save(path: Path, array: np.ndarray, spacing: float = 2.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([spacing, spacing, spacing, 1.0])), path)
    return path


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(SHAPE).astype(np.float32)


def label(*numbers: int) -> np.ndarray:
    array = np.zeros(SHAPE, dtype=np.uint8)
    for place, number in enumerate(numbers or (1,)):
        array[2 * place : 2 * place + 2, 1:4, 1:4] = number
    return array


def nnunet_folder(root: Path, n: int = 3) -> Path:
    described = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "whole": [1, 2], "core": 2},
        "regions_class_order": [1, 2],
        "file_ending": ".nii.gz",
        "licence": "CC BY 4.0",
        "name": "two channels",
    }
    for number in range(n):
        for channel in range(2):
            save(root / "imagesTr" / f"p{number}_000{channel}.nii.gz", image(10 * number + channel))
        save(root / "labelsTr" / f"p{number}.nii.gz", label(1, 2))
    for channel in range(2):
        save(root / "imagesTs" / f"t1_000{channel}.nii.gz", image(90 + channel))
        save(root / "imagesTs" / f"t2_000{channel}.nii.gz", image(95 + channel))
    save(root / "labelsTs" / "t1.nii.gz", label(1))
    (root / "dataset.json").write_text(json.dumps(described))
    return root


def test_nnunet_folder_with_regions_test_cases_and_splits(tmp_path: Path) -> None:
    root = nnunet_folder(tmp_path / "data" / "Dataset001_X")
    folds = [{"train": ["p1", "p2"], "val": ["p0"]}, {"train": ["p0"], "val": ["p1", "p2"]}]
    (root / "splits_final.json").write_text(json.dumps(folds))
    made, notes = make_manifest(root, tmp_path / "lists" / "m.json")
    read, data_root = read_manifest(tmp_path / "lists" / "m.json")
    assert read == made
    assert data_root.resolve() == root.resolve()
    assert [(c.case_id, c.split, c.fold) for c in read.cases] == [
        ("p0", "train", 0), ("p1", "train", 1), ("p2", "train", 1), ("t1", "test", None),
    ]  # fmt: skip
    assert [image.path for image in read.cases[0].images] == ["imagesTr/p0_0000.nii.gz", "imagesTr/p0_0001.nii.gz"]
    assert [(channel.name, channel.modality) for channel in read.channels] == [("CT", "CT"), ("PET", "PT")]
    assert (dict(read.labels), dict(read.regions)) == ({1: "class_1", 2: "core"}, {"whole": (1, 2)})
    assert (read.name, read.licence) == ("two_channels", "CC BY 4.0")
    assert notes[0] == "1 case(s) of imagesTs have no label map in labelsTs and were left out"
    assert "source" in notes[1]


def test_instances_beside_nnunets_labels_are_taken(tmp_path: Path) -> None:
    root = nnunet_folder(tmp_path / "d", 2)
    for number in range(2):
        save(root / "instancesTr" / f"p{number}.nii.gz", label(5, 9))
    made, _ = make_manifest(root, tmp_path / "m.json")
    cases = read_cases(made, root)
    assert [case.lesions is None for case in cases] == [False, False, True]
    assert set(np.unique(cases[0].lesions)) == {0, 1, 2}


def test_decathlon_folder_as_its_own_files_and_as_nnunets_first_version(tmp_path: Path) -> None:
    described = {
        "name": "Liver", "reference": "someone", "licence": "CC-BY-SA 4.0", "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "training": [{"image": f"./imagesTr/l_{n}.nii.gz", "label": f"./labelsTr/l_{n}.nii.gz"} for n in range(2)],
        "test": ["./imagesTs/l_9.nii.gz"],
    }  # fmt: skip
    for name, suffix in (("msd", ""), ("v1", "_0000")):
        root = tmp_path / name
        for number in range(2):
            save(root / "imagesTr" / f"l_{number}{suffix}.nii.gz", image(number))
            save(root / "labelsTr" / f"l_{number}.nii.gz", label(1, 2))
        (root / "dataset.json").write_text(json.dumps(described))
        made, notes = make_manifest(root, root / "m.json")
        assert [case.case_id for case in made.cases] == ["l_0", "l_1"]
        assert made.cases[0].images[0].path == f"imagesTr/l_0{suffix}.nii.gz"
        assert dict(made.labels) == {1: "liver", 2: "cancer"}
        assert made.root == "."
        assert notes == ("1 test case(s) have no label map and were left out",)


def test_four_dimensional_decathlon_image_is_refused_with_the_way_out(tmp_path: Path) -> None:
    described = {
        "modality": {"0": "FLAIR", "1": "T1w"}, "labels": {"0": "background", "1": "tumor"},
        "training": [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}],
    }  # fmt: skip
    save(tmp_path / "imagesTr" / "a.nii.gz", np.zeros((4, 4, 4, 2), dtype=np.float32))
    save(tmp_path / "labelsTr" / "a.nii.gz", np.zeros((4, 4, 4), dtype=np.uint8))
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(InvalidManifest, match=r"a: .* 2 channels in one 4-D file; .*a_0000\.nii\.gz"):
        make_manifest(tmp_path, tmp_path / "m.json")


def bids_folder(root: Path) -> Path:
    for number, (subject, session) in enumerate((("01", "1"), ("01", "2"), ("02", "1"), ("03", "1"))):
        stem = f"sub-{subject}_ses-{session}"
        raw = root / f"sub-{subject}" / f"ses-{session}" / "anat"
        save(raw / f"{stem}_FLAIR.nii.gz", image(number))
        save(raw / f"{stem}_T1w.nii.gz", image(50 + number))
        drawn = root / "derivatives" / "manual" / raw.relative_to(root)
        save(drawn / f"{stem}_space-orig_label-lesion_mask.nii.gz", label(1))
    save(root / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_T2w.nii.gz", image(99))
    (root / "dataset_description.json").write_text(json.dumps({"Name": "MS", "License": "CC0", "Authors": ["A", "B"]}))
    return root


def test_bids_sessions_of_one_subject_stay_in_one_fold(tmp_path: Path) -> None:
    made, _ = make_manifest(bids_folder(tmp_path / "b"), tmp_path / "m.json", n_folds=3)
    assert [case.case_id for case in made.cases] == ["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1", "sub-03_ses-1"]
    assert [channel.name for channel in made.channels] == ["FLAIR", "T1w"]
    assert dict(made.labels) == {1: "lesion"}
    assert made.cases[0].patient == "sub-01"
    assert made.cases[0].fold == made.cases[1].fold
    assert sorted({case.fold for case in made.cases}) == [0, 1, 2]
    assert made.attribution == "A, B"
    one, _ = make_manifest(tmp_path / "b", tmp_path / "one.json", channels=["T1w"])
    assert one.cases[0].images[0].path.endswith("sub-01_ses-1_T1w.nii.gz")


def test_discrete_segmentations_take_their_names_from_the_table(tmp_path: Path) -> None:
    root = bids_folder(tmp_path / "b")
    for path in (root / "derivatives").rglob("*_mask.nii.gz"):
        path.rename(path.with_name(path.name.replace("_label-lesion_mask", "_dseg")))
    (root / "derivatives" / "manual" / "dseg.tsv").write_text("index\tname\n0\tBackground\n1\tblack hole\n")
    assert dict(make_manifest(root, tmp_path / "m.json")[0].labels) == {1: "black hole"}
    (root / "derivatives" / "manual" / "dseg.tsv").write_text("number\tname\n1\tblack hole\n")
    with pytest.raises(InvalidManifest, match=r"dseg\.tsv: a table of classes has the columns index"):
        make_manifest(root, tmp_path / "n.json")


def test_bids_subjects_without_label_map_are_counted_and_two_images_of_one_suffix_are_told(tmp_path: Path) -> None:
    root = bids_folder(tmp_path / "b")
    (root / "sub-04").mkdir()
    assert "1 subject(s) have no label map" in make_manifest(root, tmp_path / "m.json")[1][0]
    save(root / "sub-02" / "ses-1" / "anat" / "sub-02_ses-1_run-2_FLAIR.nii.gz", image(98))
    with pytest.raises(InvalidManifest, match=r"sub-02_ses-1: not one image FLAIR below .*, but none or several"):
        make_manifest(root, tmp_path / "n.json", channels=["FLAIR"])


def pattern_folder(root: Path, n: int = 4) -> Path:
    for number in range(n):
        save(root / f"p{number // 2}_visit{number % 2}" / "PET_image.nii.gz", image(number))
        save(root / f"p{number // 2}_visit{number % 2}" / "mask.nii.gz", label(3, 1))
    return root


def test_pattern_from_the_command_line(tmp_path: Path) -> None:
    root = pattern_folder(tmp_path / "scans")
    arguments = ["manifest", root, "-o", tmp_path / "m.json", "--image", "{case}/PET_image.nii.gz"]
    arguments += ["--label", "{case}/mask.nii.gz", "--channel", "PET:PT:suv", "--numbered", "--patient", "^(p[0-9]+)"]
    result = run(*arguments, "--folds", "2", "--name", "my lesions", "--licence", "CC0", "--json", "-q")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["n_patients"] == 2
    made, _ = read_manifest(tmp_path / "m.json")
    assert [case.case_id for case in made.cases] == ["p0_visit0", "p0_visit1", "p1_visit0", "p1_visit1"]
    assert [case.whose for case in made.cases] == ["p0", "p0", "p1", "p1"]
    assert len({(case.whose, case.fold) for case in made.cases}) == 2
    assert made.channels == (ManifestChannel(name="PET", modality="PT", units="suv"),)
    assert made.cases[0].lesions == "numbered"
    assert (made.name, made.licence) == ("my_lesions", "CC0")
    again = run(*arguments)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr


def test_folder_that_says_nothing_asks_for_patterns(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--image '\{case\}/ct\.nii\.gz'"):
        make_manifest(tmp_path, tmp_path / "m.json")
    with pytest.raises(UsageError, match=r"\{case\}"):
        make_manifest(tmp_path, tmp_path / "m.json", images=["a.nii.gz"], label="b.nii.gz")
    (tmp_path / "m.json").write_text("{}")
    with pytest.raises(OutputExists):
        make_manifest(tmp_path, tmp_path / "m.json")


PATTERN = {"images": ["{case}/PET_image.nii.gz"], "label": "{case}/mask.nii.gz"}


def damaged(root: Path, fault: str) -> dict[str, object]:
    """A folder with one fault, and the arguments that show it."""
    first = root / "p0_visit0"
    if fault == "missing image":
        (first / "PET_image.nii.gz").unlink()
    elif fault == "grids":
        save(first / "mask.nii.gz", label(3, 1), spacing=2.5)
    elif fault == "voxels twice":  # another file of the same voxels
        again = nib.load(first / "PET_image.nii.gz").get_fdata()
        save(root / "p1_visit0" / "PET_image.nii.gz", again, spacing=2.0)
    elif fault == "file twice":
        (root / "p1_visit0" / "PET_image.nii.gz").write_bytes((first / "PET_image.nii.gz").read_bytes())
    elif fault == "straddles":
        for folder in root.iterdir():
            save(folder / "lesions.nii.gz", label(1, 2 if folder != first else 1))
        return {**PATTERN, "instances": "{case}/lesions.nii.gz"}
    elif fault == "on background":
        for folder in root.iterdir():
            save(folder / "lesions.nii.gz", label(1, 2, 4) if folder == first else label(1, 2))
        return {**PATTERN, "instances": "{case}/lesions.nii.gz"}
    elif fault == "scheme":
        return {**PATTERN, "labels": {1: "tumor"}}
    return PATTERN


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("missing image", InvalidManifest, r"p0_visit0: .*PET_image\.nii\.gz not found"),
        ("grids", GridMismatch, r"p0_visit0: the label map .*mask\.nii\.gz lies on"),
        ("voxels twice", InvalidManifest, r"p1_visit0: the voxels of its channel .* are those of p0_visit0"),
        ("file twice", InvalidManifest, r"p0_visit0 and p1_visit0 have the same image"),
        ("straddles", InvalidLabelMap, r"p0_visit0: 1 lesion\(s\) straddle classes; lesion 1 .*class_1, class_3"),
        ("on background", InvalidLabelMap, r"p0_visit0: 1 lesion\(s\) straddle classes; .*background"),
        ("scheme", InvalidManifest, r"4 faults, nothing was started:\n  p0_visit0: .*holds \[3\]"),
    ],
)
def test_bad_folder_gives_no_manifest_but_case_and_reason(
    tmp_path: Path, fault: str, error: type[Exception], message: str
) -> None:
    root = pattern_folder(tmp_path / "scans")
    arguments = damaged(root, fault)
    with pytest.raises(error, match=message):
        make_manifest(root, tmp_path / "m.json", **arguments)
    assert not (tmp_path / "m.json").exists()


def test_patient_in_two_splits_or_folds_is_refused(tmp_path: Path) -> None:
    root = pattern_folder(tmp_path / "scans")
    made, _ = make_manifest(root, tmp_path / "m.json", patient="^(p[0-9]+)", **PATTERN)
    content = json.loads((tmp_path / "m.json").read_text())
    for change in ({"split": "test", "fold": None}, {"fold": 1 - made.cases[1].fold}):
        changed = json.loads(json.dumps(content))
        changed["cases"][1] |= change
        (tmp_path / "leak.json").write_text(json.dumps(changed))
        with pytest.raises(InvalidManifest, match=r"patient p0 is in split train, fold .*p0_visit1"):
            read_manifest(tmp_path / "leak.json")


def test_every_manifest_fits_the_published_schema(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parents[2] / "docs" / "reference" / "manifest.schema.json").read_text())
    assert schema == json.loads(json.dumps(manifest_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    make_manifest(pattern_folder(tmp_path / "scans"), tmp_path / "m.json", **PATTERN)
    for path in (tmp_path / "m.json", Path(__file__).parents[2] / "data_manifests" / "sarcoma_pet.json"):
        jsonschema.validate(json.loads(path.read_text()), schema)
        DataManifest.model_validate_json(path.read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads((tmp_path / "m.json").read_text()), "licens": "CC0"}, schema)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dataset.json", {"labels": {"0": "background", "1": "tumor"}}, "gives each name its number, as .* got {'0':"),
        ("dataset.json", {"labels": {"background": 0, "whole": [1, "a"]}}, "got {'whole': 'a'}"),
        ("splits_final.json", {"train": []}, "no list of folds"),
        ("splits_final.json", [{"train": ["p0"]}], "no list of folds"),
        ("splits_final.json", [{"val": ["p0"]}, {"val": ["p9"]}], "without a label map in labelsTr: p9"),
        ("splits_final.json", [{"val": ["p0", "p1"]}, {"val": ["p1"]}], "more than one fold: p1"),
    ],
)
def test_nnunet_files_that_say_something_else_are_named(
    tmp_path: Path, name: str, content: object, message: str
) -> None:
    root = nnunet_folder(tmp_path / "d", 2)
    if name == "dataset.json" and isinstance(content, dict):
        content = json.loads((root / name).read_text()) | content
    (root / name).write_text(json.dumps(content))
    with pytest.raises(InvalidManifest, match=message):
        make_manifest(root, tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()


def test_images_to_train_on_without_label_map_are_counted_and_a_folder_without_any_is_refused(tmp_path: Path) -> None:
    root = nnunet_folder(tmp_path / "d", 3)
    (root / "labelsTr" / "p1.nii.gz").unlink()
    made, notes = make_manifest(root, tmp_path / "m.json")
    assert [case.case_id for case in made.cases] == ["p0", "p2", "t1"]
    assert notes[0] == "1 case(s) of imagesTr have no label map in labelsTr and were left out"
    for path in root.glob("labelsT*/*"):
        path.unlink()
    with pytest.raises(InvalidManifest, match=r"no label map \*\.nii\.gz in labelsTr or labelsTs"):
        make_manifest(root, tmp_path / "n.json")


def test_decathlon_file_without_cases_is_refused(tmp_path: Path) -> None:
    described = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "tumor"}, "training": {}}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(InvalidManifest, match='lists no cases under "training"'):
        make_manifest(tmp_path, tmp_path / "m.json")


def test_an_expression_for_the_patient_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--patient '\(\[' is no regular expression"):
        make_manifest(nnunet_folder(tmp_path / "d", 2), tmp_path / "m.json", patient="([")
