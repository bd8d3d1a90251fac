"""The inferer of a bundle as a `WindowPlan`."""

from __future__ import annotations

from typing import Any

from medseg.core.recipe import WindowPlan
from medseg.core.steps import PreparationStep, Resize
from medseg.errors import UnsupportedModel
from medseg.models.monai_code import known_variant, own_code
from medseg.models.monai_config import BundleConfig
from medseg.models.monai_steps import listed
from medseg.models.monai_values import Component, Lambda

__all__ = ["read_windows"]

_WINDOWED = {"SlidingWindowInferer", "SlidingWindowInfererAdapt"}
# what says where things are kept, how progress is shown, or how memory is saved, and changes no number
_WITHOUT_EFFECT = {
    "buffer_dim",
    "buffer_steps",
    "cache_roi_weight_map",
    "cpu_thresh",
    "device",
    "progress",
    "sw_device",
}
_SMALL_IMAGE = 64  # voxels a side, where the scan alone says how large it is: for a first try of the network
_KNOWN = {"roi_size", "sw_batch_size", "overlap", "mode", "sigma_scale", "padding_mode", "cval", *_WITHOUT_EFFECT}


def read_windows(inferer: Any, config: BundleConfig, steps: tuple[PreparationStep, ...], divisor: Any) -> WindowPlan:
    """The windows that an inferer lays.

    Parameters
    ----------
    inferer
        Component, or None where the bundle has none: the whole image at once.
    config
        For messages.
    steps
        The preparation: a `Resize` says how large the image is.
    divisor
        (3,) what each side of the network's input must be divisible by.

    Raises
    ------
    UntrustedCode
        If it is the bundle's own.
    UnsupportedModel
        If it is one of MONAI's that medseg does not follow.
    """
    if isinstance(inferer, Lambda):
        raise own_code(config, inferer.key, inferer.source)
    if inferer is None or (isinstance(inferer, Component) and inferer.name == "SimpleInferer"):
        return WindowPlan(patch_size=_image_size(steps, divisor), divisor=divisor, is_whole_image=True)
    if not isinstance(inferer, Component):
        raise UnsupportedModel(f"{config.name}: the inferer is {type(inferer).__name__}, which medseg does not follow")
    if inferer.name == "Vista3dInferer" and (blend := known_variant(config, inferer)):
        return _windows(_as_sliding_window(inferer, blend), config, steps, divisor)
    if "." in inferer.target and not inferer.target.startswith("monai."):
        raise own_code(config, inferer.key, inferer.target)
    if inferer.name == "SliceInferer":
        raise UnsupportedModel(f"{config.name}: a 2-D network that is run slice by slice; medseg runs 3-D networks")
    if inferer.name not in _WINDOWED:
        raise UnsupportedModel(f"{config.name}: inferer {inferer.name} is not one that medseg follows")
    return _windows(inferer, config, steps, divisor)


def _image_size(steps: tuple[PreparationStep, ...], divisor: Any) -> tuple[int, int, int]:
    """Voxels of the images that a network sees whole: as a `Resize` makes them, else those of a small one."""
    shapes = [step.shape for step in steps if isinstance(step, Resize)]
    if shapes:
        return shapes[-1]
    i, j, k = (side * -(-_SMALL_IMAGE // side) for side in divisor)
    return i, j, k


def _as_sliding_window(inferer: Component, blend: str) -> Component:
    """What VISTA3D's own inferer does where nobody clicks; its constant version drops the overlap that it is given."""
    kept = {"roi_size", "sw_batch_size", *(("overlap",) if blend == "gaussian" else ())}
    arguments = {name: give for name, give in inferer.arguments.items() if name in kept}
    return Component("SlidingWindowInferer", inferer.key, {**arguments, "mode": lambda: blend})


def _windows(inferer: Component, config: BundleConfig, steps: tuple[PreparationStep, ...], divisor: Any) -> WindowPlan:
    unknown = sorted(set(inferer.arguments) - _KNOWN)
    if unknown:
        raise UnsupportedModel(f"{config.name}: {inferer.name} with {', '.join(unknown)} is not within medseg's reach")
    mode, padding = str(inferer.get("mode", "constant")).lower(), str(inferer.get("padding_mode", "constant")).lower()
    if mode not in {"constant", "gaussian"} or padding not in {"constant", "replicate", "reflect", "circular"}:
        raise UnsupportedModel(f"{config.name}: {inferer.name} with mode {mode}, padding_mode {padding} is unknown")
    sides = _sides(inferer.get("roi_size"), config)
    return WindowPlan(
        patch_size=_image_size(steps, divisor) if sides is None else sides,
        is_whole_image=sides is None,
        overlap=_one(inferer, "overlap", 0.25, config),
        divisor=divisor,
        blend=mode,
        sigma_scale=_one(inferer, "sigma_scale", 0.125, config),
        padding=padding,
        padding_value=float(inferer.get("cval", 0.0)),
        per_batch=int(inferer.get("sw_batch_size", 1)),
    )


def _sides(roi: Any, config: BundleConfig) -> tuple[int, int, int] | None:
    """Voxels of a window; None where each side is the image's own (MONAI's None, 0 or -1)."""
    sides = listed(roi)
    sides = sides * 3 if len(sides) == 1 else sides
    if len(sides) == 2:
        raise UnsupportedModel(f"{config.name}: windows of 2-D; medseg runs 3-D networks")
    i, j, k = (0 if side is None else max(int(side), 0) for side in sides)
    if min(i, j, k) == 0 < max(i, j, k):
        raise UnsupportedModel(f"{config.name}: windows as long as the image along some axes only: {roi}")
    return (i, j, k) if min(i, j, k) else None


def _one(inferer: Component, argument: str, default: float, config: BundleConfig) -> float:
    values = {float(value) for value in listed(inferer.get(argument, default))}
    if len(values) != 1:
        raise UnsupportedModel(
            f"{config.name}: {inferer.name} with another {argument} along each axis: {sorted(values)}"
        )
    return values.pop()
