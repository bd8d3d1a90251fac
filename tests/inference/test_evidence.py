"""Instance heads come through windows, flips and slabs as the network gave them, on the network's grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from medseg.core.geometry import Geometry
from medseg.core.plan import NetworkPlan, Plan
from medseg.core.volume import Volume
from medseg.inference.options import RunOptions
from medseg.inference.segmenter import Segmenter
from medseg.lesions.separate import separate_lesions
from tests.plans import tiny_plan

SHAPE = (40, 28, 24)


class KnowsTheWay(nn.Module):
    """A network whose input holds the answer: foreground, heat, and offsets coded in three channels."""

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        foreground = 20.0 * (image[:, :1] - 0.5)
        return {
            "semantic": torch.cat([torch.zeros_like(foreground), foreground], dim=1),
            "center": image[:, 1:2],
            "offset": image[:, 2:5],
        }


def plan(**changes: object) -> Plan:
    made = tiny_plan(n_channels=5, **changes)  # type: ignore[arg-type]
    return made.model_copy(update={"network": NetworkPlan(filters=(4, 8), strides=(2,), instance_heads=True)})


def two_touching() -> tuple[np.ndarray, np.ndarray]:
    """Input (5, I, J, K) on a grid of 4 mm, and the instances."""
    lesions = np.zeros(SHAPE, dtype=np.int64)
    lesions[4:20, 6:20, 5:15] = 1
    lesions[20:33, 6:20, 5:15] = 2
    image = np.zeros((5, *SHAPE), dtype=np.float32)
    image[0] = lesions > 0
    for number in (1, 2):
        own = lesions == number
        center = np.round(np.argwhere(own).mean(axis=0))
        image[2:][:, own] = ((center - np.argwhere(own)) * 4.0).T
        image[(1, *center.astype(int))] = 1.0
    return image, lesions


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR"])
def test_touching_lesions_come_apart_whatever_the_orientation(orientation: str) -> None:
    image, lesions = two_touching()
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    made = plan(orientation="RAS")
    axes, signs = {"RAS": ((0, 1, 2), (1, 1, 1)), "LPS": ((0, 1, 2), (-1, -1, 1)), "SAR": ((2, 1, 0), (1, 1, 1))}[
        orientation
    ]
    turned, labels, grid = image.transpose(0, *(a + 1 for a in axes)), lesions.transpose(axes), affine[:, [*axes, 3]]
    for axis, sign in enumerate(signs):
        if sign < 0:
            turned, labels = np.flip(turned, axis + 1), np.flip(labels, axis)
            grid[:3, 3] += grid[:3, axis] * (labels.shape[axis] - 1)
            grid[:3, axis] *= -1
    volume = Volume(np.ascontiguousarray(turned), Geometry(labels.shape, grid), tuple("abcde"))
    semantic, _ = Segmenter(KnowsTheWay(), made, device="cpu", engine="torch").segment(volume)
    assert semantic.evidence is not None
    found = separate_lesions(semantic)
    assert found.method == "offsets"
    assert np.array_equal(found.array, labels)


def test_evidence_is_kept_only_around_foreground() -> None:
    image, _ = two_touching()
    volume = Volume(image, Geometry(SHAPE, np.diag([4.0, 4.0, 4.0, 1.0])), tuple("abcde"))
    semantic, _ = Segmenter(KnowsTheWay(), plan(), device="cpu", engine="torch").segment(volume)
    assert semantic.evidence is not None
    assert semantic.evidence.geometry.shape == (31, 16, 12)
    assert np.allclose(semantic.evidence.geometry.to_world([1, 1, 1]), [16.0, 24.0, 20.0])
    inside = np.asarray(semantic.evidence.offsets_mm)[:, 1:-1, 1:-1, 1:-1]
    assert np.allclose(inside, image[2:, 4:33, 6:20, 5:15], atol=0.02)


def test_nothing_found_gives_no_evidence() -> None:
    volume = Volume(np.zeros((5, *SHAPE), np.float32), Geometry(SHAPE, np.diag([4.0, 4.0, 4.0, 1.0])), tuple("abcde"))
    semantic, _ = Segmenter(KnowsTheWay(), plan(), device="cpu", engine="torch").segment(volume)
    assert semantic.evidence is None
    assert separate_lesions(semantic).n_lesions == 0


def test_mirrored_passes_agree_with_a_network_that_looks_the_same_from_all_sides() -> None:
    """A head that points towards higher foreground: mirroring the scan mirrors the vectors."""

    class Gradient(nn.Module):
        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            foreground = 20.0 * (image[:, :1] - 0.5)
            steps = [
                torch.nn.functional.pad(
                    image[:, 1:2].diff(dim=axis).narrow(axis, 1, image.shape[axis] - 2), _pads(axis)
                )
                + torch.nn.functional.pad(
                    image[:, 1:2].diff(dim=axis).narrow(axis, 0, image.shape[axis] - 2), _pads(axis)
                )
                for axis in (2, 3, 4)
            ]
            return {
                "semantic": torch.cat([torch.zeros_like(foreground), foreground], dim=1),
                "center": image[:, 1:2],
                "offset": torch.cat(steps, dim=1),
            }

    image, _ = two_touching()
    image[1] = np.random.default_rng(0).random(SHAPE)
    volume = Volume(image, Geometry(SHAPE, np.diag([4.0, 4.0, 4.0, 1.0])), tuple("abcde"))
    results = []
    for axes in ((), (0, 1, 2)):
        segmenter = Segmenter(
            Gradient(),
            plan(mirror_axes=axes, patch_size=SHAPE),
            device="cpu",
            engine="torch",
            options=RunOptions(mirror=bool(axes)),
        )
        semantic, _ = segmenter.segment(volume)
        assert semantic.evidence is not None
        results.append(np.asarray(semantic.evidence.offsets_mm, dtype=np.float32))
    assert np.allclose(results[0], results[1], atol=2e-3)
    assert np.abs(results[0]).max() > 0.1


def _pads(axis: int) -> list[int]:
    pads = [0] * 6
    pads[2 * (4 - axis)] = pads[2 * (4 - axis) + 1] = 1
    return pads
