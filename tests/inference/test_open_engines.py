"""The choice of an engine: measured once, kept, checked against plain torch, the same in every run."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from medseg.errors import UnsupportedOperator
from medseg.inference import warm_up
from medseg.inference.candidates import Candidate
from medseg.inference.device import multiplies_bfloat16
from medseg.inference.engine import TorchEngine
from medseg.inference.engine_memory import Choice, choice_key, choices_path, recall, remember
from medseg.inference.engine_openvino import has_openvino
from medseg.inference.open_engines import open_engine, open_engines
from medseg.inference.warm_up import choose, disagreement
from tests.inference.engines import CPU, Mixer, Voxelwise
from tests.inference.test_engines import error, noise, plain, residual_net

needs_openvino = pytest.mark.skipif(not has_openvino(), reason="openvino is not installed")
needs_bfloat16 = pytest.mark.skipif(not multiplies_bfloat16(), reason="the processor has no bfloat16")
WINDOW = (1, 16, 16, 16)
CHOICE = Choice(candidate=Candidate(engine="torch", precision="float32", layers="fast"), seconds_per_window=0.5)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "medseg" / "engines.json"


@pytest.fixture
def worth_choosing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks are measured too, as large ones are."""
    monkeypatch.setattr(warm_up, "_NOT_WORTH_IT_S", 0.0)
    monkeypatch.setattr(warm_up, "_LEAST_TIMED_S", 0.01)


class Amplifies(nn.Module):
    """A difference of large numbers: bfloat16 rounds it away."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv3d(1, 2, 1)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return (self.layer(windows) + 1000.0) - 1000.0


@pytest.mark.usefixtures("worth_choosing")
def test_the_choice_is_measured_once_and_taken_from_the_file_then(own_cache: Path) -> None:
    network = residual_net()
    first = open_engine(network, device=CPU, window=WINDOW)
    content = json.loads(own_cache.read_text())
    (key,) = content["choices"]
    assert first.seconds_per_window == pytest.approx(content["choices"][key]["seconds_per_window"])
    content["choices"][key]["candidate"] = {"engine": "torch", "precision": "float32", "layers": "own"}
    content["choices"][key]["seconds_per_window"] = 12.5
    own_cache.write_text(json.dumps(content))
    second = open_engine(network, device=CPU, window=WINDOW)
    assert (second.name, second.precision, second.seconds_per_window) == ("torch", "float32", 12.5)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"schema": 1}',
        '{"schema": 1, "choices": []}',
        '{"schema": 99, "choices": {"KEY": {}}}',
        '{"schema": 1, "choices": {"KEY": {"candidate": {"engine": "rm", "precision": "float32"}}}}',
        '{"schema": 1, "choices": {"KEY": {"candidate": {"engine": "torch", "precision": "float32"}, '
        '"seconds_per_window": NaN}}}',
        "[" * 100_000,
    ],
)
def test_a_file_that_makes_no_sense_counts_as_empty_and_is_written_anew(own_cache: Path, content: str) -> None:
    own_cache.parent.mkdir(parents=True)
    own_cache.write_text(content)
    assert recall("KEY") is None
    assert remember("KEY", CHOICE) == CHOICE
    assert recall("KEY") == CHOICE


def test_bytes_that_are_no_text_count_as_empty(own_cache: Path) -> None:
    own_cache.parent.mkdir(parents=True)
    own_cache.write_bytes(b"\xff\xfe\x00garbage")
    assert recall("KEY") is None


def test_the_first_run_that_keeps_its_choice_wins() -> None:
    other = CHOICE.model_copy(update={"seconds_per_window": 9.0})
    assert remember("KEY", CHOICE) == CHOICE
    assert remember("KEY", other) == CHOICE
    assert recall("KEY") == CHOICE


def test_choices_of_other_networks_stay_and_the_oldest_go() -> None:
    for number in range(205):
        remember(f"key {number}", CHOICE)
    assert recall("key 4") is None
    assert recall("key 5") == CHOICE
    assert recall("key 204") == CHOICE


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert remember("KEY", CHOICE) == CHOICE
    assert recall("KEY") is None


def test_a_relative_cache_home_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert choices_path() == tmp_path / ".cache" / "medseg" / "engines.json"


def test_the_key_depends_on_weights_window_request_and_threads() -> None:
    network = residual_net()
    keys = [choice_key(network, WINDOW, "a"), choice_key(network, (1, 8, 8, 8), "a"), choice_key(network, WINDOW, "b")]
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] += 1e-3
    keys.append(choice_key(network, WINDOW, "a"))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    keys.append(choice_key(network, WINDOW, "a"))
    torch.set_num_threads(threads)
    assert len(set(keys)) == 5
    assert choice_key(residual_net(), WINDOW, "a") == keys[0]


@needs_bfloat16
@pytest.mark.usefixtures("worth_choosing")
def test_bfloat16_is_left_out_where_it_changes_the_answer_and_that_is_told() -> None:
    network = Amplifies()
    opened = open_engines([network], device=CPU, engine="torch", window=WINDOW)
    assert opened.precision == "float32"
    assert any("bfloat16 with fast layers was left out: it differs from plain float32" in note for note in opened.notes)
    windows = noise(1, *WINDOW)
    assert error(opened.engines[0](windows)["semantic"], plain(network, windows)) < 1e-3
    assert (
        open_engines([network], device=CPU, engine="torch", window=WINDOW).notes == opened.notes
    )  # also from the file


@needs_bfloat16
@pytest.mark.usefixtures("worth_choosing")
def test_bfloat16_that_was_asked_for_by_name_is_used() -> None:
    assert open_engine(residual_net(), device=CPU, precision="bfloat16", window=WINDOW).precision == "bfloat16"


@needs_openvino
@pytest.mark.usefixtures("worth_choosing")
def test_what_openvino_cannot_run_is_noted_and_torch_runs_it() -> None:
    class Exponential(nn.Module):
        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            return torch.linalg.matrix_exp(windows * 0.01)

    opened = open_engines([Exponential()], device=CPU, precision="float32", window=WINDOW)
    assert opened.name == "torch"
    assert any(note.startswith("engine openvino float32 was left out: it does not run") for note in opened.notes)
    with pytest.raises(UnsupportedOperator):
        open_engine(Exponential(), device=CPU, engine="openvino", precision="float32", window=WINDOW)(noise(1, *WINDOW))


@pytest.mark.usefixtures("worth_choosing")
def test_own_layers_stand_in_where_fast_ones_do_not_run() -> None:
    """There the place inside the window is float32, and times that a half-precision window is none any more."""

    class MixesTypes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv3d(1, 2, 3, padding=1)

        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            return self.layer(windows * torch.linspace(0, 1, windows.shape[2])[:, None, None])

    candidates = [Candidate(engine="torch", precision="bfloat16", layers=layers) for layers in ("fast", "own")]
    choice = choose(MixesTypes(), candidates, WINDOW)
    assert choice.candidate == candidates[1]
    assert "does not run" in choice.notes[0]


def test_a_tiny_network_runs_as_it_is() -> None:
    opened = open_engines([Voxelwise()], device=CPU, window=WINDOW)
    assert (opened.name, opened.precision, opened.notes) == ("torch", "float32", ())


@pytest.mark.usefixtures("worth_choosing")
def test_a_large_window_is_measured_on_half_its_sides_unless_the_network_refuses() -> None:
    seen: list[tuple[int, ...]] = []

    class Records(Mixer):
        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(windows.shape[2:]))
            if windows.shape[2] % 16:
                raise RuntimeError("sides must be divisible by 16")
            return super().forward(windows)

    candidate = [Candidate(engine="torch", precision="float32")]
    choose(Records(), candidate, (1, 128, 32, 16))
    assert set(seen) == {(64, 32, 16)}
    seen.clear()
    choose(Records(), candidate, (1, 144, 32, 16))
    assert seen[0] == (72, 32, 16)
    assert set(seen[1:]) == {(144, 32, 16)}


def test_a_network_that_fails_everywhere_raises_its_own_error() -> None:
    class Broken(nn.Module):
        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("broken on purpose")

    with pytest.raises(RuntimeError, match="broken on purpose"):
        open_engines([Broken()], device=CPU, window=WINDOW)


def test_disagreement_names_what_is_wrong() -> None:
    truth = {"semantic": noise(1, 3, 8, 8, 8)}
    assert disagreement(truth, truth, "float32") is None
    assert "names or shapes" in str(disagreement({"other": truth["semantic"]}, truth, "float32"))
    assert "1.0e-02" in str(disagreement({"semantic": truth["semantic"] * 1.01}, truth, "float32"))
    assert disagreement({"semantic": truth["semantic"] * 1.01}, truth, "bfloat16") is None
    assert "nan" in str(disagreement({"semantic": truth["semantic"] * float("nan")}, truth, "bfloat16"))


def test_turned_classes_are_seen_where_the_logits_hide_them() -> None:
    truth = noise(1, 3, 16, 16, 16)
    truth[:, 0] += 100.0
    truth[:, 1] += 130.0
    turned = truth.clone()
    turned[:, :2, 0, :2] = truth[:, :2].flip(1)[:, :, 0, :2]
    assert "of clear voxels" in str(disagreement({"semantic": turned}, {"semantic": truth}, "bfloat16"))


@pytest.mark.usefixtures("worth_choosing")
@pytest.mark.parametrize(("n_windows", "chosen"), [(1, "torch"), (100, "openvino")])
def test_an_engine_that_is_long_in_starting_is_taken_for_many_windows(
    monkeypatch: pytest.MonkeyPatch, n_windows: int, chosen: str
) -> None:
    def work(seconds: float) -> None:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    class Timed(TorchEngine):
        def __init__(self, network: nn.Module, candidate: Candidate) -> None:
            super().__init__(network, CPU, "exact")
            self._seconds = 0.05 if candidate.engine == "torch" else 0.02
            work(0.0 if candidate.engine == "torch" else 0.4)

        def __call__(self, windows: torch.Tensor) -> dict[str, torch.Tensor]:
            work(self._seconds)
            return super().__call__(windows)

    monkeypatch.setattr(warm_up, "build", lambda network, candidate, _: Timed(network, candidate))
    names: tuple[Literal["torch", "openvino"], ...] = ("torch", "openvino")
    candidates = [Candidate(engine=name, precision="float32") for name in names]
    assert choose(Mixer(), candidates, WINDOW, n_windows).candidate.engine == chosen


@pytest.mark.usefixtures("worth_choosing")
def test_every_fold_gets_an_engine_of_its_own_weights() -> None:
    folds = [Mixer(seed=0), Mixer(seed=1)]
    engines = open_engines(folds, device=CPU, precision="float32", window=WINDOW).engines
    windows = noise(1, *WINDOW)
    for fold, engine in zip(folds, engines, strict=True):
        assert error(engine(windows)["semantic"], plain(fold, windows)) < 1e-4


def test_the_cache_of_the_tests_is_not_the_users() -> None:
    assert Path(os.environ["XDG_CACHE_HOME"]) != Path.home() / ".cache"
