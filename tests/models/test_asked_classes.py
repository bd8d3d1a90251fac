"""Bundles of networks that are asked for classes, as VISTA3D's of the public zoo."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.apps.vista3d.transforms import VistaPostTransformd
from monai.inferers import SlidingWindowInfererAdapt
from monai.networks.nets import vista3d132
from monai.transforms import (
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    Orientationd,
    ScaleIntensityRanged,
    Spacingd,
)
from typer.testing import CliRunner

import medseg
from medseg.cli.main import app
from medseg.errors import UntrustedCode, UsageError
from medseg.models import monai_code
from medseg.models.describe import check_model, describe_model
from medseg.models.exported import export_model
from medseg.models.load import load_model
from tests.models.bundles import METADATA, SPLEEN, write_bundle

SIDE = 32
WIDTH = 8  # of the network: 48 in the zoo
NAMES = {
    0: "background",
    1: "liver",
    2: "kidney",
    3: "spleen",
    5: "right kidney",
    14: "left kidney",
    26: "hepatic tumor",
}
INFERER = """
class Vista3dInferer:
    def __init__(self, roi_size, overlap, use_point_window=False, sw_batch_size=1):
        self.roi_size = roi_size
"""


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = make_bundle(tmp_path / "asked")
    sha256 = monai_code.class_sha256(folder / "scripts" / "inferer.py", "Vista3dInferer")
    assert sha256 is not None
    monkeypatch.setitem(monai_code._KNOWN, "Vista3dInferer", {sha256: "constant"})
    return folder


def make_bundle(folder: Path) -> Path:
    config: dict[str, Any] = copy.deepcopy(SPLEEN)
    config |= {
        "input_dict": "${'image': '/data/a.nii.gz', 'label_prompt': [3]}",
        "everything_labels": "$list(set([i+1 for i in range(5)]) - set([2, 4]))",
        "network_def": f"$monai.networks.nets.vista3d132({WIDTH}, in_channels=1)",
        "inferer": {
            "_target_": "scripts.inferer.Vista3dInferer",
            "roi_size": [SIDE] * 3,
            "overlap": 0.625,
            "sw_batch_size": 1,
            "use_point_window": True,
        },
    }
    config["preprocessing"]["transforms"] = [
        {"_target_": "LoadImaged", "keys": "@image_key", "reader": "NibabelGPUReader", "image_only": True},
        {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
        {"_target_": "Spacingd", "keys": "@image_key", "pixdim": [1.5, 1.5, 1.5], "mode": "bilinear"},
        {
            "_target_": "CropForegroundd",
            "keys": "@image_key",
            "source_key": "@image_key",
            "allow_smaller": True,
            "margin": 2,
        },
        {
            "_target_": "monai.apps.vista3d.transforms.VistaPreTransformd",
            "keys": "@image_key",
            "subclass": {"2": [14, 5]},
        },
        {
            "_target_": "ScaleIntensityRanged",
            "keys": "@image_key",
            "a_min": -100,
            "a_max": 300,
            "b_min": 0,
            "b_max": 1,
            "clip": True,
        },
        {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
    ]
    config["postprocessing"]["transforms"] = [
        {"_target_": "monai.apps.vista3d.transforms.VistaPostTransformd", "keys": "pred"},
        {
            "_target_": "Invertd",
            "keys": "pred",
            "transform": "@preprocessing",
            "orig_keys": "@image_key",
            "nearest_interp": True,
        },
        {"_target_": "Lambdad", "func": "$lambda x: torch.nan_to_num(x, nan=255)", "keys": "pred"},
        {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
    ]
    config["evaluator"]["_target_"] = "scripts.evaluator.Vista3dEvaluator"
    config["evaluator"]["hyper_kwargs"] = {"user_prompt": True, "everything_labels": "@everything_labels"}
    metadata: dict[str, Any] = copy.deepcopy(METADATA)
    named = {str(number): name for number, name in NAMES.items()}
    metadata["network_data_format"]["outputs"]["pred"] = {"num_channels": 1, "channel_def": named}
    write_bundle(folder, config, metadata, network=network())
    (folder / "scripts").mkdir()
    (folder / "scripts" / "inferer.py").write_text(INFERER)
    return folder


def network() -> torch.nn.Module:
    torch.manual_seed(3)
    made: torch.nn.Module = vista3d132(WIDTH, in_channels=1)
    return made.eval()


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    values = np.full((30, 34, 22), -50.0, dtype=np.float32)
    values[4:27, 3:30, 2:20] = rng.normal(80, 60, (23, 27, 18))
    affine = np.array([[-1.6, 0, 0, 20], [0, 1.9, 0, -30], [0, 0, 2.1, 5], [0, 0, 0, 1.0]])
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def as_monai_does(scan: Path, classes: list[int]) -> np.ndarray:
    """What the bundle's own pipeline gives when it is asked for some classes."""
    keys = "image"
    before = Compose(
        [
            LoadImaged(keys),
            EnsureChannelFirstd(keys),
            Spacingd(keys, pixdim=[1.5] * 3, mode="bilinear"),
            CropForegroundd(keys, source_key=keys, allow_smaller=True, margin=2),
            ScaleIntensityRanged(keys, a_min=-100, a_max=300, b_min=0, b_max=1, clip=True),
            Orientationd(keys, axcodes="RAS", labels=None),
        ]
    )
    data = before({"image": str(scan)})
    asked = torch.tensor(classes)[:, None]
    with torch.no_grad():
        inferer = SlidingWindowInfererAdapt(roi_size=[SIDE] * 3, sw_batch_size=1, with_coord=True)
        given = inferer(data["image"][None], network(), transpose=True, class_vector=asked, prompt_class=asked)
    data |= {"pred": given[0], "label_prompt": asked}
    after = Compose(
        [VistaPostTransformd("pred"), Invertd("pred", transform=before, orig_keys=keys, nearest_interp=True)]
    )
    return np.asarray(after(data)["pred"][0])


@pytest.mark.parametrize(
    ("asked", "numbers"), [(None, [1, 3, 5]), (["Hepatic tumor", 3], [26, 3]), (["kidney"], [14, 5]), ([26], [26])]
)
def test_map_is_that_of_the_bundles_own_pipeline(bundle, scan, asked, numbers):
    expected = as_monai_does(scan, numbers)
    segmenter = medseg.load_segmenter(bundle, device="cpu", engine="torch", precision="exact", classes=asked)
    found, _ = segmenter.segment(medseg.load_volume(medseg.read_scan(scan)))
    assert set(np.unique(expected)) == {0, *numbers}  # every class has voxels, or the test says nothing
    assert np.count_nonzero(np.asarray(found.array) != expected) == 0
    assert found.scheme.classes == {number: NAMES[number] for number in sorted(numbers)}


def test_batches_of_windows_do_not_mix(bundle):
    [asked] = load_model(bundle).networks
    windows = torch.rand(2, 1, SIDE, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        together = asked(windows)
        each = torch.cat([asked(window[None]) for window in windows])
    assert together.shape == (2, 4, SIDE, SIDE, SIDE)
    torch.testing.assert_close(together, each, rtol=1e-4, atol=1e-4)


def test_an_export_keeps_the_classes(bundle, scan, tmp_path):
    export_model(load_model(bundle, classes=["spleen", "liver"]), tmp_path / "export")
    volume = medseg.load_volume(medseg.read_scan(scan))
    ours, exported = (
        medseg.load_segmenter(model, device="cpu", engine="torch", classes=classes).segment(volume)[0]
        for model, classes in ((bundle, ["spleen", "liver"]), (tmp_path / "export", None))
    )
    assert exported.scheme.classes == {1: "liver", 3: "spleen"}
    assert np.array_equal(np.asarray(ours.array), np.asarray(exported.array))


def test_info_and_check_tell_of_the_classes(bundle):
    assert list(describe_model(bundle)["classes"]) == ["1", "3", "5"]
    assert list(describe_model(bundle, classes=["kidney"])["classes"]) == ["5", "14"]
    found = dict(check_model(bundle, classes=["kidney"]))
    assert found["network 0"] == "1 channel(s) of (32, 32, 32) give (3, 32, 32, 32)"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["livre"], r"no class 'livre'; it knows 6, such as 1 liver$"),
        (["tumor"], r"no class 'tumor'; it knows 6, such as 26 hepatic tumor$"),
        ([0], "no class '0'"),
        ([7], "no class '7'"),
    ],
)
def test_an_unknown_class_is_refused_with_those_that_are_known(bundle, asked, words):
    with pytest.raises(UsageError, match=words):
        load_model(bundle, classes=asked)


def test_classes_are_refused_where_a_network_is_not_asked(tmp_path):
    folder = write_bundle(tmp_path / "spleen")
    with pytest.raises(UsageError, match="marks all of its classes"):
        load_model(folder, classes=[1])
    with pytest.raises(UsageError, match="sarcoma_pet: only bundles of networks that are asked"):
        load_model("sarcoma_pet", classes=["tumor"])


def test_an_inferer_that_is_not_known_is_not_run(bundle):
    (bundle / "scripts" / "inferer.py").write_text(INFERER + "        self.more = 1\n")
    with pytest.raises(UntrustedCode, match=r"scripts\.inferer\.Vista3dInferer"):
        load_model(bundle)


def test_segment_takes_classes(bundle, scan, tmp_path):
    arguments = ["segment", str(scan), "-m", str(bundle), "-o", str(tmp_path / "out"), "--engine", "torch", "-q"]
    done = CliRunner().invoke(app, [*arguments, "--classes", "spleen, 26"])
    assert done.exit_code == 0, done.output
    found = nib.load(tmp_path / "out" / "semantic.nii.gz")
    assert set(np.unique(np.asarray(found.dataobj))) == {0, 3, 26}
    wrong = CliRunner().invoke(app, [*arguments, "--overwrite", "--classes", ","])
    assert (wrong.exit_code, "names no class" in wrong.output) == (2, True)
