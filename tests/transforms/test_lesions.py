"""MONAI predictions become lesion maps as medseg's own would."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg.core.evidence import InstanceEvidence
from medseg.core.geometry import Geometry
from medseg.core.labels import BINARY_LESION
from medseg.core.semantic import SemanticMap
from medseg.errors import UsageError
from medseg.lesions.separate import separate_lesions
from medseg.transforms.lesions import JoinedProbabilitiesd, SeparateLesionsd

SHAPE = (24, 12, 10)


def blocks(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two blocks side by side, heat, and offsets along R, A, S on a grid with an axis-parallel affine."""
    lesions = np.zeros(SHAPE, dtype=np.int64)
    lesions[2:12, 2:10, 2:8] = 1
    lesions[12:21, 2:10, 2:8] = 2
    heat, offsets = np.zeros(SHAPE), np.zeros((3, *SHAPE))
    for number in (1, 2):
        own = np.argwhere(lesions == number)
        center = np.round(own.mean(axis=0)).astype(int)
        heat[tuple(center)] = 1.0
        offsets[:, lesions == number] = affine[:3, :3] @ (center - own).T
    return lesions, heat, offsets


def prediction(affine: np.ndarray, *, with_heads: bool) -> tuple[MetaTensor, np.ndarray]:
    lesions, heat, offsets = blocks(affine)
    foreground = (lesions > 0).astype(np.float32)
    channels = [1 - foreground, foreground]
    if with_heads:
        channels += [heat, *offsets]
    return MetaTensor(torch.tensor(np.stack(channels), dtype=torch.float32), affine=torch.tensor(affine)), lesions


@pytest.mark.parametrize("affine", [np.diag([2.0, 1.0, 3.0, 1.0]), np.diag([-2.0, -1.0, 3.0, 1.0])], ids=["RAS", "LPS"])
def test_heads_of_a_prediction_part_touching_lesions(affine: np.ndarray) -> None:
    pred, lesions = prediction(affine, with_heads=True)
    made = SeparateLesionsd("pred")({"pred": pred})
    found = made["lesions"].numpy()[0]
    assert found.max() == 2
    assert np.array_equal(found > 0, lesions > 0)
    assert len({int(found[lesions == n].max()) for n in (1, 2)}) == 2
    assert all(np.unique(found[lesions == n]).size == 1 for n in (1, 2))
    assert torch.equal(made["lesions"].affine, pred.affine)


def test_the_same_as_without_monai() -> None:
    affine = np.diag([2.0, 1.0, 3.0, 1.0])
    pred, lesions = prediction(affine, with_heads=True)
    geometry = Geometry(SHAPE, affine)
    evidence = InstanceEvidence(pred.numpy()[2], pred.numpy()[3:], geometry)
    semantic = SemanticMap((lesions > 0).astype(np.uint8), geometry, BINARY_LESION, evidence=evidence)
    made = SeparateLesionsd("pred", lesions_keys="instances")({"pred": pred})
    assert np.array_equal(made["instances"].numpy()[0], separate_lesions(semantic).array)
    assert np.array_equal(made["pred"].numpy()[0], semantic.array)


def test_without_heads_the_watershed_runs_and_class_numbers_do_too() -> None:
    affine = np.diag([2.0, 1.0, 3.0, 1.0])
    pred, lesions = prediction(affine, with_heads=False)
    classes = MetaTensor(torch.tensor(lesions[None] > 0, dtype=torch.float32), affine=torch.tensor(affine))
    results = [SeparateLesionsd("p")({"p": given})["lesions"].numpy() for given in (pred, classes)]
    assert np.array_equal(*results)
    assert results[0].max() == 1
    components = SeparateLesionsd("p", separation={"method": "components"})({"p": classes})["lesions"]
    assert int(components.max()) == 1


def test_a_foreground_threshold_marks_what_is_likely_enough_with_its_likeliest_class() -> None:
    channels = torch.zeros(3, 3, 1, 1)
    channels[:, :, 0, 0] = torch.tensor([[0.4, 0.6, 0.8], [0.25, 0.3, 0.15], [0.35, 0.1, 0.05]])
    made = {}
    for threshold in (None, 0.3, 0.5, 0.7):
        step = SeparateLesionsd("p", classes={1: "a", 2: "b"}, foreground_threshold=threshold)
        made[threshold] = step({"p": MetaTensor(channels)})["p"].numpy().ravel().tolist()
    assert made == {None: [0, 0, 0], 0.3: [2, 1, 0], 0.5: [2, 0, 0], 0.7: [0, 0, 0]}


def test_a_prediction_of_other_channels_is_refused() -> None:
    with pytest.raises(UsageError, match="2 or 6 channels; got 4"):
        SeparateLesionsd("p")({"p": MetaTensor(torch.zeros(4, 3, 3, 3))})


def test_only_logits_are_activated() -> None:
    values = torch.tensor([0.0, 2.0, 5.0, -7.0])[:, None, None, None].expand(4, 2, 2, 2)
    made = JoinedProbabilitiesd("p", n_classes=2)({"p": values})["p"]
    assert made[:2].sum(dim=0).allclose(torch.ones(2, 2, 2))
    assert torch.equal(made[2:], values[2:])
