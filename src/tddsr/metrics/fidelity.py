"""Scores by arithmetic alone: PSNR, SSIM, MS-SSIM. Pictures are (B,3,H,W) in [0,1]; every score is per picture.

All is computed in float64: in float32 the variances of flat areas, small differences of large numbers, are wrong in
the fourth digit.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tddsr.errors import UsageError

Colour = Literal["y", "rgb"]
"""What PSNR and SSIM look at: Y of studio-range YCbCr, or the three channels alike."""

WINDOW = 11
"""Side of SSIM's Gaussian window; a smaller picture has no SSIM."""

_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of MS-SSIM, full size first (Wang et al. 2003)."""


def luma_y(image: Tensor) -> Tensor:
    """(B,3,H,W) in [0,1] -> (B,1,H,W), the Y of studio-range YCbCr (16..235 of 255) that the field scores."""
    weights = torch.tensor([65.481, 128.553, 24.966], device=image.device, dtype=image.dtype)
    return ((image * weights[:, None, None]).sum(dim=1, keepdim=True) + 16) / 255


def as_saved(image: Tensor) -> Tensor:
    """Clamp to [0,1] and round to whole multiples of 1/255, as a saved picture would be."""
    return (image.clamp(0, 1) * 255).round() / 255


def psnr(image: Tensor, truth: Tensor, colour: Colour = "y", border: int = 0) -> Tensor:
    """(B,) peak signal-to-noise ratio in dB; higher is better, infinite for equal pictures.

    ``border``: so many pixels at each edge are left out.
    """
    a, b = _planes(image, colour, border), _planes(truth, colour, border)
    return -10 * (a - b).square().mean(dim=(1, 2, 3)).log10()


def ssim(image: Tensor, truth: Tensor, colour: Colour = "y", border: int = 0) -> Tensor:
    """(B,) structural similarity (Wang et al. 2004); higher is better, at most 1; NaN for pictures below 11x11.

    The mean over the windows that lie wholly inside the picture, and over the channels.
    """
    a, b = _planes(image, colour, border), _planes(truth, colour, border)
    if min(a.shape[-2:]) < WINDOW:
        return a.new_full(a.shape[:1], math.nan)
    return _similarity(a, b)[0].mean(dim=1)


def ms_ssim(image: Tensor, truth: Tensor, colour: Colour = "y", border: int = 0) -> Tensor:
    """(B,) multi-scale structural similarity (Wang et al. 2003); higher is better, at most 1.

    Five scales, each half the one before by 2x2 means: NaN for pictures below 176x176.
    """
    a, b = _planes(image, colour, border), _planes(truth, colour, border)
    if min(a.shape[-2:]) < WINDOW << (len(_SCALES) - 1):
        return a.new_full(a.shape[:1], math.nan)
    result = a.new_ones(a.shape[:2])
    for scale, exponent in enumerate(_SCALES):
        if scale:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        whole, contrast = _similarity(a, b)
        # Negative where structures are opposed; a root of that is no number.
        result = result * (whole if scale == len(_SCALES) - 1 else contrast).clamp(min=0) ** exponent
    return result.mean(dim=1)


def _planes(image: Tensor, colour: Colour, border: int) -> Tensor:
    """(B,3,H,W) -> (B,C,h,w) float64, what is compared."""
    if 2 * border >= min(image.shape[-2:]):
        raise UsageError(f"a border of {border} leaves nothing of {image.shape[-1]}x{image.shape[-2]}; choose less")
    image = image[..., border : image.shape[-2] - border, border : image.shape[-1] - border]
    image = (image.cpu() if image.device.type == "mps" else image).double()  # MPS has no float64
    return luma_y(image) if colour == "y" else image


def _similarity(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(B,C,H,W) twice -> means (B,C) of SSIM, and of its contrast and structure part without luminance."""
    line = torch.exp(-(torch.arange(WINDOW, device=a.device, dtype=a.dtype) - WINDOW // 2).square() / (2 * 1.5**2))
    line = line / line.sum()

    def mean(x: Tensor) -> Tensor:
        x = x.flatten(0, 1)[:, None]
        return F.conv2d(F.conv2d(x, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1)).view(*a.shape[:2], -1)

    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    contrast = (2 * covariance + c2) / (variances + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (luminance * contrast).mean(dim=-1), contrast.mean(dim=-1)
