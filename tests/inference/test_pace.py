"""How long a run takes is said in words, before most of it has run."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.core.monitor import Monitor
from medseg.core.recipe import recipe_of
from medseg.core.volume import Volume
from medseg.inference.options import RunOptions
from medseg.inference.pace import Pace, in_words
from medseg.inference.segmenter import Segmenter
from tests.plans import BrighterThan, tiny_plan


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (89, "89 s"), (91, "2 min"), (240, "4 min"), (5300, "88 min"), (5600, "1 h 33 min")],
)
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_the_estimate_names_what_flips_cost_or_save() -> None:
    assert Pace(27, 1, 8).estimate(9.0) == "about 4 min; with test-time flips 32 min"
    assert Pace(27, 8, 8).estimate(72.0) == "about 32 min; without test-time flips 4 min"
    assert Pace(10, 1, 1).estimate(2.0) == "about 20 s"


class Hearing:
    """Progress that also takes remarks."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.said.append(f"{stage} {done}/{total}")

    def remark(self, text: str) -> None:
        self.said.append(text)


def segmented(options: RunOptions, family: str) -> tuple[list[str], tuple[str, ...]]:
    recipe = recipe_of(tiny_plan(mirror_axes=(0, 1))).model_copy(update={"family": family})
    volume = Volume(
        np.zeros((1, 40, 20, 20), np.float32), Geometry((40, 20, 20), np.diag([4.0, 4.0, 4.0, 1.0])), ("PET",)
    )
    hearing = Hearing()
    _, notes = Segmenter(BrighterThan(5.0), recipe, device="cpu", options=options).segment(volume, Monitor(hearing))
    return hearing.said, notes


def test_the_estimate_comes_after_the_first_batch_of_windows() -> None:
    said, _ = segmented(RunOptions(), "medseg")
    remark = next(number for number, text in enumerate(said) if text.startswith("network: about"))
    assert "network 0/" in said[remark - 1]
    assert "without test-time flips" in said[remark]


@pytest.mark.parametrize(
    ("family", "mirror", "are_left_out"),
    [("medseg", None, False), ("nnunet", None, True), ("nnunet", True, False), ("medseg", False, True)],
)
def test_flips_are_left_out_on_a_cpu_for_models_of_others_only(
    family: str, mirror: bool | None, are_left_out: bool
) -> None:
    said, notes = segmented(RunOptions(mirror=mirror), family)
    assert ("test-time flips were left out" in notes) == are_left_out
    assert any(("; with test-time flips" in text) == are_left_out for text in said if text.startswith("network: about"))
