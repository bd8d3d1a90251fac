"""Every error that medseg raises on purpose.

    MedsegError
    ├── UsageError (ValueError)                what was asked for makes no sense; exit code 2
    │   ├── InvalidPlan                        a plan field is unknown or out of range
    │   ├── UnknownModel (LookupError)         no model by that name or path
    │   ├── OutputExists (FileExistsError)     a result is there already; --overwrite replaces it
    │   ├── OutputNotWritable (OSError)        the output folder cannot be written
    │   └── OutputInUse                        another run is writing to the output folder
    ├── ScanError (ValueError)                 a scan cannot be used
    │   ├── ScanNotFound (FileNotFoundError)   nothing lies at that path
    │   ├── UnreadableImage (OSError)          not an image, or damaged
    │   ├── UnsupportedDimensions              2-D, 4-D, ...: medseg reads 3-D volumes
    │   ├── NonFiniteVoxels                    NaN or infinite voxels
    │   ├── InvalidGeometry                    zero spacing, singular affine, ...
    │   ├── IncompleteSeries                   slices are missing, doubled or irregular
    │   ├── AmbiguousSeries                    several series, and none was chosen
    │   ├── ScanTooLarge (MemoryError)         the voxels do not fit into memory
    │   ├── UnsafeArchive                      a zip or tar goes beyond the limits: a bomb, or too many files
    │   └── UnsupportedUnits                   the voxel unit asked for cannot be had from this scan
    ├── GridMismatch (ValueError)              two things that must share a grid do not
    ├── InvalidLabelMap (ValueError)           not a map of whole, non-negative, known numbers
    ├── ModelError (ValueError)                a model cannot be used
    │   ├── InvalidBundle                      a bundle folder lacks something or contradicts itself
    │   ├── UnsupportedModel                   what the model does is not within medseg's reach
    │   ├── UntrustedCode                      code from the model's folder would have to run; --trust allows it
    │   ├── ChangedModel                       the files are not those that were pinned as trusted
    │   ├── UnsupportedOperator (NotImplementedError)  the engine cannot run a part of the network
    │   └── ChannelMismatch                    the scan has other channels than the model wants
    ├── NetworkFailed (RuntimeError)           a network cannot compute a window
    ├── InvalidManifest (ValueError)           a data manifest is malformed
    │   └── HashMismatch                       a file is not the file that the manifest names
    ├── TrainingError (RuntimeError)           training cannot start or go on
    ├── ClusterError (RuntimeError)            a Dask cluster cannot be reached, or its workers do not answer
    ├── PacsError (OSError)                    a PACS refuses, or answers with what is no DICOM
    │   ├── PacsUnreachable                    it cannot be reached now; later it may
    │   └── PacsDenied                         it does not know us, or we do not trust it: asking again is of no use
    ├── WorkerDied (RuntimeError)              worker processes end before they can take a case
    ├── NotEnoughMemory (MemoryError)          a case needs more memory than it may have
    └── Cancelled (RuntimeError)               a case was called off

A message says what is wrong, in which case, file or argument, what was expected and found, and what to do.
"""

from __future__ import annotations

__all__ = [
    "AmbiguousSeries",
    "Cancelled",
    "ChangedModel",
    "ChannelMismatch",
    "ClusterError",
    "GridMismatch",
    "HashMismatch",
    "IncompleteSeries",
    "InvalidBundle",
    "InvalidGeometry",
    "InvalidLabelMap",
    "InvalidManifest",
    "InvalidPlan",
    "MedsegError",
    "ModelError",
    "NetworkFailed",
    "NonFiniteVoxels",
    "NotEnoughMemory",
    "OutputExists",
    "OutputInUse",
    "OutputNotWritable",
    "PacsDenied",
    "PacsError",
    "PacsUnreachable",
    "ScanError",
    "ScanNotFound",
    "ScanTooLarge",
    "TrainingError",
    "UnknownModel",
    "UnreadableImage",
    "UnsafeArchive",
    "UnsupportedDimensions",
    "UnsupportedModel",
    "UnsupportedOperator",
    "UnsupportedUnits",
    "UntrustedCode",
    "UsageError",
    "WorkerDied",
]


class MedsegError(Exception):
    """Root of every deliberate error; the command line prints its message without a traceback."""

    exit_code: int = 1


class UsageError(MedsegError, ValueError):
    """What was asked for makes no sense."""

    exit_code = 2


class InvalidPlan(UsageError):
    """A plan field is unknown or out of range."""


class UnknownModel(UsageError, LookupError):
    """No model by that name or path."""


class OutputExists(UsageError, FileExistsError):
    """A result is there already."""


class OutputNotWritable(UsageError, OSError):
    """The output folder or file cannot be written."""


class OutputInUse(UsageError):
    """Another run is writing to the output folder."""


class ScanError(MedsegError, ValueError):
    """A scan cannot be used."""


class ScanNotFound(ScanError, FileNotFoundError):
    """Nothing lies at that path."""

    exit_code = 2


class UnreadableImage(ScanError, OSError):
    """Not an image, or a damaged one."""


class UnsupportedDimensions(ScanError):
    """The image is not a 3-D volume."""


class NonFiniteVoxels(ScanError):
    """The image holds NaN or infinite voxels."""


class InvalidGeometry(ScanError):
    """The grid has no usable position in space."""


class IncompleteSeries(ScanError):
    """Slices are missing, doubled or irregularly spaced."""


class AmbiguousSeries(ScanError):
    """Several series lie there and none was chosen."""

    exit_code = 2


class ScanTooLarge(ScanError, MemoryError):
    """The voxels do not fit into memory."""


class UnsafeArchive(ScanError):
    """A zip or tar goes beyond the limits: a bomb, or too many files."""


class UnsupportedUnits(ScanError):
    """The voxel unit asked for cannot be had from this scan."""


class GridMismatch(MedsegError, ValueError):
    """Two things that must share a grid do not."""


class InvalidLabelMap(MedsegError, ValueError):
    """Not a map of whole, non-negative, known numbers."""


class ModelError(MedsegError, ValueError):
    """A model cannot be used."""


class InvalidBundle(ModelError):
    """A bundle folder lacks something or contradicts itself."""


class UnsupportedModel(ModelError):
    """What the model does is not within medseg's reach: a 2-D network, boxes instead of voxels, an unknown step."""


class UntrustedCode(ModelError):
    """Code from the model's folder would have to run; `--trust` allows it."""


class ChangedModel(ModelError):
    """The model's files are not those that were pinned as trusted."""


class UnsupportedOperator(ModelError, NotImplementedError):
    """The engine that was asked for cannot run a part of the network; another engine can."""


class ChannelMismatch(ModelError):
    """The scan has other channels than the model wants."""

    exit_code = 2


class InvalidManifest(MedsegError, ValueError):
    """A data manifest is malformed."""

    exit_code = 2


class HashMismatch(InvalidManifest):
    """A file is not the file that the manifest names."""

    exit_code = 1


class NetworkFailed(MedsegError, RuntimeError):
    """A network, or the engine that runs it, cannot compute a window; the cause is the error that it raised."""


class TrainingError(MedsegError, RuntimeError):
    """Training cannot start or go on."""


class ClusterError(MedsegError, RuntimeError):
    """A Dask cluster cannot be reached, or its workers do not answer."""


class PacsError(MedsegError, OSError):
    """A picture archive refuses what it is asked, or does not answer in DICOM."""


class PacsDenied(PacsError):
    """A PACS that does not know us, or whose certificate is not trusted."""


class PacsUnreachable(PacsError):
    """A picture archive cannot be reached, or is too busy; trying later may help."""


class WorkerDied(MedsegError, RuntimeError):
    """Worker processes end before they can take a case."""


class NotEnoughMemory(MedsegError, MemoryError):
    """A case needs more memory than it may have."""


class Cancelled(MedsegError, RuntimeError):
    """A case was called off."""
