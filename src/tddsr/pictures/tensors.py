"""Tensors as pictures, and between arrays of pixels and what networks take."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tddsr.errors import UsageError
from tddsr.pictures.picture import LUMA, Pixels, largest


def to_tensor(pixels: Pixels) -> Tensor:
    """(H,W,3) -> (1,3,H,W) float32 in [0,1], a copy."""
    values = pixels.astype(np.float32) / np.float32(largest(pixels.dtype))
    return torch.from_numpy(values).permute(2, 0, 1)[None]


def to_pixels(image: Tensor) -> Pixels:
    """(1,3,H,W) about [0,1] -> (H,W,3) uint8, clamped and rounded."""
    return (image[0].float().clamp(0, 1).permute(1, 2, 0) * 255).round().cpu().numpy().astype(np.uint8)


def to_arrays(tensor: Tensor) -> Pixels:
    """(C,H,W) or (B,C,H,W) with 1, 3 or 4 channels -> (B,H,W,C), uint8 or floating point as it was.

    Raises:
        UsageError: another layout or type.
    """
    if tensor.ndim not in (3, 4) or tensor.shape[-3] not in (1, 3, 4) or 0 in tensor.shape:
        raise UsageError(f"a tensor must be (C,H,W) or (B,C,H,W) with 1, 3 or 4 channels, not {tuple(tensor.shape)}")
    if tensor.dtype != torch.uint8 and not tensor.is_floating_point():
        raise UsageError(f"a tensor must be uint8 or floating point in [0,1], not {tensor.dtype}")
    source = tensor.detach().cpu()
    source = source if source.dtype in (torch.uint8, torch.float64) else source.float()
    pixels: Pixels = source.reshape(-1, *source.shape[-3:]).permute(0, 2, 3, 1).numpy()
    return pixels


def like_tensor(arrays: Pixels, like: Tensor) -> Tensor:
    """(B,H,W,C) as a tensor of the layout, type and device that ``to_arrays`` took it from."""
    tensor = torch.from_numpy(arrays).permute(0, 3, 1, 2)
    return tensor.reshape(*like.shape[:-2], *tensor.shape[-2:]).to(like.device, like.dtype)


def luma(image: Tensor) -> Tensor:
    """(B,3,H,W) -> (B,1,H,W), BT.601."""
    weights = torch.tensor(LUMA, device=image.device, dtype=image.dtype)
    return (image * weights[:, None, None]).sum(dim=1, keepdim=True)
