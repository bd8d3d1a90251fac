"""Exported models give the same answer; models are described, checked and hashed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.errors import InvalidBundle, UnsupportedModel
from medseg.models.describe import check_model, describe_model
from medseg.models.exported import export_model
from medseg.models.load import load_model, load_segmenter
from medseg.models.trust import model_sha256
from tests.models.bundles import changed, write_bundle
from tests.models.test_monai_bundle import own_bundle

DYNUNET = {
    "_target_": "DynUNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "kernel_size": [3, 3, 3],
    "strides": [1, 2, 2],
    "upsample_kernel_size": [2, 2],
    "filters": [4, 8, 8],
    "norm_name": "instance",
}


@pytest.fixture(autouse=True)
def _own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def dynunet_bundle(folder: Path) -> Path:
    from monai.networks.nets import DynUNet

    torch.manual_seed(0)
    network = DynUNet(**{key: value for key, value in DYNUNET.items() if key != "_target_"})
    return write_bundle(folder, changed(network_def=DYNUNET), network=network)


def volume() -> Volume:
    array = np.random.default_rng(0).normal(50, 80, (1, 24, 20, 18)).astype(np.float32)
    return Volume(array, Geometry((24, 20, 18), np.diag([1.5, 1.5, 2.0, 1.0])), ("CT",))


def test_exported_bundle_has_each_tensor_once_and_gives_the_same_map(tmp_path: Path) -> None:
    folder = dynunet_bundle(tmp_path / "b")
    loaded = load_model(folder)
    export_model(loaded, tmp_path / "exported")
    again = load_model(tmp_path / "exported")
    assert again.recipe == loaded.recipe
    assert again.descriptions == loaded.descriptions
    tensors = load_file(tmp_path / "exported" / "weights-0.safetensors")
    state = loaded.networks[0].state_dict()
    assert len(tensors) < len(state)  # DynUNet names its blocks twice
    assert sum(t.numel() for t in tensors.values()) == sum(p.numel() for p in loaded.networks[0].parameters())
    ours, _ = load_segmenter(folder, device="cpu", precision="exact").segment(volume())
    theirs, _ = load_segmenter(tmp_path / "exported", device="cpu", precision="exact").segment(volume())
    np.testing.assert_array_equal(ours.array, theirs.array)
    assert 0 < ours.array.mean() < 1


def test_shipped_ensemble_is_exported_too(tmp_path: Path) -> None:
    loaded = load_model("sarcoma_pet")
    export_model(loaded, tmp_path / "exported")
    again = load_model(tmp_path / "exported")
    state = loaded.networks[0].state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.networks[0].state_dict().items())
    assert again.recipe == loaded.recipe


def test_damaged_exports_say_what_is_wrong(tmp_path: Path) -> None:
    export_model(load_model(write_bundle(tmp_path / "b")), tmp_path / "e")
    networks = tmp_path / "e" / "networks.json"
    networks.write_text(networks.read_text().replace('"UNet"', '"Sequential"'))
    with pytest.raises(UnsupportedModel, match="Sequential is not one that medseg builds"):
        load_model(tmp_path / "e")
    networks.write_text("{}")
    with pytest.raises(InvalidBundle, match=r"networks\.json cannot be read"):
        load_model(tmp_path / "e")


def test_an_export_names_no_file_outside_of_its_folder(tmp_path: Path) -> None:
    export_model(load_model(write_bundle(tmp_path / "b")), tmp_path / "e")
    (tmp_path / "e" / "weights-0.safetensors").rename(tmp_path / "outside.safetensors")
    networks = tmp_path / "e" / "networks.json"
    networks.write_text(networks.read_text().replace("weights-0.safetensors", "../outside.safetensors"))
    with pytest.raises((InvalidBundle, FileNotFoundError)):
        load_model(tmp_path / "e")


def test_code_of_a_bundles_own_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="code of its own"):
        export_model(load_model(own_bundle(tmp_path / "own"), trust=True), tmp_path / "e")


def test_hash_changes_with_every_file_but_documentation_and_results(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b")
    first = model_sha256(folder)
    for name in ("docs/README.md", "eval/x.nii.gz", "scripts/__pycache__/a.pyc"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    assert model_sha256(folder) == first
    seen = {first}
    for name in ("scripts/new.py", "configs/metadata.json", "models/model.pt"):
        with (folder / name).open("ab") as stream:
            stream.write(b" ")
        seen.add(model_sha256(folder))
    assert len(seen) == 4


def test_check_finds_weights_that_give_no_numbers_and_metadata_that_is_wrong(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b")
    assert dict(check_model(folder))["network 0"] == "1 channel(s) of (16, 16, 16) give (2, 16, 16, 16)"
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    metadata["network_data_format"]["outputs"]["pred"]["num_channels"] = 5
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(InvalidBundle, match="gives 2 channels; its metadata says 5"):
        check_model(folder)
    state = torch.load(folder / "models" / "model.pt", weights_only=True)
    next(iter(state.values())).fill_(float("nan"))
    torch.save(state, folder / "models" / "model.pt")
    with pytest.raises(InvalidBundle, match="not finite"):
        check_model(folder)


def test_info_lists_what_would_need_trust(tmp_path: Path) -> None:
    described = describe_model(own_bundle(tmp_path / "own"))
    assert "scripts/net.py would be executed" in "\n".join(described["needs_trust"])
    trusted = describe_model(tmp_path / "own", trust=True)
    assert trusted["networks"][0]["class"] == "Own"
    assert trusted["needs_trust"]
