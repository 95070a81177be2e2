"""A picture through an engine, tile by tile: the large picture in bands, a row of tiles each."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tddsr import rng
from tddsr.engines.engine import PASS_PIXELS, Engine, Noise, Sampler
from tddsr.errors import ImageWarning, ModelError, UsageError
from tddsr.pictures.picture import LUMA, Pixels
from tddsr.pictures.rows import Floats, sides_of
from tddsr.tiling import Box, feathered, fit, plan, round_up
from tddsr.tiling import Tile as Part

Tile = Literal["auto"] | int | None
Progress = Callable[[int, int], None]
"""Called with (tiles done, tiles in all)."""

_START_NOISE, _STEP_NOISE = 0, 1
"""Streams of chance: the noise of x_T, and that of the stochastic sampler's steps."""

_WANTED_SIDE, _MOST_BUDGET = 640, 1050 * 2**20
"""What tiles may take on a CPU, the finished row of them that waits to be written counted: as much as one of this side,
and no more bytes than that. Larger ones are faster, as less is computed twice; with these, 100 megapixels take less
than 600 MiB by compact-small."""

_BLENDED_TILE = 256
"""Where tiles are not exact. Larger ones are nearer to the whole, but attention over all pairs of pixels makes them
slow; and results should not depend on the machine's memory."""

_SMALLEST_TILE = 32

_BEYOND = 8
"""lr pixels by which a side of one colour goes on: zeros farther out do no harm, and JPEG's blocks keep their grid."""

_ONE_COLOUR = 8 / 255
"""The most that values of one colour differ by, black to white being 1."""


@dataclass(frozen=True)
class Sampling:
    """What decides the pixels, beside the picture and the model."""

    seed: int
    steps: int
    sampler: Sampler


@dataclass(frozen=True)
class _Shown:
    """A picture as a network is shown it, which sees zeros beyond: sides of one colour go on for a while.

    Beyond a narrow frame of grey they do not: zeros do less harm there, and photos in such frames come out no better.

    ``span``: the values that are 0 and 1. ``own``: where in ``size`` the picture lies.
    """

    pixels: Pixels
    span: tuple[float, float]
    size: tuple[int, int]
    own: Box

    @classmethod
    def of(cls, pixels: Pixels, span: tuple[float, float]) -> _Shown:
        height, width = pixels.shape[:2]
        sides = getattr(pixels, "sides", None) or sides_of(pixels)
        top, left, bottom, right = (_BEYOND * _goes_on(side, _ONE_COLOUR * (span[1] - span[0])) for side in sides)
        own = Box(top, left, top + height, left + width)
        return cls(pixels, span, (own.bottom + bottom, own.right + right), own)

    def read(self, box: Box) -> Floats:
        """Take a box, which may reach beyond what is shown and is mirrored there, as (1,3,h,w)."""
        rows = _places(box.top, box.bottom, self.size[0], self.own.top, self.own.bottom)
        columns = _places(box.left, box.right, self.size[1], self.own.left, self.own.right)
        black, white = map(np.float64, self.span)
        first = rows.min()
        part = self.pixels[first : rows.max() + 1][rows[:, None] - first, columns]
        values = ((part - black) / (white - black)).astype(np.float32)
        return np.broadcast_to(np.moveaxis(values, 2, 0)[None], (1, 3, box.height, box.width)).copy()


def _goes_on(side: Pixels, step: float) -> bool:
    """Whether the outermost row of a side is one colour, or all of it is one grey; steps up to this are none."""
    outermost = side[0]
    coloured = np.ptp(outermost.max(axis=0)) > step
    return bool((np.ptp(outermost if coloured else side.reshape(-1, side.shape[2]), axis=0) <= step).all())


def _places(start: int, stop: int, length: int, first: int, last: int) -> NDArray[np.int_]:
    """Which pixels of a line stand at start..stop-1: its own first..last-1 of ``length``, where the end ones go on.

    All that is mirrored at both ends, again and again.
    """
    place = np.arange(start, stop) % (2 * length)
    return np.minimum(place, 2 * length - 1 - place).clip(first, last - 1) - first


Run = Callable[[list[Part]], Iterator[Floats]]
"""What an engine makes of tiles of the picture, one after the other: their cores, (4h,4w,channels) each."""

Keep = Callable[[Floats], Pixels]
"""Pixels of the large picture, (h,w,channels) in [0,1], as they are kept: (h,w,any) of any type."""


def as_made(made: Floats) -> Pixels:
    """Keep the values themselves."""
    return made


class _Count:
    """Tells how many tiles are done, and how many there are."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.done = self.total = 0

    def expect(self, more: int) -> None:
        self.total = self.done + more

    def one(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)


class Enlarger:
    """One engine, and how large its tiles may be, which it learns where memory runs out."""

    def __init__(self, engine: Engine, tile: Tile) -> None:
        if tile not in ("auto", None) and not (isinstance(tile, int) and tile > 0):
            raise UsageError(f"tile is {tile!r}; use a number of lr pixels, 'auto', or None for the whole picture")
        self.engine = engine
        self.tile = tile
        self.most: int | None = None

    def bands(
        self,
        pixels: Pixels,
        sampling: Sampling,
        span: tuple[float, float],
        *,
        grey: bool = False,
        contrast: float = 0,
        keep: Keep = as_made,
        progress: Progress | None = None,
    ) -> Iterator[Pixels]:
        """The picture four times as large, from the top; the source and one band stay in main memory.

        Args:
            pixels: (H,W,3) or (H,W,1) of any type; slices of rows are asked for, from top to bottom.
            sampling: what decides the pixels.
            span: the values of ``pixels`` that the network is shown as black and white.
            grey: give one channel.
            contrast: tiles whose values differ by less are not run: 0 stands there.
            keep: called with each tile, so that a row of them waits in fewer bytes.
            progress: called with (tiles done, tiles in all).

        Yields:
            (rows, 4 W, 3 or 1) in [0,1], or what ``keep`` makes of them.

        Raises:
            ModelError: the network gives values that are no numbers.
        """
        shown = _Shown.of(pixels, span)
        size = height, width = shown.size
        channels, count, start, factor = 1 if grey else 3, _Count(progress), 0, self.engine.scale
        kept = keep(np.zeros((1, 1, channels), np.float32)).nbytes

        def run(tiles: list[Part]) -> Iterator[Floats]:
            flat = {tile for tile in tiles if contrast and np.ptp(shown.read(tile.source)) < contrast}
            made = self._run(shown, [tile for tile in tiles if tile not in flat], sampling)
            for tile in tiles:
                if tile in flat:
                    yield np.zeros((factor * tile.core.height, factor * tile.core.width, channels), np.float32)
                else:
                    yield _finish(next(made), grey)

        while start < height:
            tile, halo = self._cut(height, width, sampling.steps, kept)
            if halo is None:
                bands: Iterator[Pixels] = map(keep, self._blend(size, channels, max(tile), start, run, count))
            else:
                bands = self._join(size, tile, halo, start, run, keep, count)
            try:
                for band in bands:
                    box = Box(start, 0, start + len(band) // factor, width)
                    start, part = box.bottom, box.within(shown.own)
                    if part.height > 0:
                        yield _cut_out(band, box, part, factor)
                    del band  # or it would be there while the next one is made
            except MemoryError as error:
                self._shrink(error, min(max(tile), max(size)), blended=halo is None)

    # -- how a picture is cut ------------------------------------------------------------------------------------------

    def _cut(self, height: int, width: int, steps: int, kept: int) -> tuple[tuple[int, int], int | None]:
        """The (height, width) of a tile, which may be more than the picture's; and its halo, None to blend tiles.

        ``kept``: bytes of a pixel of the large picture.
        """
        halo = self.engine.halo(steps)
        tile = self.tile
        if tile == "auto":
            (tall, wide), halo = self._fit(height, width, halo, kept)
        else:
            tall, wide = (height, width) if tile is None else (tile, tile)
        return (tall, wide) if self.most is None else (min(tall, self.most), min(wide, self.most)), halo

    def _fit(self, height: int, width: int, halo: int | None, kept: int) -> tuple[tuple[int, int], int | None]:
        """By memory where tiles are exact."""
        engine, needed = self.engine, self.engine.bytes_per_lr_pixel
        if halo is not None and needed is not None:
            row, needed = engine.scale**2 * kept * width, needed + engine.scale**2 * 3 * np.dtype(np.float32).itemsize
            memory = self.engine.free_memory()
            free = None if memory is None else min(int(memory * 0.8), needed * PASS_PIXELS)
            budget = min(needed * _WANTED_SIDE**2, _MOST_BUDGET)

            def room(tall: int) -> int:
                left = budget - tall * row
                return max(left if free is None else free if left > 0 else 0, 0) // needed

            if halo <= _BLENDED_TILE // 2 or math.isqrt(room(0)) >= 3 * halo:
                tall, wide = (round_up(side, engine.multiple) for side in (height, width))
                tile = fit(tall, wide, halo, engine.multiple, room)
                return tile or (_SMALLEST_TILE, _SMALLEST_TILE), halo
            # A network that sees as far as Real-ESRGAN would compute each pixel hundreds of times.
        return ((height, width) if max(height, width) <= _BLENDED_TILE else (_BLENDED_TILE, _BLENDED_TILE)), None

    def _shrink(self, error: MemoryError, side: int, blended: bool) -> None:
        """Halve the tiles from here on, or raise ``error`` where they are small already."""
        smaller = side // 2
        if smaller < max(_SMALLEST_TILE, self.engine.multiple):
            raise error
        self.most = smaller
        told = f"out of memory: going on with tiles of {smaller}"
        if blended:
            told += ", which give slightly other pixels"
        warnings.warn(told, ImageWarning if blended else RuntimeWarning, stacklevel=3)

    # -- tiles ---------------------------------------------------------------------------------------------------------

    def _join(
        self,
        size: tuple[int, int],
        tile: tuple[int, int],
        halo: int,
        start: int,
        run: Run,
        keep: Keep,
        count: _Count,
    ) -> Iterator[Pixels]:
        """Tiles with margins of ``halo``: exactly the pixels of the whole picture, from row ``start`` on."""
        factor, multiple = self.engine.scale, self.engine.multiple
        whole = Box(0, 0, *size)
        padded = round_up(size[0], multiple), round_up(size[1], multiple)
        uniform = self.engine.free_memory() is not None  # accelerators take those of one size together
        tiles = plan(*padded, tile, halo, multiple, top=start, uniform=uniform)
        made = run(tiles)
        count.expect(len(tiles))
        for _, group in itertools.groupby(tiles, key=lambda tile: tile.core.top):
            for core, _ in group:
                part = core.within(whole)  # the last tiles reach into the padding
                own = keep(_cut_out(next(made), core, part, factor))
                if core.left == 0:  # in the same order in memory
                    large = np.empty_like(own, shape=(len(own), factor * size[1], own.shape[2]))
                large[:, factor * part.left : factor * part.right] = own
                del own
                if len(tiles) > 1:
                    _give_back()
                count.one()
            yield large
            del large

    def _blend(
        self, size: tuple[int, int], channels: int, side: int, start: int, run: Run, count: _Count
    ) -> Iterator[Floats]:
        """For networks that see all of a tile: overlapping tiles fade into each other. From row ``start`` on."""
        factor, multiple = self.engine.scale, self.engine.multiple
        (height, width), whole = size, Box(0, 0, *size)
        side = min(side, max(size))
        tiles = feathered(height, width, side, round_up(side, multiple) // 4, multiple, factor)
        rows = [list(row) for _, row in itertools.groupby(tiles, key=lambda tile: tile.box.top)]
        rows = [row for row in rows if row[0].box.bottom > start]  # others have been handed on
        made = run([Part(tile.box, tile.box) for row in rows for tile in row])
        count.expect(sum(map(len, rows)))
        begun = np.zeros((0, factor * width, channels), np.float32)
        for row, following in itertools.zip_longest(rows, rows[1:]):
            bottom = min(row[0].box.bottom, height)
            more = np.zeros((factor * (bottom - start) - len(begun), *begun.shape[1:]), np.float32)
            begun = np.concatenate([begun, more])
            for tile in row:
                box = tile.box
                part = box.within(whole).within(Box(start, 0, height, width))
                weighted = next(made) * tile.rows[:, None, None] * tile.columns[:, None]
                place = _cut_out(begun, Box(start, 0, bottom, width), part, factor)
                place += _cut_out(weighted, box, part, factor)
                count.one()
            complete = height if following is None else max(following[0].box.top, start)
            done, begun = begun[: factor * (complete - start)], begun[factor * (complete - start) :].copy()
            start = complete
            if len(done):
                yield done
            del done

    def _run(self, shown: _Shown, tiles: Iterable[Part], sampling: Sampling) -> Iterator[Floats]:
        """(1,3,4h,4w) about [0,1] for each tile."""
        work = ((shown.read(tile.source), self._noise(tile.source, sampling.seed), tile.margins) for tile in tiles)
        return self.engine.run_each(work, sampling.steps, sampling.sampler)

    def _noise(self, box: Box, seed: int) -> Noise:
        def noise(t: int) -> Floats:
            keys = (seed, *((_STEP_NOISE, t) if t else (_START_NOISE,)))
            return rng.noise_at(keys, self.engine.channels, box.top, box.left, box.height, box.width)[None]

        return noise


def _finish(made: Floats, grey: bool) -> Floats:
    """(1,3,h,w) about [0,1] -> (h,w,3 or 1) in [0,1]."""
    if not np.isfinite(made).all():
        raise ModelError("the network gives values that are no numbers: its weights are damaged or of no use")
    hr: Floats = np.moveaxis(made.clip(0, 1, out=made)[0], 0, -1)
    return np.dot(hr, np.array(LUMA, np.float32))[..., None] if grey else hr


def _give_back() -> None:
    """Return what a tile has freed to the system: glibc keeps it, in pieces that do not fit the next one."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # other C libraries have no need of it
        ctypes.CDLL(None).malloc_trim(0)


def _cut_out(large: Floats, box: Box, part: Box, factor: int) -> Floats:
    """Of ``large``, which is ``factor`` times ``box``, what belongs to ``part``."""
    return large[
        factor * (part.top - box.top) : factor * (part.bottom - box.top),
        factor * (part.left - box.left) : factor * (part.right - box.left),
    ]
