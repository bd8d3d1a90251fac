"""MONAI bundles become recipes: every order of steps that the public zoo has, and clear refusals of the rest."""

from __future__ import annotations

import copy
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from monai.networks import nets

from medseg.core.geometry import Geometry
from medseg.core.recipe import OutputPlan, Recipe
from medseg.core.steps import CropForeground, Normalize, Orient, Resize, Respace, ScaleRange
from medseg.core.volume import Volume
from medseg.errors import ChangedModel, InvalidBundle, UnsupportedModel, UntrustedCode
from medseg.models.load import load_model, load_segmenter
from medseg.models.trust import pin_model, unpin_model
from medseg.networks.monai_unet import UNet
from tests.models.bundles import BRATS_LAMBDA, METADATA, SPLEEN, changed, unet, with_transforms, write_bundle

INVERT = SPLEEN["postprocessing"]["transforms"][1]
NEAREST = {**INVERT, "nearest_interp": True}
ARGMAX = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
SIGMOID = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
SOFTMAX = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
SCRIPTING_IS_OLD = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
HALF = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}


@pytest.fixture(autouse=True)
def _own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def recipe(tmp_path: Path, config: dict[str, Any], metadata: dict[str, Any] | None = None) -> Recipe:
    return load_model(write_bundle(tmp_path / "b", config, metadata)).recipe


def output(tmp_path: Path, *post: dict[str, Any], **others: Any) -> tuple[OutputPlan, tuple[str, ...]]:
    config = with_transforms("postprocessing", *post)
    read = recipe(tmp_path, {**config, **others})
    return read.output, read.repairs


def test_the_usual_bundle_becomes_a_recipe(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "spleen")
    loaded = load_model(folder)
    read = loaded.recipe
    assert (read.name, read.family, read.repairs) == ("spleen", "monai", ())
    assert read.preparation == (
        Orient(axcodes="RAS"),
        Respace(spacing_mm=(1.5, 1.5, 2.0), is_double=True),
        ScaleRange(low=-57, high=164, to_low=0, to_high=1, is_clipped=True),
    )
    assert read.windows.patch_size == (16, 16, 16)
    assert (read.windows.overlap, read.windows.per_batch, read.windows.divisor) == (0.5, 4, (2, 2, 2))
    assert read.output == OutputPlan(paint=(0, 1))
    assert dict(read.labels.classes) == {1: "Spleen"}
    assert [(c.name, c.modality) for c in read.channels] == [("image", "CT")]
    assert loaded.details["run_id"] == "run"
    expected = unet().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.networks[0].state_dict().items())


def test_yaml_and_zip_are_the_same_model(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "spleen")
    (folder / "configs" / "inference.json").unlink()
    (folder / "configs" / "inference.yaml").write_text(yaml.safe_dump(SPLEEN))
    with zipfile.ZipFile(tmp_path / "spleen.zip", "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, Path("spleen") / file.relative_to(folder))
    from_folder, from_zip = load_model(folder), load_model(tmp_path / "spleen.zip")
    assert from_folder.recipe == from_zip.recipe
    assert from_folder.weights_sha256 == from_zip.weights_sha256


@SCRIPTING_IS_OLD
def test_torchscript_bundle_is_read_without_running_its_program(tmp_path: Path) -> None:
    import json

    file = tmp_path / "model.ts"
    extra = {"inference.json": json.dumps(SPLEEN), "metadata.json": json.dumps(METADATA)}
    torch.jit.save(torch.jit.script(unet()), str(file), _extra_files=extra)
    loaded = load_model(file)
    assert type(loaded.networks[0]) is UNet
    expected = unet().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.networks[0].state_dict().items())
    assert dict(loaded.recipe.labels.classes) == {1: "Spleen"}


@SCRIPTING_IS_OLD
def test_torchscript_without_configuration_says_what_lacks(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(unet()), str(tmp_path / "model.ts"))
    with pytest.raises(InvalidBundle, match=r"without extra/inference\.json"):
        load_model(tmp_path / "model.ts")


@pytest.mark.parametrize("key", ["evaluating", "inference"])
def test_any_run_id_is_found(tmp_path: Path, key: str) -> None:
    config = changed(run=None, initialize=None, **{key: ["$setattr(torch.backends.cudnn, 'benchmark', True)"]})
    config[key].append("$@evaluator.run()")
    assert load_model(write_bundle(tmp_path / "b", config)).details["run_id"] == key


ORDERS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "argmax first, then nearest": (
        [SOFTMAX, ARGMAX, {**INVERT, "nearest_interp": True}],
        {"interpolates": "labels"},
        "",
    ),
    "labels interpolated linearly": (
        [ARGMAX, INVERT],
        {"activation": "none", "interpolates": "labels"},
        "interpolates class numbers linearly",
    ),
    "logits interpolated": (
        [INVERT, SIGMOID, HALF],
        {"activation": "sigmoid", "interpolates": "logits", "decision": "threshold"},
        "",
    ),
    "probabilities by nearest neighbor": (
        [SOFTMAX, {**INVERT, "nearest_interp": True}, ARGMAX],
        {"interpolates": "probabilities", "interpolation_order": 0},
        "",
    ),
    "largest component, then back": (
        [ARGMAX, {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "applied_labels": [1]}, NEAREST],
        {"keep_largest": (1,), "interpolates": "labels"},
        "",
    ),
    "back, then largest component": (
        [SOFTMAX, INVERT, ARGMAX, {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "connectivity": 1}],
        {"keep_largest": (1,), "keep_largest_connectivity": 6, "interpolates": "probabilities"},
        "",
    ),
    "never back": ([SOFTMAX, ARGMAX], {"interpolates": "labels"}, "brings labels back to the scan nowhere"),
    "undecided": ([SOFTMAX, INVERT], {"decision": "argmax"}, "undecided"),
}


@pytest.mark.parametrize("name", ORDERS)
def test_each_order_of_postprocessing_has_its_plan(tmp_path: Path, name: str) -> None:
    post, fields, note = ORDERS[name]
    plan, repairs = output(tmp_path, *post)
    assert {field: getattr(plan, field) for field in fields} == fields
    assert note in "\n".join(repairs)
    assert bool(note) == bool(repairs)


def brats_like(folder: Path, function: str = BRATS_LAMBDA) -> Path:
    post = [SIGMOID, HALF, {"_target_": "Lambdad", "keys": "pred", "func": function}]
    config = with_transforms("postprocessing", *post)
    config["network_def"] |= {"in_channels": 4, "out_channels": 3}
    names = {"0": "Tumor core", "1": "Whole tumor", "2": "Enhancing tumor"}
    channels = {"0": "T1c", "1": "T1", "2": "T2", "3": "FLAIR"}
    metadata = copy.deepcopy(METADATA)
    metadata["network_data_format"]["inputs"]["image"] |= {"num_channels": 4, "channel_def": channels, "modality": "MR"}
    metadata["network_data_format"]["outputs"]["pred"] |= {"num_channels": 3, "channel_def": names}
    return write_bundle(folder, config, metadata)


def test_nested_regions_are_painted_in_the_order_of_the_lambda(tmp_path: Path) -> None:
    read = load_model(brats_like(tmp_path / "b")).recipe
    assert (read.output.paint, read.output.paint_order) == ((1, 2, 4), (1, 0, 2))
    assert np.float32(0.5) > read.output.threshold > np.float32(0.4999999)  # MONAI: at the threshold counts
    assert dict(read.labels.classes) == {1: "Tumor core (rest)", 2: "Whole tumor (rest)", 4: "Enhancing tumor"}
    assert read.labels.regions == {"Whole tumor": (1, 2, 4), "Tumor core": (1, 4), "Enhancing tumor": (4,)}
    assert [c.name for c in read.channels] == ["T1c", "T1", "T2", "FLAIR"]


OTHER_LAMBDAS = [
    "$lambda x: torch.where(x[[2]] > 0, 4, evil(x))",
    "$lambda x: torch.where(x[[2]] >= 0, 4, 0)",
    "$lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[2]] > 0, 1, 0))",
    "$lambda x: torch.where(x[[5]] > 0, 4, 0)",
    "$lambda x: x + 1",
    "$lambda x: torch.where(x[[2]] > 0, 4, 3)",
]


@pytest.mark.parametrize("function", OTHER_LAMBDAS)
def test_any_other_lambda_needs_trust_and_is_quoted(tmp_path: Path, function: str) -> None:
    with pytest.raises(UntrustedCode) as caught:
        load_model(brats_like(tmp_path / "b", function))
    assert function in str(caught.value)
    assert "postprocessing::transforms::2::func" in str(caught.value)


def test_a_network_that_sees_whole_images_is_warmed_up_on_one_that_it_takes(tmp_path: Path) -> None:
    config = with_transforms("preprocessing", keep=3)
    config |= {"inferer": {"_target_": "SimpleInferer"}}
    config["network_def"] |= {"norm": "instance", "channels": [4, 8, 16], "strides": [2, 2]}
    folder = write_bundle(tmp_path / "b", config)
    assert load_model(folder).recipe.windows.patch_size == (64, 64, 64)  # of the smallest, (4, 4, 4), one voxel is left
    scan = Volume(np.zeros((1, 16, 16, 16), np.float32), Geometry((16, 16, 16), np.eye(4)), ("CT",))
    semantic, _ = load_segmenter(folder, device="cpu").segment(scan)
    assert semantic.array.shape == (16, 16, 16)


def test_resize_and_whole_images_and_empty_channels_for_clicks(tmp_path: Path) -> None:
    resize = {"_target_": "Resized", "keys": "@image_key", "spatial_size": [16, 16, 16], "mode": "area"}
    clicks = {"_target_": "AddGuidanceSignalDeepEditd", "keys": "@image_key", "guidance": "guidance"}
    config = with_transforms("preprocessing", resize, clicks, keep=3)
    config |= {"inferer": {"_target_": "SimpleInferer"}}
    config["network_def"]["in_channels"] = 3
    loaded = load_model(write_bundle(tmp_path / "b", config))
    read = loaded.recipe
    assert read.preparation[-1] == Resize(shape=(16, 16, 16), mode="area")
    assert read.windows.is_whole_image
    assert read.windows.patch_size == (16, 16, 16)
    assert read.output.resizes_back == "area"
    assert len(read.channels) == 1
    assert "nobody clicks" in "\n".join(read.repairs)
    image = torch.rand(1, 1, 16, 16, 16)
    bare = unet(config)
    with torch.inference_mode():
        expected = bare(torch.cat([image, torch.zeros(1, 2, 16, 16, 16)], dim=1))
        assert torch.equal(loaded.networks[0](image), expected)


def test_several_files_a_case_are_channels_by_their_keys(tmp_path: Path) -> None:
    keys = ["artery", "vein"]
    pre = [
        {"_target_": "LoadImaged", "keys": [*keys, "label"]},
        {"_target_": "EnsureChannelFirstd", "keys": keys},
        {"_target_": "Orientationd", "keys": keys, "axcodes": "LPS"},
        {"_target_": "ConcatItemsd", "keys": keys, "name": "image"},
        {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": "True", "channel_wise": True},
        {"_target_": "CropForegroundd", "keys": "image", "source_key": "image", "select_fn": "$lambda x: x > 0.5"},
    ]
    config = with_transforms("preprocessing", *pre)
    config["network_def"]["in_channels"] = 2
    read = recipe(tmp_path, config)
    assert [c.name for c in read.channels] == keys
    assert read.preparation == (
        Orient(axcodes="LPS"),
        Normalize(is_nonzero_only=True, is_per_channel=True),
        CropForeground(threshold=0.5),
    )


def test_known_drift_is_repaired_and_said(tmp_path: Path) -> None:
    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "feature_size": 12}
    config = changed(network_def={"_target_": "SwinUNETR", "img_size": 96, **arguments})
    config["preprocessing"]["transforms"][0]["reader"] = "ITKReader"
    metadata = {**METADATA, "monai_version": "99.1.0"}
    network = nets.SwinUNETR(**arguments)
    weights = {"state_dict": {f"module.{name}": value for name, value in network.state_dict().items()}, "epoch": 3}
    loaded = load_model(write_bundle(tmp_path / "b", config, metadata, weights=weights))
    said = "\n".join(loaded.recipe.repairs)
    for what in ("img_size", "ITKReader", "99.1.0", "'module.'"):
        assert what in said
    expected = network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.networks[0].state_dict().items())


def test_search_codes_of_dints_in_numpy_are_read_as_data(tmp_path: Path) -> None:
    space = {
        "_target_": "monai.networks.nets.TopologyInstance",
        "channel_mul": 0.25,
        "num_blocks": 4,
        "num_depths": 3,
        "use_downsample": True,
        "arch_code": ["$@codes['arch_code_a']", "$@codes['arch_code_c']"],
        "device": "$torch.device('cuda')",
    }
    codes = {
        "arch_code_a": np.ones((4, 7), np.float32),
        "arch_code_c": np.ones((4, 7), np.float64),
        "node_a": np.ones((5, 3), np.float32),
    }
    config = changed(
        codes="$torch.load(@bundle_root + '/models/codes.pt', map_location=torch.device('cuda'))",
        space=space,
        network_def={
            "_target_": "monai.networks.nets.DiNTS",
            "dints_space": "@space",
            "in_channels": 1,
            "num_classes": 2,
            "use_downsample": True,
            "node_a": "$torch.from_numpy(@codes['node_a'])",
        },
    )
    plain = {key: value for key, value in space.items() if key[0] != "_" and key not in {"arch_code", "device"}}
    topology = nets.TopologyInstance(**plain, arch_code=[codes["arch_code_a"], codes["arch_code_c"]], device="cpu")
    network = nets.DiNTS(topology, 1, 2, use_downsample=True, node_a=torch.from_numpy(codes["node_a"]))
    folder = write_bundle(tmp_path / "b", config, network=network)
    torch.save(codes, folder / "models" / "codes.pt")
    loaded = load_model(folder)
    image = torch.rand(1, 1, 32, 32, 32)
    with torch.inference_mode():
        assert torch.equal(loaded.networks[0](image), network.eval()(image))
    assert "without running code" in "\n".join(loaded.recipe.repairs)


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "2-D network": (
        changed(network_def={**SPLEEN["network_def"], "spatial_dims": 2}),
        UnsupportedModel,
        "2-D UNet; medseg runs 3-D",
    ),
    "boxes": (changed(detector={"_target_": "RetinaNetDetector", "network": "@network"}), UnsupportedModel, "boxes"),
    "another class": (changed(network_def={"_target_": "DenseNet121"}), UnsupportedModel, "DenseNet121, which medseg"),
    "unknown argument": (
        changed(network_def={**SPLEEN["network_def"], "colour": 1}),
        InvalidBundle,
        "takes no argument 'colour'",
    ),
    "arguments that make none": (
        changed(network_def={**SPLEEN["network_def"], "channels": [4]}),
        InvalidBundle,
        "UNet cannot be built from its arguments: the length of `channels`",
    ),
    "slices": (changed(inferer={"_target_": "SliceInferer", "roi_size": [8, 8]}), UnsupportedModel, "slice by slice"),
    "unknown transform": (
        with_transforms("preprocessing", {"_target_": "HistogramNormalized", "keys": "@image_key"}, keep=3),
        UnsupportedModel,
        "HistogramNormalized .preprocessing::transforms::3",
    ),
    "unknown argument of a transform": (
        with_transforms(
            "preprocessing", {"_target_": "Spacingd", "keys": "@image_key", "pixdim": [1], "diagonal": True}, keep=3
        ),
        UnsupportedModel,
        "diagonal=True",
    ),
    "no network": (changed(network_def=None, network=None, evaluator=None), InvalidBundle, "no network"),
    "a statement": (
        changed(initialize=["$@network.load_state_dict(torch.load('x'))"]),
        UntrustedCode,
        r"initialize::0.*load_state_dict",
    ),
    "own inferer": (changed(inferer={"_target_": "scripts.inferer.Own"}), UntrustedCode, r"scripts/inferer\.py"),
    "own transform": (
        with_transforms("preprocessing", {"_target_": "scripts.t.Ownd", "keys": "@image_key"}, keep=3),
        UntrustedCode,
        r"scripts\.t\.Ownd \(scripts/t\.py\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_run_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    config, error, message = REFUSED[name]
    folder = write_bundle(tmp_path / "b", config, weights=unet().state_dict())
    with pytest.raises(error, match=message):
        load_model(folder)


def test_missing_weights_and_weights_of_another_network_say_so(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b")
    other = unet(changed(network_def={**SPLEEN["network_def"], "channels": [8, 16]}))
    torch.save(other.state_dict(), folder / "models" / "model.pt")
    with pytest.raises(InvalidBundle, match=r"do not fit the network .*bias is \(8,\), the network's \(4,\)"):
        load_model(folder)
    torch.save({"optimizer": 3}, folder / "models" / "model.pt")
    with pytest.raises(InvalidBundle, match="no state dict in it; it holds optimizer"):
        load_model(folder)
    (folder / "models" / "model.pt").write_bytes(b"garbage")
    with pytest.raises(InvalidBundle, match="without running code"):
        load_model(folder)
    (folder / "models" / "model.pt").unlink()
    with pytest.raises(InvalidBundle, match=r"no weights at models/model\.pt"):
        load_model(folder)


OWN_NETWORK = """
from pathlib import Path

import torch

(Path(__file__).parents[1] / "eval" / "ran").touch()


class Own(torch.nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.layer = torch.nn.Conv3d(in_channels, out_channels, 1)

    def forward(self, x):
        return self.layer(x)
"""

OWN_TRANSFORMS = """
from monai.transforms import MapTransform


class Doubled(MapTransform):
    def __call__(self, data):
        data = dict(data)
        for key in self.keys:
            data[key] = data[key] * 2
        return data


class AtLeastd(MapTransform):
    def __call__(self, data):
        data = dict(data)
        for key in self.keys:
            data[key] = (data[key][1:] > data[key][:1]).float() * 3
        return data
"""


def own_bundle(folder: Path, *, with_own_transforms: bool = False) -> Path:
    config = changed(network_def={"_target_": "scripts.net.Own", "in_channels": 1, "out_channels": 2})
    if with_own_transforms:
        config["preprocessing"]["transforms"].append({"_target_": "scripts.steps.Doubled", "keys": "@image_key"})
        config["postprocessing"]["transforms"] = [INVERT, {"_target_": "scripts.steps.AtLeastd", "keys": "pred"}]
    # logits 0 and (input - 0.5): brighter than the middle of the window is 1
    weights = {"layer.weight": torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1, 1), "layer.bias": torch.tensor([0.0, -0.5])}
    write_bundle(folder, config, weights=weights)
    (folder / "scripts").mkdir()
    (folder / "eval").mkdir()
    (folder / "scripts" / "__init__.py").touch()
    (folder / "scripts" / "net.py").write_text(OWN_NETWORK)
    (folder / "scripts" / "steps.py").write_text(OWN_TRANSFORMS)
    return folder


def bright_ball() -> Volume:
    geometry = Geometry((20, 22, 18), np.diag([-1.5, 1.5, 2.0, 1.0]))
    world = np.stack(np.meshgrid(*[np.arange(n) for n in geometry.shape], indexing="ij"), axis=-1)
    array = np.where(np.linalg.norm(world - [9, 11, 9], axis=-1) < 5, 140.0, -40.0).astype(np.float32)
    return Volume(array[None], geometry, ("CT",))


def test_own_network_runs_only_with_trust_and_nothing_of_it_before(tmp_path: Path) -> None:
    folder = own_bundle(tmp_path / "own")
    with pytest.raises(UntrustedCode, match=r"scripts\.net\.Own.*scripts/net\.py would be executed"):
        load_segmenter(folder, device="cpu")
    assert not (folder / "eval" / "ran").exists()
    segmenter = load_segmenter(folder, device="cpu", trust=True)
    assert (folder / "eval" / "ran").exists()
    semantic, _ = segmenter.segment(bright_ball())
    np.testing.assert_array_equal(semantic.array, bright_ball().array[0] > 0)
    assert "scripts.net.Own" in "\n".join(segmenter.recipe.repairs)


def test_own_transforms_run_around_the_network_with_trust(tmp_path: Path) -> None:
    folder = own_bundle(tmp_path / "own", with_own_transforms=True)
    with pytest.raises(UntrustedCode) as caught:
        load_model(folder)
    for what in ("scripts.net.Own", "scripts.steps.Doubled", "scripts.steps.AtLeastd"):
        assert what in str(caught.value)
    semantic, _ = load_segmenter(folder, device="cpu", trust=True).segment(bright_ball())
    # doubled: (x + 57) / 221 > 0.25; the ball's edge is where its flank, one voxel wide, is, and interpolation keeps it
    np.testing.assert_array_equal(semantic.array, 3 * (bright_ball().array[0] > 0))
    assert semantic.geometry is not None


def test_packages_of_two_bundles_by_one_name_do_not_mix(tmp_path: Path) -> None:
    first, second = own_bundle(tmp_path / "first"), own_bundle(tmp_path / "second")
    (second / "scripts" / "net.py").write_text(OWN_NETWORK.replace("self.layer(x)", "-self.layer(x)"))
    image = torch.rand(1, 1, 4, 4, 4)
    ours = [load_model(folder, trust=True).networks[0](image) for folder in (first, second)]
    assert torch.equal(ours[0], -ours[1])


def test_a_pinned_model_runs_until_one_of_its_files_changes(tmp_path: Path) -> None:
    folder = own_bundle(tmp_path / "own")
    pin_model(folder)
    assert load_model(folder).descriptions == ()
    with pytest.raises(UntrustedCode):
        load_model(folder, trust=False)
    shutil.rmtree(folder / "scripts" / "__pycache__", ignore_errors=True)
    (folder / "scripts" / "net.py").write_text(OWN_NETWORK + "\n")
    with pytest.raises(ChangedModel, match="was pinned as trusted"):
        load_model(folder)
    assert unpin_model(folder)
    with pytest.raises(UntrustedCode):
        load_model(folder)


def test_code_of_the_zoo_that_is_known_word_for_word_is_not_run(tmp_path: Path) -> None:
    from medseg.models.monai_code import class_sha256

    keys = ["artery", "vein"]
    config = with_transforms(
        "preprocessing",
        {"_target_": "LoadImaged", "keys": keys},
        {"_target_": "scripts.my_transforms.ConcatImages", "keys_merge": keys, "keys_out": "image"},
    )
    config["network_def"]["in_channels"] = 2
    folder = write_bundle(tmp_path / "b", config)
    (folder / "scripts").mkdir()
    (folder / "scripts" / "my_transforms.py").write_text("class ConcatImages:\n    pass\n")
    assert class_sha256(folder / "scripts" / "my_transforms.py", "ConcatImages") is not None
    with pytest.raises(UntrustedCode, match=r"ConcatImages \(scripts/my_transforms\.py\)"):
        load_model(folder)
