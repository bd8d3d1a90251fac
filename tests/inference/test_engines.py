"""Engines: the same network by other kernels gives the same answer, in every dtype, size and number of heads."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings

import pytest
import torch
from monai.networks.nets import DynUNet, SegResNet, UNet
from torch import nn

from medseg.errors import UnsupportedOperator, UsageError
from medseg.inference.candidates import Candidate, build, candidates_for
from medseg.inference.device import multiplies_bfloat16
from medseg.inference.engine import Engine, TorchEngine, joined_heads
from medseg.inference.engine_openvino import OpenVinoEngine, has_openvino
from medseg.inference.engine_torch import CompiledEngine, FastTorchEngine
from medseg.inference.fast_layers import fast_copy
from medseg.inference.winograd import has_numba
from tests.inference.engines import CPU, TwoHeads

needs_numba = pytest.mark.skipif(not has_numba(), reason="numba is not installed")
needs_openvino = pytest.mark.skipif(not has_openvino(), reason="openvino is not installed")
NORMS = ("batch", "instance", ("GROUP", {"num_groups": 2}))


def residual_net(norm: object = "instance") -> nn.Module:
    torch.manual_seed(1)
    return SegResNet(3, 8, 1, 3, norm=norm, blocks_down=(1, 1, 1), blocks_up=(1, 1)).eval()


def plain_net(norm: object = "instance") -> nn.Module:
    torch.manual_seed(2)
    network = UNet(3, 2, 3, (8, 16, 32), (2, 2), num_res_units=1, norm=norm)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def affine_net() -> nn.Module:
    torch.manual_seed(3)
    network = DynUNet(3, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], norm_name=("INSTANCE", {"affine": True}))
    for module in network.modules():
        if isinstance(module, nn.InstanceNorm3d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    return network.eval()


NETWORKS = {
    "segresnet": (residual_net, 1),
    "segresnet batch": (lambda: residual_net("batch"), 1),
    "segresnet group": (lambda: residual_net(NORMS[2]), 1),
    "unet": (plain_net, 2),
    "unet batch": (lambda: plain_net("batch"), 2),
    "dynunet": (affine_net, 1),
}
ENGINES = ["fast", pytest.param("openvino", marks=needs_openvino)]
FLOAT32_ENGINES = [*ENGINES, pytest.param("winograd", marks=needs_numba)]


def engine_of(kind: str, network: nn.Module, precision: str = "float32") -> Engine:
    if kind == "openvino":
        return OpenVinoEngine(network, precision)
    return FastTorchEngine(network, precision, is_winograd=kind == "winograd")


def noise(n: int, channels: int, *sides: int) -> torch.Tensor:
    return torch.randn((n, channels, *sides), generator=torch.Generator().manual_seed(5))


def error(values: torch.Tensor, truth: torch.Tensor) -> float:
    return float((values - truth).norm() / truth.norm())


def plain(network: nn.Module, windows: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return network(windows)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", FLOAT32_ENGINES)
def test_engines_give_what_plain_torch_gives_in_float32(kind: str, name: str) -> None:
    make, channels = NETWORKS[name]
    windows = noise(2, channels, 16, 24, 32)
    network = make()
    heads = engine_of(kind, network)(windows)
    assert list(heads) == ["semantic"]
    assert heads["semantic"].dtype == torch.float32
    assert error(heads["semantic"], plain(network, windows)) < 1e-4


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", ENGINES)
def test_bfloat16_is_near_and_is_not_float32(kind: str, name: str) -> None:
    if kind == "openvino" and not multiplies_bfloat16():
        pytest.skip("OpenVINO computes in float32 where the processor has no bfloat16")
    make, channels = NETWORKS[name]
    windows = noise(1, channels, 16, 16, 16)
    network = make()
    heads = engine_of(kind, network, "bfloat16")(windows)
    assert heads["semantic"].dtype == torch.float32
    assert 1e-4 < error(heads["semantic"], plain(network, windows)) < 4e-2


@pytest.mark.parametrize("sides", [(8, 8, 8), (8, 12, 40), (4, 64, 8), (12, 8, 8)])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ENGINES)
def test_thin_windows_two_and_three_voxels_at_the_coarsest_level(
    kind: str, precision: str, sides: tuple[int, int, int]
) -> None:
    network = residual_net()
    windows = noise(1, 1, *sides)
    limit = 1e-4 if precision == "float32" else 4e-2
    assert error(engine_of(kind, network, precision)(windows)["semantic"], plain(network, windows)) < limit


@pytest.mark.parametrize("kind", ENGINES)
def test_a_window_has_the_same_bits_alone_in_a_batch_and_again(kind: str) -> None:
    windows = noise(3, 1, 16, 16, 16)
    engine = engine_of(kind, residual_net())
    together = engine(windows)["semantic"]
    for number in range(3):
        assert torch.equal(engine(windows[number : number + 1])["semantic"][0], together[number])


@pytest.mark.parametrize("kind", ENGINES)
def test_several_heads_keep_their_names_and_channels(kind: str) -> None:
    windows = noise(2, 1, 8, 8, 8)
    heads = engine_of(kind, TwoHeads())(windows)
    assert list(heads) == ["semantic", "center"]
    torch.testing.assert_close(heads["semantic"], torch.cat([windows, -windows], dim=1))
    torch.testing.assert_close(heads["center"], 3.0 * windows)


@pytest.mark.parametrize("kind", ENGINES)
def test_windows_of_several_shapes_in_turn(kind: str) -> None:
    network = residual_net()
    engine = engine_of(kind, network)
    for sides in [(16, 16, 16), (8, 16, 16), (16, 16, 8), (8, 8, 8), (24, 8, 8), (16, 16, 16)]:
        windows = noise(1, 1, *sides)
        assert error(engine(windows)["semantic"], plain(network, windows)) < 1e-4


def test_the_network_given_is_left_as_it_is() -> None:
    network = residual_net()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    kinds = [type(module) for module in network.modules()]
    FastTorchEngine(network, "bfloat16")(noise(1, 1, 8, 8, 8))
    assert [type(module) for module in network.modules()] == kinds
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_normalization_keeps_its_weights_in_float32() -> None:
    dtypes = {
        type(module).__name__: {parameter.dtype for parameter in module.parameters(recurse=False)}
        for module in fast_copy(affine_net(), torch.bfloat16).modules()
    }
    assert dtypes["SingleInstanceNorm"] == {torch.float32}
    convolution = "OneDnnConvolution" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "Conv3d"
    assert dtypes[convolution] == {torch.bfloat16}


def test_exact_torch_runs_channels_first_whatever_was_done_to_the_network_before() -> None:
    network = plain_net()
    windows = noise(1, 2, 16, 16, 16)
    truth = plain(network, windows)
    TorchEngine(network, CPU, "float32")
    assert torch.equal(TorchEngine(network, CPU, "exact")(windows)["semantic"], truth)


@needs_openvino
def test_openvino_leaves_the_warnings_of_others_alone() -> None:
    before = logging.root.level
    OpenVinoEngine(affine_net(), "float32")(noise(1, 1, 8, 8, 8))
    assert logging.root.level == before


def test_openvino_reports_nothing_to_anybody() -> None:
    code = (
        "import sys, torch; from medseg.inference.engine_openvino import OpenVinoEngine\n"
        "OpenVinoEngine(torch.nn.Conv3d(1, 2, 3, padding=1), 'float32')(torch.zeros(1, 1, 8, 8, 8))\n"
        "print([name for name, module in sys.modules.items() if name.startswith('openvino_telemetry') and module])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_openvino_says_what_it_cannot_run() -> None:
    class Sorts(nn.Module):
        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            return torch.linalg.matrix_exp(windows)

    with pytest.raises(
        UnsupportedOperator, match=r"openvino cannot run Sorts on windows of \(8, 8, 8\).*--engine torch"
    ):
        OpenVinoEngine(Sorts(), "float32")(noise(1, 1, 8, 8, 8))


def test_missing_openvino_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [])
    with pytest.raises(UsageError, match=r"not installed: pip install 'medseg\[openvino\]'"):
        OpenVinoEngine(residual_net(), "float32")
    assert {candidate.engine for candidate in candidates_for(CPU, "auto", "auto")} == {"torch"}


@pytest.mark.parametrize(
    ("engine", "precision", "device"),
    [
        ("openvino", "exact", "cpu"),
        ("compiled", "exact", "cpu"),
        ("openvino", "float16", "cpu"),
        ("openvino", "auto", "cuda"),
    ],
)
def test_what_does_not_go_together_is_refused(engine: str, precision: str, device: str) -> None:
    with pytest.raises(UsageError, match=engine):
        candidates_for(torch.device(device), engine, precision)


def test_exact_leaves_no_choice() -> None:
    assert candidates_for(CPU, "auto", "exact") == (Candidate(engine="torch", precision="exact"),)


def test_compiled_is_never_chosen_but_can_be_asked_for() -> None:
    assert "compiled" not in {candidate.engine for candidate in candidates_for(CPU, "auto", "auto")}
    assert {candidate.engine for candidate in candidates_for(CPU, "compiled", "float32")} == {"compiled"}


@needs_openvino
def test_openvino_is_not_started_for_one_window_unless_asked_for() -> None:
    assert "openvino" in {candidate.engine for candidate in candidates_for(CPU, "auto", "auto")}
    assert {candidate.engine for candidate in candidates_for(CPU, "auto", "auto", is_single=True)} == {"torch"}
    asked = candidates_for(CPU, "openvino", "float32", is_single=True)
    assert {candidate.engine for candidate in asked} == {"openvino"}


@pytest.mark.slow
def test_compiled_gives_what_plain_torch_gives() -> None:
    network = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.InstanceNorm3d(8), nn.LeakyReLU(), nn.Conv3d(8, 2, 1))
    windows = noise(1, 1, 16, 16, 16)
    truth = plain(network.eval(), windows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler, about its own future
        compiled = CompiledEngine(network, CPU, "float32")(windows)["semantic"]
    assert error(compiled, truth) < 1e-4


def test_heads_of_batches_are_joined_in_order() -> None:
    parts = [{"semantic": torch.full((n, 2, 1, 1, 1), float(n))} for n in (1, 2)]
    assert joined_heads(parts)["semantic"][:, 0, 0, 0, 0].tolist() == [1.0, 2.0, 2.0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["exact", "float32", "bfloat16", "float16"])
def test_cuda_gives_what_the_cpu_gives(precision: str) -> None:
    network = residual_net()
    windows = noise(2, 1, 16, 16, 16)
    truth = plain(network, windows)
    candidate = Candidate(engine="torch", precision=precision)
    heads = build(network, candidate, torch.device("cuda"))(windows.pin_memory())
    assert heads["semantic"].is_cuda
    assert error(heads["semantic"].cpu(), truth) < (4e-2 if "16" in precision else 2e-3)
