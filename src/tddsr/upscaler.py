"""Pictures in, pictures four times as large out: files, PIL images, arrays and tensors, in tiles."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tddsr import rng
from tddsr.device import pick_device
from tddsr.errors import UsageError
from tddsr.model import Model, Sampler
from tddsr.pictures.arrays import from_array, to_array
from tddsr.pictures.files import (
    READABLE,
    WRITABLE,
    check_writable,
    from_pil,
    holds_transparency,
    read_picture,
    to_pil,
    write_picture,
)
from tddsr.pictures.picture import Picture, Pixels, resize, resize_mask, same_channels, spread_colours
from tddsr.pictures.tensors import like_tensor, to_arrays, to_pixels, to_tensor
from tddsr.tiling import Box, feathered, plan, round_up
from tddsr.weights.names import load_model

T = TypeVar("T", str, Path, Image.Image, Pixels, Tensor)
Tile = Literal["auto"] | int | None
Progress = Callable[[int, int], None]
"""Called with (tiles done, tiles in all)."""

_START_NOISE, _STEP_NOISE = 0, 1
"""Streams of chance: the noise of x_T, and that of the stochastic sampler's steps."""

_BUDGET = 2**30
"""What a tile may take on a CPU."""

_BLENDED_TILE = 256
"""Where tiles are not exact. Larger ones are nearer to the whole, but attention over all pairs of pixels makes them
slow; and results should not depend on the machine's memory."""

_SMALLEST_TILE = 32


def output_path(path: Path, scale: float) -> Path:
    """Where the enlargement of ``path`` is written by default: beside it, ``photo_x4.jpg``.

    It is a .png for rare kinds, and for a transparent picture whose name says JPEG.
    """
    suffix = path.suffix if path.suffix.lower() in WRITABLE else ".png"
    if suffix.lower() in (".jpg", ".jpeg", ".jfif") and holds_transparency(path):
        suffix = ".png"
    return path.with_name(f"{path.stem}_x{scale:g}{suffix}")


def made_from(path: Path) -> Path | None:
    """The picture beside ``path`` that it is an enlargement of, by its name; None if there is none."""
    name = re.fullmatch(r"(.+)_x\d+(?:\.\d+)?", path.stem)
    beside = [path.with_name(name[1] + suffix) for suffix in sorted(READABLE)] if name else []
    try:
        return next((source for source in beside if source.exists()), None)
    except OSError:  # a folder that may not be entered: told when the job is done
        return None


def _out_of_memory(error: RuntimeError) -> bool:
    message = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in message or "can't allocate memory" in message


class Upscaler:
    """Enlarges pictures with one model on one device.

    The same picture, model and seed give the same pixels; with the compact network whatever the tile size. Networks
    that see the whole picture (``model.halo`` is None), or so far that exact tiles do not fit into memory, are blended
    from overlapping tiles, whose size changes pixels.
    """

    def __init__(self, model: Model, tile: Tile = "auto") -> None:
        if tile not in ("auto", None) and not (isinstance(tile, int) and tile > 0):
            raise UsageError(f"tile is {tile!r}; use a number of lr pixels, 'auto', or None for the whole picture")
        self.model = model
        self.tile = tile
        self.weight = next(model.parameters())

    @classmethod
    def load(
        cls,
        model: str | Path = "compact",
        *,
        device: str = "auto",
        dtype: torch.dtype = torch.float32,
        tile: Tile = "auto",
        compiled: bool = False,
    ) -> Upscaler:
        """Load a model by name or from a file.

        Args:
            model: a file of ``tddsr train`` or ``tddsr convert``, or a name: ``compact`` and the faster
                ``compact-small`` come with the package; ``resshift``, ``sinsr`` and others of
                ``tddsr.weights.published.MODELS`` are downloaded the first time, under their own licences.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
            dtype: of the network; half precision is for accelerators, a CPU is slow in it. Where it gives infinities,
                the model goes on in float32.
            tile: largest side of a tile in lr pixels; None for the whole picture at once; ``auto`` fits it to memory
                where tiles are exact, and is 256 elsewhere.
            compiled: run the network through ``torch.compile``: the first picture of each size takes a minute more.

        Raises:
            ModelError: no such model, or the file cannot be used.
            UsageError: no such device, or an impossible tile.
        """
        loaded = load_model(model, pick_device(device), dtype)
        if compiled:
            loaded.network.compile()
        return cls(loaded, tile)

    def __call__(
        self,
        picture: T,
        *,
        scale: float = 4,
        seed: int = 0,
        steps: int | None = None,
        sampler: Sampler = "deterministic",
        output: str | Path | None = None,
        progress: Progress | None = None,
    ) -> T:
        """Enlarge a picture and return the same kind of thing.

        Args:
            picture: a path (the result is written, and its path returned); a PIL image; an array (H,W), (H,W,1),
                (H,W,3) or (H,W,4), uint8, uint16 or floating point in [0,1]; a tensor (C,H,W) or (B,C,H,W) with 1, 3
                or 4 channels, uint8 or floating point in [0,1]. The fourth channel is transparency.
            scale: 1 to 8; other than 4 by one final resize.
            seed: whole number >= 0 that chooses the noise.
            steps: evaluations of the network; None is the model's own number, 1 for a student.
            sampler: with many steps, Eq. 5 (``deterministic``) or Eq. 2 (``stochastic``).
            output: for a path, where to write; by default beside it, ``photo_x4.jpg``.
            progress: called with (tiles done, tiles in all).

        Raises:
            ImageError: the file cannot be read or written.
            UsageError: an option out of range, or an array or tensor of another shape or type.
        """
        steps = self._check(scale, seed, steps, sampler)

        def enlarge(picture: Picture) -> Picture:
            shown = picture.rgb if picture.alpha is None else spread_colours(picture.rgb, picture.alpha)
            large = replace(
                picture,
                rgb=self._enlarge(shown, scale, seed, steps, sampler, progress),
                metadata=picture.metadata.enlarged(scale),
            )
            if picture.alpha is not None:
                large.alpha = resize_mask(picture.alpha, large.size)
            if not picture.grey and same_channels(shown):
                large.rgb = np.repeat(large.luma[..., None], 3, axis=2)
            return large

        if isinstance(picture, str | Path):
            source = Path(picture)
            target = output_path(source, scale) if output is None else Path(output)
            check_writable(target)
            read = read_picture(source)
            check_writable(target, self._target_size(read.size, scale), read.alpha is not None)
            write_picture(target, enlarge(read))
            written: Any = str(target) if isinstance(picture, str) else target
            return cast("T", written)
        if output is not None:
            raise UsageError("output is only for a path; save the returned picture yourself")
        if isinstance(picture, Image.Image):
            return to_pil(enlarge(from_pil(picture)))
        if isinstance(picture, np.ndarray):
            return to_array(enlarge(from_array(picture)), picture)
        if isinstance(picture, Tensor):
            arrays = [to_array(enlarge(from_array(array)), array) for array in to_arrays(picture)]
            return like_tensor(np.stack(arrays), picture)
        raise UsageError(f"cannot enlarge a {type(picture).__name__}; give a path, PIL image, array or tensor")

    def _check(self, scale: float, seed: int, steps: int | None, sampler: str) -> int:
        if not 1 <= scale <= 8:
            raise UsageError(f"scale is {scale}; it must be 1 to 8")
        if seed < 0:
            raise UsageError(f"seed is {seed}; it must be 0 or more")
        if sampler not in get_args(Sampler):
            raise UsageError(f"sampler is '{sampler}'; it must be one of {', '.join(get_args(Sampler))}")
        steps = self.model.default_steps if steps is None else steps
        self.model.check_steps(steps)
        return steps

    @staticmethod
    def _target_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
        """Halves are rounded up."""
        width, height = (math.floor(side * scale + 0.5 + 1e-9) for side in size)
        return width, height

    # -- tiles ------------------------------------------------------------------------------------------------------

    def _fit_tile(self, height: int, width: int, halo: int | None) -> tuple[int | None, int | None]:
        """The side of a tile that fits into memory, None for the whole picture; and its margin, None to blend tiles."""
        needed = self.model.bytes_per_lr_pixel
        if halo is not None and needed is not None:
            device = self.weight.device
            budget = _BUDGET if device.type != "cuda" else int(torch.cuda.mem_get_info(device)[0] * 0.8)
            pixels = budget // needed
            if height * width <= pixels:
                return None, halo
            side = math.isqrt(pixels) - 2 * halo
            if side >= halo or halo <= _BLENDED_TILE // 2:
                return max(side, _SMALLEST_TILE), halo
            # A network that sees as far as Real-ESRGAN would compute each pixel hundreds of times.
        return (_BLENDED_TILE if max(height, width) > _BLENDED_TILE else None), None

    def _enlarge(
        self, rgb: Pixels, scale: float, seed: int, steps: int, sampler: Sampler, progress: Progress | None
    ) -> Pixels:
        """(H,W,3) -> (scale H, scale W, 3) of the same type. Source and canvas stay in main memory."""
        height, width = rgb.shape[:2]
        halo, tile = self.model.halo(steps), self.tile
        if tile == "auto":
            tile, halo = self._fit_tile(height, width, halo)

        def run(box: Box) -> Tensor:
            lr = _read(rgb, box)
            hr = self._run_tile(lr, box, seed, steps, sampler)
            if hr.dtype == torch.float32 or hr.isfinite().all():
                return hr
            warnings.warn(f"{hr.dtype} gave infinities; going on in float32", RuntimeWarning, stacklevel=2)
            self.model.place(self.weight.device)
            self.weight = next(self.model.parameters())
            return self._run_tile(lr, box, seed, steps, sampler)

        while True:
            try:
                if halo is None:
                    canvas = self._blend_tiles(rgb, tile, run, progress)
                else:
                    canvas = self._join_tiles(rgb, tile, halo, run, progress)
                break
            except RuntimeError as error:
                smaller = (max(height, width) if tile is None else tile) // 2
                if not _out_of_memory(error) or smaller < max(_SMALLEST_TILE, self.model.multiple):
                    raise
                tile = smaller
            if self.weight.device.type == "cuda":
                torch.cuda.empty_cache()
        target = self._target_size((width, height), scale)
        return canvas if target == (canvas.shape[1], canvas.shape[0]) else resize(canvas, target)

    def _join_tiles(
        self, rgb: Pixels, tile: int | None, halo: int, run: Callable[[Box], Tensor], progress: Progress | None
    ) -> Pixels:
        """Tiles with margins of ``halo``: exactly the pixels of the whole picture."""
        model, factor = self.model, self.model.scale
        height, width = rgb.shape[:2]
        canvas = np.empty((factor * height, factor * width, 3), rgb.dtype)
        padded = round_up(height, model.multiple), round_up(width, model.multiple)
        tiles = plan(*padded, tile, halo, model.multiple)
        for done, (core, source) in enumerate(tiles):
            hr = run(source)
            top, left = core.top - source.top, core.left - source.left
            # The last tiles reach into the padding; the canvas does not.
            bottom, right = min(core.bottom, height), min(core.right, width)
            part = hr[
                ...,
                factor * top : factor * (top + bottom - core.top),
                factor * left : factor * (left + right - core.left),
            ]
            place = canvas[factor * core.top : factor * bottom, factor * core.left : factor * right]
            place[...] = to_pixels(part, rgb.dtype)
            if progress is not None:
                progress(done + 1, len(tiles))
        return canvas

    def _blend_tiles(
        self, rgb: Pixels, tile: int | None, run: Callable[[Box], Tensor], progress: Progress | None
    ) -> Pixels:
        """For networks that see all of a tile: overlapping tiles fade into each other."""
        factor, multiple = self.model.scale, self.model.multiple
        height, width = rgb.shape[:2]
        side = max(height, width) if tile is None else tile
        tiles = feathered(height, width, side, round_up(side, multiple) // 4, multiple, factor)
        total = torch.zeros(3, factor * height, factor * width)
        for done, (box, rows, columns) in enumerate(tiles):
            weights = torch.from_numpy(rows)[:, None] * torch.from_numpy(columns)
            part = run(box)[0].float().cpu() * weights
            place = total[:, factor * box.top : factor * box.bottom, factor * box.left : factor * box.right]
            place += part[:, : place.shape[1], : place.shape[2]]  # the rest is padding
            if progress is not None:
                progress(done + 1, len(tiles))
        return to_pixels(total[None], rgb.dtype)

    @torch.inference_mode()
    def _run_tile(self, pixels: Tensor, box: Box, seed: int, steps: int, sampler: Sampler) -> Tensor:
        """(1,3,h,w) in [0,1] -> (1,3,4h,4w) about [0,1], on the device."""

        def noise(*keys: int) -> Tensor:
            field = rng.noise_at((seed, *keys), self.model.channels, box.top, box.left, box.height, box.width)
            return torch.from_numpy(field)[None].to(self.weight)

        lr = (pixels.to(self.weight) * 2 - 1).contiguous(memory_format=torch.channels_last)
        step_noise = (lambda t: noise(_STEP_NOISE, t)) if sampler == "stochastic" else None
        hr = self.model.sample(lr, noise(_START_NOISE), steps, step_noise)
        return hr / 2 + 0.5


def _read(rgb: Pixels, box: Box) -> Tensor:
    """Take a box, which may reach beyond the picture (which is mirrored there), as (1,3,h,w) in [0,1]."""
    height, width = rgb.shape[:2]
    part = rgb[box.top : box.bottom, box.left : box.right]
    below, right = max(box.bottom - height, 0), max(box.right - width, 0)
    return to_tensor(np.pad(part, ((0, below), (0, right), (0, 0)), mode="symmetric"))
