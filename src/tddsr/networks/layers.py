"""What networks are made of."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tddsr.tiling import Margins

GROUPS = 32
"""Groups of every GroupNorm; widths are multiples of it."""

_GRAPH_BANDS = 8
"""Number of bands of rows in which an exported graph computes maps at hr size."""


class Config(BaseModel, extra="forbid", frozen=True):
    """What a network is built from, all of it known by name."""


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


def bicubic_blocks(lr: Tensor) -> Tensor:
    """(B,3,h,w) -> (B,48,h,w): the 4x4 pixels that ``bicubic_x4`` makes of each."""
    if not torch.compiler.is_exporting():
        return F.pixel_unshuffle(bicubic_x4(lr), 4)
    # ONNX Runtime takes a quarter of a small network's time to enlarge, and next to none to convolve.
    reach = range(-BICUBIC_RADIUS, BICUBIC_RADIUS + 1)
    taps = [[_cubic(place - (pixel - 1.5) / 4) for place in reach] for pixel in range(4)]
    kernel = [[[[a * b for b in across] for a in down]] for down in taps for across in taps]
    padded = F.pad(lr, 4 * (BICUBIC_RADIUS,), mode="replicate")
    blocks = F.conv2d(padded.flatten(0, 1)[:, None], lr.new_tensor(kernel))  # a colour by itself
    return blocks.unflatten(0, (-1, 3)).flatten(1, 2)  # type: ignore[no-untyped-call, no-any-return]


def _cubic(distance: float) -> float:
    """Keys' kernel with a = -0.75, as PyTorch has it."""
    d = abs(distance)
    if d < 1:
        return (1.25 * d - 2.25) * d * d + 1
    return ((3.75 - 0.75 * d) * d - 6) * d + 3 if d < 2 else 0


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


def trim(x: Tensor, margins: Margins | None, held: float, kept: float, pixel: int = 1) -> Tensor:
    """Leave ``kept`` lr pixels, at most, of the margins that a map has around what is asked for.

    Args:
        x: (B,C,h,w).
        margins: of the lr picture; None: there are none.
        held: to how many lr pixels the map's margins have been trimmed before; infinity: to none.
        kept: see ``held``; a multiple of ``pixel``.
        pixel: lr pixels a pixel of the map, per side.
    """
    if margins is None or kept >= held:
        return x
    least: Callable[[int, float], int] = torch.sym_min  # works in graphs, where margins are not known
    before = margins if math.isinf(held) else [least(margin, held) for margin in margins]
    top, left, bottom, right = ((had - least(m, kept)) // pixel for had, m in zip(before, margins, strict=True))
    # Not slices, whose sizes would not be known there.
    return x.narrow(2, top, x.shape[2] - top - bottom).narrow(3, left, x.shape[3] - left - right)


class Upsample(Recomputed):
    """(B,width,h,w) -> (B,width,2h,2w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = conv3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]


class Network(nn.Module, ABC):
    """f(x_t, t, lr) -> x_0 in a latent space at lr size."""

    multiple: int = 1
    """Height and width of lr are multiples of this."""

    bytes_per_lr_pixel: int | None = None
    """Peak memory of one evaluation in float32; None: not measured."""

    @property
    def halo(self) -> int | None:
        """How many lr pixels beyond itself an output pixel depends on, at most; None: there is no bound."""
        return None

    @property
    def entrance(self) -> nn.Module | None:
        """What alone sees x_t; None: other layers do, too."""
        return None

    @property
    def ignores_noise(self) -> bool:
        """Whether x_t changes nothing."""
        return self.entrance is not None and not any(weight.any() for weight in self.entrance.parameters())

    def ignore_noise(self) -> None:
        """See nothing of x_t from now on."""
        assert self.entrance is not None
        zero(self.entrance)

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, lr: Tensor, margins: Margins | None = None) -> Tensor:
        """Estimate x_0, without its margins: what later layers do not see of them may be left out early (``trim``).

        Args:
            x_t: (B, channels, h, w), scaled to about unit variance (``diffusion.scale_input``).
            t: (B,), 0-based step index.
            lr: (B, 3, h, w) in [-1, 1]; h and w multiples of ``multiple``.
            margins: lr pixels at each side that are there to be seen, multiples of ``multiple``; None: there are none.

        Raises:
            ValueError: h or w is not a multiple of ``multiple``.
        """


def in_graph_bands(layers: Callable[..., Tensor], *maps: Tensor, reach: int, factor: int = 1) -> Tensor:
    """``layers(*maps)`` in bands of rows, for an exported graph: it has as many for pictures of any size.

    ``layers`` makes ``factor`` rows of each row of the maps (B,C,h,w), of one height, and sees ``reach`` rows more.
    """
    height, bands = maps[0].shape[2], []
    for number in range(_GRAPH_BANDS):
        top, bottom = height * number // _GRAPH_BANDS, height * (number + 1) // _GRAPH_BANDS
        first: int = torch.sym_max(top - reach, 0)  # type: ignore[no-untyped-call]
        last: int = torch.sym_min(bottom + reach, height)  # type: ignore[no-untyped-call]
        band = layers(*(each.narrow(2, first, last - first) for each in maps))
        bands.append(band[:, :, factor * (top - first) : factor * (bottom - first)])
    return torch.cat(bands, dim=2)


class FeatureNetwork(nn.Module, ABC):
    """A network that returns the levels it is tapped at, finest first.

    ``forward`` takes (B,3,H,W) in [-1,1], H and W at least 32, normalises it as the network was trained, and
    returns a tensor for each of ``channels``: maps (B,C,H_i,W_i), or token sequences (B,C,N) where ``tokens``. Frozen
    unless made trainable: gradients reach the picture, never the weights. Always in eval mode, whatever a parent's
    ``train`` says, so that batch norm keeps its ImageNet statistics even while weights are trained.
    """

    channels: tuple[int, ...]
    taps: tuple[int, ...]
    """Places of the layers whose outputs are levels, for ``tapped``."""
    tokens: bool = False
    size: int = 128
    """Side of the squares that a discriminator shows it where nothing else is asked for; others work too."""

    @abstractmethod
    def forward(self, image: Tensor) -> list[Tensor]: ...

    def tapped(self, layers: Iterable[nn.Module], x: Tensor) -> list[Tensor]:
        """One layer after the other, and what comes out of those of ``taps``."""
        levels = []
        for index, layer in enumerate(layers):
            x = layer(x)
            if index in self.taps:
                levels.append(x)
        return levels

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def settle(self, trainable: bool = False) -> Self:
        """Eval mode, and weights that take gradients or not."""
        return self.requires_grad_(trainable).eval()
