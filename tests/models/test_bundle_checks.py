"""What the model zoo checks of a bundle, run offline: on every shipped bundle, and on ones that were just trained."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import medseg
from medseg.io.case_ids import read_salt
from medseg.models.bundle import LOGGING_PATH, read_bundle
from medseg.models.export import workflow_files
from medseg.models.workflow_configs import LOGGING
from medseg.training.train import train
from tests.io.dicom_files import add_pet_tags, all_edits, set_tag, write_series
from tests.models.meta_schema import META_SCHEMA
from tests.plans import tiny_plan
from tests.training.cases import write_data_set

SHIPPED = sorted(path for path in (Path(__file__).parents[2] / "bundles").iterdir() if path.is_dir())
SCRIPT = Path(__file__).with_name("bundle_checks.py")


def labeled_scans(folder: Path) -> Path:
    """Three scans and their label maps, as train.json and evaluate.json look for them."""
    write_data_set(folder, n_cases=3)
    for part, name in (("images", "image"), ("labels", "label")):
        (folder / part).mkdir()
        for number in range(3):
            shutil.move(folder / f"case_{number}" / f"{name}.nii.gz", folder / part / f"case_{number}.nii.gz")
    return folder


def make(name: str, folder: Path) -> Path:
    if not name.startswith("just_trained"):
        return SHIPPED[0].parent / name
    plan = tiny_plan(steps=2, patch_size=(16, 16, 16))
    changes = NETWORKS[name]
    plan = plan.model_copy(update={"network": plan.network.model_copy(update=changes)})
    return train(write_data_set(folder / "data"), folder / "bundle", plan=plan, device="cpu")


NETWORKS = {
    "just_trained": {"members": 2, "weights_dtype": "float16"},
    "just_trained_with_heads": {"instance_heads": True},
    "just_trained_plain_conv_unet": {"kind": "plain_conv_unet", "kernels": (3, (1, 3, 3), 3), "members": 2},
    "just_trained_residual_encoder_unet": {"kind": "residual_encoder_unet", "strides": ((1, 2, 2), 2)},
}
NAMES = [*(path.name for path in SHIPPED), *NETWORKS]


@pytest.mark.parametrize("name", NAMES)
def test_bundle_passes_every_check_of_the_zoo(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    bundle, output = make(name, tmp_path), tmp_path / "output"
    output.mkdir()
    (tmp_path / "schema.json").write_text(json.dumps(META_SCHEMA))
    scans = labeled_scans(tmp_path / "labeled")
    command = [sys.executable, str(SCRIPT), str(bundle), str(scans), str(tmp_path / "schema.json"), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = json.loads((output / "answers.json").read_text())
    assert answers["metadata"] is None
    assert answers["net_in_out"] is None
    exports = answers["exports"]
    assert isinstance(exports, dict), exports
    assert exports["span"] > 0
    assert exports["torchscript"] < 1e-4 * max(1, exports["span"])
    assert exports["onnx"] < 1e-3 * max(1, exports["span"])
    assert answers["train"] == {"missing": [], "epochs": 2, "metrics": ["train_mean_dice"]}
    assert answers["inference"] == {"missing": [], "epochs": 1, "metrics": []}
    assert answers["evaluate"] == {"missing": [], "epochs": 1, "metrics": ["val_mean_dice"]}
    shipped = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert torch.load(output / "model_tuned.pt", weights_only=True).keys() == shipped.keys()
    written = sorted((output / "inference").rglob("*_semantic.nii.gz"))
    assert [path.name for path in written] == [f"case_{n}_semantic.nii.gz" for n in range(3)]
    assert nib.load(written[0]).shape == (14, 15, 16)
    with (output / "evaluate" / "val_mean_dice_raw.csv").open() as file:
        assert len(list(csv.reader(file))) == 4


def test_the_restated_schema_refuses_what_lacks_a_key() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    content = json.loads((SHIPPED[0] / "configs" / "metadata.json").read_text())
    jsonschema.validate(content, META_SCHEMA)
    top = [
        "schema",
        "version",
        "monai_version",
        "pytorch_version",
        "numpy_version",
        "required_packages_version",
        "task",
    ]
    top += ["description", "authors", "copyright", "network_data_format"]
    tensor = ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"]
    places = [*(((), key) for key in top), *((("network_data_format",), key) for key in ("inputs", "outputs"))]
    places += [(("network_data_format", "outputs", "pred"), key) for key in tensor]
    for place, key in places:
        changed = json.loads(json.dumps(content))
        holder = changed
        for name in place:
            holder = holder[name]
        del holder[key]
        with pytest.raises(jsonschema.ValidationError, match=key):
            jsonschema.validate(changed, META_SCHEMA)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_configurations_are_those_that_the_plan_gives(folder: Path) -> None:
    for path, content in workflow_files(read_bundle(folder).plan).items():
        assert json.loads((folder / path).read_text()) == json.loads(json.dumps(content)), f"{folder.name}/{path}"
    assert (folder / LOGGING_PATH).read_text() == LOGGING


SEGMENT_ALONE = """
import json, sys
from pathlib import Path
import medseg
bundle, folder, salt, asked = sys.argv[1:]
segmenter = medseg.load_segmenter(bundle)
for case, source in json.loads(asked):
    dicom = case not in ("p1", "folder")
    scan = medseg.read_scan(source, salt=salt) if dicom else medseg.read_scan(source, case_id=case)
    medseg.write_case(medseg.segment_case(scan, segmenter), Path(folder) / case)
"""


def test_monais_command_gives_the_lesions_and_the_table_of_medseg(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    for path, content in workflow_files(read_bundle(bundle).plan).items():
        (bundle / path).write_text(json.dumps(content))
    (bundle / LOGGING_PATH).write_text(LOGGING)
    scans = tmp_path / "scans"
    for seed, name in ((1, "p1.nii.gz"), (2, "folder/p2.nii.gz")):
        phantom = medseg.make_phantom("pet", seed)
        (scans / name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.array(phantom.volume.array[0]), phantom.volume.geometry.affine), scans / name)
    hot = all_edits(set_tag("RescaleSlope", 200), lambda dataset, _: add_pet_tags(dataset))
    write_series(scans / "series", 6, edit=hot, modality="PT")
    command = [sys.executable, "-m", "monai.bundle", "run"]
    command += ["--config_file", str([str(bundle / "configs" / f"{name}.json") for name in ("inference", "segment")])]
    command += ["--meta_file", "False", "--bundle_root", str(bundle), "--dataset_dir", str(scans)]
    done = subprocess.run(
        [*command, "--output_dir", str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "copy attributes of module" not in done.stdout  # highdicom says that of every module of every object
    salt = read_salt(tmp_path / "out")
    assert salt
    series = medseg.read_scan(scans / "series", salt=salt).case_id
    assert f"series is case {series}" in done.stdout
    assert (tmp_path / "out" / series / "lesions.sr.dcm").is_file()
    sources = {"p1": scans / "p1.nii.gz", "folder": scans / "folder", series: scans / "series"}
    asked = json.dumps([[case, str(source)] for case, source in sources.items()])
    # in a process of its own, as monai.bundle run was: what this one has set (threads) may change the last digit
    alone = [sys.executable, "-c", SEGMENT_ALONE, str(bundle), str(tmp_path / "own"), salt, asked]
    own = subprocess.run(alone, capture_output=True, text=True, check=False)
    assert own.returncode == 0, own.stderr
    for case in sources:
        written, expected = tmp_path / "out" / case, tmp_path / "own" / case
        assert (written / "lesions.csv").read_bytes() == (expected / "lesions.csv").read_bytes()
        for name in ("lesions.nii.gz", "semantic.nii.gz"):
            np.testing.assert_array_equal(nib.load(written / name).dataobj, nib.load(expected / name).dataobj)
        assert np.asarray(nib.load(written / "lesions.nii.gz").dataobj).max() > 0
