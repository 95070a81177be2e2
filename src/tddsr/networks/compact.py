"""A small U-Net at the size of the lr picture: the network of ``compact-small``; that of ``compact`` is in ``rrdb``.

Nothing here normalises over space, so a pixel depends on a bounded neighbourhood only (``halo``), and a picture cut
into tiles gives the same pixels as the whole.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from tddsr.networks.layers import (
    BICUBIC_RADIUS,
    TIME_WAVES,
    Config,
    Network,
    Recomputed,
    check_multiple,
    conv3,
    in_graph_bands,
    part_bytes,
    time_waves,
    trim,
    zero,
)
from tddsr.networks.space import LatentSpace
from tddsr.tiling import Margins, round_up

BAND_BYTES = 4 << 20
"""Of a map at hr size, where the tail works in bands on a CPU. Larger ones take more memory and measured no faster."""


class CompactConfig(Config):
    """Size of a ``CompactNet``. Equal lengths: a width and a block count for each level, the lr size first."""

    kind: Literal["compact"] = Field("compact", description="a small U-Net of plain convolutions, ours")
    widths: tuple[PositiveInt, ...] = Field(
        (48, 96, 192), min_length=1, description="channels a level, the lr size first"
    )
    encoder_blocks: tuple[NonNegativeInt, ...] = Field(
        (1, 2), description="blocks a level but the last, on the way down"
    )
    middle_blocks: int = Field(4, ge=0, description="blocks of the coarsest level")
    decoder_blocks: tuple[NonNegativeInt, ...] = Field((2, 2), description="blocks a level but the last, on the way up")
    time_features: int = Field(TIME_WAVES, ge=2, multiple_of=2, description="cosines and sines that tell the time step")
    tail: int = Field(0, ge=0, description="channels of a last correction at hr size; 0: there is none")
    reach: int | None = Field(
        None, ge=1, description="lr pixels beyond which nothing moves a pixel, as measured; unset: all that layers see"
    )

    def model_post_init(self, context: object) -> None:
        levels = len(self.widths)
        if not len(self.encoder_blocks) == len(self.decoder_blocks) == levels - 1:
            raise ValueError(
                f"{levels} widths need {levels - 1} encoder_blocks and decoder_blocks, "
                f"not {len(self.encoder_blocks)} and {len(self.decoder_blocks)}"
            )


class _Block(Recomputed):
    """x + conv(SiLU(scale * conv(x) + shift)), scale and shift from the time step; the identity at initialisation.

    Chosen by measuring on a 2-core CPU with channels-last tensors (docs/experiments/network.md): at equal arithmetic,
    plain 3x3 convolutions train two to three times as fast as depthwise blocks.
    """

    def __init__(self, width: int, time_features: int) -> None:
        super().__init__()
        self.conv_in = conv3(width, width)
        self.time = nn.Linear(time_features, 2 * width)
        self.conv_out = conv3(width, width)
        zero(self.time)
        zero(self.conv_out)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
        change: Tensor = self.conv_out(F.silu(self.conv_in(x) * (1 + scale) + shift))
        return x + change


class _Tail(nn.Module):
    """A correction of x_0 at hr size; none at initialisation.

    The head makes the pixels of a block each with weights of their own, so small errors repeat with the block's period.
    ``mix`` and ``out`` have the same weights at every pixel, and see across the blocks' borders.
    """

    def __init__(self, width: int, channels: int, space: LatentSpace) -> None:
        super().__init__()
        self.space = space
        self.spread = nn.Conv2d(width, channels * space.factor**2, 1)
        self.mix = conv3(channels + 3, channels)
        self.out = conv3(channels, 3)
        zero(self.out)

    def forward(self, features: Tensor, x_0: Tensor) -> Tensor:
        """The corrected x_0; without gradients in bands of rows, as maps at hr size are the network's largest."""
        batch, _, height, width = x_0.shape
        if torch.compiler.is_exporting():
            return in_graph_bands(self._corrected, features, x_0, reach=1)
        row = batch * self.mix.in_channels * self.space.factor**2 * width * x_0.element_size()
        step = height if torch.is_grad_enabled() else max(part_bytes(x_0, BAND_BYTES) // row, 1)
        if step >= height:
            return self._corrected(features, x_0)
        corrected = torch.empty_like(x_0)
        for top in range(0, height, step):
            # Two convolutions see two hr pixels far: a row of blocks above and below.
            first, bottom = max(top - 1, 0), min(top + step, height)
            rows = slice(first, min(bottom + 1, height))
            band = self._corrected(features[:, :, rows], x_0[:, :, rows])
            corrected[:, :, top:bottom] = band[:, :, top - first : bottom - first]
        return corrected

    def _corrected(self, features: Tensor, x_0: Tensor) -> Tensor:
        # None of the maps at hr size has a name, so each is freed as soon as the next one is there.
        mixed = self.mix(
            torch.cat([self.space.decode(x_0), F.pixel_shuffle(self.spread(features), self.space.factor)], dim=1)
        )
        return x_0 + self.space.encode(self.out(F.silu(mixed, inplace=not torch.is_grad_enabled())))


class CompactNet(Network):
    """A U-Net that corrects the bicubic enlargement."""

    bytes_per_lr_pixel = 3000

    def __init__(self, config: CompactConfig, space: LatentSpace) -> None:
        super().__init__()
        self.config = config
        self.space = space
        widths, features = config.widths, config.time_features
        self.embed = nn.Sequential(nn.Linear(features, features), nn.SiLU(), nn.Linear(features, features), nn.SiLU())
        # x_t is all noise at t = T and nearly x_0 at t = 1, so its way in is weighted by the time step; it starts
        # nearly closed, since noise let through early is what a network takes longest to unlearn.
        self.stem_lr = conv3(3, widths[0])
        self.stem_x = nn.Conv2d(space.channels, widths[0], 3, padding=1, bias=False)
        self.gate = nn.Linear(features, widths[0])
        # Not normal_: on the meta device, where models are made to be loaded, its first call takes a second of imports.
        nn.init.trunc_normal_(self.stem_x.weight, std=0.1 * (9 * space.channels) ** -0.5)
        nn.init.zeros_(self.gate.weight)
        nn.init.ones_(self.gate.bias)

        def blocks(count: int, width: int) -> nn.ModuleList:
            return nn.ModuleList(_Block(width, features) for _ in range(count))

        steps = list(itertools.pairwise(widths))
        self.encoder = nn.ModuleList(blocks(n, w) for n, w in zip(config.encoder_blocks, widths[:-1], strict=True))
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.middle = blocks(config.middle_blocks, widths[-1])
        self.up = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in steps)
        self.decoder = nn.ModuleList(blocks(n, w) for n, w in zip(config.decoder_blocks, widths[:-1], strict=True))
        self.head = conv3(widths[0], space.channels)
        zero(self.head)
        self.tail = _Tail(widths[0], config.tail, space) if config.tail else None

        self.multiple = 1 << (len(widths) - 1)

    @property
    def halo(self) -> int:
        """As measured, by more than rounding, where ``config.reach`` is."""
        config = self.config

        def reach(offset: int) -> int:
            """How far the lr pixel ``offset`` sees: its interval, traced from the head back to the stem."""
            low = high = offset
            edge = 2 if config.tail else 1  # head, and the tail's two hr pixels; every block has two 3x3 convolutions
            low, high = low - edge, high + edge
            for count in config.decoder_blocks:
                low, high = (low - 2 * count) // 2, (high + 2 * count) // 2
            low, high = low - 2 * config.middle_blocks, high + 2 * config.middle_blocks
            for count in reversed(config.encoder_blocks):
                low, high = 2 * low - 2 * count, 2 * high + 1 + 2 * count
            return max(offset - (low - 1), high + 1 - offset)

        seen = max(reach(offset) for offset in range(self.multiple))
        return min(seen, config.reach or seen)

    @property
    def entrance(self) -> nn.Module:
        return self.stem_x

    def _kept(self) -> Iterator[float]:
        """How many lr pixels of its margins a map keeps after each block from the middle on; infinity: all."""
        seen, kept = 2 if self.config.tail else 1, []
        for level, count in enumerate((*self.config.decoder_blocks, self.config.middle_blocks)):
            pixel = 1 << level
            seen = round_up(seen, pixel)
            kept += [seen + 2 * later * pixel for later in range(count)]
            seen += 2 * count * pixel
        return (each if each < self.halo else math.inf for each in reversed(kept))

    def forward(self, x_t: Tensor, t: Tensor, lr: Tensor, margins: Margins | None = None) -> Tensor:
        check_multiple("lr", lr, self.multiple)
        time = self.embed(time_waves(t, self.config.time_features).to(x_t.dtype))
        x = self.stem_lr(lr) + self.gate(time)[:, :, None, None] * self.stem_x(x_t)
        skips = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            for block in blocks.children():
                x = block(x, time)
            skips.append(x)
            x = down(x)
        held, pixel, kept = math.inf, self.multiple, self._kept()
        for block in self.middle:
            before, held = held, next(kept)
            x = trim(block(x, time), margins, before, held, pixel)
        for blocks, up in zip(reversed(self.decoder), reversed(self.up), strict=True):
            pixel //= 2
            x = trim(skips.pop(), margins, math.inf, held, pixel) + F.pixel_shuffle(up(x), 2)
            for block in blocks.children():
                before, held = held, next(kept)
                x = trim(block(x, time), margins, before, held, pixel)
        seen = held + BICUBIC_RADIUS
        y = trim(self.space.encode_bicubic(trim(lr, margins, math.inf, seen)), margins, seen, held)
        # head first: the sum takes its memory order, which is channels last where the tail needs it most.
        x_0: Tensor = self.head(x) + y
        return trim(x_0 if self.tail is None else self.tail(x, x_0), margins, held, 0)
