"""Cutting a picture into tiles whose results are exactly those of the whole picture. Pure arithmetic."""

from __future__ import annotations

from typing import NamedTuple


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


class Tile(NamedTuple):
    """``core`` is what a tile delivers, ``source`` what it reads: the core with its halo, within the picture."""

    core: Box
    source: Box


def round_up(size: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is at least ``size``."""
    return -(-size // multiple) * multiple


def _spans(length: int, tile: int, multiple: int) -> list[tuple[int, int]]:
    """Cut 0..length into parts of nearly equal size, at most ``tile``, at multiples of ``multiple``."""
    count = -(-length // tile)
    step = round_up(-(-length // count), multiple)
    return [(start, min(start + step, length)) for start in range(0, length, step)]


def plan(height: int, width: int, tile: int | None, halo: int, multiple: int) -> list[Tile]:
    """Tiles that cover a picture of ``height`` x ``width`` exactly once, row by row.

    Args:
        height: of the picture, a multiple of ``multiple``, like ``width``.
        width: see ``height``.
        tile: largest side of a core, rounded up to ``multiple``; None for a single tile.
        halo: pixels around a pixel that its result depends on.
        multiple: every box starts and ends at a multiple of this.
    """
    if height % multiple or width % multiple:
        raise ValueError(f"{height}x{width} must be multiples of {multiple}")
    whole = Box(0, 0, height, width)
    if tile is None:
        return [Tile(whole, whole)]
    tile, halo = round_up(tile, multiple), round_up(halo, multiple)
    return [
        Tile(
            Box(top, left, bottom, right),
            Box(max(top - halo, 0), max(left - halo, 0), min(bottom + halo, height), min(right + halo, width)),
        )
        for top, bottom in _spans(height, tile, multiple)
        for left, right in _spans(width, tile, multiple)
    ]
