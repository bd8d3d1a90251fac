"""nnU-Net's networks: names and numbers of the originals, weights from checkpoints without running code."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from medseg.errors import InvalidBundle
from medseg.models.nnunet_plans import architecture_of
from medseg.networks.nnunet import NnunetNetwork, SliceBySlice
from medseg.networks.nnunet_checkpoint import distinct_weights, read_nnunet_checkpoint
from tests.nnunet_folders import architecture, write_checkpoint

KINDS = ("PlainConvUNet", "ResidualEncoderUNet", "ResidualUNet")


def network(n: int = 3, kind: str = "PlainConvUNet", **changes: Any) -> NnunetNetwork:
    torch.manual_seed(0)
    described = architecture_of({"architecture": architecture(n, kind, **changes)}, 2, 3, Path("plans.json"))
    return NnunetNetwork(described).eval()


def names(kind: str) -> set[str]:
    return {name.removesuffix(".weight") for name in network(kind=kind).state_dict() if name.endswith(".weight")}


def test_parameters_of_a_plain_unet_carry_the_names_of_the_original() -> None:
    encoder = {
        f"encoder.stages.{stage}.0.convs.{number}.{part}"
        for stage, n in enumerate((1, 2, 1))
        for number in range(n)
        for part in ("conv", "norm")
    }
    decoder = {f"decoder.stages.{step}.convs.0.{part}" for step in (0, 1) for part in ("conv", "norm")}
    joints = {f"decoder.{part}.{step}" for step in (0, 1) for part in ("transpconvs", "seg_layers")}
    assert names("PlainConvUNet") == encoder | decoder | joints


def test_parameters_of_a_residual_encoder_carry_the_names_of_the_original() -> None:
    found = names("ResidualEncoderUNet")
    assert {"encoder.stem.convs.0.conv", "encoder.stages.1.blocks.1.conv2.norm"} <= found
    # first stage: neither stride nor other features, no shortcut; second: pooling at 0, convolution at 1
    assert {name for name in found if ".skip." in name} == {
        f"encoder.stages.1.blocks.0.skip.1.{part}" for part in ("conv", "norm")
    }
    assert "decoder.stages.0.convs.0.conv" in found
    assert "decoder.stages.0.blocks.0.skip.0.conv" in names("ResidualUNet")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [2, 3])
def test_logits_have_the_shape_of_the_image(kind: str, n: int) -> None:
    logits = network(n, kind)(torch.randn(2, 2, *[8] * n))
    assert logits.shape == (2, 3, *[8] * n)


def test_head_after_features_is_the_network() -> None:
    net, image = network(), torch.randn(1, 2, 8, 8, 8)
    assert torch.equal(net.head(net.features(image)), net(image))


def test_two_dimensional_network_takes_windows_one_voxel_thick() -> None:
    flat, image = network(2), torch.randn(1, 2, 1, 8, 8)
    assert torch.equal(SliceBySlice(flat)(image)[:, :, 0], flat(image[:, :, 0]))


@pytest.mark.slow
@pytest.mark.skipif("MEDSEG_NNUNET_PYTHON" not in os.environ, reason="MEDSEG_NNUNET_PYTHON: a Python with nnunetv2")
def test_logits_equal_those_of_the_original_classes(tmp_path: Path) -> None:
    changes = {
        n: {"kernel_sizes": [[1] + [3] * (n - 1), 3, [3] * n], "strides": [1, [1] + [2] * (n - 1), 2]} for n in (2, 3)
    }
    asked = [{"architecture": architecture(n, kind, **changes[n]), "n": n} for kind in KINDS for n in (2, 3)]
    torch.save(asked, tmp_path / "in.pt")
    environment = {"PATH": "", "OMP_NUM_THREADS": str(torch.get_num_threads())}  # rounding depends on it
    subprocess.run([os.environ["MEDSEG_NNUNET_PYTHON"], "-c", ORIGINAL, str(tmp_path)], check=True, env=environment)
    made = torch.load(tmp_path / "out.pt", weights_only=True)
    for (kind, n), original in zip(((kind, n) for kind in KINDS for n in (2, 3)), made, strict=True):
        ours = network(n, kind, **changes[n])
        ours.load_state_dict(distinct_weights(original["weights"]), strict=True)
        with torch.inference_mode():
            difference = (ours(original["image"]) - original["logits"]).abs().max()
        assert float(original["logits"].std()) > 1e-2
        assert float(difference) < 1e-6


ORIGINAL = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
folder = sys.argv[1]
made = []
for asked in torch.load(folder + "/in.pt", weights_only=True):
    named = asked["architecture"]
    network = get_network_from_plans(
        named["network_class_name"], named["arch_kwargs"], named["_kw_requires_import"], 2, 3, deep_supervision=False
    ).eval()
    image = torch.randn(1, 2, *[16] * asked["n"])
    with torch.inference_mode():
        logits = network(image)
    made.append({"weights": dict(network.state_dict()), "image": image, "logits": logits})
torch.save(made, folder + "/out.pt")
"""


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_second_names_and_wrappers_are_taken_off(wrapper: str) -> None:
    weights = network().state_dict()
    doubled = {f"{wrapper}{name}": tensor for name, tensor in weights.items()}
    doubled[f"{wrapper}encoder.stages.0.0.convs.0.all_modules.0.weight"] = torch.zeros(1)
    doubled[f"{wrapper}decoder.encoder.stages.0.0.convs.0.conv.weight"] = torch.zeros(1)
    assert distinct_weights(doubled).keys() == weights.keys()


def test_checkpoint_with_a_log_of_numpy_numbers_is_read(tmp_path: Path) -> None:
    weights = network().state_dict()
    write_checkpoint(tmp_path / "fold_0", weights, "3d_fullres", (0, 2))
    read = read_nnunet_checkpoint(tmp_path / "fold_0" / "checkpoint_final.pth")
    assert read.weights.keys() == weights.keys()
    assert all(torch.equal(read.weights[name], tensor) for name, tensor in weights.items())
    assert (read.configuration, read.trainer, read.mirror_axes) == ("3d_fullres", "nnUNetTrainer", (0, 2))


class Intruder:
    """Would write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_checkpoint_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    torch.save({"network_weights": {}, "logging": Intruder(tmp_path / "ran")}, tmp_path / "a.pth")
    with pytest.raises(InvalidBundle, match="without running code"):
        read_nnunet_checkpoint(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()
    assert pickle.loads(pickle.dumps(Intruder(tmp_path / "ran"))) is None  # it would have
    assert (tmp_path / "ran").exists()


def test_checkpoint_of_version_1_and_other_files_say_what_they_are(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "epoch": 1}, tmp_path / "v1.model")
    with pytest.raises(InvalidBundle, match="version 1"):
        read_nnunet_checkpoint(tmp_path / "v1.model")
    torch.save({"weights": {}}, tmp_path / "other.pth")
    with pytest.raises(InvalidBundle, match="no network_weights"):
        read_nnunet_checkpoint(tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no checkpoint")
    with pytest.raises(InvalidBundle, match="not a checkpoint"):
        read_nnunet_checkpoint(tmp_path / "text.pth")
