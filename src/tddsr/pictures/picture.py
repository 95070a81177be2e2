"""A picture in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]
"""(H,W,3) or (H,W); uint8, uint16, or floating point in [0,1]."""


@dataclass
class Picture:
    """A picture apart from its file.

    ``rgb`` is (H,W,3) uint8 or uint16, ``alpha`` (H,W) of the same type or None. A grey picture has three equal
    channels and ``grey`` set, and is written as grey. Orientation has been applied.
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


def to_8_bit(values: Pixels) -> Pixels:
    """uint8 or uint16 as uint8, rounded."""
    return values if values.dtype == np.uint8 else np.round(values / 257).astype(np.uint8)
