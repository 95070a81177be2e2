"""Cutting a picture into tiles: exact ones, and overlapping ones for networks that see all of a tile. Arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Box(NamedTuple):
    """Rows top..bottom-1 and columns left..right-1."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    def within(self, other: Box) -> Box:
        """What of it lies in ``other``."""
        low, high = map(max, self[:2], other[:2]), map(min, self[2:], other[2:])
        return Box(*low, *high)


Margins = tuple[int, int, int, int]
"""What a tile reads beyond what it delivers, in lr pixels: above, left, below, right."""


class Tile(NamedTuple):
    """``core`` is what a tile delivers, ``source`` what it reads: the core with its halo, within the picture."""

    core: Box
    source: Box

    @property
    def margins(self) -> Margins:
        (top, left, bottom, right), source = self.core, self.source
        return top - source.top, left - source.left, source.bottom - bottom, source.right - right


def round_up(size: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is at least ``size``."""
    return -(-size // multiple) * multiple


def _spans(length: int, tile: int, multiple: int) -> list[tuple[int, int]]:
    """Cut 0..length into parts of nearly equal size, at most ``tile``, at multiples of ``multiple``."""
    count = -(-length // tile)
    step = round_up(-(-length // count), multiple)
    return [(start, min(start + step, length)) for start in range(0, length, step)]


def plan(
    height: int,
    width: int,
    tile: int | tuple[int, int],
    halo: int,
    multiple: int,
    *,
    top: int = 0,
    uniform: bool = False,
) -> list[Tile]:
    """Tiles that cover a picture of ``height`` x ``width``, or what is left of it, exactly once, row by row.

    Args:
        height: of the picture, a multiple of ``multiple``, like ``width``.
        width: see ``height``.
        tile: largest side of a core, or its largest height and width, rounded up to ``multiple``.
        halo: pixels around a pixel that its result depends on.
        multiple: every box starts and ends at a multiple of this.
        top: the first row to cover, a multiple of ``multiple``.
        uniform: read boxes of one size, those at the picture's border more than their halo.
    """
    if height % multiple or width % multiple:
        raise ValueError(f"{height}x{width} must be multiples of {multiple}")
    tall, wide = (tile, tile) if isinstance(tile, int) else tile
    tall, wide, halo = round_up(tall, multiple), round_up(wide, multiple), round_up(halo, multiple)
    tiles = [
        Tile(
            Box(above, left, below, right),
            Box(
                max(above - halo, 0),
                max(left - halo, 0),
                min(below + halo, height),
                min(right + halo, width),
            ),
        )
        for above, below in ((top + a, top + b) for a, b in _spans(height - top, tall, multiple))
        for left, right in _spans(width, wide, multiple)
    ]
    if not uniform or not tiles:
        return tiles
    tall, wide = (max(sides) for sides in zip(*((box.height, box.width) for _, box in tiles), strict=True))
    corners = [(min(box.top, height - tall), min(box.left, width - wide)) for _, box in tiles]
    return [
        Tile(core, Box(above, left, above + tall, left + wide))
        for (core, _), (above, left) in zip(tiles, corners, strict=True)
    ]


def fit(height: int, width: int, halo: int, multiple: int, room: Callable[[int], int]) -> tuple[int, int] | None:
    """The (height, width) of cores with which ``plan`` reads the fewest pixels in all; None if none fits.

    Args:
        height: of the picture.
        width: see ``height``.
        halo: as ``plan``.
        multiple: as ``plan``.
        room: height of a core -> how many pixels a tile may read, at most; the higher the fewer.
    """
    halo = round_up(halo, multiple)
    best, fewest = None, math.inf
    half = round_up(-(-width // 2), multiple)
    for tall in range(multiple, round_up(height, multiple) + 1, multiple):
        down = -(-height // tall)
        read = min(tall + min(down - 1, 2) * halo, height)  # one of two has a margin on one side only
        most = room(tall) // read
        wide = width if width <= most else half if half + halo <= most else (most - 2 * halo) // multiple * multiple
        if wide <= 0:
            break
        across = -(-width // wide)
        in_all = (height + 2 * halo * (down - 1)) * (width + 2 * halo * (across - 1))
        if in_all < fewest:
            best, fewest = (tall, wide), in_all
    return best


Weights = NDArray[np.float32]


class Feathered(NamedTuple):
    """A tile and what its rows and columns count for, ``factor`` of them a pixel; all tiles' weights sum to 1."""

    box: Box
    rows: Weights
    columns: Weights


def _feathered_spans(
    length: int, tile: int, overlap: int, multiple: int, factor: int
) -> list[tuple[int, int, Weights]]:
    side = round_up(min(tile, length), multiple)
    if side >= length:
        return [(0, side, np.ones(factor * side, np.float32))]
    count = 1 + -(-(length - side) // max(side - overlap, 1))
    starts = [round(i * (length - side) / (count - 1)) for i in range(count)]
    # Half a period of sin^2 at each end, but not at the ends of the picture.
    ramp = np.sin(np.pi / 2 * (np.arange(factor * overlap) + 0.5) / (factor * overlap)) ** 2
    total = np.zeros(factor * length)
    windows = []
    for start in starts:
        window = np.ones(factor * side)
        if start > 0:
            window[: len(ramp)] *= ramp
        if start + side < length:
            window[len(window) - len(ramp) :] *= ramp[::-1]
        total[factor * start : factor * (start + side)] += window
        windows.append(window)
    return [
        (start, start + side, (window / total[factor * start : factor * (start + side)]).astype(np.float32))
        for start, window in zip(starts, windows, strict=True)
    ]


def feathered(height: int, width: int, tile: int, overlap: int, multiple: int, factor: int) -> list[Feathered]:
    """Overlapping tiles, whose weighted sum has no seam, row by row.

    Args:
        height: of the picture; where it is less than a tile, the tile reaches beyond it.
        width: see ``height``.
        tile: side of a tile, rounded up to ``multiple``.
        overlap: of two neighbours, at least; at most half a tile.
        multiple: every side of a tile is a multiple of this.
        factor: weights a pixel.

    Raises:
        ValueError: the overlap is more than half a tile.
    """
    if not 0 < 2 * overlap <= round_up(tile, multiple):
        raise ValueError(f"overlap is {overlap}; it must be 1 to half the tile of {round_up(tile, multiple)}")
    return [
        Feathered(Box(top, left, bottom, right), rows, columns)
        for top, bottom, rows in _feathered_spans(height, tile, overlap, multiple, factor)
        for left, right, columns in _feathered_spans(width, tile, overlap, multiple, factor)
    ]
