"""The pixels of DICOM frames: stored numbers out of any transfer syntax, and these rescaled into a volume.

Uncompressed frames are read straight from their place in the file; all others go through pydicom's decoders.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from itertools import groupby
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLossless, JPEGLosslessSV1

from medseg.core.volume import count_non_finite
from medseg.errors import UnreadableImage
from medseg.io.codestream import codestream_size
from medseg.io.dicom_frames import Frame, ImageFile
from medseg.io.dicom_grid import OrderedStack
from medseg.io.dicom_headers import lenient_parsing
from medseg.io.dicom_rescale import rescale_into
from medseg.io.memory import usable_cores
from medseg.io.slice_memory import make_pages

__all__ = ["have_same_pixels", "read_stack_into"]

logger = logging.getLogger(__name__)

_MOST_THREADS = 8  # each holds a frame; more would wait for each other's memory
_FILES_A_TASK = 8
_PIXEL_DATA = 0x7FE00010
_PIXEL_TAGS = [
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "Rows", "Columns", "NumberOfFrames"),
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "ExtendedOffsetTable"),
    *("ExtendedOffsetTableLengths", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("SOPClassUID", "ModalityLUTSequence"),
]
_CODECS = {
    "1.2.840.10008.1.2.5": "pylibjpeg-rle",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.91": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.202": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.50": "python-gdcm",
    "1.2.840.10008.1.2.4.51": "python-gdcm",
    "1.2.840.10008.1.2.4.57": "python-gdcm",
    "1.2.840.10008.1.2.4.70": "python-gdcm",
}


# before GDCM, which ends the process where others raise
_FIRST_PLUGIN = {"pyjpegls": "pyjpegls", "pylibjpeg-openjpeg": "pylibjpeg", "pylibjpeg-rle": "pylibjpeg"}


def read_stack_into(stack: OrderedStack, out: NDArray[np.float32], divisor: np.float32 | None = None) -> int:
    """Fill an array with the rescaled pixels of a stack.

    Whether they are finite is settled slice by slice: by the numbers that a slice can hold at most, or by looking at it
    while it is in the processor's cache.

    Parameters
    ----------
    stack
        Ordered frames and their grid.
    out
        (I, J, K) = (column, row, slice) float32, written to. Fastest if a slice of it is contiguous when transposed.
    divisor
        What the rescaled pixels are divided by (SUV), or None.

    Returns
    -------
    How many voxels are NaN or infinite.

    Raises
    ------
    UnreadableImage
        If a file's pixels are missing, truncated, of another size, or compressed in a way that no installed codec
        reads.
    """
    slices = out.transpose(2, 1, 0)
    _check_codecs([frame.file for frame in stack.frames])
    with lenient_parsing():
        if not stack.between:
            return _fill(stack.frames, slices, divisor)
        _fill_between(stack, slices)
    if divisor is not None:
        out /= divisor
    return count_non_finite(out)


def have_same_pixels(first: Frame, second: Frame) -> bool:
    """Whether two frames hold the same numbers after the rescale."""
    with lenient_parsing():
        one, other = (_single_frame(frame) for frame in (first, second))
    return one.shape == other.shape and bool(np.array_equal(one, other))


def _fill(frames: Sequence[Frame], slices: NDArray[np.float32], divisor: np.float32 | None) -> int:
    """Read file by file, several at once; each thread holds one stored frame.

    Returns how many voxels are NaN or infinite.
    """
    numbered = sorted(enumerate(frames), key=lambda pair: (str(pair[1].file.path), pair[1].index))
    files = [list(group) for _, group in groupby(numbered, key=lambda pair: pair[1].file.path)]

    def fill_from_files(start: int) -> int:
        n_bad = 0
        for members in files[start : start + _FILES_A_TASK]:
            wanted = [frame for _, frame in members]
            for (number, frame), stored in zip(members, _stored_frames(wanted), strict=True):
                make_pages(slices[number])
                n_bad += rescale_into(frame, stored, slices[number], divisor)
        return n_bad

    if len(files) == 1:
        return fill_from_files(0)
    with ThreadPoolExecutor(min(usable_cores(), _MOST_THREADS)) as pool:
        return sum(pool.map(fill_from_files, range(0, len(files), _FILES_A_TASK)))


def _fill_between(stack: OrderedStack, slices: NDArray[np.float32]) -> None:
    """Slices of a grid across gaps: stored frames where they lie on it, linear along the stack between them."""
    held: dict[int, NDArray[np.float32]] = {}
    for target, (below, weight) in zip(slices, stack.between, strict=True):
        needed = (below,) if weight == 0 else (below, below + 1)
        held = {k: held[k] if k in held else _single_frame(stack.frames[k]) for k in needed}
        target[:] = held[below] if weight == 0 else (1 - weight) * held[below] + weight * held[below + 1]


def _single_frame(frame: Frame) -> NDArray[np.float32]:
    rescaled = np.empty((frame.rows, frame.columns), dtype=np.float32)
    rescale_into(frame, next(_stored_frames([frame])), rescaled)
    return rescaled


def _stored_frames(frames: Sequence[Frame]) -> Iterator[NDArray[np.generic]]:
    """The stored pixels (rows, columns) of frames of one file, in order of their index."""
    file = frames[0].file
    try:
        if _is_native(file):
            whole = _native_frames(file, frames)
        elif _is_lossless_jpeg(file):
            whole = iter([_lossless_jpeg(file)] * len(frames))
        else:
            whole = _decoded_frames(file, frames)
        for frame, pixels in zip(frames, whole, strict=True):
            yield _checked(frame, pixels)
    except (UnreadableImage, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # codecs raise almost anything for a damaged file; those in Rust panic
        raise UnreadableImage(f"{file.path}: the pixels cannot be read: {error}") from error


def _checked(frame: Frame, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """The frame's own part of what is stored, of the size that the header promised."""
    expected = (frame.file.rows, frame.file.columns)
    if pixels.shape != expected:
        raise UnreadableImage(f"{frame.file.path}: the pixels have shape {pixels.shape}; the header said {expected}")
    if frame.tile is None:
        return pixels
    row, column = frame.tile
    return pixels[row : row + frame.rows, column : column + frame.columns]


def _is_native(file: ImageFile) -> bool:
    """Whether whole little-endian integers lie at a known place in the file."""
    pixels = file.pixels
    is_plain = pixels.transfer_syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
    element = pixels.element
    return (
        is_plain
        and element is not None
        and element.tag == _PIXEL_DATA
        and element.n_bytes is not None
        and pixels.bits_allocated in (8, 16, 32)
    )


def _native_frames(file: ImageFile, frames: Sequence[Frame]) -> Iterator[NDArray[np.generic]]:
    n_bytes = file.rows * file.columns * file.pixels.bits_allocated // 8
    offset = 0 if file.pixels.element is None else file.pixels.element.offset
    index = -1
    numbers: NDArray[np.generic] = np.empty(0)
    with file.path.open("rb", buffering=0) as stream:
        for frame in frames:
            if frame.index != index:  # the tiles of a mosaic share one frame
                buffer = _thread_buffer(n_bytes)
                stream.seek(offset + frame.index * n_bytes)
                n_read = _read_fully(stream, buffer)
                if n_read < n_bytes:
                    raise UnreadableImage(
                        f"{file.path}: the pixels cannot be read: {n_read} bytes of frame {frame.index + 1}; "
                        f"expected {n_bytes}"
                    )
                index, numbers = frame.index, _signed(_shaped(buffer, file), file)
            yield numbers


_of_thread = threading.local()


def _thread_buffer(n_bytes: int) -> bytearray:
    """The thread's own buffer, used again for every frame of one size: a new one would be zeroed and paged in."""
    buffer: bytearray | None = getattr(_of_thread, "buffer", None)
    if buffer is None or len(buffer) != n_bytes:
        buffer = bytearray(n_bytes)
        _of_thread.buffer = buffer
    return buffer


def _read_fully(stream: FileIO, buffer: bytearray) -> int:
    """Fill a buffer from an unbuffered stream; how many bytes there were."""
    view, n_read = memoryview(buffer), 0
    while n_read < len(buffer) and (count := stream.readinto(view[n_read:])):
        n_read += count
    return n_read


def _shaped(buffer: bytearray, file: ImageFile) -> NDArray[np.generic]:
    unsigned = np.dtype(f"<u{file.pixels.bits_allocated // 8}")
    return np.frombuffer(buffer, dtype=unsigned).reshape(file.rows, file.columns)


def _signed(numbers: NDArray[Any], file: ImageFile) -> NDArray[np.generic]:
    """Signed or unsigned numbers, with the bits beside the stored ones (old overlays, rubbish) taken off; in place."""
    pixels = file.pixels
    allocated, stored = pixels.bits_allocated, pixels.bits_stored
    above, below = allocated - 1 - pixels.high_bit, pixels.high_bit + 1 - stored
    if above < 0 or below < 0:
        raise UnreadableImage(
            f"{file.path}: BitsAllocated {allocated}, BitsStored {stored} and HighBit {pixels.high_bit} do not fit"
        )
    if above:
        numbers <<= above
    signed = numbers.view(numbers.dtype.str.replace("u", "i")) if pixels.is_signed else numbers
    if above + below:
        signed >>= above + below  # an arithmetic shift keeps the sign
    return signed


def _is_lossless_jpeg(file: ImageFile) -> bool:
    """Whether libjpeg-turbo reads it: several times faster than GDCM, and it does not hold the other threads up."""
    element = file.pixels.element
    is_single = file.n_frames == 1 and element is not None and element.n_bytes is None
    return is_single and file.pixels.transfer_syntax in (JPEGLossless, JPEGLosslessSV1)


def _lossless_jpeg(file: ImageFile) -> NDArray[np.generic]:
    with file.path.open("rb") as stream:
        stream.seek(0 if file.pixels.element is None else file.pixels.element.offset)
        frame = next(generate_frames(stream.read(), number_of_frames=1))
    _check_size(frame, file)
    numbers = imagecodecs.jpeg8_decode(frame)
    if numbers.dtype.itemsize * 8 != file.pixels.bits_allocated:
        numbers = numbers.astype(f"u{file.pixels.bits_allocated // 8}")
    return _signed(numbers, file)


def _decoded_frames(file: ImageFile, frames: Sequence[Frame]) -> Iterator[NDArray[np.generic]]:
    dataset = dcmread(file.path, specific_tags=_PIXEL_TAGS, force=True)
    syntax = UID(file.pixels.transfer_syntax)
    if "PixelData" not in dataset:
        yield from _float_frames(dataset, file, frames)
        return
    if not hasattr(dataset, "file_meta") or "TransferSyntaxUID" not in dataset.file_meta:
        raise UnreadableImage(f"{file.path} does not say how its pixels are compressed (no TransferSyntaxUID)")
    if syntax.is_encapsulated:
        for encoded in generate_frames(
            dataset.PixelData, number_of_frames=file.n_frames, extended_offsets=_offsets(dataset)
        ):
            _check_size(encoded, file)
    decoder = get_decoder(syntax)
    wanted = sorted({frame.index for frame in frames})
    is_whole = wanted == list(range(file.n_frames))
    first = _FIRST_PLUGIN.get(_CODECS.get(syntax, ""), "")
    plugin = first if first in decoder.available_plugins else ""
    decoded = decoder.iter_array(dataset, raw=True, indices=None if is_whole else wanted, decoding_plugin=plugin)
    current, pixels = -1, np.empty(0)
    for frame in frames:
        while current < frame.index:
            pixels, _ = next(decoded)
            current = wanted[wanted.index(current) + 1] if current >= 0 else wanted[0]
        yield pixels


def _offsets(dataset: Dataset) -> tuple[bytes, bytes] | None:
    """The extended offset table, where there is one."""
    if "ExtendedOffsetTable" not in dataset or "ExtendedOffsetTableLengths" not in dataset:
        return None
    return dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths


def _check_size(encoded: bytes, file: ImageFile) -> None:
    """Refuse a stream of another size than the header promised, before a codec makes room for it."""
    size, expected = codestream_size(encoded), (file.rows, file.columns)
    if size is not None and size != expected:
        raise UnreadableImage(f"{file.path} holds a compressed frame of {size} pixels; the header said {expected}")


def _float_frames(dataset: Dataset, file: ImageFile, frames: Sequence[Frame]) -> Iterator[NDArray[np.generic]]:
    whole = dataset.pixel_array.reshape(file.n_frames, file.rows, file.columns)
    for frame in frames:
        yield whole[frame.index]


def _check_codecs(files: Sequence[ImageFile]) -> None:
    """Refuse what no installed package decodes, with the package's name."""
    by_syntax: dict[str, list[Path]] = {}
    for file in files:
        by_syntax.setdefault(file.pixels.transfer_syntax, []).append(file.path)
    for syntax, paths in by_syntax.items():
        uid = UID(syntax)
        if syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian) or not uid.is_transfer_syntax:
            continue
        try:
            missing = not get_decoder(uid).is_available
        except NotImplementedError:
            raise UnreadableImage(f"{paths[0]}: pixels in {uid.name} cannot be read; {_affected(paths)}") from None
        if missing:
            package = _CODECS.get(syntax, "python-gdcm")
            raise UnreadableImage(
                f"{paths[0]}: pixels in {uid.name} need a codec that is not installed: pip install {package}; "
                f"{_affected(paths)}"
            )


def _affected(paths: Sequence[Path]) -> str:
    n_files = len(set(paths))
    return "this file is affected" if n_files == 1 else f"{n_files} files of this series are affected"
