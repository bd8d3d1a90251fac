"""MONAI loads through medseg: `LoadScand` for medseg's own pipelines, `MedsegReader` for MONAI's `LoadImaged`.

Both wrap `medseg.load_volume`: one reader, two doors, the same voxels and affine.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import ImageReader
from monai.transforms import MapTransform
from monai.utils import MetaKeys, SpaceKeys
from numpy.typing import NDArray

from medseg.core.scan import Scan
from medseg.core.volume import Units, Volume
from medseg.io.scan import load_volume, read_scan
from medseg.transforms.border import volume_to_tensor
from medseg.transforms.keys import VOLUME

__all__ = ["LoadScand", "MedsegReader"]

PathOrPaths = str | PathLike[str] | Sequence[str | PathLike[str]]


class LoadScand(MapTransform):
    """Load scans as MetaTensors (C, I, J, K) float32 with their RAS+ affine.

    Each key may hold a `Scan`, a path (volume file, DICOM folder, archive), a list of paths (the channels of one case),
    or a `Volume` that is in memory already.

    Parameters
    ----------
    keys
        Keys to load.
    units
        "stored" (HU, Bq/ml, ...) or "suv", one for all channels or one a channel.
    volume_key
        Where the last loaded `Volume` is kept for later steps, or None.

    Raises
    ------
    ScanError
        Whatever `medseg.read_scan` and `medseg.load_volume` refuse.
    """

    def __init__(
        self, keys: KeysCollection, units: Units | Sequence[Units] = "stored", volume_key: str | None = VOLUME
    ) -> None:
        super().__init__(keys)
        self.units = units
        self.volume_key = volume_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with every key loaded."""
        loaded = dict(data)
        for key in self.key_iterator(loaded):
            volume = _as_volume(loaded[key], self.units)
            loaded[key] = volume_to_tensor(volume)
            if self.volume_key is not None:
                loaded[self.volume_key] = volume
        return loaded


class MedsegReader(ImageReader):
    """A reader for MONAI's own `LoadImage` and `LoadImaged`: `LoadImaged("image", reader=MedsegReader())`.

    Reads what `medseg.read_scan` reads, with the same checks; one channel comes as (I, J, K), several as (C, I, J, K).

    Parameters
    ----------
    units
        "stored" or "suv".
    """

    def __init__(self, units: Units = "stored") -> None:
        self.units: Units = units

    def verify_suffix(self, filename: PathOrPaths) -> bool:
        """Whether this reader would try the path: always, because content decides and not the suffix."""
        return bool(filename)

    def read(self, data: PathOrPaths, **_: Any) -> Volume:
        """Load a path, or the paths of one case's channels."""
        return _as_volume(data, self.units)

    def get_data(self, img: Volume) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The array and the metadata that MONAI builds its MetaTensor from."""
        single = img.array.shape[0] == 1
        meta: dict[str, Any] = {
            MetaKeys.AFFINE: np.array(img.geometry.affine),
            MetaKeys.ORIGINAL_AFFINE: np.array(img.geometry.affine),
            MetaKeys.SPATIAL_SHAPE: np.array(img.geometry.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: "no_channel" if single else 0,
        }
        return (np.array(img.array[0]) if single else np.array(img.array)), meta


def _as_volume(source: Volume | Scan | PathOrPaths, units: Units | Sequence[Units]) -> Volume:
    if isinstance(source, Volume):
        return source
    scan = source if isinstance(source, Scan) else read_scan(_unwrapped(source))
    return load_volume(scan, units=units)


def _unwrapped(paths: PathOrPaths) -> PathOrPaths:
    """MONAI hands even a single path over as a tuple of one."""
    return paths[0] if isinstance(paths, tuple) and len(paths) == 1 else paths
