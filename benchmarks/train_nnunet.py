"""Train nnU-Net v2 by its own plan and trainer for a budget of processor time, fold by fold, and predict by it.

Run by the Python of an environment that has `nnunetv2` (medseg is not needed there); `accuracy_training.py` calls it:

    PYTHON_OF_NNUNET benchmarks/train_nnunet.py WORK prepare
    PYTHON_OF_NNUNET benchmarks/train_nnunet.py WORK train FOLD --budget-minutes 20
    PYTHON_OF_NNUNET benchmarks/train_nnunet.py WORK predict FOLD

`WORK/nnUNet_raw/Dataset951_training` holds the cases as nnU-Net wants them, `splits_final.json` beside them the folds.
Fingerprint, plan, preprocessing, network, loss, optimizer, augmentation, sampling, sliding window and mirroring are
nnU-Net's own. What differs: training ends when the budget is spent, the learning rate falls (by nnU-Net's own rule)
with the share of the budget that is spent instead of with epochs, and no part of the budget goes into nnU-Net's checks
on validation patches, because its final weights do not depend on them. One process does all, so that its processor
time is all there is. A training that was killed goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import time
from pathlib import Path

DATASET_NUMBER = 951
DATASET = f"Dataset{DATASET_NUMBER}_training"
CONFIGURATION = "3d_fullres"
CHECKPOINT_EVERY_S = 90.0
FINAL = "checkpoint_final.pth"


def cpu_s() -> float:
    """Processor seconds of this process so far, and of those that it started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def write(record: dict, path: Path) -> None:
    """Write JSON, all of it or nothing."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(record, indent=2))
    draft.replace(path)


def prepare(work: Path) -> None:
    """Fingerprint, plan and preprocess by nnU-Net's own rules."""
    os.environ["nnUNet_n_proc_DA"] = "1"  # noqa: SIM112 (nnU-Net's name); planning sets so many threads: 0 crashes it
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess_dataset,
    )

    extract_fingerprints([DATASET_NUMBER], num_processes=1, check_dataset_integrity=True, show_progress_bar=False)
    identifier = plan_experiments([DATASET_NUMBER])
    preprocess_dataset(DATASET_NUMBER, identifier, (CONFIGURATION,), [1], show_progress_bar=False)
    preprocessed = work / "nnUNet_preprocessed" / DATASET
    shutil.copy(work / "nnUNet_raw" / DATASET / "splits_final.json", preprocessed)
    plans = json.loads((preprocessed / f"{identifier}.json").read_text())
    write({"cpu_s": cpu_s(), "plan": plans["configurations"][CONFIGURATION]}, work / "prepared.json")


def make_trainer(work: Path, fold: int, budget_s: float):
    """nnU-Net's trainer, which ends when the budget is spent."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    class Trainer(nnUNetTrainer):
        """The same, by processor time instead of epochs."""

        def run_training(self) -> None:
            """Train; what is spent and done is kept with the weights."""
            self.on_train_start()
            record = self.logger.local_logger.my_fantastic_logging  # goes into the checkpoint
            before, iterations = record.get("budget_spent_s", 0.0), record.get("iterations", 0)
            spent = before + cpu_s()
            saved = spent
            self.network.train()
            while spent < budget_s:
                for group in self.optimizer.param_groups:
                    group["lr"] = self.initial_lr * (1 - spent / budget_s) ** 0.9
                loss = float(self.train_step(next(self.dataloader_train))["loss"])
                iterations += 1
                spent = before + cpu_s()
                record.update(budget_spent_s=spent, iterations=iterations)
                if spent - saved > CHECKPOINT_EVERY_S:
                    self.save_checkpoint(str(latest))
                    saved = spent
                    print(f"fold {fold}: {iterations} iterations, {spent:.0f} s, loss {loss:.3f}", flush=True)
            self.current_epoch = 1
            self.on_train_end()
            write({"cpu_s": before + cpu_s(), "iterations": iterations}, work / f"trained_{fold}.json")

        def save_checkpoint(self, filename: str) -> None:
            """All of it or nothing."""
            super().save_checkpoint(filename + ".draft")
            os.replace(filename + ".draft", filename)

    Trainer.__name__ = nnUNetTrainer.__name__  # a model folder that needs no trainer but nnU-Net's to be run
    preprocessed = work / "nnUNet_preprocessed" / DATASET
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    dataset = json.loads((preprocessed / "dataset.json").read_text())
    plans["continue_training"] = False
    trainer = Trainer(plans, CONFIGURATION, fold, dataset, device=torch.device("cpu"))
    latest = Path(trainer.output_folder) / "checkpoint_latest.pth"
    if latest.is_file():
        trainer.load_checkpoint(str(latest))
    return trainer


def train(work: Path, fold: int, budget_s: float) -> None:
    """Train one fold, or go on with it."""
    os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112 (nnU-Net's name); augmentation in this process
    import numpy as np
    import torch

    trainer = make_trainer(work, fold, budget_s)
    done = trainer.logger.local_logger.my_fantastic_logging.get("iterations", 0)
    torch.manual_seed(fold + 1000 * done)
    np.random.seed(fold + 1000 * done)  # noqa: NPY002 (what nnU-Net augments with)
    trainer.run_training()


def predict(work: Path, fold: int) -> None:
    """Predict the held-out patients with nnU-Net's own sliding window and mirroring."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    model = work / "nnUNet_results" / DATASET / f"nnUNetTrainer__nnUNetPlans__{CONFIGURATION}"
    raw = work / "nnUNet_raw" / DATASET
    held_out = json.loads((raw / "splits_final.json").read_text())[fold]["val"]
    (work / "predicted").mkdir(exist_ok=True)
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (fold,), FINAL)
    predictor.predict_from_files_sequential(
        [[str(raw / "imagesTr" / f"{case}_0000.nii.gz")] for case in held_out],
        [str(work / "predicted" / case) for case in held_out],
    )
    write({"cpu_s": cpu_s(), "cases": held_out}, work / f"predicted_{fold}.json")


def main() -> None:
    """Do one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("part", choices=("prepare", "train", "predict"))
    parser.add_argument("fold", type=int, nargs="?", default=0)
    parser.add_argument("--budget-minutes", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    for kind in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (work / kind).mkdir(parents=True, exist_ok=True)
        os.environ[kind] = str(work / kind)
    os.environ["nnUNet_def_n_proc"] = "1"  # noqa: SIM112 (nnU-Net's name)
    import torch

    torch.set_num_threads(arguments.threads)
    if arguments.part == "prepare":
        prepare(work)
    elif arguments.part == "train":
        train(work, arguments.fold, 60 * arguments.budget_minutes)
    else:
        predict(work, arguments.fold)


if __name__ == "__main__":
    main()
