"""Degrading files: a picture's degradation belongs to its name and the seed, whatever lies beside it."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from tddsr import rng
from tddsr.degradation.pipeline import degrade_pair
from tddsr.degradation.presets import Degradation
from tddsr.errors import ImageError
from tddsr.pictures.files import read_picture, write_picture
from tddsr.pictures.picture import Picture, Pixels
from tddsr.pictures.tensors import to_pixels, to_tensor

_FILES = 2
"""Stream of chance, apart from those of training."""


def degrade_pixels(hr: Pixels, settings: Degradation, name: str, seed: int) -> tuple[Pixels, Pixels]:
    """Make the (hr, lr) pair of one picture, both (H,W,3) uint8; hr is cropped to a multiple of the factor.

    ``name``: below its folder and without suffix; forward slashes. ``seed``: a whole number >= 0.

    Raises:
        ImageError: the picture is smaller than the factor.
    """
    height, width = (side - side % settings.factor for side in hr.shape[:2])
    if not height or not width:
        raise ImageError(f"{hr.shape[1]}x{hr.shape[0]} is too small for a factor of {settings.factor}")
    hr = hr[:height, :width]
    target, lr = degrade_pair(to_tensor(hr), settings, rng.generator(_FILES, seed, zlib.crc32(os.fsencode(name))))
    return to_pixels(target), to_pixels(lr)


def degrade_file(source: Path, folder: Path, name: Path, settings: Degradation, seed: int) -> None:
    """Write the pair of one sharp picture: ``folder``/hr/``name`` and ``folder``/lr/``name``.

    Raises:
        ImageError: the picture cannot be read or written, or is smaller than the factor.
    """
    pixels = read_picture(source).rgb_8_bit
    try:
        large, small = degrade_pixels(pixels, settings, name.with_suffix("").as_posix(), seed)
    except ValueError as error:
        raise ImageError(f"{source}: {error}") from error
    write_picture(folder / "lr" / name, Picture(small))
    write_picture(folder / "hr" / name, Picture(large))
