"""A recipe says how a model is run; a plan's recipe follows from it."""

from __future__ import annotations

import hashlib
import json

import pytest
from pydantic import ValidationError

from medseg.core.plan import with_changes
from medseg.core.recipe import OutputPlan, Recipe, recipe_of
from medseg.core.steps import MapIntensities, Orient, Respace
from tests.plans import IDENTITY, tiny_plan


def test_steps_of_a_plan_are_orientation_then_spacing_then_intensities() -> None:
    recipe = recipe_of(tiny_plan(spacing_mm=(2.0, 3.0, 4.0), orientation="LPS", n_channels=2))
    assert recipe.preparation == (
        Orient(axcodes="LPS"),
        Respace(spacing_mm=(2.0, 3.0, 4.0)),
        MapIntensities(channels=(IDENTITY, IDENTITY)),
    )
    assert [type(step) for step in recipe_of(tiny_plan(spacing_mm=None)).preparation] == [Orient, MapIntensities]


def test_windows_shrink_to_what_the_strides_allow() -> None:
    windows = recipe_of(tiny_plan(mirror_axes=(0, 2))).windows
    assert windows.shrinks
    assert windows.divisor == (4, 4, 4)
    assert windows.mirror_axes == (0, 2)


def test_recipe_round_trips_through_json_and_its_hash_follows_its_content() -> None:
    recipe = recipe_of(tiny_plan())
    again = Recipe.model_validate_json(recipe.model_dump_json())
    assert again == recipe
    assert again.sha256 == recipe.sha256
    assert recipe_of(tiny_plan(mirror_axes=(0,))).sha256 != recipe.sha256


def test_painting_order_names_each_channel_once() -> None:
    assert OutputPlan(decision="threshold", paint=(1, 2), paint_order=(1, 0)).paint_order == (1, 0)
    with pytest.raises(ValidationError, match="each of 2 channels once"):
        OutputPlan(decision="threshold", paint=(1, 2), paint_order=(1, 1))


def test_a_foreground_threshold_is_of_probabilities_and_counts_in_the_hash_only_where_there_is_one() -> None:
    plan = tiny_plan()
    recipe = recipe_of(plan)
    assert "foreground_threshold" in recipe.model_dump()["output"]
    document = json.loads(recipe.model_dump_json())
    del document["output"]["foreground_threshold"]
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    assert recipe.sha256 == hashlib.sha256(canonical.encode()).hexdigest()
    lower = recipe_of(with_changes(plan, {"inference": {"foreground_threshold": 0.3}}))
    assert lower.output.foreground_threshold == 0.3
    assert lower.sha256 != recipe.sha256
    for given in ({"decision": "threshold"}, {"interpolates": "logits"}, {"paint": (1, 2)}):
        with pytest.raises(ValidationError, match="foreground_threshold needs"):
            OutputPlan(**({"paint": (0, 1), "foreground_threshold": 0.3} | given))
