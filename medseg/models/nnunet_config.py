"""nnU-Net's networks in the words of MONAI's bundle language: MONAI has no class for them, so they are put together.

The parts are torch's own modules under nnU-Net's own names, so that weights load by name; a lambda says how they are
joined, and torch.fx turns that into a graph, which TorchScript and ONNX take. medseg need not be installed.
"""

from __future__ import annotations

from typing import Any

from medseg.core.plan import Plan
from medseg.networks.nnunet import NnunetArchitecture
from medseg.networks.nnunet_plan import nnunet_architecture

__all__ = ["NNUNET_IMPORTS", "NNUNET_MEMBER", "nnunet_parts"]

NNUNET_IMPORTS = ("$import collections", "$import functools", "$import itertools")
"""What the expressions of `nnunet_parts` need beside the others."""

NNUNET_MEMBER = "$@traced(@unet())"
"""One network with fresh weights, as an expression over `nnunet_parts`."""

_NORMS = {"instance": "torch.nn.InstanceNorm3d(n_out, affine=True)", "batch": "torch.nn.BatchNorm3d(n_out)"}
_UNIT = (
    "$lambda n_in, n_out, kernel, stride=1, is_active=True, has_bias=True: torch.nn.Sequential(collections.OrderedDict("
    "conv=torch.nn.Conv3d(n_in, n_out, kernel, stride, [(side - 1) // 2 for side in kernel], bias=has_bias), "
    "norm={norm}, **({{'nonlin': torch.nn.LeakyReLU(inplace=True)}} if is_active else {{}})))"
)
_UNITS = (
    "$lambda n, n_in, n_out, kernel, stride=1: torch.nn.Sequential(collections.OrderedDict(convs=torch.nn.Sequential("
    "@unit(n_in, n_out, kernel, stride), *[@unit(n_out, n_out, kernel) for _ in range(n - 1)])))"
)
# with a module of its own, which a type that an expression makes has not, and torch.export asks for
_SUM = (
    "'__module__': 'unet', 'forward': lambda self, x: self['nonlin'](self['conv2'](self['conv1'](x)) + self['skip'](x))"
)
_BLOCK = (
    f"$lambda n_in, n_out, kernel, stride: type('Residual', (torch.nn.ModuleDict,), {{{_SUM}}})({{"
    "'conv1': @unit(n_in, n_out, kernel, stride), 'conv2': @unit(n_out, n_out, kernel, is_active=False), "
    "'skip': torch.nn.Sequential(*([torch.nn.AvgPool3d(stride, stride)] if max(stride) > 1 else []), "
    "*([@unit(n_in, n_out, (1, 1, 1), is_active=False, has_bias=False)] if n_in != n_out else [])), "
    "'nonlin': torch.nn.LeakyReLU(inplace=True)})"
)
_BLOCKS = (
    "$lambda n, n_in, n_out, kernel, stride: torch.nn.Sequential(collections.OrderedDict(blocks=torch.nn.Sequential("
    "@block(n_in, n_out, kernel, stride), *[@block(n_out, n_out, kernel, (1, 1, 1)) for _ in range(n - 1)])))"
)
_STAGE = {
    # nnU-Net puts each stage of a plain encoder into a list of its own
    "plain": "torch.nn.Sequential(@units(units[n], n_in[n], features[n], kernels[n], strides[n]))",
    "residual_encoder": "@blocks(units[n], n_in[n], features[n], kernels[n], strides[n])",
}
_STEM = {"plain": "torch.nn.Sequential()", "residual_encoder": "@units(1, n_inputs, features[0], kernels[0])"}
_UNET = (
    "$lambda: (lambda n_inputs, n_outputs, features, kernels, strides, units, decoder_units, n_in: "
    "type('UNet', (torch.nn.ModuleDict,), {{'forward': @forward}})({{"
    "'encoder': torch.nn.ModuleDict({{'stem': {stem}, "
    "'stages': torch.nn.Sequential(*[{stage} for n in range(len(features))])}}), "
    "'decoder': torch.nn.ModuleDict({{"
    "'transpconvs': torch.nn.ModuleList([torch.nn.ConvTranspose3d(features[-n], features[-n - 1], strides[-n], "
    "strides[-n]) for n in range(1, len(features))]), "
    "'stages': torch.nn.ModuleList([@units(decoder_units[n - 1], 2 * features[-n - 1], features[-n - 1], "
    "kernels[-n - 1]) for n in range(1, len(features))]), "
    "'seg_layers': torch.nn.ModuleDict({{str(len(features) - 2): torch.nn.Conv3d(features[0], n_outputs, 1)}})"
    "}})}}))(**@topology)"
)
_FORWARD = (
    "$lambda self, image: (lambda encoder, decoder, skips: list(decoder['seg_layers'].values())[0](functools.reduce("
    "lambda x, step: step[1](torch.cat((step[0](x), step[2]), 1)), "
    "zip(decoder['transpconvs'], decoder['stages'], skips[-2::-1]), skips[-1])))("
    "self['encoder'], self['decoder'], list(itertools.accumulate("
    "self['encoder']['stages'], lambda x, stage: stage(x), initial=self['encoder']['stem'](image)))[1:])"
)
# what is no leaf is looked into; a copy of the graph, because a copy's source is found by TorchScript
_TRACED = (
    "$lambda network: torch.fx.GraphModule(network, copy.deepcopy(type('Parts', (torch.fx.Tracer,), {'is_leaf_module': "
    "lambda self, module, name: not isinstance(module, (torch.nn.Sequential, torch.nn.ModuleDict))})().trace(network)))"
)


def nnunet_parts(plan: Plan) -> dict[str, Any]:
    """The entries of a configuration that `NNUNET_MEMBER` looks at, by name; {} for a plan of another kind.

    `topology` holds the numbers, all others are expressions that do not depend on them.
    """
    if not plan.network.is_nnunet:
        return {}
    architecture = nnunet_architecture(plan.network, len(plan.channels), plan.labels.highest + 1)
    kind = architecture.kind
    parts: dict[str, Any] = {
        "topology": _topology(architecture),
        "unit": _UNIT.format(norm=_NORMS[architecture.norm]),
        "units": _UNITS,
        "forward": _FORWARD,
        "unet": _UNET.format(stem=_STEM[kind], stage=_STAGE[kind]),
        "traced": _TRACED,
    }
    return parts if kind == "plain" else {**parts, "block": _BLOCK, "blocks": _BLOCKS}


def _topology(architecture: NnunetArchitecture) -> dict[str, Any]:
    """Numbers of the network; `n_in`: what each stage of the encoder is given."""
    features = list(architecture.features)
    first = architecture.n_inputs if architecture.kind == "plain" else features[0]
    return {
        "n_inputs": architecture.n_inputs,
        "n_outputs": architecture.n_outputs,
        "features": features,
        "kernels": [list(kernel) for kernel in architecture.kernels],
        "strides": [list(stride) for stride in architecture.strides],
        "units": list(architecture.encoder_blocks),
        "decoder_units": list(architecture.decoder_blocks),
        "n_in": [first, *features[:-1]],
    }
