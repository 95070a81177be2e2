"""Real-ESRGAN's network (ESRGAN: Wang et al. 2018), as a teacher whole, and made smaller as a student.

Residual-in-residual dense blocks at the size of the lr picture, then a tail that enlarges. Written from the
description; weights go by the names of the official checkpoints. Nothing normalises over space, so ``halo`` is bounded.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tddsr.networks.layers import (
    TIME_WAVES,
    Config,
    Network,
    Recomputed,
    conv3,
    in_graph_bands,
    part_bytes,
    time_waves,
    trim,
    zero,
)
from tddsr.networks.space import LatentSpace
from tddsr.tiling import Margins, plan

DENSE_BLOCKS = 3
"""in a block"""

CONVOLUTIONS = 5
"""in a dense block, each of 3x3 on everything before it"""

OURS = ("enter_x.weight", "time.weight", "time.bias")
"""Weights that the published network lacks, since it knows neither x_t nor t; zero at first."""

PART_BYTES = 8 << 20
"""Of the largest map, where the tail works in parts on a CPU. More and less measured slower: it lies in the cache."""

_SHARE = 0.2
"""of its change that a block, and a dense block, adds to its input"""


class RRDBConfig(Config):
    """Size of an ``RRDBNet``; the defaults are Real-ESRGAN x4plus's."""

    kind: Literal["rrdb"] = Field(description="residual dense blocks, Real-ESRGAN's")
    features: int = Field(64, ge=1, description="channels between the blocks")
    growth: int = Field(32, ge=1, description="channels that each convolution of a dense block adds")
    blocks: int = Field(23, ge=1, description="residual blocks of three dense blocks each")
    tail_scale: Literal[1, 2, 4] = Field(
        4, description="lr sizes at which the tail works; at less than 4, each of its pixels makes a block of hr pixels"
    )
    tail_features: int = Field(64, ge=1, description="channels of the tail")
    reach: int | None = Field(
        None, ge=1, description="lr pixels beyond which nothing moves a pixel, as measured; unset: all that layers see"
    )


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2, inplace=not torch.is_grad_enabled())


class _DenseBlock(nn.Module):
    """x + 0.2 times what five convolutions make of it, each of all that is there."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for i in range(CONVOLUTIONS):
            last = i == CONVOLUTIONS - 1
            self.add_module(f"conv{i + 1}", conv3(features + i * growth, features if last else growth))

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        *inner, last = self.children()
        for conv in inner:
            maps.append(_act(conv(torch.cat(maps, dim=1))))
        change: Tensor = last(torch.cat(maps, dim=1))
        return x + _SHARE * change


class _Block(Recomputed):
    """The change: 0.2 times what three dense blocks make of x.

    ``kept``: what is held of the margins before the first of them, and kept after each.
    """

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for i in range(DENSE_BLOCKS):
            self.add_module(f"rdb{i + 1}", _DenseBlock(features, growth))

    def forward(self, x: Tensor, margins: Margins | None, kept: Sequence[float]) -> Tensor:
        for dense, (before, after) in zip(self.children(), itertools.pairwise(kept), strict=True):
            x = trim(dense(x), margins, before, after)
        return _SHARE * x


class RRDBNet(Network):
    """Works in the space of 4x4 blocks of pixels, at any height and width.

    ``x_t`` and ``t`` come in by layers that are zero at first: as published, the network sees ``lr`` alone.
    """

    def __init__(self, config: RRDBConfig, space: LatentSpace) -> None:
        super().__init__()
        self.config, self.space = config, space
        features, tail = config.features, config.tail_features
        self.conv_first = conv3(3, features)
        self.enter_x = nn.Conv2d(space.channels, features, 1, bias=False)
        self.time = nn.Linear(TIME_WAVES, 2 * features)
        self.body = nn.ModuleList(_Block(features, config.growth) for _ in range(config.blocks))
        self.conv_body = conv3(features, features)
        self.ups = [f"conv_up{doubling + 1}" for doubling in range(int(math.log2(config.tail_scale)))]
        for name, width in zip(self.ups, (features, tail), strict=False):
            self.add_module(name, conv3(width, tail))
        self.conv_hr = conv3(tail if self.ups else features, tail)
        self.conv_last = conv3(tail, 3 * (space.factor // config.tail_scale) ** 2)
        zero(self.enter_x)
        zero(self.time)
        # A dense block's maps several times over.
        self.bytes_per_lr_pixel = 4 * 6 * (features + (CONVOLUTIONS - 1) * config.growth)

    @property
    def entrance(self) -> nn.Module:
        return self.enter_x

    @property
    def _tail_reach(self) -> int:
        """How many lr pixels beyond itself the tail sees."""
        low, high = 0, self.config.tail_scale - 1
        low, high = low - 2, high + 2  # conv_last, conv_hr
        for _ in self.ups:
            low, high = (low - 1) // 2, (high + 1) // 2
        return max(-low, high)

    @property
    def halo(self) -> int:
        """As measured, by more than rounding, where ``config.reach`` is."""
        seen = self._tail_reach + 2 + self.config.blocks * DENSE_BLOCKS * CONVOLUTIONS  # conv_first, conv_body
        return min(seen, self.config.reach or seen)

    def _kept(self, left: int) -> float:
        """How many lr pixels of its margins a map keeps while ``left`` dense blocks are to come; infinity: all."""
        seen = self._tail_reach + 1 + left * CONVOLUTIONS  # conv_body
        return seen if seen < self.halo else math.inf

    def _tail(self, x: Tensor) -> Tensor:
        """(B,features,h,w) -> (B,3,4h,4w) in [0,1]."""
        for name in self.ups:
            x = _act(self.get_submodule(name)(F.interpolate(x, scale_factor=2.0, mode="nearest")))
        return F.pixel_shuffle(self.conv_last(_act(self.conv_hr(x))), self.space.factor // self.config.tail_scale)

    def _tail_in_parts(self, x: Tensor) -> Tensor:
        """The same in squares: the tail's maps are the largest, and wait for memory more than for sums."""
        config, (batch, _, height, width), factor = self.config, x.shape, self.space.factor
        pixel = batch * config.tail_scale**2 * config.tail_features * x.element_size()
        side = max(math.isqrt(part_bytes(x, PART_BYTES) // pixel), 1)
        picture = x.new_empty(batch, 3, factor * height, factor * width)
        for tile in plan(height, width, side, self._tail_reach, 1):
            core, box = tile.core, tile.source
            part = self._tail(x[:, :, box.top : box.bottom, box.left : box.right])
            rows, columns = (
                slice(factor * (begin - margin), factor * (end - margin))
                for begin, end, margin in ((core.top, core.bottom, box.top), (core.left, core.right, box.left))
            )
            target = picture[:, :, factor * core.top : factor * core.bottom, factor * core.left : factor * core.right]
            target.copy_(part[:, :, rows, columns])
        return picture

    def forward(self, x_t: Tensor, t: Tensor, lr: Tensor, margins: Margins | None = None) -> Tensor:
        gate, shift = self.time(time_waves(t, TIME_WAVES).to(x_t.dtype))[:, :, None, None].chunk(2, dim=1)
        first = self.conv_first(lr / 2 + 0.5) + (1 + gate) * self.enter_x(x_t) + shift
        # Under autocast the sum over the blocks keeps the weights' precision: small changes would be lost in bfloat16.
        low, precise = first.dtype, self.conv_first.weight.dtype
        kept = [self._kept(left) for left in range(DENSE_BLOCKS * len(self.body), -1, -1)]
        x = first = trim(first.to(precise), margins, math.inf, kept[0])
        for number, block in enumerate(self.body):
            part = kept[DENSE_BLOCKS * number : DENSE_BLOCKS * (number + 1) + 1]
            x = trim(x, margins, part[0], part[-1]) + block(x.to(low), margins, part)
        x = trim(first, margins, kept[0], kept[-1]) + self.conv_body(x.to(low))
        if torch.compiler.is_exporting():
            picture = in_graph_bands(self._tail, x, reach=self._tail_reach, factor=self.space.factor)
        else:
            picture = self._tail(x) if torch.is_grad_enabled() else self._tail_in_parts(x)
        return trim(self.space.encode(picture * 2 - 1), margins, kept[-1], 0)


def _strongest(norms: Tensor, count: int) -> Tensor:
    """Places of the ``count`` largest, in their order."""
    return norms.topk(count).indices.sort().values


def _squared_norms(weight: Tensor, axis: int) -> Tensor:
    return weight.pow(2).sum(dim=[a for a in range(weight.ndim) if a != axis])


def _chosen(keep: Sequence[int] | None, whole: int, part: int) -> list[int]:
    """Numbers of the blocks that stay: ``keep``, or an even selection, from the first to the last."""
    if keep is None:
        return torch.linspace(0, whole - 1, part).round().int().tolist()
    if len(keep) != part or list(keep) != sorted(set(keep) & set(range(whole))):
        raise ValueError(f"keep_blocks is {list(keep)}; it must be {part} of the numbers 0 to {whole - 1}, in order")
    return list(keep)


def shrink(
    weights: Mapping[str, Tensor], whole: RRDBConfig, part: RRDBConfig, keep_blocks: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Weights of a smaller network that starts as the larger one, as far as it can.

    Of its blocks those of ``keep_blocks`` stay, by default an even selection, from the first to the last; of its
    channels those that are read with the largest weights. A tail at a smaller size keeps the convolutions it has room
    for, and repeats each pixel.

    Raises:
        ValueError: ``part`` is larger than ``whole`` somewhere, or ``keep_blocks`` are not as many of its blocks.
    """
    for name in ("features", "growth", "blocks", "tail_scale", "tail_features"):
        if getattr(part, name) > getattr(whole, name):
            raise ValueError(f"{name} is {getattr(part, name)}, more than the {getattr(whole, name)} it starts from")
    blocks = _chosen(keep_blocks, whole.blocks, part.blocks)
    convs = range(1, CONVOLUTIONS + 1)
    reading = [weights[f"body.{b}.rdb1.conv{c}.weight"][:, : whole.features] for b in blocks for c in convs]
    features = _strongest(torch.stack([_squared_norms(weight, 1) for weight in reading]).sum(dim=0), part.features)
    small: dict[str, Tensor] = {}

    def take(target: str, source: str, outputs: Tensor, inputs: Tensor | None = None) -> None:
        weight = weights[f"{source}.weight"][outputs]
        small[f"{target}.weight"] = weight if inputs is None else weight[:, inputs]
        if f"{source}.bias" in weights:
            small[f"{target}.bias"] = weights[f"{source}.bias"][outputs]

    take("conv_first", "conv_first", features)
    take("enter_x", "enter_x", features)
    take("time", "time", torch.cat([features, whole.features + features]))
    for to, block in enumerate(blocks):
        for dense in range(1, DENSE_BLOCKS + 1):
            place = f"body.{block}.rdb{dense}.conv"
            inputs = features
            for conv in range(1, CONVOLUTIONS):
                begin = whole.features + (conv - 1) * whole.growth
                later = [
                    _squared_norms(weights[f"{place}{c}.weight"][:, begin : begin + whole.growth], 1)
                    for c in range(conv + 1, CONVOLUTIONS + 1)
                ]
                grown = _strongest(torch.stack(later).sum(dim=0), part.growth)
                take(f"body.{to}.rdb{dense}.conv{conv}", f"{place}{conv}", grown, inputs)
                inputs = torch.cat([inputs, begin + grown])
            take(f"body.{to}.rdb{dense}.conv{CONVOLUTIONS}", f"{place}{CONVOLUTIONS}", features, inputs)
    take("conv_body", "conv_body", features, features)
    before = features
    tail = [*(f"conv_up{doubling + 1}" for doubling in range(int(math.log2(part.tail_scale)))), "conv_hr", "conv_last"]
    for name, reader in itertools.pairwise(tail):
        read = _strongest(_squared_norms(weights[f"{reader}.weight"], 1), part.tail_features)
        take(name, name, read, before)
        before = read
    take("conv_last", "conv_last", torch.arange(len(weights["conv_last.weight"])), before)
    pixels, copies = 4 // whole.tail_scale, whole.tail_scale // part.tail_scale
    for kind in ("weight", "bias"):
        blocks_of_pixels = small[f"conv_last.{kind}"].unflatten(0, (3, pixels, pixels))  # type: ignore[no-untyped-call]
        repeated = blocks_of_pixels.repeat_interleave(copies, dim=1).repeat_interleave(copies, dim=2)
        small[f"conv_last.{kind}"] = repeated.flatten(0, 2)
    return {name: weight.clone() for name, weight in small.items()}
