"""Pictures that come in bands of rows: resized and put side by side without the whole of them in memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
"""(rows, width, channels) in [0,1]."""

Kernel = Image.Resampling

ROWS = 64
"""Of a band that is handed on: few, as each step on the way makes a copy."""

_REACH = {Kernel.LANCZOS: 3, Kernel.BICUBIC: 2}
"""How many pixels beyond itself a pixel sees, of the coarser one of two sizes."""

_SHOWS = 1 / 512
"""Less of a colour than this is none: half a step of 8 bit."""


class _Window:
    """Rows of a picture by their number, in order; what lies above those asked for last is forgotten."""

    def __init__(self, bands: Iterable[Floats]) -> None:
        self.bands = iter(bands)
        self.held: Floats | None = None
        self.start = 0

    def rows(self, first: int, last: int) -> Floats:
        """A copy of rows first..last-1: a view would keep the whole band while the next one is made."""
        while self.held is None or self.start + len(self.held) < last:
            if self.held is not None:
                self.held, self.start = self.held[first - self.start :].copy(), first
            band = next(self.bands)
            self.held = band if self.held is None or not len(self.held) else np.concatenate([self.held, band])
            del band
        return self.held[first - self.start : last - self.start].copy()


def _by_plane(pixels: Floats, size: tuple[int, int], box: tuple[float, float, float, float], kernel: Kernel) -> Floats:
    planes = [Image.fromarray(np.ascontiguousarray(pixels[..., c])) for c in range(pixels.shape[2])]
    return np.stack([np.asarray(plane.resize(size, kernel, box)) for plane in planes], axis=-1)


def _premultiplied(pixels: Floats, size: tuple[int, int], box: tuple[float, float, float, float]) -> Floats:
    """The last channel is a mask, and the others count for as much as they show."""
    colours, mask = pixels[..., :-1], pixels[..., -1:]
    # A kernel of one lobe: it overshoots at an edge and never comes back, so what is opaque stays so.
    weights = _by_plane(mask, size, box, Kernel.BICUBIC)
    shown = _by_plane(colours * mask, size, box, Kernel.BICUBIC) / weights.clip(_SHOWS)
    hidden = _by_plane(colours, size, box, Kernel.BICUBIC)
    return np.concatenate([np.where(weights > _SHOWS, shown, hidden), weights], axis=2)


def resized(
    bands: Iterable[Floats],
    source: tuple[int, int],
    target: tuple[int, int],
    *,
    kernel: Kernel = Kernel.LANCZOS,
    masked: bool = False,
) -> Iterator[Floats]:
    """Resize a picture that comes in bands; the same pixels as of the whole, in bands of ``ROWS`` rows.

    Args:
        bands: of any heights, from the top.
        source: (width, height) of the picture.
        target: (width, height) of the result; the same as ``source`` only cuts the bands anew.
        kernel: Lanczos or bicubic.
        masked: the last channel is transparency, and the others are weighted with it; all bicubic.
    """
    window = _Window(bands)
    step = source[1] / target[1]
    reach = 0 if source == target else math.ceil(_REACH[kernel] * max(step, 1)) + 1
    for start in range(0, target[1], ROWS):
        stop = min(start + ROWS, target[1])
        first = max(math.floor(start * step) - reach, 0)
        last = min(math.ceil(stop * step) + reach, source[1])
        part = window.rows(first, last)
        if source != target:
            size = target[0], stop - start
            # PIL sees beyond the box as far as the kernel reaches.
            box = (0, start * step - first, source[0], min(stop * step - first, len(part)))
            part = _premultiplied(part, size, box) if masked else _by_plane(part, size, box, kernel)
            part = part.clip(0, 1)
        yield part
