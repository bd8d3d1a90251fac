"""A medseg bundle as an nnU-Net model folder: the same network and labels, or a refusal that says why."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import medseg
from medseg.core.labels import LabelScheme
from medseg.core.plan import UNCLIPPED_STD, IntensityPlan, Plan
from medseg.errors import InvalidBundle, OutputExists, UnsupportedModel
from medseg.inference.options import RunOptions
from medseg.models.bundle import read_bundle
from medseg.models.export import write_bundle
from medseg.models.nnunet import read_nnunet
from medseg.models.nnunet_export import export_nnunet, notes_for_nnunet
from medseg.models.nnunet_start import read_nnunet_start
from medseg.models.shipped import find_model
from medseg.networks.build import build_network
from tests.plans import tiny_plan

CT = IntensityPlan(low=-50.0, high=300.0, shift=100.0, scale=50.0)
Z_SCORE = IntensityPlan(low=-UNCLIPPED_STD, high=UNCLIPPED_STD, standardize="nonzero")
PLAIN = {
    "kind": "plain_conv_unet",
    "filters": (4, 6, 8),
    "strides": ((1, 2, 2), (2, 2, 2)),
    "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    "residual_units": (1, 2, 1),
    "decoder_units": (1, 2),
}
RESIDUAL = {**PLAIN, "kind": "residual_encoder_unet", "norm": "batch"}


def planned(network: dict[str, Any] = PLAIN, **options: Any) -> Plan:
    plan = tiny_plan(**{"intensity": CT, "patch_size": (16, 16, 24), "spacing_mm": (2.0, 2.0, 2.0), **options})
    channels = tuple(channel.model_copy(update={"units": "stored"}) for channel in plan.channels)
    return plan.model_copy(update={"channels": channels, "network": plan.network.model_copy(update=network)})


def write_model(folder: Path, plan: Plan) -> Path:
    """A bundle with fresh weights, of which each class wins somewhere."""
    torch.manual_seed(3)
    network = build_network(plan).eval()
    with torch.inference_mode():
        logits = network(torch.rand(1, len(plan.channels), *plan.inference.patch_size) * 4)
        lead = float((logits[:, 1] - logits[:, 0]).median())
    weights = {
        name: tensor - torch.tensor([0.0, lead]) if name.endswith("seg_layers.1.bias") else tensor
        for name, tensor in network.state_dict().items()
    }
    write_bundle(folder, plan, weights, description="d", data_source="s", n_cases=1, model_card="# card\n")
    return folder


def write_scan(path: Path, plan: Plan, axcodes: str = "LAS", spacing: float = 2.0) -> Path:
    """Smooth noise, nowhere 0, as large as the patch where it has the network's spacing."""
    at = ["RLAPSI".index(letter) // 2 for letter in plan.orientation]
    shape = [0, 0, 0]
    for axis, side in zip(at, plan.inference.patch_size, strict=True):
        shape[axis] = round(side * 2.0 / spacing)
    coarse = torch.rand((1, 1, 4, 5, 6), generator=torch.Generator().manual_seed(1)) * 300 + 5
    array = torch.nn.functional.interpolate(coarse, size=tuple(shape), mode="trilinear")[0, 0].numpy()
    image = nib.Nifti1Image(array, np.diag([spacing] * 3 + [1.0]))
    codes = [nib.orientations.axcodes2ornt(codes) for codes in ("RAS", axcodes)]
    nib.save(image.as_reoriented(nib.orientations.ornt_transform(*codes)), path)
    return path


def labels_of(model: Path, scan: Path, precision: str = "float32") -> np.ndarray:
    options = RunOptions(mirror=True)
    segmenter = medseg.load_segmenter(model, device="cpu", engine="torch", precision=precision, options=options)
    return segmenter.segment(medseg.load_volume(medseg.read_scan(scan)))[0].array


@pytest.mark.parametrize(
    ("network", "options"),
    [
        (PLAIN, {"orientation": "RAS", "mirror_axes": (0, 2)}),
        (PLAIN, {"orientation": "SAR"}),
        (PLAIN, {"orientation": "ASR", "spacing_mm": None}),
        (RESIDUAL, {"orientation": "RSA"}),
    ],
    ids=["RAS", "SAR", "ASR on its own grid", "RSA"],
)
def test_the_folder_gives_the_bundles_map(tmp_path: Path, network: dict[str, Any], options: dict[str, Any]) -> None:
    plan = planned(network, **options)
    bundle = write_model(tmp_path / "bundle", plan)
    folder = export_nnunet(read_bundle(bundle), tmp_path / "nnunet")
    scan = write_scan(tmp_path / "scan.nii.gz", plan)
    of_bundle, of_folder = labels_of(bundle, scan), labels_of(folder, scan)
    assert 0.02 < of_bundle.mean() < 0.98
    np.testing.assert_array_equal(of_bundle, of_folder)
    # the plan as the folder says it
    start = read_nnunet_start(folder)
    assert start.network == plan.network
    assert start.intensities == (CT,)
    assert (start.orientation("LPS"), start.spacing_mm) == (plan.orientation, plan.spacing_mm)
    assert start.recipe.windows.mirror_axes == plan.inference.mirror_axes
    assert start.recipe.labels == plan.labels


@pytest.mark.parametrize("how", ["scan", "nonzero"])
def test_standardized_channels_are_z_scores(tmp_path: Path, how: str) -> None:
    unclipped = IntensityPlan(low=-UNCLIPPED_STD, high=UNCLIPPED_STD, standardize=how)
    plan = planned(intensity=unclipped, orientation="SAR")
    bundle = write_model(tmp_path / "bundle", plan)
    folder = export_nnunet(read_bundle(bundle), tmp_path / "nnunet")
    assert read_nnunet_start(folder).intensities == (unclipped,)
    scan = write_scan(tmp_path / "scan.nii.gz", plan)
    of_bundle = labels_of(bundle, scan)
    assert 0.02 < of_bundle.mean() < 0.98
    assert (of_bundle != labels_of(folder, scan)).mean() < 1e-3  # sums over the scan are rounded otherwise


def test_members_become_folds(tmp_path: Path) -> None:
    plan = planned({**RESIDUAL, "members": 3})
    bundle = write_model(tmp_path / "bundle", plan)
    folder = export_nnunet(read_bundle(bundle), tmp_path / "nnunet")
    assert len(read_nnunet(folder)[0]) == 3
    scan = write_scan(tmp_path / "scan.nii.gz", plan)
    np.testing.assert_array_equal(labels_of(bundle, scan), labels_of(folder, scan))
    with pytest.raises(OutputExists, match="fold_1, fold_2 of another model are there"):
        export_nnunet(read_bundle(write_model(tmp_path / "one", planned())), folder)


def changed(**parts: Any) -> Plan:
    plan = planned()
    for part, values in parts.items():
        value = values if not isinstance(values, dict) else getattr(plan, part).model_copy(update=values)
        plan = plan.model_copy(update={part: value})
    return plan


SQRT = IntensityPlan(low=0.0, high=25.0, transform="sqrt")


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (tiny_plan(), r"the network is MONAI's \(unet\)"),
        (
            changed(network={"kind": "segresnet", "filters": (8, 16, 32), "strides": (2, 2), "residual_units": 1}),
            r"MONAI's \(segresnet\)",
        ),
        (changed(network={**tiny_plan().network.model_dump(), "instance_heads": True}), "it has instance heads"),
        (planned(orientation="LPS"), "its grid is LPS; nnU-Net's readers turn scans to R, A and S only"),
        (changed(inference={"least_peak": 1.0}), "regions below a peak of 1 are left out"),
        (changed(inference={"foreground_threshold": 0.3}), "from a foreground probability of 0.3 on"),
        (planned(intensity=SQRT), "channel PET goes through a sqrt"),
        (planned(intensity=IntensityPlan(low=-3, high=3, standardize="scan")), "is standardized and then clipped"),
        (changed(labels=LabelScheme(classes={2: "tumor"})), r"its class numbers are \[2\]"),
        (changed(labels=LabelScheme(classes={1: "ignore"})), r"named \['ignore'\]"),
    ],
)
def test_what_nnunet_cannot_do_is_refused_by_name(tmp_path: Path, plan: Plan, said: str) -> None:
    network = build_network(plan)
    write_bundle(
        tmp_path / "bundle", plan, network.state_dict(), description="d", data_source="s", n_cases=1, model_card="c"
    )
    with pytest.raises(UnsupportedModel, match=said):
        export_nnunet(read_bundle(tmp_path / "bundle"), tmp_path / "nnunet")
    assert not (tmp_path / "nnunet").exists()


def test_every_reason_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"(?s)MONAI's \(segresnet\).*peak of 1.*goes through a sqrt"):
        export_nnunet(read_bundle(find_model("sarcoma_pet")), tmp_path / "nnunet")


def test_units_that_nnunet_does_not_know_are_told_and_medseg_keeps_them(tmp_path: Path) -> None:
    notes = notes_for_nnunet(tiny_plan())
    assert notes[0].startswith("channel PET must be in SUV")
    assert len(notes_for_nnunet(planned())) == 1
    plan = planned()
    channels = tuple(channel.model_copy(update={"units": "suv"}) for channel in plan.channels)
    bundle = write_model(tmp_path / "bundle", plan.model_copy(update={"channels": channels}))
    folder = export_nnunet(read_bundle(bundle), tmp_path / "nnunet")
    (channel,) = read_nnunet(folder)[1].channels
    assert (channel.name, channel.modality, channel.units) == ("PET", "PT", "suv")
    content = json.loads((folder / "dataset.json").read_text())
    content["medseg"]["channels"][0]["units"] = "furlongs"
    (folder / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(InvalidBundle, match="what medseg says of the channels is malformed"):
        read_nnunet(folder)


@pytest.mark.slow
@pytest.mark.skipif("MEDSEG_NNUNET_PYTHON" not in os.environ, reason="MEDSEG_NNUNET_PYTHON: a Python with nnunetv2")
@pytest.mark.parametrize("network", [PLAIN, {**RESIDUAL, "members": 2}], ids=["plain", "residual"])
@pytest.mark.parametrize(
    ("orientation", "spacing", "intensity"), [("RAS", 1.7, CT), ("ASR", 2.0, CT), ("SAR", 1.7, Z_SCORE)]
)
def test_nnunet_gives_what_medseg_gives_for_the_folder(
    tmp_path: Path, network: dict[str, Any], orientation: str, spacing: float, intensity: IntensityPlan
) -> None:
    plan = planned(network, orientation=orientation, mirror_axes=(0, 1), intensity=intensity)
    folder = export_nnunet(read_bundle(write_model(tmp_path / "bundle", plan)), tmp_path / "nnunet")
    (tmp_path / "in").mkdir()
    scan = write_scan(tmp_path / "in" / "case_0000.nii.gz", plan, "PIR", spacing)
    command = [str(Path(os.environ["MEDSEG_NNUNET_PYTHON"]).with_name("nnUNetv2_predict_from_modelfolder"))]
    command += ["-i", str(scan.parent), "-o", str(tmp_path / "out"), "-m", str(folder), "-device", "cpu"]
    command += ["-f", *map(str, range(plan.network.members)), "-npp", "1", "-nps", "1"]
    environment = {"PATH": "", "HOME": str(tmp_path), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    environment |= {f"nnUNet_{kind}": str(tmp_path) for kind in ("raw", "preprocessed", "results")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    written = nib.load(tmp_path / "out" / "case.nii.gz")
    ours = labels_of(folder, scan, "exact")
    assert 0.02 < ours.mean() < 0.98
    np.testing.assert_array_equal(np.asarray(written.dataobj), ours)
    np.testing.assert_allclose(written.affine, nib.load(scan).affine, atol=1e-5)
