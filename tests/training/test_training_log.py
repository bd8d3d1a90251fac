"""TensorBoard's events of a training, read by TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.training.training_log import TrainingLog, read_log


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a folder: steps and values by name."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {name: [(e.step, round(e.value, 5)) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def write(folder: Path, first_step: int, records: dict[int, dict[str, float | bool]]) -> None:
    with TrainingLog(folder, first_step) as log:
        for step, values in records.items():
            log.write(step, values)


def test_tensorboard_shows_the_log_without_times(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    write(tmp_path, 0, {50: {"loss": 1.5, "learning_rate": 0.002, "seconds": 9.0}})
    write(tmp_path, 50, {100: {"loss": 1.25, "dice": 0.5, "lesion_f1": 0.25, "is_best": True}})
    assert shown(tmp_path) == {
        "loss": [(50, 1.5), (100, 1.25)],
        "learning_rate": [(50, 0.002)],
        "dice": [(100, 0.5)],
        "lesion_f1": [(100, 0.25)],
    }


def test_tensorboard_forgets_what_a_killed_run_logged_after_its_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    write(tmp_path, 0, {50: {"loss": 3.0}, 100: {"loss": 9.0}, 150: {"loss": 9.0}})
    write(tmp_path, 60, {100: {"loss": 2.0}})
    assert shown(tmp_path)["loss"] == [(50, 3.0), (100, 2.0)]
    assert [record["loss"] for record in read_log(tmp_path)] == [3.0, 2.0]
    write(tmp_path, 0, {50: {"loss": 1.0}})  # started anew
    assert shown(tmp_path)["loss"] == [(50, 1.0)]
