"""The paper scale's network: ResShift's U-Net with Swin attention (Yue et al. 2023), which sees lr beside x_t.

State-dict names and shapes are those of the published weights, ResShift's and SinSR's.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tddsr.networks.layers import (
    GROUPS,
    Config,
    Network,
    Recomputed,
    Upsample,
    check_multiple,
    conv3,
    named,
    norm,
    time_waves,
    trim,
    zero,
)
from tddsr.tiling import Margins


class SwinUNetConfig(Config):
    """Size of a ``SwinUNet``; the defaults are the paper's. One multiple of ``width`` a level, finest first."""

    kind: Literal["swin_unet"] = Field("swin_unet", description="a U-Net with window attention, ResShift's")
    width: int = Field(160, ge=GROUPS, multiple_of=GROUPS, description="channels of the finest level")
    multiples: tuple[int, ...] = Field((1, 2, 2, 4), min_length=1, description="of width, a level")
    blocks: int = Field(2, ge=1, description="residual blocks a level of the encoder; the decoder has one more")
    swin_depth: int = Field(2, ge=1, description="Swin blocks in a row; every second one shifts its windows")
    swin_width: int = Field(192, ge=GROUPS, multiple_of=GROUPS, description="channels in Swin blocks")
    head_width: int = Field(32, ge=1, description="channels an attention head")
    window: int = Field(8, ge=2, multiple_of=2, description="side of an attention window")
    mlp_ratio: int = Field(4, ge=1, description="of swin_width, the channels between the layers of an MLP")
    size: int = Field(64, ge=1, description="side of the latents it was designed for; coarse levels do not shift")

    def model_post_init(self, context: object) -> None:
        if self.swin_width % self.head_width:
            raise ValueError(f"swin_width {self.swin_width} is not a multiple of head_width {self.head_width}")
        if self.size % (1 << (len(self.multiples) - 1)):
            raise ValueError(f"size {self.size} cannot be halved {len(self.multiples) - 1} times")


class _ResBlock(Recomputed):
    """Two convolutions; the second norm is scaled and shifted by the time step. Only the skip at initialisation."""

    def __init__(self, width_in: int, width: int, time_features: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(norm(width_in), nn.SiLU(), conv3(width_in, width))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_features, 2 * width))
        last = conv3(width, width)
        zero(last)
        # The third place is that of a dropout which no published model uses.
        self.out_layers = nn.Sequential(norm(width), nn.SiLU(), nn.Identity(), last)
        self.skip_connection = nn.Identity() if width_in == width else nn.Conv2d(width_in, width, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.emb_layers(time)[:, :, None, None].chunk(2, dim=1)
        out_norm, *rest = self.out_layers
        change = out_norm(self.in_layers(x)) * (1 + scale) + shift
        for layer in rest:
            change = layer(change)
        return self.skip_connection(x) + change  # type: ignore[no-any-return]


def relative_position_index(window: int) -> Tensor:
    """(N,N) for the N = window^2 positions of a window: which row of the bias table a pair takes."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = y.flatten(), x.flatten()
    span = 2 * window - 1
    return (y[:, None] - y + window - 1) * span + (x[:, None] - x + window - 1)


class _WindowAttention(nn.Module):
    """Attention among the positions of a window, with a learnt bias for each offset between two of them."""

    relative_position_index: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_position_index(window))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def _attend(self, qkv: Tensor, bias: Tensor) -> Tensor:
        """(n,N,3C) -> (n,N,C); ``bias`` is (heads,N,N)."""
        q, k, v = qkv.view(*qkv.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None]).transpose(1, 2).flatten(2)

    def forward(self, windows: Tensor, mask: Tensor | None, masked: int) -> Tensor:
        """(n,N,C) -> (n,N,C); ``mask`` (N,N) is added to the logits of the last ``masked`` windows."""
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1).contiguous()
        qkv = self.qkv(windows)
        if mask is None:
            return self.proj(self._attend(qkv, bias))  # type: ignore[no-any-return]
        # Two calls, each with one bias for all its windows: a bias for every window would outgrow the pixels.
        parts = zip(qkv.split([len(qkv) - masked, masked]), (bias, bias + mask), strict=True)
        return self.proj(torch.cat([self._attend(part, b) for part, b in parts if len(part)]))  # type: ignore[no-any-return]


def shift_mask(size: int, window: int) -> Tensor:
    """(windows, N, N): what the official code adds to the logits of shifted windows, at its nominal size.

    Not the textbook's mask, which parts what the shift brought together from opposite edges of the picture: here the
    windows of the last row are parted into left and right halves, whatever the picture's size, and no other window is
    masked. The weights were trained so.
    """
    half = torch.arange(window * window) % window < window // 2
    across = half[:, None] != half
    mask = torch.zeros((size // window) ** 2, window**2, window**2)
    mask[-(size // window) :] = -100.0 * across
    return mask


class _SwinBlock(Recomputed):
    attn_mask: Tensor

    def __init__(self, config: SwinUNetConfig, size: int, shifted: bool) -> None:
        super().__init__()
        width = config.swin_width
        self.window = min(config.window, size)
        # One window covers the nominal size: nothing to shift, at any size.
        self.shift = self.window // 2 if shifted and size > config.window else 0
        self.norm1 = norm(width)
        self.attn = _WindowAttention(width, width // config.head_width, self.window)
        self.norm2 = norm(width)
        hidden = config.mlp_ratio * width
        self.mlp = named(fc1=nn.Conv2d(width, hidden, 1), act=nn.GELU(), fc2=nn.Conv2d(hidden, width, 1))
        if self.shift:
            self.register_buffer("attn_mask", shift_mask(size, self.window))

    def _attention(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        rows, columns, side = height // self.window, width // self.window, self.window
        pixels = x.permute(0, 2, 3, 1)
        if self.shift:
            pixels = pixels.roll((-self.shift, -self.shift), dims=(1, 2))
        # Window rows come first, so that the last row's windows are the last of all, those with a mask.
        windows = pixels.reshape(batch, rows, side, columns, side, channels).permute(1, 0, 3, 2, 4, 5)
        seen: Tensor = self.attn(
            windows.reshape(-1, side * side, channels),
            self.attn_mask[-1] if self.shift else None,
            batch * columns,
        )
        pixels = seen.view(windows.shape).permute(1, 0, 3, 2, 4, 5).reshape(batch, height, width, channels)
        if self.shift:
            pixels = pixels.roll((self.shift, self.shift), dims=(1, 2))
        return pixels.permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


def _swin_layer(config: SwinUNetConfig, width: int, size: int) -> nn.Sequential:
    """Swin blocks at their own width, between two projections."""
    inner = config.swin_width
    return named(
        patch_embed=named(proj=nn.Conv2d(width, inner, 1)),
        blocks=nn.Sequential(*(_SwinBlock(config, size, shifted=i % 2 == 1) for i in range(config.swin_depth))),
        patch_unembed=named(proj=nn.Conv2d(inner, width, 1)),
    )


class _Stage(nn.ModuleList):
    """Layers in a row, of which the residual blocks are told the time step."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, time) if isinstance(layer, _ResBlock) else layer(x)
        return x


class SwinUNet(Network):
    """Works in a latent space of ``channels`` channels.

    A level of the encoder is its residual blocks, the first one followed by a Swin layer, then a halving; the decoder
    mirrors it, with one block more, and joins the output of every stage of the encoder to its own. GroupNorm sees the
    whole picture, so there is no bound to what a pixel depends on.
    """

    def __init__(self, config: SwinUNetConfig | None = None, channels: int = 3) -> None:
        super().__init__()
        self.config = config = config or SwinUNetConfig()
        base, last = config.width, len(config.multiples) - 1
        features = 4 * base

        def block(width_in: int, width: int) -> _ResBlock:
            return _ResBlock(width_in, width, features)

        def swin(width: int, level: int) -> nn.Sequential:
            return _swin_layer(config, width, config.size >> level)

        self.time_embed = nn.Sequential(nn.Linear(base, features), nn.SiLU(), nn.Linear(features, features))
        self.input_blocks = nn.ModuleList([_Stage([conv3(channels + 3, base)])])
        before = base
        skips = [base]
        for level, multiple in enumerate(config.multiples):
            width = base * multiple
            for i in range(config.blocks):
                stage = _Stage([block(before, width)])
                if i == 0:
                    stage.append(swin(width, level))
                self.input_blocks.append(stage)
                before = width
                skips.append(width)
            if level != last:
                self.input_blocks.append(_Stage([named(op=nn.Conv2d(width, width, 3, stride=2, padding=1))]))
                skips.append(width)
        self.middle_block = _Stage([block(before, before), swin(before, last), block(before, before)])
        self.output_blocks = nn.ModuleList()
        for level, multiple in reversed(list(enumerate(config.multiples))):
            width = base * multiple
            for i in range(config.blocks + 1):
                stage = _Stage([block(before + skips.pop(), width)])
                if i == 0:
                    stage.append(swin(width, level))
                if i == config.blocks and level:
                    stage.append(Upsample(width))
                self.output_blocks.append(stage)
                before = width
        self.out = nn.Sequential(norm(before), nn.SiLU(), conv3(before, channels))

        self.multiple = max(min(config.window, config.size >> level) << level for level in range(last + 1))

    def forward(self, x_t: Tensor, t: Tensor, lr: Tensor, margins: Margins | None = None) -> Tensor:
        check_multiple("lr", lr, self.multiple)
        time = self.time_embed(time_waves(t, self.config.width, slowest=10_000.0).to(x_t.dtype))
        x = torch.cat([x_t, lr], dim=1)
        skips = []
        for stage in self.input_blocks:
            x = stage(x, time)
            skips.append(x)
        x = self.middle_block(x, time)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, skips.pop()], dim=1), time)
        return trim(self.out(x), margins, math.inf, 0)
