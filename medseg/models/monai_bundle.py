"""Read a MONAI bundle: network, weights, preprocessing, windows, output and names, without executing it.

Whatever can only be had by running code of the bundle is `UntrustedCode`, all of it in one message; with trust that
code is run, and only that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

from medseg.core.recipe import ChannelSpec, OutputPlan, Recipe, WindowPlan
from medseg.errors import InvalidBundle, UnsupportedModel, UntrustedCode, UsageError
from medseg.inference.segmenter import TakesOver
from medseg.models.loaded import LoadedModel
from medseg.models.monai_classes import asked_classes
from medseg.models.monai_config import BundleConfig
from medseg.models.monai_expressions import untrusted
from medseg.models.monai_files import BundleFiles
from medseg.models.monai_names import channel_specs, is_background, label_scheme, network_data, output_names
from medseg.models.monai_network import FoundNetwork, describe_network, network_component
from medseg.models.monai_output import read_output
from medseg.models.monai_preparation import Preparation
from medseg.models.monai_statements import run_id, unknown_statements
from medseg.models.monai_steps import prepare_steps, transforms_of
from medseg.models.monai_weights import Checkpoint, find_weights, fitted_weights, read_checkpoint
from medseg.models.monai_windows import read_windows
from medseg.networks.checkpoint import weights_sha256
from medseg.networks.description import (
    ASKED_FOR_CLASSES,
    NetworkDescription,
    build_described,
    completed,
    divisor_of,
)

if TYPE_CHECKING:
    from medseg.models.monai_own import OwnCode

__all__ = ["read_monai_bundle"]

T = TypeVar("T")


@dataclass
class _Reading:
    """A bundle while it is read: what was found, what needs trust, what was repaired."""

    files: BundleFiles
    config: BundleConfig
    is_trusted: bool
    refused: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)

    def attempt(self, read: Callable[[], T]) -> T | None:
        """What `read` gives, or None where it would run code: noted, and refused at the end without trust.

        With trust, what medseg does not follow is left to the bundle's own code too.
        """
        try:
            return read()
        except UntrustedCode as error:
            self.note([str(error)])
        except UnsupportedModel as error:
            if not self.is_trusted or "--trust" not in str(error):
                raise
            self.ran.append(str(error))
        return None

    def note(self, needs: Iterable[str]) -> None:
        """Keep what needs code to run."""
        (self.ran if self.is_trusted else self.refused).extend(needs)

    def own_reasons(self) -> list[str]:
        """Why code of the bundle ran, without what was advised."""
        return [re.split(r"[.;] (?=medseg reads|medseg knows|--trust)", reason)[0] for reason in self.ran]

    def check_trust(self) -> None:
        if self.refused:
            raise UntrustedCode("\n".join(self.refused))


def read_monai_bundle(
    files: BundleFiles, *, trust: bool = False, classes: Sequence[int | str] | None = None
) -> LoadedModel:
    """Read a bundle and build its network.

    Parameters
    ----------
    files
        See `find_bundle`.
    trust
        Whether code of the bundle may run where nothing else will do.
    classes
        Numbers or names of the classes that a network is asked for, if it is one that is asked (VISTA3D); None for all
        that the bundle lists as everything.

    Raises
    ------
    UsageError
        If a class is unknown to the bundle, or classes are given for a network that is not asked.
    UntrustedCode
        If code of the bundle would have to run and `trust` is False; the message lists all of it.
    UnsupportedModel
        If the bundle is for 2-D images, finds boxes, or does what medseg does not follow.
    InvalidBundle
        If something is missing, damaged or contradicts itself.
    """
    reading = _Reading(files, files.config(), trust)
    statements = unknown_statements(reading.config)
    reading.note(str(untrusted(reading.config.name, key, text)) for key, text in statements)
    found = reading.attempt(lambda: _find_network(reading.config))
    asked = reading.attempt(lambda: _asked(reading, found, classes)) or ()
    preparation = reading.attempt(lambda: _read_preparation(reading.config))
    windows = reading.attempt(lambda: _read_windows(reading, found, preparation))
    n_outputs = len(asked) + 1 if asked else _n_outputs(reading, found)
    output = reading.attempt(lambda: _read_output(reading, preparation or Preparation(), n_outputs, asked))
    reading.check_trust()
    own = _own_code(files) if reading.ran else None
    if own is not None:
        for key, _ in statements:
            own.evaluate(key)
    network, description, sha256 = _network(reading, found, own, preparation, asked)
    names = _names(files, asked, n_outputs)
    takes_over = None
    if own is not None and (preparation is None or windows is None or output is None):
        takes_over = own.pipeline(network, names)
    recipe = _recipe(reading, found, preparation, windows, output, names, n_outputs, takes_over)
    return LoadedModel(
        [network],
        recipe,
        sha256,
        files.source,
        descriptions=() if description is None or takes_over is not None else (description,),
        takes_over=takes_over,
        metadata=dict(files.metadata),
        details={"run_id": run_id(reading.config), "config": files.config_name, "own_code": reading.own_reasons()},
    )


def _own_code(files: BundleFiles) -> OwnCode:
    from medseg.models.monai_own import OwnCode  # imports MONAI, which takes seconds

    return OwnCode(files)


def _find_network(config: BundleConfig) -> FoundNetwork:
    return describe_network(network_component(config), config)


def _names(files: BundleFiles, asked: tuple[int, ...], n_outputs: int) -> dict[int, str]:
    """Names of the network's channels by number; of those that it was asked for in that order."""
    if not asked:
        return output_names(files.metadata, n_outputs)
    named = output_names(files.metadata)
    return {channel: named[number] for channel, number in enumerate((0, *asked)) if number in named}


def _asked(reading: _Reading, found: FoundNetwork | None, classes: Sequence[int | str] | None) -> tuple[int, ...]:
    """The classes that the network is asked for; none if it is not one that is asked."""
    config = reading.config
    if found is None or found.description.name not in ASKED_FOR_CLASSES:
        if classes is not None:
            raise UsageError(
                f"{reading.files.name}: its network always marks all of its classes; it cannot be asked for some"
            )
        return ()
    transforms = transforms_of(_preprocessing(config), config, "preprocessing")
    return asked_classes(classes, config, transforms, output_names(reading.files.metadata))


def _preprocessing(config: BundleConfig) -> Any:
    return _wired(config, ("preprocessing", "pre_transforms", "preprocessing_transforms"), ("dataset", "transform"))


def _read_preparation(config: BundleConfig) -> Preparation:
    return prepare_steps(transforms_of(_preprocessing(config), config, "preprocessing"), config)


def _read_windows(reading: _Reading, found: FoundNetwork | None, preparation: Preparation | None) -> WindowPlan:
    inferer = _wired(reading.config, ("inferer",), ("evaluator", "inferer"))
    steps = tuple(preparation.steps) if preparation is not None else ()
    divisor = divisor_of(found.description) if found is not None else (1, 1, 1)
    return read_windows(inferer, reading.config, steps, divisor)


def _read_output(reading: _Reading, preparation: Preparation, n_outputs: int, asked: tuple[int, ...]) -> OutputPlan:
    config = reading.config
    raw = _wired(config, ("postprocessing", "post_transforms"), ("evaluator", "postprocessing"))
    names = output_names(reading.files.metadata, n_outputs)
    transforms = transforms_of(raw, config, "postprocessing")
    output = read_output(
        transforms,
        config,
        preparation,
        n_outputs,
        has_background=is_background(names) or not names,
        paint=(0, *asked) if asked else (),
    )
    reading.repairs += output.repairs
    return output.plan()


def _wired(config: BundleConfig, keys: tuple[str, ...], wire: tuple[str, str]) -> Any:
    """What the dataset or evaluator refers to, else what stands under one of the usual keys."""
    owner_key, argument = wire
    if owner_key in config and isinstance(config.raw(owner_key), dict) and argument in config.raw(owner_key):
        return config.resolve(f"{owner_key}::{argument}")
    return next((config.resolve(key) for key in keys if key in config), None)


def _n_outputs(reading: _Reading, found: FoundNetwork | None) -> int:
    arguments = found.description.arguments if found is not None else {}
    for name in ("out_channels", "num_classes", "n_classes"):
        if isinstance(arguments.get(name), int):
            return int(arguments[name])
    described = network_data(reading.files.metadata, "outputs").get("num_channels")
    if isinstance(described, int) and described > 0:
        return described
    if found is None:
        return 2  # nothing says; a network of the bundle's own is asked by its first window
    raise InvalidBundle(f"{reading.files.name}: neither the network nor the metadata says how many outputs there are")


def _network(
    reading: _Reading,
    found: FoundNetwork | None,
    own: OwnCode | None,
    preparation: Preparation | None,
    asked: tuple[int, ...],
) -> tuple[nn.Module, NetworkDescription | None, str]:
    """The network with its weights, its description where it has one, and the hash of the weights file."""
    files = reading.files
    checkpoint = Checkpoint(files.script) if files.script is not None else find_weights(reading.config, files.folder)
    if checkpoint.repair:
        reading.repairs.append(checkpoint.repair)
    if found is None:
        network, description = (own or _own_code(files)).network(), None  # without trust it was refused before
    else:
        reading.repairs += found.repairs
        network, description = build_described(found.description), found.description
    weights, notes = fitted_weights(read_checkpoint(checkpoint), network.state_dict(), checkpoint)
    network.load_state_dict(weights)
    reading.repairs += notes
    if description is not None:
        around = {"n_empty_channels": _n_empty(found, preparation), "asked_classes": asked}
        description = description.model_copy(update=around)
        network = completed(network, description)
    return network.eval(), description, weights_sha256(checkpoint.path)


def _n_empty(found: FoundNetwork | None, preparation: Preparation | None) -> int:
    """Channels of the network that clicks would fill."""
    if found is None or preparation is None or not preparation.takes_guidance or found.n_inputs is None:
        return 0
    return found.n_inputs - max(len(preparation.image_keys), 1)


def _recipe(
    reading: _Reading,
    found: FoundNetwork | None,
    preparation: Preparation | None,
    windows: WindowPlan | None,
    output: OutputPlan | None,
    names: dict[int, str],
    n_outputs: int,
    takes_over: TakesOver | None,
) -> Recipe:
    files = reading.files
    plan = output or OutputPlan(paint=tuple(range(n_outputs)))
    read = preparation or Preparation(image_keys=["image"])
    own = [f"code of the bundle's own was run with trust: {reason}" for reason in reading.own_reasons()]
    return Recipe(
        name=files.name,
        family="monai",
        channels=_channels(reading, found, read),
        labels=label_scheme(plan, names),
        preparation=() if takes_over is not None else tuple(read.steps),
        windows=windows or WindowPlan(patch_size=(96, 96, 96)),
        output=plan,
        repairs=tuple(dict.fromkeys([*_newer(files), *read.repairs, *reading.repairs, *own])),
    )


def _channels(reading: _Reading, found: FoundNetwork | None, read: Preparation) -> tuple[ChannelSpec, ...]:
    described = network_data(reading.files.metadata, "inputs").get("num_channels")
    stated = found.n_inputs if found is not None else described
    n_channels = int(stated) if isinstance(stated, int) and stated > 0 else max(len(read.image_keys), 1)
    n_channels -= _n_empty(found, read)
    if len(read.image_keys) > 1 and len(read.image_keys) != n_channels:
        raise InvalidBundle(
            f"{reading.files.name}: {len(read.image_keys)} images are joined; the network takes {n_channels} channels"
        )
    return channel_specs(reading.files.metadata, n_channels, read.image_keys)


def _newer(files: BundleFiles) -> list[str]:
    """A note where the bundle was made with a newer MONAI than the one that is installed."""
    wanted = str(files.metadata.get("monai_version", ""))
    if _numbers(wanted) > _numbers(version("monai")):
        return [f"made with MONAI {wanted}, newer than the {version('monai')} that runs it here"]
    return []


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split("+")[0].split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit())
