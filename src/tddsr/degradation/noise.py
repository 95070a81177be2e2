"""Noise, one strength per sample: a sensor's as Real-ESRGAN has it, grey or coloured, and film grain.

Pictures are (B,3,H,W) in [0,1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from tddsr.degradation.kernels import density_kernels, filter2d
from tddsr.pictures.tensors import luma


def gaussian_noise(image: Tensor, sigma: Tensor, grey: Tensor, generator: torch.Generator) -> Tensor:
    """Add white noise of standard deviation ``sigma`` / 255 (B,); where ``grey`` (B,) bool, the same in R, G and B."""
    noise = torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
    noise = torch.where(grey[:, None, None, None], noise[:, :1], noise)
    return image + noise * (sigma / 255)[:, None, None, None]


def _levels(image: Tensor) -> Tensor:
    """(B,1,1,1): the number of distinct 8-bit values in each picture, rounded up to a power of two."""
    codes = (image * 255).round().long().flatten(1)
    present = torch.zeros(image.shape[0], 256, device=image.device).scatter_(1, codes, 1.0)
    return (2 ** present.sum(dim=1).log2().ceil())[:, None, None, None]


def poisson_noise(image: Tensor, scale: Tensor, grey: Tensor, generator: torch.Generator) -> Tensor:
    """Add shot noise times ``scale`` (B,); where ``grey`` (B,) bool, that of the picture's luma in all channels.

    It is Poisson counts at as many levels as the picture has, less their mean.
    """
    image = image.clamp(0, 1)
    quantised = (image * 255).round() / 255
    source = torch.where(grey[:, None, None, None], luma(quantised).expand_as(image), quantised)
    levels = _levels(source)
    noise = torch.poisson(source * levels, generator=generator) / levels - source
    noise = torch.where(grey[:, None, None, None], noise[:, :1], noise)
    return image + noise * scale[:, None, None, None]


def film_grain(image: Tensor, strength: Tensor, size: Tensor, grey: Tensor, generator: torch.Generator) -> Tensor:
    """Add grain that spreads over pixels, as of film and paper: strongest in middle tones, none in black and white.

    ``strength`` (B,): standard deviation in middle grey, times 255. ``size`` (B,): standard deviation of the blur that
    makes grain of white noise, pixels. ``grey`` (B,) bool: the same in R, G and B.
    """
    noise = torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
    noise = torch.where(grey[:, None, None, None], noise[:, :1], noise)
    ones = torch.ones_like(size)
    kernels = density_kernels(15, 15 * ones, size, size, 0 * ones, ones, ones < 0)
    noise = filter2d(noise, kernels) / kernels.square().sum(dim=(1, 2)).sqrt()[:, None, None, None]
    tone = luma(image.clamp(0, 1))
    return image + noise * (4 * tone * (1 - tone)).sqrt() * (strength / 255)[:, None, None, None]
