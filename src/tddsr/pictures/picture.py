"""A picture in memory, wherever it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tddsr.pictures.metadata import Metadata

Pixels = NDArray[Any]
"""(H,W,3) or (H,W); uint8, uint16, or floating point in [0,1]."""

LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue add to the brightness of BT.601."""


@dataclass
class Picture:
    """A picture apart from its file.

    ``rgb`` is (H,W,3) uint8, uint16 or floating point in [0,1], ``alpha`` (H,W) of the same type or None. A grey
    picture has three equal channels and ``grey`` set, and is written as grey. Orientation has been applied.
    """

    rgb: Pixels
    alpha: Pixels | None = None
    grey: bool = False
    metadata: Metadata = field(default_factory=Metadata)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.rgb.shape[1], self.rgb.shape[0]

    @property
    def rgb_8_bit(self) -> Pixels:
        """``rgb`` as uint8."""
        return to_8_bit(self.rgb)

    @property
    def luma(self) -> Pixels:
        """(H,W): what is written of a grey picture, whose channels may differ a little after a network."""
        return to_type(self.rgb @ np.array(LUMA), self.rgb.dtype)


@dataclass(frozen=True)
class Layout:
    """Of the pixels in a file: ``channels`` is 1 (grey), 2 (grey, transparency), 3 or 4; ``dtype`` uint8 or uint16."""

    width: int
    height: int
    channels: int
    dtype: np.dtype[Any]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.width, self.height

    @property
    def alpha(self) -> bool:
        """Whether there is transparency."""
        return self.channels in (2, 4)


def largest(dtype: np.dtype[Any]) -> float:
    """The value of white."""
    return float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1.0


def to_type(values: Pixels, dtype: np.dtype[Any]) -> Pixels:
    """Floating-point values on the scale of ``dtype`` as that type: clamped, and rounded where it is a whole number."""
    values = values.clip(0, largest(dtype))
    return (values.round() if np.issubdtype(dtype, np.integer) else values).astype(dtype)


def convert(values: Pixels, dtype: np.dtype[Any]) -> Pixels:
    """Any type as another one, white as white."""
    return values if values.dtype == dtype else to_type(values * (largest(dtype) / largest(values.dtype)), dtype)


def to_8_bit(values: Pixels) -> Pixels:
    """Any type as uint8, rounded."""
    return convert(values, np.dtype(np.uint8))


def resize(pixels: Pixels, size: tuple[int, int], kernel: Image.Resampling = Image.Resampling.LANCZOS) -> Pixels:
    """Each channel on its own where PIL has no such colour picture. ``size`` is (width, height)."""
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).resize(size, kernel))
    planes = np.moveaxis(np.atleast_3d(pixels), 2, 0).astype(np.float32)
    resized = [np.asarray(Image.fromarray(plane).resize(size, kernel)) for plane in planes]
    return to_type(np.stack(resized, axis=-1).reshape(size[1], size[0], *pixels.shape[2:]), pixels.dtype)


def resize_mask(alpha: Pixels, size: tuple[int, int]) -> Pixels:
    """(H,W) of another ``size`` (width, height): what is fully clear or opaque stays so right up to its edge."""
    return resize(alpha, size, Image.Resampling.BICUBIC)  # one lobe: it overshoots at an edge, and never comes back


def spread_colours(rgb: Pixels, alpha: Pixels) -> Pixels:
    """``rgb``, with the colours that show around them where nothing shows: hidden ones would bleed into the edges."""
    shows = alpha > 0
    if shows.all() or not shows.any():
        return rgb
    weights = shows.astype(np.float32)
    filled = _fill(rgb * weights[..., None], weights)
    return np.where(shows[..., None], rgb, to_type(filled, rgb.dtype))


def _fill(sums: Pixels, weights: Pixels) -> Pixels:
    """Weighted means; where there is no weight, those of the smallest block of 2, 4, 8 .. pixels that has some."""
    means = sums / np.maximum(weights, 1)[..., None]
    if weights.all():
        return means
    height, width = weights.shape
    even = ((0, height % 2), (0, width % 2))
    blocks = (-(-height // 2), 2, -(-width // 2), 2)
    coarse = _fill(
        np.pad(sums, (*even, (0, 0))).reshape(*blocks, 3).sum((1, 3)), np.pad(weights, even).reshape(blocks).sum((1, 3))
    )
    around = coarse.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return np.where(weights[..., None] > 0, means, around)


def same_channels(rgb: Pixels) -> bool:
    """Whether a colour picture shows greys only."""
    return bool((rgb[..., :1] == rgb[..., 1:]).all())


def centre(pixels: Pixels, side: int) -> Pixels:
    """The central (side,side,3) of (H,W,3); what is smaller, lower or narrower stays so."""
    top, left = max(0, pixels.shape[0] - side) // 2, max(0, pixels.shape[1] - side) // 2
    return pixels[top : top + side, left : left + side]
