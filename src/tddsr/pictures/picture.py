"""A picture in memory, wherever it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
    icc: bytes | None = None
    exif: bytes | None = None

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


def largest(dtype: np.dtype[Any]) -> float:
    """The value of white."""
    return float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1.0


def to_type(values: Pixels, dtype: np.dtype[Any]) -> Pixels:
    """Floating-point values on the scale of ``dtype`` as that type: clamped, and rounded where it is a whole number."""
    values = values.clip(0, largest(dtype))
    return (values.round() if np.issubdtype(dtype, np.integer) else values).astype(dtype)


def to_8_bit(values: Pixels) -> Pixels:
    """uint8 or uint16 as uint8, rounded."""
    return values if values.dtype == np.uint8 else np.round(values / 257).astype(np.uint8)


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Lanczos, each channel on its own where PIL has no such colour picture. ``size`` is (width, height)."""
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
    planes = np.moveaxis(np.atleast_3d(pixels), 2, 0).astype(np.float32)
    resized = [np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.LANCZOS)) for plane in planes]
    return to_type(np.stack(resized, axis=-1).reshape(size[1], size[0], *pixels.shape[2:]), pixels.dtype)


def centre(pixels: Pixels, side: int) -> Pixels:
    """The central (side,side,3) of (H,W,3); what is smaller, lower or narrower stays so."""
    top, left = max(0, pixels.shape[0] - side) // 2, max(0, pixels.shape[1] - side) // 2
    return pixels[top : top + side, left : left + side]
