"""nnU-Net v2 model folders: what is read from them, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg.core.geometry import Geometry
from medseg.core.steps import (
    AppendPreviousStage,
    CropNonzero,
    NormalizeAsNnunet,
    Orient,
    RespaceAsNnunet,
    Transpose,
)
from medseg.core.volume import Volume
from medseg.errors import ChannelMismatch, InvalidBundle, InvalidPlan, UsageError
from medseg.io.hashes import sha256_of_files
from medseg.models.load import load_segmenter
from medseg.models.nnunet import find_nnunet_folder, previous_stage_folder, read_nnunet
from medseg.models.nnunet_labels import labels_of
from medseg.networks.nnunet import NnunetNetwork, SliceBySlice
from medseg.transforms.prepare import prepare
from tests.nnunet_folders import SPLINES, architecture, configuration, dataset, model_folder, plans

SOURCE = Path("dataset.json")


def test_folder_becomes_a_recipe_in_nnunets_order(tmp_path: Path) -> None:
    networks, recipe, _ = read_nnunet(model_folder(tmp_path))
    assert [type(step) for step in recipe.preparation] == [Transpose, CropNonzero, NormalizeAsNnunet, RespaceAsNnunet]
    assert recipe.family == "nnunet"
    assert recipe.name == "Dataset999_Test 3d_fullres"
    assert [channel.name for channel in recipe.channels] == ["CT"]
    assert recipe.labels.classes == {1: "lesion"}
    windows, output = recipe.windows, recipe.output
    assert (windows.rule, windows.blend, windows.patch_size) == ("nnunet", "gaussian", (16, 16, 16))
    assert (windows.overlap, windows.sigma_scale, windows.mirror_axes) == (0.5, 0.125, (0, 1, 2))
    assert windows.accumulates_half
    assert (output.decision, output.interpolates, output.paint) == ("argmax", "logits", (0, 1))
    assert (output.interpolation_order, output.order_z, output.rounds_to_half) == (1, 0, True)
    assert isinstance(networks[0], NnunetNetwork)


def test_all_folds_are_used_in_order_unless_some_are_chosen(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, folds=(10, 2, "all"))
    files = [folder / f"fold_{n}" / "checkpoint_final.pth" for n in (2, 10)]
    networks, _, sha256 = read_nnunet(folder)
    assert sha256 == sha256_of_files(files)
    weights = [network.state_dict()["encoder.stages.0.0.convs.0.conv.weight"] for network in networks]
    assert len(weights) == 2
    assert not torch.equal(*weights)
    one, _, sha256 = read_nnunet(folder, folds=[10])
    assert torch.equal(one[0].state_dict()["encoder.stages.0.0.convs.0.conv.weight"], weights[1])
    assert sha256 == sha256_of_files(files[1:])
    assert len(read_nnunet(folder, folds=["all"])[0]) == 1
    with pytest.raises(UsageError, match=r"no fold 3; it has 10, 2, all"):
        read_nnunet(folder, folds=[3])


def test_fold_all_is_used_where_there_is_no_other(tmp_path: Path) -> None:
    assert len(read_nnunet(model_folder(tmp_path, folds=("all",)))[0]) == 1


def test_configuration_inherits_and_overrides(tmp_path: Path) -> None:
    _, recipe, _ = read_nnunet(model_folder(tmp_path, "3d_lowres"))
    respace = recipe.preparation[-1]
    assert isinstance(respace, RespaceAsNnunet)
    assert respace.spacing_mm == (3.0, 3.0, 3.0)
    assert recipe.windows.patch_size == (16, 16, 16)


def test_circular_inheritance_and_unknown_configurations_are_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    described = plans()
    described["configurations"]["3d_fullres"] = {"inherits_from": "3d_lowres"}
    (folder / "plans.json").write_text(json.dumps(described))
    with pytest.raises(InvalidBundle, match="in a circle: 3d_fullres -> 3d_lowres -> 3d_fullres"):
        read_nnunet(folder)
    del described["configurations"]["3d_fullres"]
    (folder / "plans.json").write_text(json.dumps(described))
    with pytest.raises(InvalidBundle, match="no configuration '3d_fullres'; it has 2d, 3d_cascade_fullres, 3d_lowres"):
        read_nnunet(folder)


def test_plans_of_2023_describe_the_same_network(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    new = read_nnunet(folder)[0][0].state_dict()
    described = plans()
    old = described["configurations"]["3d_fullres"]
    del old["architecture"]
    old.update(
        UNet_class_name="PlainConvUNet",
        UNet_base_num_features=4,
        unet_max_num_features=6,
        n_conv_per_stage_encoder=[1, 2, 1],
        n_conv_per_stage_decoder=[1, 1],
        conv_kernel_sizes=[[3] * 3] * 3,
        pool_op_kernel_sizes=[[1] * 3, [2] * 3, [2] * 3],
    )
    described["foreground_intensity_properties_by_modality"] = described.pop(
        "foreground_intensity_properties_per_channel"
    )
    (folder / "plans.json").write_text(json.dumps(described))
    old_dataset = dataset(modality={"0": "CT"})
    del old_dataset["channel_names"]
    (folder / "dataset.json").write_text(json.dumps(old_dataset))
    networks, recipe, _ = read_nnunet(folder)
    assert all(torch.equal(tensor, new[name]) for name, tensor in networks[0].state_dict().items())
    assert [channel.name for channel in recipe.channels] == ["CT"]


def test_two_dimensional_model_sees_a_volume_plane_by_plane(tmp_path: Path) -> None:
    networks, recipe, _ = read_nnunet(model_folder(tmp_path, "2d", mirror_axes=(0, 1)))
    assert isinstance(networks[0], SliceBySlice)
    assert recipe.windows.patch_size == (1, 16, 16)
    assert recipe.windows.mirror_axes == (1, 2)
    respace = recipe.preparation[-1]
    assert isinstance(respace, RespaceAsNnunet)
    assert respace.spacing_mm == (None, 2.0, 2.0)


def test_old_checkpoint_without_mirroring_axes_is_never_mirrored(tmp_path: Path) -> None:
    assert read_nnunet(model_folder(tmp_path, mirror_axes=None))[1].windows.mirror_axes == ()


@pytest.mark.parametrize(
    ("reader", "is_turned"),
    [("SimpleITKIO", False), ("NibabelIO", False), ("NibabelIOWithReorient", True), ("SimpleITKIOWithReorient", True)],
)
def test_readers_that_reorient_become_an_orientation(tmp_path: Path, reader: str, is_turned: bool) -> None:
    described = plans(image_reader_writer=reader, transpose_forward=[2, 0, 1])
    steps = read_nnunet(model_folder(tmp_path, plans_json=described))[1].preparation
    assert (Orient(axcodes="RAS") in steps) == is_turned
    assert [step.axes for step in steps if isinstance(step, Transpose)] == [(2, 1, 0), (2, 0, 1)]


def test_regions_are_painted_in_their_order(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    read = labels_of(dataset(labels=labels, regions_class_order=[1, 2, 3]), SOURCE)
    assert (read.decision, read.paint, read.foreground, read.n_outputs) == ("threshold", (1, 2, 3), (1, 2, 3), 3)
    assert read.scheme.classes == {1: "whole only", 2: "core only", 3: "enhancing"}
    assert read.scheme.regions == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    described = dataset(labels=labels, regions_class_order=[1, 2, 3])
    _, recipe, _ = read_nnunet(model_folder(tmp_path, dataset_json=described, sizes=(1, 3)))
    assert (recipe.output.activation, recipe.output.decision) == ("sigmoid", "threshold")
    with pytest.raises(InvalidBundle, match=r"regions_class_order must name a class for each of the 3 regions"):
        labels_of(dataset(labels=labels), SOURCE)


def test_ignore_label_has_no_output() -> None:
    read = labels_of(dataset(labels={"background": 0, "a": 1, "b": 2, "ignore": 3}), SOURCE)
    assert (read.paint, read.scheme.classes) == ((0, 1, 2), {1: "a", 2: "b"})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"a": 1}, "must name background as 0"),
        ({"background": 0, "ignore": 1}, "nothing to segment"),
        ({"background": 0, "a": 1, "b": 3}, r"consecutive numbers from 0.*got \[0, 1, 3\]"),
    ],
)
def test_labels_that_make_no_sense_are_refused(labels: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidBundle, match=message):
        labels_of(dataset(labels=labels), SOURCE)


def test_channels_and_masked_normalization(tmp_path: Path) -> None:
    described = plans()
    described["configurations"]["3d_fullres"].update(
        normalization_schemes=["ZScoreNormalization", "CTNormalization"], use_mask_for_norm=[True, True]
    )
    described["foreground_intensity_properties_per_channel"]["1"] = {
        "mean": 1.0, "std": 2.0, "percentile_00_5": 3.0, "percentile_99_5": 4.0
    }  # fmt: skip
    two = dataset(channel_names={"1": "CT", "0": "T1"})
    folder = model_folder(tmp_path, plans_json=described, dataset_json=two, sizes=(2, 2))
    _, recipe, _ = read_nnunet(folder)
    assert [channel.name for channel in recipe.channels] == ["T1", "CT"]
    normalize = next(step for step in recipe.preparation if isinstance(step, NormalizeAsNnunet))
    assert [(c.scheme, c.is_masked, c.mean) for c in normalize.channels] == [("zscore", True, 0.0), ("ct", False, 1.0)]
    assert CropNonzero(keeps_mask=True) in recipe.preparation
    (folder / "dataset.json").write_text(json.dumps(dataset()))
    with pytest.raises(InvalidBundle, match=r"dataset.json names 1 channel\(s\), plans.json normalizes 2"):
        read_nnunet(folder)


def test_torch_resampling_and_none_at_all(tmp_path: Path) -> None:
    described = plans()
    kwargs = {"is_seg": False, "force_separate_z": False, "memefficient_seg_resampling": False}
    for what in ("data", "probabilities"):
        described["configurations"]["3d_fullres"][f"resampling_fn_{what}"] = "resample_torch_fornnunet"
        described["configurations"]["3d_fullres"][f"resampling_fn_{what}_kwargs"] = kwargs
    recipe = read_nnunet(model_folder(tmp_path / "torch", plans_json=described))[1]
    respace = recipe.preparation[-1]
    assert isinstance(respace, RespaceAsNnunet)
    assert respace.is_torch
    assert respace.force_separate_z is False
    assert respace.back_force_separate_z is False
    assert not recipe.output.rounds_to_half
    for what in ("data", "probabilities"):
        described["configurations"]["3d_fullres"][f"resampling_fn_{what}"] = "no_resampling_hack"
    steps = read_nnunet(model_folder(tmp_path / "none", plans_json=described))[1].preparation
    assert not any(isinstance(step, RespaceAsNnunet) for step in steps)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preprocessor_name": "MyPreprocessor"}, "its own preprocessor"),
        ({"normalization_schemes": ["MyNormalization"]}, "normalization MyNormalization is not supported"),
        ({"resampling_fn_data": "my_resampling"}, "resampling by my_resampling is not supported"),
        ({"resampling_fn_probabilities": "no_resampling_hack"}, "must both be resampled or neither"),
        ({"resampling_fn_probabilities_kwargs": {"order": 3}}, "order 3; 0 and 1 are supported"),
        ({"architecture": {"network_class_name": "x.Primus", "arch_kwargs": {}}}, "network class x.Primus is not supp"),
        ({"architecture": architecture(norm_op="torch.nn.GroupNorm")}, "norm torch.nn.GroupNorm is not supported"),
        ({"architecture": architecture(nonlin="my.Swish")}, "activation my.Swish is not supported"),
        ({"architecture": architecture(strides=[1, 2])}, "incomplete or malformed"),
        (
            {"architecture": architecture(features_per_stage=[4, 8, 8])},
            "(?s)weights do not fit.*trainer nnUNetTrainer may",
        ),
    ],
)
def test_what_is_not_supported_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = model_folder(tmp_path)
    described = plans()
    described["configurations"]["3d_fullres"] = configuration(**changes)
    (folder / "plans.json").write_text(json.dumps(described))
    with pytest.raises(InvalidBundle, match=message):
        read_nnunet(folder)


def test_a_mirrored_axis_that_the_network_has_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidBundle, match=r"mirrors axes \(0, 3\) of a network of 3 dimensions"):
        read_nnunet(model_folder(tmp_path, mirror_axes=(0, 3)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_reader_writer": "NaturalImage2DIO"}, "for flat pictures"),
        ({"image_reader_writer": "MyReader"}, "image reader MyReader is not supported"),
        ({"label_manager": "MyLabels"}, "its own label manager"),
    ],
)
def test_plans_that_need_foreign_code_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = model_folder(tmp_path)
    (folder / "plans.json").write_text(json.dumps(plans(**changes)))
    with pytest.raises(InvalidBundle, match=message):
        read_nnunet(folder)


def test_unfinished_training_is_told_from_an_empty_folder(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    final = folder / "fold_0" / "checkpoint_final.pth"
    final.rename(final.with_name("checkpoint_best.pth"))
    with pytest.raises(
        InvalidBundle, match=r"no fold_\*/checkpoint_final.pth; there are only fold_0/checkpoint_best.pth"
    ):
        read_nnunet(folder)


def test_model_is_found_in_the_folders_around_it(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "Dataset999_Test")
    assert [find_nnunet_folder(path) for path in (tmp_path, folder.parent, folder)] == [folder] * 3
    assert load_segmenter(tmp_path, device="cpu").recipe.family == "nnunet"
    model_folder(tmp_path / "Dataset999_Test", "2d")
    with pytest.raises(InvalidBundle, match=r"several nnU-Net models lie there(.|\n)*__2d\n.*__3d_fullres"):
        find_nnunet_folder(tmp_path)


def test_model_of_version_1_is_named(tmp_path: Path) -> None:
    (tmp_path / "plans.pkl").write_bytes(b"")
    with pytest.raises(InvalidBundle, match="version 1"):
        load_segmenter(tmp_path, device="cpu")


def test_another_number_of_channels_in_the_scan_is_refused(tmp_path: Path) -> None:
    segmenter = load_segmenter(model_folder(tmp_path), device="cpu")
    scan = Volume(np.ones((2, 8, 8, 8), np.float32), Geometry((8, 8, 8), np.eye(4)), ("a", "b"))
    with pytest.raises(ChannelMismatch, match=r"wants 1 channel\(s\) \(CT\); the scan has 2"):
        segmenter.segment(scan)


def test_second_stage_of_a_cascade_needs_the_first_beside_it(tmp_path: Path) -> None:
    second = model_folder(tmp_path, "3d_cascade_fullres", sizes=(2, 2))
    with pytest.raises(
        InvalidBundle, match=r"needs the model of 3d_lowres first.*nnUNetTrainer__nnUNetPlans__3d_lowres"
    ):
        load_segmenter(second, device="cpu")
    first = model_folder(tmp_path, "3d_lowres")
    assert previous_stage_folder(second) == first
    segmenter = load_segmenter(second, device="cpu")
    assert segmenter.recipe.preparation[-1] == AppendPreviousStage(classes=(1,))
    assert segmenter.previous is not None
    assert segmenter.previous.recipe.name == "Dataset999_Test 3d_lowres"
    alone = read_nnunet(second)[2]
    assert segmenter.weights_sha256 not in (alone, segmenter.previous.weights_sha256)
    assert previous_stage_folder(first) is None


def test_cascade_prepares_what_its_network_takes(tmp_path: Path) -> None:
    model_folder(tmp_path, "3d_lowres")
    segmenter = load_segmenter(model_folder(tmp_path, "3d_cascade_fullres", sizes=(2, 2)), device="cpu")
    array = np.random.default_rng(0).normal(100, 50, (1, 20, 22, 24)).astype(np.float32)
    scan = Volume(array, Geometry((20, 22, 24), np.diag([2.0, 2.0, 2.0, 1.0])), ("CT",))
    prepared = prepare(scan, segmenter.recipe.preparation, previous=np.ones((20, 22, 24), np.uint8))
    assert prepared.image.shape == (2, 24, 22, 20)
    assert prepared.image[1].all()


def test_folder_moved_without_its_name_takes_the_configuration_of_the_checkpoint(tmp_path: Path) -> None:
    shutil.move(model_folder(tmp_path, "3d_lowres"), tmp_path / "renamed")
    assert read_nnunet(tmp_path / "renamed")[1].name == "Dataset999_Test 3d_lowres"


def test_splines_are_the_default_where_old_plans_name_no_function(tmp_path: Path) -> None:
    described = plans()
    for key in ("resampling_fn_data", "resampling_fn_probabilities"):
        assert described["configurations"]["3d_fullres"].pop(key) == SPLINES
    assert read_nnunet(model_folder(tmp_path, plans_json=described))[1].output.rounds_to_half


@pytest.mark.parametrize(("name", "sizes"), [("3d_fullres", (1, 2)), ("2d", (1, 2))])
def test_scan_is_segmented_on_its_own_grid(tmp_path: Path, name: str, sizes: tuple[int, int]) -> None:
    folder = model_folder(tmp_path, name, sizes=sizes, mirror_axes=(0, 1))
    segmenter = load_segmenter(folder, device="cpu", precision="exact")
    array = np.random.default_rng(0).normal(100, 50, (1, 22, 20, 18)).astype(np.float32)
    scan = Volume(array, Geometry((22, 20, 18), np.diag([1.5, 2.5, 3.0, 1.0])), ("CT",))
    semantic, _ = segmenter.segment(scan)
    assert semantic.geometry is scan.geometry
    assert 0 < np.count_nonzero(semantic.array) < semantic.array.size


def test_second_stage_sees_the_map_of_the_first(tmp_path: Path) -> None:
    model_folder(tmp_path, "3d_lowres")
    segmenter = load_segmenter(model_folder(tmp_path, "3d_cascade_fullres", sizes=(2, 2)), device="cpu")
    array = np.random.default_rng(0).normal(100, 50, (1, 20, 22, 24)).astype(np.float32)
    scan = Volume(array, Geometry((20, 22, 24), np.diag([2.0, 2.0, 2.0, 1.0])), ("CT",))
    cascade = segmenter.segment(scan)[0].array
    assert segmenter.previous is not None
    before = segmenter.previous.segment(scan)[0].array
    segmenter.previous = None
    prepared = prepare(scan, segmenter.recipe.preparation, previous=before)
    assert np.array_equal(prepared.image[1], before.transpose(2, 1, 0))
    assert 0 < np.count_nonzero(cascade) < cascade.size
    with pytest.raises(InvalidPlan, match="needs the class map of the first"):
        segmenter.segment(scan)
