"""G, the learnable downsampler hr -> lr that stands before the LR discriminator (section 4.3 of the paper)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tddsr.networks.layers import Config, check_multiple, zero

FACTOR = 4

_conv = partial(nn.Conv2d, padding=1, padding_mode="reflect")


class DownsamplerConfig(Config):
    """Which downsampler, and its size."""

    kind: Literal["attention", "conv"] = Field("attention", description="attention in windows, or convolutions alone")
    width: int = Field(32, ge=1, description="channels inside")
    window: int = Field(12, ge=FACTOR, multiple_of=2, description="side of an attention window in hr pixels")


class Downsampler(nn.Module, ABC):
    """``forward(hr (B,3,4h,4w) in [-1,1], generator) -> lr (B,3,h,w)``.

    The generator (on the CPU) is for downsamplers that add noise of their own; others leave it alone.
    """

    @abstractmethod
    def forward(self, hr: Tensor, generator: torch.Generator) -> Tensor: ...


_SHARPNESS = 8.0
"""Logits are so many times the parameters: one at -1 has next to no weight (e^-8), and is still learnt soon."""


class AttentionDownsampler(Downsampler):
    """Each lr pixel is a convex mean of a window of hr pixels (FeatUp, Fu et al. 2024).

    The weights are the softmax over the window of ``gain * saliency + bias``: ``saliency`` is a picture that a small
    network draws, ``gain`` and ``bias`` belong to the places in the window. So it can blur, shift and look away from
    outliers, differently from place to place, and can never leave the range of the colours that it sees. At
    initialisation an area filter: the mean of 4x4 pixels, to within three thousandths.
    """

    def __init__(self, config: DownsamplerConfig) -> None:
        super().__init__()
        self.window = config.window
        self.saliency = nn.Sequential(_conv(3, config.width, 3), nn.LeakyReLU(0.2), _conv(config.width, 1, 3))
        self.gain = nn.Parameter(torch.zeros(config.window**2))
        margin = (config.window - FACTOR) // 2
        bias = torch.full((config.window, config.window), -1.0)
        bias[margin : margin + FACTOR, margin : margin + FACTOR] = 0
        self.bias = nn.Parameter(bias.flatten())

    def _windows(self, image: Tensor) -> Tensor:
        """(B,C,4h,4w) -> (B,C,window^2,h,w)."""
        margin = (self.window - FACTOR) // 2
        batch, channels, height, width = image.shape
        padded = F.pad(image, (margin,) * 4, mode="reflect")
        columns = F.unfold(padded, self.window, stride=FACTOR)
        return columns.view(batch, channels, self.window**2, height // FACTOR, width // FACTOR)

    def kernel(self, hr: Tensor) -> Tensor:
        """(B,window^2,h,w): each lr pixel's weights; they are at least 0 and sum to 1."""
        check_multiple("hr", hr, FACTOR)
        saliency = self._windows(self.saliency(hr)).squeeze(1)
        logits = self.gain[:, None, None] * saliency + self.bias[:, None, None]
        return (_SHARPNESS * logits).softmax(dim=1)

    def forward(self, hr: Tensor, generator: torch.Generator) -> Tensor:
        return (self._windows(hr) * self.kernel(hr)[:, None]).sum(dim=2)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(width, width, 3), nn.LeakyReLU(0.2), _conv(width, width, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)  # type: ignore[no-any-return]


class ConvDownsampler(Downsampler):
    """Bicubic reduction plus a correction from strided residual convolutions and a map of unit noise.

    Unlike a convex filter it can make noise, ringing and JPEG's blocks. At initialisation exactly bicubic.
    """

    def __init__(self, config: DownsamplerConfig) -> None:
        super().__init__()
        width = config.width
        self.down = nn.Sequential(_conv(3, width, 4, stride=2), nn.LeakyReLU(0.2), _conv(width, width, 4, stride=2))
        self.noise = _conv(1, width, 3, bias=False)
        self.blocks = nn.Sequential(_Residual(width), _Residual(width))
        self.head = _conv(width, 3, 3)
        zero(self.head)

    def forward(self, hr: Tensor, generator: torch.Generator) -> Tensor:
        check_multiple("hr", hr, FACTOR)
        small = F.interpolate(hr, scale_factor=1 / FACTOR, mode="bicubic", antialias=True)
        noise = torch.randn(small.shape[0], 1, *small.shape[-2:], generator=generator).to(small)
        features = self.blocks(self.down(hr) + self.noise(noise))
        return small + self.head(features)  # type: ignore[no-any-return]


def build_downsampler(config: DownsamplerConfig) -> Downsampler:
    """The downsampler that ``config`` describes, as it is before training."""
    return AttentionDownsampler(config) if config.kind == "attention" else ConvDownsampler(config)
