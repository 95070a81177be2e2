"""What the networks of the paper scale are made of."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

GROUPS = 32
"""Groups of every GroupNorm; widths are multiples of it."""


def named(**layers: nn.Module) -> nn.Sequential:
    """One layer after the other, under names of our choice: those of the published weights."""
    return nn.Sequential(OrderedDict(layers))


def norm(width: int, eps: float = 1e-5) -> nn.GroupNorm:
    """GroupNorm; PyTorch gathers its statistics in float32 whatever the type of the input."""
    return nn.GroupNorm(GROUPS, width, eps)


def conv3(width_in: int, width: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(width_in, width, 3, padding=1)


def upsample(width: int) -> nn.Sequential:
    """(B,width,h,w) -> (B,width,2h,2w)."""
    return named(nearest=nn.Upsample(scale_factor=2), conv=conv3(width, width))
