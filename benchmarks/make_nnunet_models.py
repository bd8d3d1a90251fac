"""Make small nnU-Net v2 model folders with nnU-Net's own planner, preprocessor and trainer.

Run by the Python of an environment that has `nnunetv2` (medseg is not needed there):

    PYTHON_OF_NNUNET benchmarks/make_nnunet_models.py OUT [--presets plain regions ...]

Each preset ends as `OUT/PRESET/nnUNetTrainer__nnUNetPlans__CONFIGURATION`, and one unseen scan for it as
`OUT/scans/PRESET/case_0000.nii.gz`. Networks are tiny and trained for a few minutes on synthetic phantoms, long enough
for a real foreground; "full" has nnU-Net's standard size, and is trained on smaller patches than it predicts with.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Preset:
    """What one model folder is made of; axes in nnU-Net's order (z, y, x)."""

    number: int
    shape: tuple[int, int, int] = (80, 80, 80)
    spacing: tuple[float, float, float] = (2.0, 2.0, 2.0)
    unseen_spacing: tuple[float, float, float] = (2.6, 1.7, 1.7)
    channels: tuple[str, ...] = ("CT",)
    labels: dict = field(default_factory=lambda: {"background": 0, "lesion": 1})
    regions_class_order: tuple[int, ...] = ()
    planner: str = "ExperimentPlanner"
    patch: tuple[int, int, int] = (48, 48, 48)
    stages: int = 4
    base_features: int = 8
    configurations: tuple[str, ...] = ("3d_fullres",)
    folds: int = 1
    iterations: int = 30
    training_patch: tuple[int, int, int] | None = None  # where it is not the patch
    torch_resampling: bool = False
    is_brain: bool = False


PRESETS = {
    "plain": Preset(901, folds=2),
    "resenc": Preset(902, planner="ResEncUNetPlanner"),
    "regions": Preset(903, labels={"background": 0, "whole": [1, 2], "core": [2]}, regions_class_order=(1, 2)),
    "two_channel": Preset(904, channels=("T1", "FLAIR"), is_brain=True),
    "anisotropic": Preset(
        905, shape=(24, 96, 96), spacing=(6.0, 1.5, 1.5), unseen_spacing=(5.0, 1.2, 1.2), patch=(16, 64, 64)
    ),
    "sagittal": Preset(
        906, shape=(96, 96, 24), spacing=(1.5, 1.5, 6.0), unseen_spacing=(1.3, 1.3, 5.0), patch=(16, 64, 64)
    ),
    "torch_resampling": Preset(907, torch_resampling=True),
    "slices": Preset(908, configurations=("2d",), patch=(64, 64, 64), iterations=60),
    "cascade": Preset(909, configurations=("3d_lowres", "3d_cascade_fullres")),
    "full": Preset(
        910,
        shape=(160, 160, 160),
        patch=(128, 128, 128),
        training_patch=(64, 64, 64),
        stages=6,
        base_features=32,
        iterations=150,
    ),
}
N_CASES = 5


def phantom(preset: Preset, seed: int, spacing: tuple[float, ...]) -> tuple[list[np.ndarray], np.ndarray]:
    """Channels (z, y, x) float32 and labels of a body with bright lesions, some with a brighter core."""
    rng = np.random.default_rng(seed)
    shape = tuple(round(n * s / t) for n, s, t in zip(preset.shape, preset.spacing, spacing, strict=True))
    extent = np.array(shape) * spacing
    along = [(np.arange(n) + 0.5) * s - e / 2 for n, s, e in zip(shape, spacing, extent, strict=True)]
    grid = np.stack(np.meshgrid(*along, indexing="ij"))
    share = 0.36 if preset.is_brain else 0.46
    body = ((grid / (share * extent).reshape(3, 1, 1, 1)) ** 2).sum(0) < 1
    label = np.zeros(shape, np.uint8)
    for _ in range(10):
        center = rng.uniform(-0.6, 0.6, 3) * share * extent
        radius = rng.uniform(8, 20, 3)
        distance = (((grid - center.reshape(3, 1, 1, 1)) / radius.reshape(3, 1, 1, 1)) ** 2).sum(0)
        label[(distance < 1) & body & (label == 0)] = 1
        label[(distance < 0.35) & body] = 2
    base = np.where(body, 40.0, 0.0 if preset.is_brain else -1000.0)
    lesion = 260.0 * (label > 0) + 300.0 * (label == 2)
    noise = 25 * rng.standard_normal((len(preset.channels), *shape))
    images = [
        np.where(body | (not preset.is_brain), base + lesion * (1 - 0.3 * c) + n, 0.0) for c, n in enumerate(noise)
    ]
    if not preset.regions_class_order:
        label = np.minimum(label, 1)
    return [image.astype(np.float32) for image in images], label


def write_case(folder: Path, name: str, images: list[np.ndarray], spacing: tuple[float, ...]) -> None:
    """Write one file a channel, named as nnU-Net wants it."""
    for number, image in enumerate(images):
        write_image(folder / f"{name}_{number:04d}.nii.gz", image, spacing)


def write_image(path: Path, array: np.ndarray, spacing: tuple[float, ...]) -> None:
    """Write an array (z, y, x) as NIfTI."""
    import SimpleITK

    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in spacing[::-1]])
    SimpleITK.WriteImage(image, str(path))


def make_dataset(preset: Preset, raw: Path) -> dict:
    """Write the training set; returns its dataset.json."""
    for seed in range(N_CASES):
        images, label = phantom(preset, seed, preset.spacing)
        write_case(raw / "imagesTr", f"case{seed}", images, preset.spacing)
        write_image(raw / "labelsTr" / f"case{seed}.nii.gz", label, preset.spacing)
    dataset = {
        "channel_names": {str(number): name for number, name in enumerate(preset.channels)},
        "labels": preset.labels,
        "numTraining": N_CASES,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    if preset.regions_class_order:
        dataset["regions_class_order"] = list(preset.regions_class_order)
    (raw / "dataset.json").write_text(json.dumps(dataset, indent=2))
    return dataset


def plan(preset: Preset, preprocessed: Path) -> tuple[dict, Path]:
    """Plan with nnU-Net's planner, then make networks and patches as small as the preset says."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments

    set_environment("nnUNet_n_proc_DA", "1")  # planning sets this number of threads: 0 would crash it
    extract_fingerprints([preset.number], num_processes=1, show_progress_bar=False)
    identifier = plan_experiments([preset.number], preset.planner)
    path = preprocessed / f"{identifier}.json"
    plans = json.loads(path.read_text())
    configurations = plans["configurations"]
    if "3d_lowres" in preset.configurations:
        add_cascade(configurations)
    for configuration in configurations.values():
        if "architecture" in configuration:
            shrink(configuration, preset)
    path.write_text(json.dumps(plans, indent=2))
    return plans, path


def add_cascade(configurations: dict) -> None:
    """The planner plans a cascade for large images only."""
    full = configurations["3d_fullres"]
    lowres = json.loads(json.dumps(full))
    lowres.update(
        data_identifier="nnUNetPlans_3d_lowres",
        spacing=[s * 1.5 for s in full["spacing"]],
        next_stage="3d_cascade_fullres",
    )
    configurations["3d_lowres"] = lowres
    configurations["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}


def shrink(configuration: dict, preset: Preset) -> None:
    """Fewer stages and features, a smaller patch, and torch resampling where it is asked for."""
    arguments = configuration["architecture"]["arch_kwargs"]
    n = min(preset.stages, arguments["n_stages"])
    arguments["n_stages"] = n
    highest = 320 if preset.base_features == 32 else 8 * preset.base_features
    arguments["features_per_stage"] = [min(preset.base_features * 2**level, highest) for level in range(n)]
    for key in ("kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage"):
        if key in arguments:
            arguments[key] = arguments[key][:n]
    arguments["n_conv_per_stage_decoder"] = arguments["n_conv_per_stage_decoder"][: n - 1]
    patch = preset.training_patch or preset.patch
    configuration["patch_size"] = list(patch[-len(configuration["patch_size"]) :])
    configuration["batch_size"] = 2
    if preset.torch_resampling:
        for what in ("data", "seg", "probabilities"):
            configuration[f"resampling_fn_{what}"] = "resample_torch_fornnunet"
            configuration[f"resampling_fn_{what}_kwargs"] = {
                "is_seg": what == "seg",
                "force_separate_z": False,
                "memefficient_seg_resampling": False,
            }


def set_environment(name: str, value: str) -> None:
    """Set a variable that nnU-Net reads."""
    os.environ[name] = value


def train(preset: Preset, plans: dict, dataset: dict, configuration: str, fold: int) -> Path:
    """Train one fold of one configuration; returns the model folder."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    set_environment("nnUNet_n_proc_DA", "0")  # augmentation in this process
    torch.manual_seed(fold)
    np.random.seed(fold)  # noqa: NPY002 (what nnU-Net augments with)
    plans = {**json.loads(json.dumps(plans)), "continue_training": False}  # nnUNetTrainer 2.8 takes it out again
    trainer = nnUNetTrainer(plans, configuration, fold, dataset, device=torch.device("cpu"))
    trainer.num_epochs = 3
    trainer.num_iterations_per_epoch = preset.iterations // trainer.num_epochs
    trainer.num_val_iterations_per_epoch = 1
    trainer.oversample_foreground_percent = 1.0
    trainer.run_training()
    if preset.training_patch:
        predict_in(preset.patch, Path(trainer.output_folder_base) / "plans.json", configuration)
    if plans["configurations"][configuration].get("next_stage"):
        write_for_next_stage(trainer, Path(trainer.preprocessed_dataset_folder))
    return Path(trainer.output_folder_base)


def predict_in(patch: tuple[int, int, int], plans_file: Path, configuration: str) -> None:
    """Name another patch in a model folder: the network, all convolutions, takes it."""
    plans = json.loads(plans_file.read_text())
    plans["configurations"][configuration]["patch_size"] = list(patch)
    plans_file.write_text(json.dumps(plans, indent=2))


def write_for_next_stage(trainer, preprocessed: Path) -> None:
    """Where nnU-Net would put its cross-validated predictions: the label itself, so that no five folds are needed."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    target = Path(trainer.output_folder_base) / "predicted_next_stage" / "3d_cascade_fullres"
    target.mkdir(parents=True, exist_ok=True)
    full = str(preprocessed).replace("3d_lowres", "3d_fullres")
    dataset = nnUNetDatasetBlosc2(full)
    for case in dataset.identifiers:
        label = np.maximum(np.asarray(dataset.load_case(case)[1][0]), 0).astype(np.uint8)
        nnUNetDatasetBlosc2.save_seg(label, str(target / case))


def make(name: str, out: Path) -> None:
    """Make one preset."""
    preset, started = PRESETS[name], time.process_time()
    dataset_name = f"Dataset{preset.number}_{name}"
    work = out / "work"
    raw, preprocessed = work / "raw" / dataset_name, work / "preprocessed" / dataset_name
    dataset = make_dataset(preset, raw)
    plans, path = plan(preset, preprocessed)
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset

    stored = [c for c in preset.configurations if "inherits_from" not in plans["configurations"][c]]
    if "3d_cascade_fullres" in preset.configurations:
        stored.append("3d_fullres")
    preprocess_dataset(preset.number, path.stem, stored, [1] * len(stored), show_progress_bar=False)
    for configuration in preset.configurations:
        for fold in range(preset.folds):
            folder = train(preset, plans, dataset, configuration, fold)
        kept = out / name / folder.name
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("validation", "checkpoint_best.pth"))
    images, label = phantom(preset, 1000, preset.unseen_spacing)
    write_case(out / "scans" / name, "case", images, preset.unseen_spacing)
    write_image(out / "truth" / f"{name}.nii.gz", label, preset.unseen_spacing)
    print(f"{name}: {time.process_time() - started:.0f} CPU seconds", flush=True)


def main() -> None:
    """Make the presets asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--presets", nargs="+", choices=sorted(PRESETS), default=list(PRESETS))
    arguments = parser.parse_args()
    work = arguments.out.resolve() / "work"
    for kind in ("raw", "preprocessed", "results"):
        (work / kind).mkdir(parents=True, exist_ok=True)
        set_environment(f"nnUNet_{kind}", str(work / kind))
    set_environment("nnUNet_def_n_proc", "1")
    import torch

    torch.set_num_threads(min(2, os.cpu_count() or 1))
    for name in arguments.presets:
        make(name, arguments.out.resolve())


if __name__ == "__main__":
    main()
