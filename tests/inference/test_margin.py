"""Two classes as one number: the same map, from half of the channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from medseg.core.geometry import Geometry
from medseg.core.plan import with_changes
from medseg.core.recipe import OutputPlan
from medseg.core.volume import Volume
from medseg.errors import ModelError
from medseg.inference.decide import Decision
from medseg.inference.engine import TorchEngine
from medseg.inference.margin import MarginEngine, margin_output
from medseg.inference.segmenter import Segmenter
from tests.plans import tiny_plan

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("interpolates", "threshold"),
    [("probabilities", None), ("probabilities", 0.3), ("logits", None), ("labels", None)],
)
def test_codes_and_probability_are_those_of_both_channels(interpolates: str, threshold: float | None) -> None:
    pair = OutputPlan(paint=(0, 7), interpolates=interpolates, foreground_threshold=threshold)
    single = margin_output(pair)
    assert single is not None
    assert single.paint == (7,)
    logits = 3.0 * torch.randn((500, 2), generator=torch.Generator().manual_seed(2))
    logits[:10, 1] = logits[:10, 0]  # a tie is background
    two, one = Decision(pair, is_exact=False), Decision(single, is_exact=False)
    both = two.before_interpolation(logits)
    margin = one.before_interpolation(logits[:, 1:] - logits[:, :1])
    classes = [d.class_of_code[d.decide(v.numpy())] for d, v in ((two, both), (one, margin))]
    np.testing.assert_array_equal(*classes)
    assert set(np.unique(classes[0])) == {0, 7}
    torch.testing.assert_close(one.foreground(margin), two.foreground(both))
    codes, is_clear = one.winners(margin)
    np.testing.assert_array_equal(one.class_of_code[codes][is_clear], classes[0][is_clear])
    assert is_clear[10:].mean() > 0.95


@pytest.mark.parametrize(
    "plan",
    [
        OutputPlan(paint=(0, 1, 2)),
        OutputPlan(paint=(1, 0)),
        OutputPlan(paint=(0, 1), activation="none"),
        OutputPlan(paint=(0, 1), activation="sigmoid", decision="threshold"),
    ],
)
def test_other_plans_keep_their_channels(plan: OutputPlan) -> None:
    assert margin_output(plan) is None


class Logits(nn.Module):
    """So many channels that differ from place to place."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.convolution = nn.Conv3d(1, n_channels, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.convolution(image)
        return logits


def test_the_map_is_that_of_an_exact_run() -> None:
    geometry = Geometry((30, 26, 20), np.diag([3.0, 3.0, 5.0, 1.0]))
    array = np.random.default_rng(1).normal(0.0, 3.0, (1, *geometry.shape)).astype(np.float32)
    volume = Volume(array, geometry, ("PET",))
    plan = with_changes(tiny_plan(spacing_mm=(4.0, 4.0, 4.0)), {"inference": {"mirror_axes": (0,)}})
    maps = {
        precision: Segmenter(Logits(2), plan, device="cpu", engine="torch", precision=precision).segment(volume)[0]
        for precision in ("exact", "float32")
    }
    differing = np.count_nonzero(maps["exact"].array != maps["float32"].array)
    assert differing <= 3
    assert 0.1 < (maps["exact"].array > 0).mean() < 0.9
    np.testing.assert_allclose(maps["exact"].probability, maps["float32"].probability, atol=1e-5)


def test_another_number_of_channels_is_told() -> None:
    engine = MarginEngine(TorchEngine(Logits(3), CPU, "float32"))
    with pytest.raises(ModelError, match="gives 3 channels; the model's labels are made from 2"):
        engine(torch.zeros(1, 1, 4, 4, 4))
