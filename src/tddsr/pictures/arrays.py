"""Arrays as pictures."""

from __future__ import annotations

import numpy as np

from tddsr.errors import UsageError
from tddsr.pictures.metadata import Metadata
from tddsr.pictures.picture import ROUNDING, Picture, Pixels


def from_array(array: Pixels) -> Picture:
    """Take an array apart: (H,W), (H,W,1), (H,W,3) or, with transparency, (H,W,4).

    Raises:
        UsageError: another layout, not uint8, uint16 or floating point, or floating point outside [0,1] by
            more than rounding, which is clipped.
    """
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        raise UsageError(f"an array must be (H,W), (H,W,1), (H,W,3) or (H,W,4), not {array.shape}")
    floating = np.issubdtype(array.dtype, np.floating)
    if not floating and array.dtype not in (np.uint8, np.uint16):
        raise UsageError(f"an array must be uint8, uint16 or floating point in [0,1], not {array.dtype}")
    if floating:
        rounding = max(ROUNDING, np.finfo(array.dtype).eps)
        if not (array.min() >= -rounding and array.max() <= 1 + rounding):
            raise UsageError(f"a floating-point array must be in [0,1], not [{array.min():.9g}, {array.max():.9g}]")
        array = array.clip(0, 1)
    return Picture.of(array.reshape(*array.shape[:2], channels), Metadata())
