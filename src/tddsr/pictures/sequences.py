"""Several pictures encoded into one file while they are made: animations, and pages."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from tddsr.pictures.encoding import encode, front_of, save_rows, webp_image, webp_packing, with_most
from tddsr.pictures.metadata import Metadata, save_options
from tddsr.pictures.picture import Layout, Pixels
from tddsr.pictures.png import MARK, chunk, parts_of
from tddsr.pictures.tiff import NextPage, link

_LONGEST = {"PNG": 65535_000, "WEBP": 2**24 - 1}
"""Milliseconds that a frame can be shown."""

_MOST_PLAYS = 65535


@dataclass(frozen=True)
class Timing:
    """``durations`` of frames in milliseconds; how often they are played, 0 for without end."""

    durations: Sequence[float]
    plays: int


Made = Iterable[tuple[Iterable[Pixels], Metadata]]
"""Pictures one after the other, each as bands of rows, and what is told of it."""


def encode_pages(file: BinaryIO, layouts: Sequence[Layout], pages: Made) -> None:
    """Write a TIFF of several pages, of which some rows at a time are in memory, into an empty file; as ``encode``."""
    in_all = sum(layout.nbytes for layout in layouts)
    last = None
    for layout, (bands, metadata) in zip(layouts, pages, strict=True):
        page = file if last is None else NextPage(file)
        encode(page, "TIFF", bands, layout, metadata, in_all)
        if last is not None:
            link(last, page)
        last = page


def encode_animation(file: BinaryIO, kind: str, layout: Layout, frames: Made, timing: Timing) -> None:
    """Write frames of 8 bit, all of one layout, as PNG or WEBP; in memory are two frames, and what a WEBP has so far.

    The metadata are those of the first frame.

    Raises:
        pyvips.Error, OSError, ValueError: it cannot be written.
    """
    frames = iter(frames)
    bands, metadata = next(frames)
    pixels = (np.concatenate(list(bands)) for bands in itertools.chain([bands], (bands for bands, _ in frames)))
    durations = [min(duration, _LONGEST[kind]) for duration in timing.durations]
    save = _save_png if kind == "PNG" else _save_webp
    save(file, pixels, layout, metadata.fitting(layout.channels < 3), Timing(durations, timing.plays))


def _save_png(file: BinaryIO, frames: Iterator[Pixels], layout: Layout, metadata: Metadata, timing: Timing) -> None:
    """Of a frame, the rectangle in which it differs from the one before is kept."""
    front = with_most(metadata, "PNG", lambda told: front_of("PNG", told))
    control = struct.pack(">II", len(timing.durations), timing.plays)
    count, before = itertools.count(), None
    file.write(MARK)
    for frame, duration in zip(frames, timing.durations, strict=True):
        top, bottom, left, right = (0, layout.height, 0, layout.width) if before is None else _changed(before, frame)
        part = Layout(right - left, bottom - top, layout.channels, layout.dtype)
        packed = io.BytesIO()
        save_rows(packed, "PNG", [frame[top:bottom, left:right]], part, front if before is None else b"")
        delay = _fraction(duration)
        place = struct.pack(">5I2H2x", next(count), part.width, part.height, left, top, *delay.as_integer_ratio())
        data = []
        for name, content in parts_of(packed.getvalue()):
            if name == b"IDAT":
                data.append(content)
            elif before is None and name != b"IEND":
                file.write(chunk(name, content))
        if before is None:
            file.write(chunk(b"acTL", control))
        file.write(chunk(b"fcTL", place))
        for content in data:
            whole = before is None
            file.write(chunk(b"IDAT", content) if whole else chunk(b"fdAT", struct.pack(">I", next(count)) + content))
        before = frame
    file.write(chunk(b"IEND", b""))


def _changed(before: Pixels, frame: Pixels) -> tuple[int, int, int, int]:
    """top, bottom, left, right of what differs, which has a pixel at least."""
    differs = (before != frame).any(axis=2)
    rows, columns = (np.flatnonzero(differs.any(axis=axis)) for axis in (1, 0))
    return (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if len(rows) else (0, 1, 0, 1)


def _fraction(duration: float) -> Fraction:
    """Seconds, of numbers of 16 bit."""
    return Fraction(duration / 1000).limit_denominator(min(1000, int(65535_000 / max(duration, 1000))))


class _Film(Image.Image):
    """Frames that are made as Pillow asks for them: it would keep a list of them."""

    def __init__(self, frames: Iterator[Image.Image], count: int) -> None:
        super().__init__()
        self.frames, self.n_frames, self.at = frames, count, -1
        self.seek(0)

    def seek(self, frame: int) -> None:
        if frame > self.at:
            image = next(self.frames)
            self.at, self.im, self._mode, self._size = frame, image.im, image.mode, image.size


def _save_webp(file: BinaryIO, frames: Iterator[Pixels], layout: Layout, metadata: Metadata, timing: Timing) -> None:
    told = webp_image(np.zeros((1, 1, 1), np.uint8), metadata)[1]
    options = with_most(told, "WEBP", _tried)
    film = _Film((webp_image(frame, metadata)[0] for frame in frames), len(timing.durations))
    # Their ends are rounded, so that nothing adds up.
    ends = [round(end) for end in itertools.accumulate(timing.durations, initial=0)]
    film.save(
        file, "WEBP", save_all=True, duration=[end - start for start, end in itertools.pairwise(ends)],
        loop=min(timing.plays, _MOST_PLAYS), method=4, **webp_packing(metadata), **options,
    )  # fmt: skip


def _tried(metadata: Metadata) -> dict[str, Any]:
    """Options for Pillow that it takes."""
    options = save_options(metadata, "WEBP")
    Image.new("RGB", (1, 1)).save(io.BytesIO(), "WEBP", **options)
    if "exif" in options:
        options["exif"] = options["exif"].removeprefix(b"Exif\0\0")  # as Pillow does for single pictures
    return options
