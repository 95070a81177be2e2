"""A picture in memory, wherever it comes from."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFilter import MaxFilter, MinFilter

from tddsr.errors import ImageError, ImageWarning
from tddsr.pictures.metadata import Metadata

Pixels = NDArray[Any]
"""(H,W,3) or (H,W); uint8, uint16, or floating point in [0,1]."""

ROUNDING = 1e-4
"""Values of floating point this far outside of [0,1] are in it."""

_MOST_OUTSIDE = 0.1
"""Share of the values; in pictures of 0 to 1 only lights are brighter than white."""

_STEP = 1e-6
"""What the range of a picture of one value gets on either side, of white: less than a step of any file."""

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

    @classmethod
    def of(cls, pixels: Pixels, metadata: Metadata) -> Picture:
        """Of (H,W,channels)."""
        channels = pixels.shape[2]
        rgb = pixels[..., :1].repeat(3, axis=2) if channels < 3 else pixels[..., :3]
        return cls(rgb, None if channels % 2 else pixels[..., -1], channels < 3, metadata)

    @property
    def pixels(self) -> Pixels:
        """(H,W,channels)."""
        colours = self.luma[..., None] if self.grey else self.rgb
        return colours if self.alpha is None else np.dstack([colours, self.alpha])

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.rgb.shape[1], self.rgb.shape[0]

    @property
    def channels(self) -> int:
        """Of what is written: 1 (grey), 2 (grey, transparency), 3 or 4."""
        return (1 if self.grey else 3) + (self.alpha is not None)

    @property
    def layout(self) -> Layout:
        """Of ``pixels``."""
        return Layout(*self.size, self.channels, self.rgb.dtype)

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
    """Of the pixels in a file: ``channels`` as those of ``Picture``; ``dtype`` is uint8 or uint16."""

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

    @property
    def nbytes(self) -> int:
        """Of all pixels, unpacked."""
        return self.width * self.height * self.channels * self.dtype.itemsize


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


def in_range(values: Pixels) -> Pixels:
    """Floating point as float32 in [0,1]: the few values outside are clipped, which is said if it is not rounding.

    Raises:
        ImageError: more than a tenth are outside, so that white is another value; or some are no numbers.
    """
    if not np.isfinite(values).all():
        raise ImageError("some of its values are infinite or no numbers (NaN)")
    outside = ((values < -ROUNDING) | (values > 1 + ROUNDING)).mean()
    if outside > _MOST_OUTSIDE:
        told = f"{values.min():.4g} to {values.max():.4g}"
        raise ImageError(f"its values are {told}, not 0 (black) to 1 (white): scale them, or convert it to 16 bit")
    if outside:
        told = f"{max(outside, 1e-4):.2%} of its values, which are darker than 0 or brighter than 1, are clipped"
        warnings.warn(told, ImageWarning, stacklevel=2)
    return values.clip(0, 1).astype(np.float32, copy=False)


def used_range(pixels: Pixels) -> tuple[float, float]:
    """The values that are as black and white to a picture: its least and largest where it uses less than half a range.

    Only of more than 8 bits; others have no finer steps to show. One value alone is in the middle of two steps.
    """
    white = largest(pixels.dtype)
    if pixels.dtype == np.uint8:
        return 0.0, white
    low, high = float(pixels.min()), float(pixels.max())
    if high - low >= white / 2:
        return 0.0, white
    step = _STEP * white if low == high else 0
    return low - step, high + step


SOFT_EDGE, _HARD_EDGE = 0.6, 0.9
"""Of a mask in [0,1]: how much the pixels of 3x3 differ where an edge is soft at most, and hard at least."""


def hard_edges(alpha: Pixels) -> Pixels:
    """(H,W) of any type -> (H,W) float32: 1 at the hard edges of a mask, 0 at soft ones and where there is none."""
    image = Image.fromarray(to_8_bit(alpha))
    highest, lowest = (np.asarray(image.filter(kind(3)), np.float32) for kind in (MaxFilter, MinFilter))
    return ((highest - lowest) / 255 - SOFT_EDGE).clip(0, _HARD_EDGE - SOFT_EDGE) / np.float32(_HARD_EDGE - SOFT_EDGE)


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
    """Whether a colour picture shows greys only; of most others the first rows tell."""
    bands = (rgb[top : top + 256] for top in range(0, len(rgb), 256))
    return all((band[..., :1] == band[..., 1:]).all() for band in bands)


def centre(pixels: Pixels, side: int) -> Pixels:
    """The central (side,side,3) of (H,W,3); what is smaller, lower or narrower stays so."""
    top, left = max(0, pixels.shape[0] - side) // 2, max(0, pixels.shape[1] - side) // 2
    return pixels[top : top + side, left : left + side]
