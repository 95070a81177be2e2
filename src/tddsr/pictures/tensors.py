"""Between arrays of pixels and the tensors that networks take."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tddsr.pictures.picture import Pixels


def largest(dtype: np.dtype[Any]) -> float:
    """The value of white."""
    return float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1.0


def to_tensor(pixels: Pixels) -> Tensor:
    """(H,W,3) -> (1,3,H,W) float32 in [0,1], a copy."""
    values = pixels.astype(np.float32) / np.float32(largest(pixels.dtype))
    return torch.from_numpy(values).permute(2, 0, 1)[None]


def centre(pixels: Pixels, side: int) -> Pixels:
    """The central (side,side,3) of (H,W,3); what is smaller, lower or narrower stays so."""
    top, left = max(0, pixels.shape[0] - side) // 2, max(0, pixels.shape[1] - side) // 2
    return pixels[top : top + side, left : left + side]


def to_pixels(image: Tensor, dtype: np.dtype[Any] | type[np.generic] = np.uint8) -> Pixels:
    """(1,3,H,W) about [0,1] -> (H,W,3), clamped; rounded where ``dtype`` is a whole number."""
    dtype = np.dtype(dtype)
    values = image[0].float().clamp(0, 1).permute(1, 2, 0)
    if np.issubdtype(dtype, np.integer):
        values = (values * largest(dtype)).round()
    return values.cpu().numpy().astype(dtype)
