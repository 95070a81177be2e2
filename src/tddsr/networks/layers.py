"""What networks are made of."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Any, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

GROUPS = 32
"""Groups of every GroupNorm; widths are multiples of it."""


class Config(BaseModel):
    """What a network is built from, all of it known by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Recomputed(nn.Module):
    """A block that can forget what is inside it until the backward pass, and make it again then."""

    recompute = False

    def __call__(self, *args: Any) -> Any:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(super().__call__, *args, use_reentrant=False)
        return super().__call__(*args)


def bicubic_x4(lr: Tensor) -> Tensor:
    """The plain enlargement (B,3,h,w) -> (B,3,4h,4w), not clamped; its encoding is the ``y`` of Eq. 1."""
    return F.interpolate(lr, scale_factor=4, mode="bicubic", align_corners=False)


BICUBIC_RADIUS = 2
"""lr pixels that ``bicubic_x4`` looks at on either side."""


def named(**layers: nn.Module) -> nn.Sequential:
    """One layer after the other, under names of our choice: those of the published weights."""
    return nn.Sequential(OrderedDict(layers))


def norm(width: int, eps: float = 1e-5) -> nn.GroupNorm:
    """GroupNorm; PyTorch gathers its statistics in float32 whatever the type of the input."""
    return nn.GroupNorm(GROUPS, width, eps)


def conv3(width_in: int, width: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(width_in, width, 3, padding=1)


def zero(layer: nn.Module) -> None:
    """Weights of 0: the layer changes nothing at first."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def part_bytes(x: Tensor, on_a_cpu: int) -> int:
    """How much of a map to work on at a time: what a CPU's cache holds, or what keeps all of an accelerator busy."""
    return on_a_cpu if x.is_cpu else 256 << 20


def check_multiple(name: str, pictures: Tensor, multiple: int) -> None:
    """Raise ValueError if the height or width of ``pictures`` (..,h,w) is not a multiple of ``multiple``."""
    height, width = pictures.shape[-2:]
    if height % multiple or width % multiple:
        raise ValueError(f"{name} is {height}x{width}; it needs multiples of {multiple}: pad or crop it first")


TIME_WAVES = 64
"""Features that tell a network its time step, unless it says otherwise."""


def time_waves(t: Tensor, count: int, slowest: float = 1000.0) -> Tensor:
    """(B,) 0-based step indices -> (B,count): cosines and sines of frequencies from 1 down to about 1 / ``slowest``."""
    half = count // 2
    frequency = torch.exp(-math.log(slowest) * torch.arange(half, device=t.device) / half)
    angle = t.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class Upsample(Recomputed):
    """(B,width,h,w) -> (B,width,2h,2w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = conv3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]


class FeatureNetwork(nn.Module, ABC):
    """A network that returns the levels it is tapped at, finest first.

    ``forward`` takes (B,3,H,W) in [-1,1], H and W at least ``minimum``, normalises it as the network was trained, and
    returns a tensor for each of ``channels``: maps (B,C,H_i,W_i), or token sequences (B,C,N) where ``tokens``. Frozen
    unless made trainable: gradients reach the picture, never the weights. Always in eval mode, whatever a parent's
    ``train`` says, so that batch norm keeps its ImageNet statistics even while weights are trained.
    """

    channels: tuple[int, ...]
    tokens: bool = False
    size: int = 128
    """Side of the squares that a discriminator shows it where nothing else is asked for; others work too."""
    minimum: int = 32

    @abstractmethod
    def forward(self, image: Tensor) -> list[Tensor]: ...

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def settle(self, trainable: bool = False) -> Self:
        """Eval mode, and weights that take gradients or not."""
        return self.requires_grad_(trainable).eval()
