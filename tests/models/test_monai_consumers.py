"""What MONAI Label and MONAI Deploy take from a bundle gives the map that medseg gives.

Neither is installed where tests run: what their loaders do with a bundle (`monailabel.tasks.infer.bundle` 0.8.5,
`monai.deploy.operators.monai_bundle_inference_operator` 4.0.0) is done again here, in the same order.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import LoadImaged, SaveImaged
from numpy.typing import NDArray

import medseg
from medseg.core.plan import Plan, with_changes
from medseg.models.bundle import HEADS_PATH, read_bundle
from tests.models.test_export import PET, write_model, write_scan
from tests.plans import tiny_plan

HEADS = {"instance_heads": True}
BRANCHES = {"kind": "segresnet", "filters": (8, 16, 32), "residual_units": 1, "members": 2, "instance_heads": True}
THRESHOLD = {"foreground_threshold": 0.55}


def planned(changes: dict[str, object]) -> Plan:
    plan = tiny_plan(intensity=PET, spacing_mm=(4.0, 4.0, 4.0), patch_size=(48, 48, 48))
    return with_changes(plan, {"inference" if changes is THRESHOLD else "network": changes})


def names_of(bundle: Path) -> tuple[str, str]:
    """The first input and the first output of the metadata."""
    data = json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]
    return next(iter(data["inputs"])), next(iter(data["outputs"]))


def parsed(bundle: Path) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    return parser


def through_monai_label(bundle: Path, scan: Path) -> NDArray[Any]:
    """Loader kept, savers left out, each step by itself, the weights of the shortest name; the last step as theirs."""
    image, pred = names_of(bundle)
    parser = parsed(bundle)
    parser.config["bundle_root"] = str(bundle)
    network = parser.get_parsed_content("network_def", instantiate=True)
    file = min((bundle / "models").glob("*.pt"), key=lambda path: len(path.name))
    network.load_state_dict(torch.load(file, map_location="cpu"), strict=False)
    assert torch.load(file, map_location="cpu").keys() == network.state_dict().keys()
    data: dict[str, Any] = {image: str(scan)}
    for step in parser.get_parsed_content("preprocessing", instantiate=True).transforms:
        if isinstance(step, LoadImaged):
            step._loader.image_only = False
        data = step(data)
    inferer = parser.get_parsed_content("inferer", instantiate=True)
    with torch.no_grad():
        data[pred] = inferer(data[image][None], network.eval())[0]
    for step in parser.get_parsed_content("postprocessing", instantiate=True).transforms:
        if not isinstance(step, SaveImaged):
            data = step(data)
    result = data[pred]
    assert tuple(result.shape[1:]) == tuple(data[image].meta["spatial_shape"])  # else it would be resized
    return np.asarray(result[0])


def through_monai_deploy(bundle: Path, scan: Path) -> NDArray[Any]:
    """A volume without a channel in place of a file: no loader, no saver; weights strictly, on the whole `network`."""
    image, pred = names_of(bundle)
    parser = parsed(bundle)
    parser.parse()
    before, after = (parser.get_parsed_content(name) for name in ("preprocessing", "postprocessing"))
    for compose in (before, after):
        kept = [step for step in compose.transforms if not type(step).__name__.startswith(("LoadImage", "SaveImage"))]
        compose.transforms = tuple(kept)
    network = parser.get_parsed_content("network")
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", map_location="cpu"), strict=True)
    stored = nib.load(scan)
    meta = {"original_affine": stored.affine, "affine": stored.affine.copy(), "spatial_shape": np.array(stored.shape)}
    array = torch.from_numpy(np.asarray(stored.dataobj, dtype=np.float32))
    given = MetaTensor.ensure_torch_and_prune_meta(array, {**meta, "original_channel_dim": "no_channel"})
    inputs = before({image: given})
    with torch.no_grad():
        found = parser.get_parsed_content("inferer")(inputs=inputs[image][None], network=network.eval())
    return np.squeeze(np.asarray(after({pred: found[0], **inputs})[pred]), 0)


@pytest.mark.parametrize("consumer", [through_monai_label, through_monai_deploy])
@pytest.mark.parametrize("changes", [HEADS, BRANCHES, THRESHOLD], ids=["heads", "branches", "threshold"])
def test_the_parts_that_others_take_give_medsegs_map(tmp_path: Path, changes: dict[str, object], consumer: Any) -> None:
    bundle = write_model(tmp_path / "bundle", planned(changes))
    scan = write_scan(tmp_path / "scan.nii.gz")
    segmenter = medseg.load_segmenter(bundle, device="cpu", engine="torch", precision="exact")
    ours, _ = segmenter.segment(medseg.load_volume(medseg.read_scan(scan), units="suv"))
    theirs = consumer(bundle, scan)
    assert 0.01 < (ours.array > 0).mean() < 0.99
    assert theirs.shape == ours.array.shape
    assert (theirs != ours.array).mean() <= 1e-4


def test_heads_in_a_file_of_the_name_before_are_read(tmp_path: Path) -> None:
    bundle = write_model(tmp_path / "bundle", planned(BRANCHES))
    heads = bundle / HEADS_PATH
    assert len(heads.name) > len("model.pt")
    assert read_bundle(bundle).heads == heads
    heads.rename(heads.with_name("heads.pt"))
    assert read_bundle(bundle).heads == heads.with_name("heads.pt")
