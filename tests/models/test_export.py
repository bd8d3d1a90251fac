"""The bundle runs under plain MONAI, and gives the map that medseg gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

import medseg
from medseg.core.plan import IntensityPlan, Plan, with_changes
from medseg.core.recipe import recipe_of
from medseg.models.bundle import HEADS_PATH
from medseg.models.export import inference_config, metadata, write_bundle
from medseg.networks.build import build_network
from medseg.transforms.prepare import prepare
from tests.plans import tiny_plan

THRESHOLD: dict[str, object] = {"foreground_threshold": 0.55}
PET = IntensityPlan(low=0.0, high=25.0, transform="sqrt")


def write_scan(path: Path) -> Path:
    """A smooth random scan on an oblique, anisotropic grid in LAS order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    turn = np.deg2rad(12.0)
    affine = np.eye(4)
    affine[:3, :3] = [[-np.cos(turn), -np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    affine[:3, :3] *= (3.0, 3.5, 5.0)
    affine[:3, 3] = (40.0, -30.0, 11.0)
    coarse = torch.rand((1, 1, 6, 6, 5), generator=torch.Generator().manual_seed(1)) * 20
    array = torch.nn.functional.interpolate(coarse, size=(34, 30, 22), mode="trilinear")[0, 0].numpy()
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def write_model(folder: Path, plan: Plan) -> Path:
    torch.manual_seed(3)
    network = build_network(plan).eval()
    weights = network.state_dict()
    if plan.network.kind != "unet":  # by chance one class wins everywhere; let both win somewhere
        with torch.no_grad():
            output = network(torch.rand(1, len(plan.channels), 16, 16, 16) * 4)
        logits = output["semantic"] if isinstance(output, dict) else output
        lead = float((logits[:, 1] - logits[:, 0]).median())
        for name in weights:
            if name.endswith(("conv_final.2.conv.bias", "seg_layers.1.bias")):
                weights[name] = weights[name] - torch.tensor([0.0, lead])
    write_bundle(folder, plan, weights, description="d", data_source="s", n_cases=1, model_card="# card\n")
    return folder


def changed(plan: Plan, network: dict[str, object]) -> Plan:
    """A plan of another network, or of another threshold."""
    part = "inference" if network == THRESHOLD else "network"
    return with_changes(plan, {part: network})


def run_under_monai(bundle: Path, scans: Path, output: Path, *, with_lesions: bool = False) -> None:
    command = [sys.executable, "-m", "monai.bundle", "run"]
    names = ["inference.json", *(["lesions.json"] if with_lesions else [])]
    command += ["--config_file", str([str(bundle / "configs" / name) for name in names])]
    command += ["--meta_file", str(bundle / "configs" / "metadata.json")]
    command += ["--bundle_root", str(bundle), "--dataset_dir", str(scans), "--output_dir", str(output)]
    command += ["--device", "$torch.device('cpu')"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        {"instance_heads": True},
        {"instance_heads": True, "kind": "segresnet", "filters": (8, 16, 32), "residual_units": 1, "members": 2},
        {},
        THRESHOLD,
    ],
    ids=["unet", "segresnets", "without heads", "threshold"],
)
def test_monai_bundle_run_writes_lesion_maps_too(tmp_path: Path, network: dict[str, object]) -> None:
    plan = tiny_plan(intensity=PET, spacing_mm=(4.0, 4.0, 4.0), patch_size=(48, 48, 48))
    plan = changed(plan, network)
    scan = write_scan(tmp_path / "scans" / "scan.nii.gz")
    bundle = write_model(tmp_path / "bundle", plan)
    assert (bundle / HEADS_PATH).is_file() == ("kind" in network)
    run_under_monai(bundle, scan.parent, tmp_path / "monai", with_lesions=True)
    (semantic_file,) = (tmp_path / "monai").rglob("*semantic.nii.gz")
    (lesions_file,) = (tmp_path / "monai").rglob("*lesions.nii.gz")
    segmenter = medseg.load_segmenter(bundle, device="cpu", engine="torch", precision="float32")
    ours, _ = segmenter.segment(medseg.load_volume(medseg.read_scan(scan), units="suv"))
    lesions = medseg.separate_lesions(ours, segmenter.recipe.separation)
    assert lesions.method == ("offsets" if "instance_heads" in network else "watershed")
    differing = np.asarray(nib.load(semantic_file).dataobj).squeeze() != ours.array
    assert differing.mean() < 0.002
    theirs = np.asarray(nib.load(lesions_file).dataobj).squeeze()
    assert np.array_equal(theirs > 0, np.asarray(nib.load(semantic_file).dataobj).squeeze() > 0)
    assert theirs.max() > 0
    # an untrained network's heads are noise, which rounding may turn: most voxels have the same company all the same
    shared = np.zeros((int(theirs.max()) + 1, lesions.n_lesions + 1))
    np.add.at(shared, (theirs.ravel(), np.asarray(lesions.array).ravel()), 1)
    assert shared[1:, 1:].max(axis=1).sum() > 0.8 * shared[1:, 1:].sum()


def test_plain_monai_reads_the_semantic_part_of_a_network_with_heads() -> None:
    for network in ({"instance_heads": True}, {"instance_heads": True, **SEGRESNET}):
        plan = tiny_plan()
        plan = plan.model_copy(update={"network": plan.network.model_copy(update=network)})
        ours = build_network(plan).eval()
        theirs = ConfigParser(inference_config(plan)).get_parsed_content("network_def").eval()
        theirs.load_state_dict({n: t for n, t in ours.state_dict().items() if "instance_" not in n})
        image = torch.rand(1, 1, 16, 16, 16)
        with torch.no_grad():
            assert torch.equal(theirs(image)[:, :2], ours(image)["semantic"])


SEGRESNET = {"kind": "segresnet", "filters": (8, 16, 32), "residual_units": (1, 2, 1)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spacing", "patch_size", "network"),
    [
        ((4.0, 4.0, 4.0), (16, 16, 16), {}),
        (None, (16, 16, 16), {}),
        ((4.0, 4.0, 4.0), (16, 48, 48), {"members": 2}),  # the window shrinks to the scan on two axes
        ((40.0, 40.0, 40.0), (16, 16, 16), {}),  # the scan is less than one voxel at the coarsest level
        ((4.0, 4.0, 4.0), (16, 16, 16), THRESHOLD),
        ((4.0, 4.0, 4.0), (16, 48, 48), {"kind": "plain_conv_unet"}),  # the scan is padded to the window
    ],
)
def test_plain_monai_gives_medsegs_semantic_map(
    tmp_path: Path,
    spacing: tuple[float, float, float] | None,
    patch_size: tuple[int, int, int],
    network: dict[str, object],
) -> None:
    plan = tiny_plan(intensity=PET, spacing_mm=spacing, patch_size=patch_size)
    plan = changed(plan, network)
    scan = write_scan(tmp_path / "scans" / "scan.nii.gz")
    bundle = write_model(tmp_path / "bundle", plan)
    run_under_monai(bundle, scan.parent, tmp_path / "monai")
    (written,) = (tmp_path / "monai").rglob("*.nii.gz")
    theirs = nib.load(written)
    segmenter = medseg.load_segmenter(bundle, device="cpu", precision="float32")
    ours, _ = segmenter.segment(medseg.load_volume(medseg.read_scan(scan), units="suv"))
    assert theirs.get_data_dtype() == np.uint8
    np.testing.assert_allclose(theirs.affine, ours.geometry.affine, atol=1e-4)
    differing = np.asarray(theirs.dataobj).squeeze() != ours.array
    assert 0.05 < ours.array.mean() < 0.95  # both classes are there to be compared
    # one interpolates by a coordinate grid, the other axis by axis: ties and rounding at the border remain
    assert differing.mean() < 0.002


PLAIN = {"kind": "plain_conv_unet", "kernels": (3, (1, 3, 3), 3), "residual_units": (1, 2, 3), "decoder_units": (1, 2)}
RESIDUAL = {"kind": "residual_encoder_unet", "strides": ((1, 2, 2), 2), "residual_units": (1, 3, 2), "norm": "batch"}


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("network", [SEGRESNET, PLAIN, RESIDUAL], ids=["segresnet", "plain", "residual"])
def test_the_config_builds_the_network_that_the_weights_are_of(network: dict[str, object], members: int) -> None:
    plan = tiny_plan(intensity=PET)
    plan = plan.model_copy(update={"network": plan.network.model_copy(update={**network, "members": members})})
    torch.manual_seed(0)
    ours = build_network(plan).eval()
    theirs = ConfigParser(inference_config(plan)).get_parsed_content("network_def").eval()
    theirs.load_state_dict(ours.state_dict())
    image = torch.rand((1, 1, 8, 12, 16))
    with torch.inference_mode():
        torch.testing.assert_close(theirs(image), ours(image))


def test_metadata_has_what_the_newest_schema_asks_for() -> None:
    found = metadata(tiny_plan(intensity=PET), "what it does", "where from", 26, {"mean_dice": 0.8})
    required = {
        "schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version",
        "optional_packages_version", "task", "description", "authors", "copyright", "network_data_format",
    }  # fmt: skip
    assert required <= set(found)
    assert found["version"] in found["changelog"]
    image = found["network_data_format"]["inputs"]["image"]
    assert image["num_channels"] == 1
    assert image["value_range"] == [0.0, 5.0]
    assert image["spatial_shape"] == ["4*n"] * 3
    prediction = found["network_data_format"]["outputs"]["pred"]
    assert prediction["num_channels"] == 2
    assert prediction["channel_def"] == {"0": "background", "1": "tumor"}


@pytest.mark.parametrize("how", ["scan", "nonzero"])
def test_plain_monai_standardizes_as_medseg_does(tmp_path: Path, how: str) -> None:
    plan = tiny_plan(intensity=IntensityPlan(low=-2.0, high=2.0, standardize=how, scale=0.5), spacing_mm=None)
    volume = medseg.load_volume(medseg.read_scan(write_scan(tmp_path / "scan.nii.gz")), units="suv")
    ours = prepare(volume, recipe_of(plan).preparation).image
    content = {**inference_config(plan), "dataset_dir": str(tmp_path)}
    theirs = ConfigParser(content).get_parsed_content("dataset")[0]["image"]
    np.testing.assert_allclose(np.asarray(theirs), ours, atol=1e-5)


def test_configs_are_plain_json_and_name_only_monais_own_classes() -> None:
    config = json.loads(json.dumps(inference_config(tiny_plan(intensity=PET))))
    targets: list[str] = []

    def collect(node: object) -> None:
        if isinstance(node, dict):
            targets.extend([node["_target_"]] if "_target_" in node else [])
            for value in node.values():
                collect(value)
        elif isinstance(node, list):
            for value in node:
                collect(value)

    collect(config)
    assert targets
    assert not [target for target in targets if "." in target]


def test_bundle_holds_every_file_of_the_specification(tmp_path: Path) -> None:
    write_model(tmp_path / "bundle", tiny_plan())
    files = {path.relative_to(tmp_path / "bundle").as_posix() for path in (tmp_path / "bundle").rglob("*.*")}
    assert {"configs/metadata.json", "configs/inference.json", "configs/plan.json"} <= files
    assert {"models/model.pt", "docs/README.md"} <= files
    assert (tmp_path / "bundle" / "LICENSE").is_file()
