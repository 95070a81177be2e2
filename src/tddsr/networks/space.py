"""Where the diffusion runs: pictures to latents and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tddsr.networks.layers import Config, bicubic_blocks, bicubic_x4


class LatentSpace(nn.Module, ABC):
    """A space with a latent pixel for each lr pixel, all sides of pictures being multiples of ``factor``.

    ``factor``: hr pixels a latent pixel, per side. ``channels``: of a latent. ``halo``: how many latent pixels beyond
    itself a decoded pixel depends on; None where there is no bound.
    """

    factor: int
    channels: int
    halo: int | None

    @abstractmethod
    def encode(self, image: Tensor) -> Tensor:
        """(B,3,factor h,factor w) in [-1,1] -> (B,channels,h,w)."""

    def encode_bicubic(self, lr: Tensor) -> Tensor:
        """(B,3,h,w) in [-1,1] -> (B,channels,h,w): the latent of the plain enlargement."""
        return self.encode(bicubic_x4(lr))

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """(B,channels,h,w) -> (B,3,factor h,factor w), about [-1,1], not clamped."""


class PixelsConfig(Config):
    """Names ``SpaceToDepth``; there is nothing to choose."""

    kind: Literal["pixels"] = Field("pixels", description="each 4x4 pixels as 48 channels: nothing is lost")


class SpaceToDepth(LatentSpace):
    """The 4x4 pixels of an hr block as 48 channels: exactly invertible, nothing to learn."""

    halo = 0
    factor = 4
    channels = 48

    def encode(self, image: Tensor) -> Tensor:
        return F.pixel_unshuffle(image, self.factor)

    def encode_bicubic(self, lr: Tensor) -> Tensor:
        return bicubic_blocks(lr)

    def decode(self, latent: Tensor) -> Tensor:
        return F.pixel_shuffle(latent, self.factor)
