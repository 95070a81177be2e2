"""Pictures that come in bands of rows: resized and put side by side without the whole of them in memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tddsr.pictures.picture import Pixels

Floats = NDArray[np.float32]
"""Pixels in [0,1], here (rows, width, channels); or unit noise."""

Kernel = Image.Resampling

ROWS = 64
"""Of a band that is handed on: few, as each step on the way makes a copy."""

PilBox = tuple[float, float, float, float]
"""left, top, right, bottom"""

_REACH = 3
"""How many pixels beyond itself a pixel sees, of the coarser one of two sizes: by Lanczos; fewer by bicubic."""

_STEEP = 4
"""Where a picture is reduced more times than this, bands have fewer rows, as each row is made of more."""

_SHOWS = 1 / 512
"""Less of a colour than this is none: half a step of 8 bit."""


DEPTH = 16
"""How many of the outermost rows and columns say what may lie beyond a picture."""


def sides_of(pixels: Pixels) -> tuple[Pixels, Pixels, Pixels, Pixels]:
    """(at most ``DEPTH``,pixels,channels) from outside in, of the top, left, bottom, right of (H,W,channels)."""
    across = pixels.swapaxes(0, 1)
    return pixels[:DEPTH], across[:DEPTH], pixels[: -DEPTH - 1 : -1], across[: -DEPTH - 1 : -1]


class Window:
    """Rows of a picture by their number, in order; what lies above those asked for last is forgotten."""

    def __init__(self, bands: Iterable[Pixels]) -> None:
        self.bands = iter(bands)
        self.held: list[Pixels] = []
        self.start = 0

    def rows(self, first: int, last: int) -> Pixels:
        """A copy of rows first..last-1: a view would keep the whole band while the next one is made."""
        while self.start + sum(map(len, self.held)) < last:
            self._forget(first)
            self.held = [band.copy() for band in self.held]
            self.held.append(next(self.bands))
        self._forget(first)
        parts, missing = [], last - first
        for band in self.held:
            parts.append(band[:missing])
            missing -= len(parts[-1])
        return np.concatenate(parts)

    def _forget(self, first: int) -> None:
        while self.held and self.start + len(self.held[0]) <= first:
            self.start += len(self.held.pop(0))
        if self.held:
            self.held[0], self.start = self.held[0][first - self.start :], first


def _by_plane(pixels: Floats, size: tuple[int, int], box: PilBox, kernel: Kernel) -> Floats:
    planes = [Image.fromarray(np.ascontiguousarray(pixels[..., c])) for c in range(pixels.shape[2])]
    return np.stack([np.asarray(plane.resize(size, kernel, box)) for plane in planes], axis=-1)


def _colours(pixels: Floats, size: tuple[int, int], box: PilBox) -> Floats:
    return _by_plane(pixels, size, box, Kernel.LANCZOS)


def _mask(pixels: Floats, size: tuple[int, int], box: PilBox) -> Floats:
    """By a kernel of one lobe, each direction by itself: it overshoots at an edge, and what is opaque stays so."""
    height, width = pixels.shape[:2]
    wide = _by_plane(pixels, (size[0], height), (0, 0, width, height), Kernel.BICUBIC).clip(0, 1)
    return _by_plane(wide, size, (0, box[1], size[0], box[3]), Kernel.BICUBIC)


def _both(pixels: Floats, size: tuple[int, int], box: PilBox) -> Floats:
    """The last channel is a mask, and the others count for as much as they show."""
    colours, mask = pixels[..., :-1], pixels[..., -1:]
    planes = np.concatenate([mask, colours * mask, colours], axis=2)
    weights, shown, hidden = np.split(_by_plane(planes, size, box, Kernel.BICUBIC), [1, pixels.shape[2]], axis=2)
    return np.concatenate(
        [np.where(weights > _SHOWS, shown / weights.clip(_SHOWS), hidden), _mask(mask, size, box)], axis=2
    )


_RESIZE = {"colours": _colours, "mask": _mask, "both": _both}


def resized(
    bands: Iterable[Floats],
    source: tuple[int, int],
    target: tuple[int, int],
    what: Literal["colours", "mask", "both"] = "colours",
) -> Iterator[Floats]:
    """Resize a picture that comes in bands; the same pixels as of the whole, in bands of at most ``ROWS`` rows.

    Args:
        bands: of any heights, from the top.
        source: (width, height) of the picture.
        target: (width, height) of the result; the same as ``source`` only cuts the bands anew.
        what: colours are resized by Lanczos. Transparency is bicubic, so that what is fully clear or opaque stays so.
            Of both, the last channel is transparency, and the others are weighted with it, bicubic as well.
    """
    window = Window(bands)
    step = source[1] / target[1]
    reach = 0 if source == target else math.ceil(_REACH * max(step, 1)) + 1
    rows = max(ROWS // max(round(step / _STEEP), 1), 1)
    for start in range(0, target[1], rows):
        stop = min(start + rows, target[1])
        first = max(math.floor(start * step) - reach, 0)
        last = min(math.ceil(stop * step) + reach, source[1])
        part = window.rows(first, last)
        if source != target:
            # PIL sees beyond the box as far as the kernel reaches.
            box = (0, start * step - first, source[0], min(stop * step - first, len(part)))
            part = _RESIZE[what](part, (target[0], stop - start), box).clip(0, 1)
        yield part
