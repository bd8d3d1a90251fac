"""Training on from the weights of an nnU-Net model folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import medseg
from medseg.errors import ChannelMismatch, InvalidBundle, TrainingError, UnsupportedModel, UsageError
from medseg.inference.options import RunOptions
from medseg.models.nnunet_start import read_nnunet_start
from medseg.networks.checkpoint import read_state_dict
from medseg.training.finetune import finetune
from tests.nnunet_folders import architecture, configuration, dataset, model_folder, plans
from tests.training.cases import write_data_set

HARDLY = {"device": "cpu", "steps": 1, "learning_rate": 1e-12}
ODD = {"kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]], "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]]}
LABELS = {"labels": {"background": 0, "tumor": 1}}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = write_data_set(tmp_path / "data")
    content = json.loads(path.read_text()) | {"channels": [{"name": "CT", "modality": "CT", "units": "stored"}]}
    path.write_text(json.dumps(content))
    return path


def folder(root: Path, kind: str = "PlainConvUNet", *, network: dict[str, Any] = ODD, **options: Any) -> Path:
    described = options.pop("plans_json", None) or plans()
    changes = {"architecture": architecture(3, kind, **network), "patch_size": [16, 16, 24]}
    described["configurations"]["3d_fullres"] = configuration(3, **changes)
    return model_folder(
        root, plans_json=described, dataset_json=options.pop("dataset_json", dataset(**LABELS)), **options
    )


def scan(path: Path, shape: tuple[int, int, int], axcodes: str) -> Path:
    """Smooth noise on the network's own grid, nowhere 0, stored along other axes."""
    coarse = torch.rand((1, 1, 4, 5, 6), generator=torch.Generator().manual_seed(1)) * 300 + 5
    array = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[0, 0].numpy()
    stored = nib.Nifti1Image(array, np.diag([2.0, 2.0, 2.0, 1.0]))
    turned = stored.as_reoriented(
        nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axcodes))
    )
    nib.save(turned, path)
    return path


@pytest.mark.parametrize("kind", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_the_bundle_holds_nnunets_weights_under_nnunets_names(tmp_path: Path, manifest: Path, kind: str) -> None:
    given = folder(tmp_path / "model", kind, folds=(3, 1))
    bundle = finetune(given, manifest, tmp_path / "out", **HARDLY)
    expected = read_nnunet_start(given, 1).weights
    found = read_state_dict(bundle / "models" / "model.pt")
    assert found.keys() == expected.keys()
    assert "decoder.seg_layers.1.weight" in found
    assert "decoder.seg_layers.0.weight" not in found  # a head that only deep supervision looks at
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)
    other = finetune(given, manifest, tmp_path / "other", from_fold=3, **HARDLY)
    of_other = read_state_dict(other / "models" / "model.pt")
    assert not torch.allclose(of_other["decoder.seg_layers.1.weight"], found["decoder.seg_layers.1.weight"], atol=1e-3)
    card = (bundle / "docs" / "README.md").read_text()
    assert "started from the weights of Dataset999_Test 3d_fullres fold 1" in card


@pytest.mark.parametrize(
    ("axcodes", "forward", "mirror_axes", "orientation"),
    [
        ("RAS", [0, 1, 2], (0, 1, 2), "SAR"),
        ("LPS", [0, 1, 2], (0, 1, 2), "SAR"),  # mirrored in training: no direction
        ("LPS", [0, 1, 2], None, "SPL"),
        ("PIR", [1, 0, 2], (2,), "IRA"),
    ],
)
def test_a_bundle_that_is_hardly_trained_gives_nnunets_map(
    tmp_path: Path,
    manifest: Path,
    axcodes: str,
    forward: list[int],
    mirror_axes: tuple[int, ...] | None,
    orientation: str,
) -> None:
    for path in (tmp_path / "data").rglob("*.nii.gz"):  # stored as the scan is
        image = nib.load(path)
        turn = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axcodes)
        )
        nib.save(image.as_reoriented(turn), path)
    content = json.loads(manifest.read_text())
    rehash(content, tmp_path / "data")
    manifest.write_text(json.dumps(content))
    described = plans(transpose_forward=forward)
    given = folder(tmp_path / "model", plans_json=described, mirror_axes=mirror_axes)
    bundle = finetune(given, manifest, tmp_path / "out", **HARDLY)
    plan = json.loads((bundle / "configs" / "plan.json").read_text())
    assert plan["orientation"] == orientation
    assert tuple(plan["inference"]["mirror_axes"]) == (mirror_axes or ())
    at = ["RLAPSI".index(letter) // 2 for letter in orientation]
    shape = [0, 0, 0]
    for axis, side in zip(at, (16, 16, 24), strict=True):  # the patch, so that neither pads
        shape[axis] = side
    source = scan(tmp_path / "scan.nii.gz", (shape[0], shape[1], shape[2]), axcodes)
    maps = []
    for model in (given, bundle):
        segmenter = medseg.load_segmenter(
            model, device="cpu", engine="torch", precision="float32", options=RunOptions(mirror=True)
        )
        maps.append(segmenter.segment(medseg.load_volume(medseg.read_scan(source)))[0].array)
    assert 0.02 < maps[0].mean() < 0.98
    if axcodes == "LPS" and mirror_axes:  # the mean over all mirrorings is the same, up to its order
        assert (maps[0] != maps[1]).mean() < 1e-3
    else:
        np.testing.assert_array_equal(*maps)


def rehash(content: dict[str, Any], root: Path) -> None:
    for case in content["cases"]:
        for file in (*case["images"], case["label"]):
            file["sha256"] = hashlib.sha256((root / file["path"]).read_bytes()).hexdigest()


def test_grid_intensities_and_windows_are_nnunets(tmp_path: Path, manifest: Path) -> None:
    bundle = finetune(folder(tmp_path / "model"), manifest, tmp_path / "out", **HARDLY)
    plan = json.loads((bundle / "configs" / "plan.json").read_text())
    intensity = plan["channels"][0]["intensity"]
    assert intensity == {"low": -50.0, "high": 300.0, "transform": "none", "shift": 100.0, "scale": 50.0}
    assert (plan["channels"][0]["modality"], plan["channels"][0]["units"]) == ("CT", "stored")  # the manifest says
    assert plan["spacing_mm"] == [2.0, 2.0, 2.0]
    network = plan["network"]
    assert (network["kind"], network["filters"]) == ("plain_conv_unet", [4, 6, 6])
    assert (network["strides"], network["kernels"]) == ([[1, 2, 2], [2, 2, 2]], ODD["kernel_sizes"])
    assert (network["residual_units"], network["decoder_units"]) == ([1, 2, 1], [1, 1])
    assert (plan["inference"]["patch_size"], plan["inference"]["overlap"]) == ([16, 16, 24], 0.5)


@pytest.mark.parametrize(("is_masked", "how"), [(True, "nonzero"), (False, "scan")])
def test_z_scores_are_taken_over_and_other_schemes_refused(
    tmp_path: Path, manifest: Path, is_masked: bool, how: str
) -> None:
    described = plans()
    entry = configuration(3, normalization_schemes=["ZScoreNormalization"], use_mask_for_norm=[is_masked])
    described["configurations"]["3d_fullres"] = entry
    given = model_folder(tmp_path / "model", plans_json=described, dataset_json=dataset(**LABELS))
    bundle = finetune(given, manifest, tmp_path / "out", **HARDLY)
    intensity = json.loads((bundle / "configs" / "plan.json").read_text())["channels"][0]["intensity"]
    assert (intensity["standardize"], intensity["shift"], intensity["scale"]) == (how, 0.0, 1.0)
    entry["normalization_schemes"] = ["RescaleTo01Normalization"]
    given = model_folder(tmp_path / "other", plans_json=described, dataset_json=dataset(**LABELS))
    with pytest.raises(UnsupportedModel, match="channel CT is normalized by nnU-Net's rescale_01 scheme"):
        finetune(given, manifest, tmp_path / "out2", **HARDLY)


def test_other_classes_and_regions_need_a_new_output(tmp_path: Path, manifest: Path) -> None:
    given = folder(tmp_path / "model", dataset_json=dataset(labels={"background": 0, "node": 1}))
    with pytest.raises(TrainingError, match=r"knows the classes 1 = node, manifest blocks has 1 = tumor.*--new-output"):
        finetune(given, manifest, tmp_path / "out", **HARDLY)
    regions = dataset(labels={"background": 0, "tumor": [1]}, regions_class_order=[1])
    regions["labels"] = {"background": 0, "whole": [1, 2], "tumor": [2]}
    regions["regions_class_order"] = [1, 2]
    given = folder(tmp_path / "regions", dataset_json=regions, folds=(3,))
    with pytest.raises(TrainingError, match=r"knows regions that overlap \(whole, tumor\)"):
        finetune(given, manifest, tmp_path / "out", **HARDLY)
    bundle = finetune(given, manifest, tmp_path / "out", new_output=True, **HARDLY)
    before, after = read_nnunet_start(given).weights, read_state_dict(bundle / "models" / "model.pt")
    new = {name for name in before if not torch.allclose(before[name], after[name], atol=1e-6)}
    assert new == {"decoder.seg_layers.1.weight", "decoder.seg_layers.1.bias"}


def test_channels_must_go_together(tmp_path: Path, manifest: Path) -> None:
    described = plans()
    described["foreground_intensity_properties_per_channel"]["1"] = described[
        "foreground_intensity_properties_per_channel"
    ]["0"]
    described["configurations"]["3d_fullres"].update(
        normalization_schemes=["CTNormalization"] * 2, use_mask_for_norm=[False] * 2
    )
    two = dataset(channel_names={"0": "CT", "1": "PET"})
    given = model_folder(tmp_path / "model", plans_json=described, dataset_json=two, sizes=(2, 2))
    with pytest.raises(ChannelMismatch, match=r"takes 2 channel\(s\) \(CT, PET\), manifest blocks has 1 \(CT\)"):
        finetune(given, manifest, tmp_path / "out", **HARDLY)


def with_network(**changes: Any) -> dict[str, Any]:
    described = plans()
    described["configurations"]["3d_fullres"] = configuration(3, architecture=architecture(3, **changes))
    return described


@pytest.mark.parametrize(
    ("name", "described", "said"),
    [
        ("2d", plans(), "a two-dimensional network"),
        ("3d_fullres", with_network(nonlin="torch.nn.ReLU"), "its activation is ReLU"),
        ("3d_fullres", with_network(conv_bias=False), "its convolutions have no bias"),
        ("3d_fullres", with_network(norm_op_kwargs={"eps": 1e-3, "affine": True}), "its norm is instance"),
        ("3d_fullres", with_network(strides=[[2] * 3] * 3), "its first stage strides"),
        ("3d_fullres", with_network(kind="ResidualUNet"), "it is residual"),
    ],
)
def test_a_network_that_a_plan_cannot_say_is_refused(
    tmp_path: Path, manifest: Path, name: str, described: dict[str, Any], said: str
) -> None:
    given = model_folder(tmp_path / "model", name, plans_json=described, mirror_axes=(0, 1))
    with pytest.raises(UnsupportedModel, match=said):
        finetune(given, manifest, tmp_path / "out", **HARDLY)
    assert not (tmp_path / "out.training").exists()


def test_a_cascades_second_stage_is_refused(tmp_path: Path, manifest: Path) -> None:
    given = model_folder(tmp_path / "model", "3d_cascade_fullres", sizes=(2, 2))
    with pytest.raises(UnsupportedModel, match="second stage of a cascade"):
        finetune(given, manifest, tmp_path / "out", **HARDLY)


def test_folds_that_are_not_there_are_refused(tmp_path: Path, manifest: Path) -> None:
    given = folder(tmp_path / "model")
    with pytest.raises(UsageError, match="no fold 4; it has 0"):
        finetune(given, manifest, tmp_path / "out", from_fold=4, **HARDLY)
    with pytest.raises(UsageError, match="has no folds to choose from"):
        finetune("sarcoma_pet", manifest, tmp_path / "out", from_fold=0, **HARDLY)
    (given / "fold_0" / "checkpoint_final.pth").unlink()
    with pytest.raises(InvalidBundle, match="no fold_"):
        finetune(given, manifest, tmp_path / "out", **HARDLY)
