"""Plan: round-trips exactly, hash follows every field, mistakes are named with the nearest right word."""

from __future__ import annotations

import hashlib
import json
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from medseg.core.labels import BINARY_LESION, LabelScheme
from medseg.core.plan import (
    ChannelPlan,
    InferencePlan,
    IntensityPlan,
    NetworkPlan,
    Plan,
    SeparationPlan,
    TrainingPlan,
)
from medseg.core.recipe import recipe_of
from medseg.errors import InvalidPlan

PLAN = Plan(
    name="sarcoma",
    channels=(
        ChannelPlan(
            name="pet", modality="PT", units="suv", intensity=IntensityPlan(low=0.0, high=25.0, transform="sqrt")
        ),
    ),
    labels=BINARY_LESION,
    spacing_mm=(4.0, 4.0, 3.27),
    network=NetworkPlan(),
    inference=InferencePlan(patch_size=(32, 32, 48)),
)

positive = st.floats(1e-6, 1e6)
not_negative = st.floats(0.0, 1e6)
share = st.floats(0.0, 1.0, exclude_max=True)
counts = st.integers(1, 512)
intensities = st.tuples(st.floats(0.0, 1e6), st.floats(0.0, 1e6)).flatmap(
    lambda pair: st.builds(
        IntensityPlan,
        low=st.just(min(pair)),
        high=st.just(max(pair)),
        transform=st.sampled_from(["none", "sqrt"]),
        shift=st.floats(-1e6, 1e6),
        scale=positive,
    )
)
plans = st.builds(
    Plan,
    name=st.text(max_size=10),
    channels=st.lists(
        st.builds(ChannelPlan, name=st.text(max_size=5), modality=st.just("CT"), intensity=intensities),
        min_size=1,
        max_size=3,
    ).map(tuple),
    labels=st.dictionaries(st.integers(1, 65535), st.text(max_size=5), min_size=1, max_size=3).map(
        lambda classes: LabelScheme(classes=classes, regions={"all": tuple(classes)})
    ),
    orientation=st.sampled_from(["RAS", "LPS", "SAR"]),
    spacing_mm=st.none() | st.tuples(positive, positive, positive),
    network=st.builds(
        NetworkPlan,
        filters=st.lists(counts, min_size=1, max_size=5).map(tuple),
        strides=st.lists(counts | st.tuples(counts, counts, counts), max_size=4).map(tuple),
        norm=st.sampled_from(["instance", "batch"]),
        dropout=share,
        weights_dtype=st.sampled_from(["float32", "float16"]),
    ),
    inference=st.builds(
        InferencePlan,
        patch_size=st.tuples(counts, counts, counts),
        overlap=share,
        mirror_axes=st.sampled_from([(), (0,), (0, 1, 2)]),
        foreground_threshold=st.none() | st.floats(0.0, 1.0, exclude_min=True, exclude_max=True),
    ),
    separation=st.builds(
        SeparationPlan,
        method=st.sampled_from(["auto", "components", "watershed"]),
        connectivity=st.sampled_from([6, 18, 26]),
        minimum_volume_ml=not_negative,
        h_min_mm=not_negative,
        h_fraction=not_negative,
    ),
    training=st.builds(TrainingPlan, steps=counts, learning_rate=positive, seed=st.integers()),
)


def _changed(path: str, value) -> str:
    """The plan's JSON with one field set."""
    document = json.loads(PLAN.to_json())
    part = document
    *parents, last = path.split(".")
    for key in parents:
        part = part[int(key) if key.isdigit() else key]
    part[last] = value
    return json.dumps(document)


# --- round trip and hash ---


@given(plans)
def test_plan_round_trips_exactly(plan: Plan):
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.to_json() == plan.to_json()
    assert again.sha256 == plan.sha256


def test_json_is_indented_text_with_a_final_newline():
    text = PLAN.to_json()
    assert text.startswith('{\n  "schema_version": 1')
    assert text.endswith("}\n")
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_hash_is_the_sha256_of_the_sorted_compact_json_without_fields_added_later():
    document = json.loads(PLAN.to_json())
    del document["heads_training"], document["inference"]["foreground_threshold"]
    for name in ("instance_heads", "kernels", "decoder_units", "weights_dtype"):
        del document["network"][name]
    for name in ("validate_every", "patience", "variation_share", "deep_supervision", "lesion_loss", "owner_weight"):
        del document["training"][name]
    for name in ("valley_share", "merge_regions", "vote_fraction", "merge_fraction", "least_votes"):
        del document["separation"][name]
    for name in ("peak_heat", "peak_prominence", "peak_distance_mm"):
        del document["separation"][name]
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    assert PLAN.sha256 == hashlib.sha256(canonical.encode()).hexdigest()


def test_standardizing_stands_in_json_and_counts_in_the_hash_only_where_it_is_asked_for():
    document = json.loads(PLAN.to_json())
    assert "standardize" not in document["channels"][0]["intensity"]
    assert "standardize" not in json.dumps(recipe_of(PLAN).model_dump(mode="json"))
    document["channels"][0]["intensity"]["standardize"] = "nonzero"
    changed = Plan.from_json(json.dumps(document))
    assert changed.sha256 != PLAN.sha256
    assert recipe_of(changed).sha256 != recipe_of(PLAN).sha256
    assert Plan.from_json(changed.to_json()) == changed


def test_hash_does_not_depend_on_key_order_or_layout_or_int_for_float():
    document = json.loads(PLAN.to_json())
    shuffled = dict(sorted(document.items(), reverse=True)) | {"spacing_mm": [4, 4, 3.27]}
    assert Plan.from_json(json.dumps(shuffled)).sha256 == PLAN.sha256


def test_defaults_left_out_and_spelled_out_are_the_same_plan():
    document = json.loads(PLAN.to_json())
    for part in ("separation", "training", "orientation", "schema_version"):
        del document[part]
    assert Plan.from_json(json.dumps(document)) == PLAN


def _leaves(value, path: tuple = ()):
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _leaves(inner, (*path, number))
    else:
        yield path, value


OTHER_WORD = {
    "suv": "stored", "sqrt": "none", "instance": "batch", "gaussian": "constant", "auto": "components", "RAS": "LPS",
    "float32": "float16", "none": "blob",
}  # fmt: skip


def _other(value, path: tuple):
    """Another valid value for a field."""
    if path[-1] == "heads_training":
        return {}
    if path[-1] == "foreground_threshold":
        return 0.25
    if value is None:
        return 1.0
    if path[-1] == "connectivity":
        return 6
    if path[-1] in ("mirror_axes",):
        return [0]
    if path[-1] == "merge_regions":
        return ["all"]
    if path[-1] == "kernels":
        return [3, 3, 3]
    if path[-1] == "instance_heads":
        return True
    if path[-1] == "regions":
        return {"all": [1]}
    if isinstance(value, str):
        return OTHER_WORD.get(value, value + "x")
    if isinstance(value, float):
        return value / 2.0 if value else 0.25
    return value + 1


LEAVES = [
    leaf for leaf in _leaves(json.loads(PLAN.to_json())) if leaf[0] not in (("schema_version",), ("network", "kind"))
]


@pytest.mark.parametrize(("path", "value"), LEAVES, ids=lambda x: ".".join(map(str, x)) if isinstance(x, tuple) else "")
def test_hash_changes_with_every_field(path: tuple, value):
    document = deepcopy(json.loads(PLAN.to_json()))
    part = document
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = _other(value, path)
    changed = Plan.from_json(json.dumps(document))
    assert changed != PLAN
    assert changed.sha256 != PLAN.sha256


def test_plan_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        PLAN.name = "other"
    with pytest.raises(ValidationError, match="frozen"):
        PLAN.separation.connectivity = 6


# --- mistakes ---


@pytest.mark.parametrize(
    ("path", "wrong", "right"),
    [
        ("spacing", "spacing", "spacing_mm"),
        ("inference.patchsize", "inference.patchsize", "patch_size"),
        ("separation.conectivity", "separation.conectivity", "connectivity"),
        ("channels.0.intensity.hihg", "channels.0.intensity.hihg", "high"),
        ("labels.class", "labels.class", "classes"),
    ],
)
def test_unknown_key_answers_with_the_nearest_known_one(path: str, wrong: str, right: str):
    with pytest.raises(InvalidPlan, match=f"unknown key {wrong}; did you mean '{right}'"):
        Plan.from_json(_changed(path, 1))


def test_unknown_key_like_no_other_gets_no_suggestion():
    with pytest.raises(InvalidPlan, match=r"unknown key zzz$"):
        Plan.from_json(_changed("zzz", 1))


def test_key_in_the_wrong_part_is_not_suggested_for_itself():
    with pytest.raises(InvalidPlan) as raised:
        Plan.from_json(_changed("inference.dropout", 0.5))
    assert "unknown key inference.dropout" in str(raised.value)
    assert "did you mean 'dropout'" not in str(raised.value)


def test_missing_key_is_named_without_the_whole_plan():
    with pytest.raises(InvalidPlan) as raised:
        Plan.from_json('{"name": "m"}', source="plan.json")
    message = str(raised.value)
    assert message.startswith("plan.json: ")
    assert "spacing_mm is missing" in message
    assert "got" not in message


def test_every_mistake_is_listed():
    document = json.loads(PLAN.to_json())
    document["inference"]["overlap"] = 2.0
    document["network"]["dropot"] = 0.1
    with pytest.raises(InvalidPlan) as raised:
        Plan.from_json(json.dumps(document))
    assert "inference.overlap" in str(raised.value)
    assert "'dropout'" in str(raised.value)


@pytest.mark.parametrize("text", ["", "no json", "[]", "null", '{"name": '])
def test_text_that_is_no_plan_is_refused(text: str):
    with pytest.raises(InvalidPlan, match=r"folder/plan\.json"):
        Plan.from_json(text, source="folder/plan.json")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema_version", 2),
        ("channels", []),
        ("channels.0.units", "bqml"),
        ("channels.0.intensity.scale", 0.0),
        ("channels.0.intensity.low", 26.0),
        ("channels.0.intensity.low", -1.0),
        ("channels.0.intensity.high", float("inf")),
        ("labels.classes", {"0": "background"}),
        ("orientation", "RRS"),
        ("orientation", "RLS"),
        ("orientation", "ras"),
        ("orientation", "RASS"),
        ("spacing_mm", [4.0, 4.0]),
        ("spacing_mm", [4.0, 4.0, 0.0]),
        ("spacing_mm", [4.0, 4.0, float("inf")]),
        ("spacing_mm", [4.0, 4.0, float("nan")]),
        ("network.kind", "transformer"),
        ("network.filters", [16, 0]),
        ("network.dropout", 1.0),
        ("inference.patch_size", [32, 32]),
        ("inference.patch_size", [32, 32, 0]),
        ("inference.patch_size", [32, 32, 1.5]),
        ("inference.overlap", 1.0),
        ("inference.overlap", -0.1),
        ("inference.mirror_axes", [3]),
        ("separation.connectivity", 8),
        ("separation.minimum_volume_ml", -1.0),
        ("training.steps", 0),
        ("training.foreground_share", 1.1),
    ],
)
def test_value_out_of_range_is_refused_with_its_place(path: str, value):
    place = path.rpartition(".")[0] if path.endswith("low") else path
    with pytest.raises(InvalidPlan, match=rf"plan: .*{place}"):
        Plan.from_json(_changed(path, value))
