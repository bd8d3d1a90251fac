"""nnU-Net's networks as a plan says them, and a plan's numbers of one of nnU-Net's networks.

A plan holds what nnU-Net's own planners vary: features, kernels, strides and convolutions a level. All else is as those
planners always have it: convolutions with a bias, affine norms, leaky ReLU.

References
----------
Isensee et al., nnU-Net, Nature Methods 2021; Isensee et al., nnU-Net Revisited, MICCAI 2024.
"""

from __future__ import annotations

from medseg.core.plan import NetworkPlan
from medseg.errors import InvalidPlan, UnsupportedModel
from medseg.networks.nnunet import NnunetArchitecture

__all__ = ["network_plan_of", "nnunet_architecture"]

_KINDS = {"plain_conv_unet": "plain", "residual_encoder_unet": "residual_encoder"}
_NORM = {"eps": 1e-5, "affine": True}
_SLOPE = 0.01
_ONE = (1, 1, 1)


def nnunet_architecture(plan: NetworkPlan, n_inputs: int, n_outputs: int) -> NnunetArchitecture:
    """All numbers of the network that a plan of an nnU-Net kind names; heads of lower resolutions are left out.

    Parameters
    ----------
    plan
        Of kind "plain_conv_unet" or "residual_encoder_unet".
    n_inputs, n_outputs
        Channels in; logits out (classes and background).

    Raises
    ------
    InvalidPlan
        If numbers a level do not go with the levels, a kernel side is even, or the plan asks for what nnU-Net's
        networks have not.
    """
    n_levels = len(plan.filters)
    if n_levels < 2:
        raise InvalidPlan(f"a {plan.kind} has two levels or more; got filters {plan.filters}")
    if plan.instance_heads or plan.dropout:
        asked = "instance_heads" if plan.instance_heads else "dropout"
        raise InvalidPlan(f"a {plan.kind} has no {asked}; kinds unet and segresnet have")
    kernels = tuple(_triple(kernel) for kernel in plan.kernels or (3,) * n_levels)
    if len(kernels) != n_levels or any(side % 2 == 0 for kernel in kernels for side in kernel):
        raise InvalidPlan(f"{n_levels} levels need as many kernels, with odd sides; got {plan.kernels}")
    return NnunetArchitecture(
        kind=_KINDS[plan.kind],  # type: ignore[arg-type]
        n_inputs=n_inputs,
        n_outputs=n_outputs,
        features=plan.filters,
        kernels=kernels,
        strides=(_ONE, *(_triple(stride) for stride in plan.strides)),
        encoder_blocks=_each_level(plan.residual_units, n_levels, "residual_units"),
        decoder_blocks=_each_level(plan.decoder_units, n_levels - 1, "decoder_units"),
        norm=plan.norm,
        norm_arguments=dict(_NORM),
        activation_arguments={"inplace": True},
        has_all_heads=False,
    )


def network_plan_of(architecture: NnunetArchitecture, source: str) -> NetworkPlan:
    """What a plan says of one of nnU-Net's networks.

    Parameters
    ----------
    architecture
        The network.
    source
        Where it came from, for messages.

    Raises
    ------
    UnsupportedModel
        If it has something that a plan cannot say; the message says what.
    """
    slope = float(architecture.activation_arguments.get("negative_slope", _SLOPE))
    for what, is_known in (
        (f"it has {architecture.n_dimensions} dimensions, not 3", architecture.n_dimensions == len(_ONE)),
        (f"it is {architecture.kind}", architecture.kind in _KINDS.values()),
        ("its first stage strides", architecture.strides[0] == _ONE),
        ("its convolutions have no bias", architecture.has_bias),
        (f"its norm is {architecture.norm} {dict(architecture.norm_arguments)}", _is_known_norm(architecture)),
        (f"its activation is {architecture.activation}", architecture.activation == "LeakyReLU" and slope == _SLOPE),
        ("its activation comes before the norm", not architecture.activates_first),
        ("it has bottleneck blocks", not architecture.bottlenecks),
        (
            "its stem is of another width than its first stage",
            architecture.stem_features in (None, architecture.features[0]),
        ),
    ):
        if not is_known:
            raise UnsupportedModel(
                f"{source}: a plan cannot name this network: {what}; it can name PlainConvUNet and ResidualEncoderUNet "
                "as nnU-Net's planners make them. `medseg segment` runs it as it is"
            )
    return NetworkPlan(
        kind=next(kind for kind, known in _KINDS.items() if known == architecture.kind),
        filters=architecture.features,
        strides=architecture.strides[1:],
        residual_units=architecture.encoder_blocks,
        norm=architecture.norm,
        kernels=architecture.kernels,
        decoder_units=architecture.decoder_blocks,
    )


def _is_known_norm(architecture: NnunetArchitecture) -> bool:
    standard = {**_NORM, "track_running_stats": architecture.norm == "batch"}
    return architecture.norm != "none" and standard == {**standard, **architecture.norm_arguments}


def _triple(value: int | tuple[int, int, int]) -> tuple[int, int, int]:
    return value if isinstance(value, tuple) else (value, value, value)


def _each_level(value: int | tuple[int, ...], n: int, name: str) -> tuple[int, ...]:
    entries = (value,) * n if isinstance(value, int) else value
    if len(entries) != n:
        raise InvalidPlan(f"{n} levels need as many {name}, or one number for all; got {value}")
    return entries
