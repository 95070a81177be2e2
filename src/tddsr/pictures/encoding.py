"""Pictures encoded row by row while they are made: pixels by libvips, what is said of them by Pillow."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, BinaryIO, TypeVar

import numpy as np
from PIL import Image

from tddsr.errors import ImageWarning
from tddsr.pictures.metadata import Metadata, held, save_options
from tddsr.pictures.picture import Layout, Pixels
from tddsr.pictures.png import MARK, chunk
from tddsr.pictures.profiles import in_srgb
from tddsr.pictures.tiff import add_tags
from tddsr.pictures.vips import pyvips

T = TypeVar("T")

_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"Q": 95, "subsample_mode": "off"},
    "PNG": {"filter": "all"},
    "TIFF": {"compression": "lzw", "predictor": "horizontal"},
}
"""Of libvips, for the kinds of file that it writes row by row."""

_PIXELS = {"JPEG": b"\xff\xdb", "PNG": b"IDAT"}
"""The mark of the first block behind the metadata."""

_PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}
"""Channels -> type of colour."""

_PNG_HEADER = 33
"""Bytes up to the end of the first chunk."""

_PART = 2**20
"""Bytes of rows that are on their way to the encoder at a time, about."""

_CLASSIC_TIFF = 0.9 * 2**32
"""Bytes of pixels up to which the offsets of such a file suffice."""


def encode(
    file: BinaryIO, kind: str, bands: Iterable[Pixels], layout: Layout, metadata: Metadata, in_all: int = 0
) -> None:
    """Write a picture as JPEG, PNG, TIFF or WEBP into an empty file, with all the metadata that it can hold.

    Args:
        file: open for reading and writing.
        kind: as PIL names it.
        bands: (rows, width, channels) each, from top to bottom.
        layout: of all of them together.
        metadata: of the picture.
        in_all: bytes of the pixels of a TIFF, if this is one page of several.

    Raises:
        pyvips.Error, OSError, ValueError: it cannot be written.
    """
    if metadata.colour_space == "GRAY" and layout.channels > 2:
        metadata = replace(metadata, icc=None)
    if kind == "WEBP":  # its encoder has the whole picture in memory anyway
        _save_webp(file, np.concatenate(list(bands)), metadata)
    elif kind == "TIFF":
        save_rows(file, kind, bands, layout, in_all=in_all)
        with_most(metadata, kind, lambda told: add_tags(file, told))
    else:
        front = with_most(metadata, kind, lambda told: front_of(kind, told))
        save_rows(file, kind, bands, layout, front)


def with_most(metadata: Metadata, kind: str, use: Callable[[Metadata], T]) -> T:
    """With all the metadata; with less where the file, or PIL, cannot hold all: they must not cost the picture."""
    least = Metadata(icc=metadata.icc, lossless=metadata.lossless)
    try:
        return use(held(metadata, kind))
    except Exception as error:
        if (isinstance(error, OSError) and error.errno is not None) or metadata == least:
            raise
        used = use(least)
        warnings.warn(f"metadata left out: {kind} cannot hold them ({error})", ImageWarning, stacklevel=2)
        return used


def front_of(kind: str, metadata: Metadata) -> bytes:
    """What such a file holds before its pixels, apart from its header: taken from one of a single pixel."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, kind, **save_options(metadata, kind))
    whole = file.getvalue()
    return whole[: _begin(kind, whole, last=True)]


def _begin(kind: str, content: bytes, last: bool) -> int:
    at = content.rindex(_PIXELS[kind]) if last else content.index(_PIXELS[kind])
    return at - 4 if kind == "PNG" else at  # the length of a chunk is before its name


def webp_image(pixels: Pixels, metadata: Metadata) -> tuple[Image.Image, Metadata]:
    """What is written as WEBP, which has three channels: pixels with a profile of greys become sRGB."""
    if metadata.colour_space == "GRAY":
        pixels = np.dstack([in_srgb(Image.fromarray(pixels[..., 0]), metadata.icc), pixels[..., 1:]])
        metadata = replace(metadata, icc=None)
    return Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels), metadata


def webp_packing(metadata: Metadata) -> dict[str, Any]:
    """Options of Pillow."""
    return {"lossless": True, "exact": True} if metadata.lossless else {"quality": 95}


def _save_webp(file: BinaryIO, pixels: Pixels, metadata: Metadata) -> None:
    image, metadata = webp_image(pixels, metadata)

    def save(told: Metadata) -> None:
        file.seek(0)
        file.truncate()
        image.save(file, "WEBP", **webp_packing(metadata), **save_options(told, "WEBP"))

    with_most(metadata, "WEBP", save)


# -- rows --------------------------------------------------------------------------------------------------------------


def save_rows(
    file: BinaryIO, kind: str, bands: Iterable[Pixels], layout: Layout, front: bytes = b"", in_all: int = 0
) -> None:
    """Encode in another thread what the bands, made in this one, bring through a pipe; ``front`` is of ``front_of``."""
    reading, writing = os.pipe()
    with ThreadPoolExecutor(1) as encoder:
        with os.fdopen(writing, "wb", buffering=0) as pipe:  # before the thread is there, which waits for its end
            saved = encoder.submit(_save, reading, _Target(file, kind, front), max(layout.nbytes, in_all))
            for part in _as_png(bands, layout):
                try:
                    _write(pipe, part)
                except OSError:  # the encoder has given up: it says why
                    break
        saved.result()


def _write(pipe: io.RawIOBase, part: bytes) -> None:
    left = memoryview(part)
    while left:
        left = left[pipe.write(left) :]


def _as_png(bands: Iterable[Pixels], layout: Layout) -> Iterator[bytes]:
    """An uncompressed PNG: the simplest kind that libvips reads from a pipe as it comes, of any depth and channels."""
    colours = _PNG_COLOURS[layout.channels]
    header = struct.pack(">IIBBBBB", layout.width, layout.height, 8 * layout.dtype.itemsize, colours, 0, 0, 0)
    yield MARK + chunk(b"IHDR", header)
    packed = zlib.compressobj(level=0)
    rows = max(1, _PART // (layout.width * layout.channels * layout.dtype.itemsize))
    for band in bands:
        for top in range(0, len(band), rows):
            part = np.ascontiguousarray(band[top : top + rows], layout.dtype.newbyteorder(">"))
            filters = ((0, 0), (1, 0))  # the byte before each row says that there is none
            yield chunk(b"IDAT", packed.compress(np.pad(part.reshape(len(part), -1).view(np.uint8), filters).data))
    yield chunk(b"IDAT", packed.flush()) + chunk(b"IEND", b"")


class _Target:
    """A file that libvips writes to, with ``front`` in the place of what it writes before the pixels."""

    def __init__(self, file: BinaryIO, kind: str, front: bytes) -> None:
        self.file, self.kind, self.front = file, kind, front
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        content = bytes(data)
        if self.front:
            own = _PNG_HEADER if self.kind == "PNG" else 0
            begin = _begin(self.kind, content, last=False)
            content, self.front = content[:own] + self.front[own:] + content[begin:], b""
        self.file.write(content)
        return len(data)

    def attempt(self, operation: Callable[..., Any], failed: int | None) -> Callable[..., Any]:
        """``operation``, but ``failed`` instead of errors, which are kept: none passes through libvips."""

        def attempt(*arguments: Any) -> Any:
            try:
                return operation(*arguments)
            except OSError as error:
                self.error = error
                return failed

        return attempt


def _save(reading: int, target: _Target, size: int) -> None:
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        source, sink = pyvips.SourceCustom(), pyvips.TargetCustom()
        source.on_read(pipe.read)
        sink.on_write(target.attempt(target.write, -1))
        sink.on_read(target.attempt(target.file.read, None))
        sink.on_seek(target.attempt(target.file.seek, -1))
        options = _OPTIONS[target.kind] | {"keep": "none"}
        if target.kind == "TIFF":
            options["bigtiff"] = size > _CLASSIC_TIFF
        try:
            image = pyvips.Image.pngload_source(source, access="sequential", fail_on="error", unlimited=True)
            pyvips.Operation.call(f"{target.kind.lower()}save_target", image, sink, **options)
        except pyvips.Error:
            if target.error is not None:
                raise target.error from None
            raise
