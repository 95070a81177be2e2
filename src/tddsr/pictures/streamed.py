"""Large pictures of which a few rows are in memory: libvips decodes them as they are asked for, from top to bottom."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from PIL import Image
from PIL.ExifTags import Base

from tddsr.pictures.decoding import tags_of
from tddsr.pictures.metadata import read_metadata
from tddsr.pictures.picture import Picture, Pixels
from tddsr.pictures.png import with_one_pixel
from tddsr.pictures.rows import DEPTH, ROWS, Window, sides_of
from tddsr.pictures.vips import open_in_rows, pyvips

_LARGE = 2**24
"""Pixels; smaller pictures are decoded once, and whole."""

_DTYPES = {"uchar": np.uint8, "ushort": np.uint16}
_COLOURS = {0, 1, 2}
"""Of a TIFF: grey, and RGB."""


class Rows:
    """(H,W,3) uint8 or uint16, of which slices of rows are arrays; a slice above the last one begins anew.

    Raises:
        pyvips.Error: it is damaged, or libvips is in doubt, which is found at once.
    """

    def __init__(self, content: bytes, page: int) -> None:
        self._content, self._page = content, page
        image = self._open()
        self.grey = image.bands == 1
        self.dtype: np.dtype[Any] = np.dtype(_DTYPES[image.format])
        self.shape: tuple[int, int, int] = (image.height, image.width, 3)
        least, most, left, right = [], [], [], []
        last = np.empty((0, *self.shape[1:]), self.dtype)
        for band in self._bands():
            least.append(int(band.min()))
            most.append(int(band.max()))
            left.append(band[:, :DEPTH].copy())
            right.append(band[:, -DEPTH:].copy())
            last = np.concatenate([last, band[-DEPTH:]])[-DEPTH:]
        self._range: tuple[int, int] = (min(least), max(most))
        self._window = Window(self._bands())
        first = self[:DEPTH]
        self.sides = (
            sides_of(first)[0],
            sides_of(np.concatenate(left))[1],
            sides_of(last)[2],
            sides_of(np.concatenate(right))[3],
        )
        """As ``sides_of`` has them."""

    def _open(self) -> pyvips.Image:
        return open_in_rows(self._content, self._page, fail_on="warning")

    def _bands(self) -> Iterator[Pixels]:
        height, width, _ = self.shape
        region = pyvips.Region.new(self._open())
        for top in range(0, height, ROWS):
            rows = min(ROWS, height - top)
            band = np.frombuffer(region.fetch(0, top, width, rows), self.dtype).reshape(rows, width, -1)
            yield band.repeat(3, axis=2) if self.grey else band

    def __getitem__(self, rows: slice) -> Pixels:
        first, last, _ = rows.indices(len(self))
        if first < self._window.start:
            self._window = Window(self._bands())
        return self._window.rows(first, last)

    def __len__(self) -> int:
        return self.shape[0]

    def min(self) -> int:
        """Of all values."""
        return self._range[0]

    def max(self) -> int:
        """Of all values."""
        return self._range[1]


def read(content: bytes, opened: Image.Image) -> Picture | None:
    """A picture of ``Rows``; None if it is to be read as a whole: all but large upright ones of grey or RGB."""
    if opened.width * opened.height < _LARGE or opened.format not in ("JPEG", "MPO", "PNG", "TIFF", None):
        return None
    with contextlib.suppress(Exception):  # told, or mended, where it is read as a whole
        return _read(content, opened)
    return None


def _read(content: bytes, opened: Image.Image) -> Picture | None:
    page, is_png = opened.tell(), opened.format == "PNG"
    if is_png and getattr(opened, "is_animated", False):
        return None
    if is_png:  # Pillow would decode all of it to see what is told behind the pixels
        opened = Image.open(io.BytesIO(with_one_pixel(content)))
    tags = tags_of(opened)
    upright = opened.getexif().get(Base.Orientation, 1) == 1
    colours, planes = tags.get(Base.PhotometricInterpretation, 1), tags.get(Base.PlanarConfiguration, 1)
    if not upright or colours not in _COLOURS or planes != 1:
        return None
    image = open_in_rows(content, page)
    usual = image.format in _DTYPES and image.interpretation in ("srgb", "rgb16", "b-w", "grey16")
    if not usual or image.bands not in (1, 3) or (is_png and image.get_typeof("interlaced")):
        return None
    rows = Rows(content, page)
    return Picture(cast("Pixels", rows), None, rows.grey, read_metadata(opened).fitting(rows.grey))
