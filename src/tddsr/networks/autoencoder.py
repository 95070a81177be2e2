"""The paper scale's latent space: a VQ-f4 autoencoder as in latent diffusion (Esser et al. 2021, Rombach et al. 2022).

State-dict names and shapes are those of the published ``autoencoder_vq_f4`` weights. GroupNorm and attention see the
whole picture, so a pixel depends on every other. Without gradients every layer runs in bands of rows (see ``bands``).
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tddsr.networks import bands
from tddsr.networks.bands import Map, Stored, Upsampled, convolved, empty, padded, scaled
from tddsr.networks.layers import GROUPS, Config, Recomputed, Upsample, check_multiple, conv3, named, norm
from tddsr.networks.space import LatentSpace

_ROWS = 2048
"""Latent pixels compared with the codebook at a time: 64 MiB of distances to 8192 codes."""


class VQConfig(Config):
    """Size of a ``VQAutoencoder``; the defaults are the paper's. One multiple of ``width`` a level, finest first."""

    kind: Literal["vq"] = Field("vq", description="the latents of an autoencoder with codes, ResShift's")
    width: int = Field(128, ge=GROUPS, multiple_of=GROUPS, description="channels of the finest level")
    multiples: tuple[int, ...] = Field((1, 2, 4), min_length=1, description="of width, a level")
    blocks: int = Field(2, ge=1, description="residual blocks a level of the encoder; the decoder has one more")
    channels: int = Field(3, ge=1, description="of the latent")
    codes: int = Field(8192, ge=1, description="in the codebook")


_norm = partial(norm, eps=1e-6)


class _ResBlock(Recomputed):
    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.norm1 = _norm(width_in)
        self.conv1 = conv3(width_in, width)
        self.norm2 = _norm(width)
        self.conv2 = conv3(width, width)
        self.nin_shortcut = nn.Identity() if width_in == width else nn.Conv2d(width_in, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        change = self.conv1(F.silu(self.norm1(x)))
        change = self.conv2(F.silu(self.norm2(change)))
        return self.nin_shortcut(x) + change  # type: ignore[no-any-return]

    def banded(self, x: Map) -> Stored:
        change = x.empty(self.conv1.out_channels)
        in_place = isinstance(x, Stored) and isinstance(self.nin_shortcut, nn.Identity)
        out = Stored(x.like, x.band_bytes) if in_place else x.empty(self.conv2.out_channels)
        for top, rows, result in convolved(x, self.conv1, self.norm1):
            change.write(top, result)
            if not in_place:
                out.rows(top, top + rows.shape[2]).copy_(self.nin_shortcut(rows))
        for top, _, result in convolved(change, self.conv2, self.norm2):
            out.add(top, result)
        return out


def _sequence(x: Tensor) -> Tensor:
    """(B,C,h,w) -> (B,1,hw,C). Contiguous, or the fused kernel declines; free of cost in channels-last order."""
    return x.flatten(2).transpose(1, 2).contiguous()[:, None]


class _Attention(Recomputed):
    """Every position looks at every other, with one head; fused, so never all pairs in memory at once."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (_sequence(f(normed)) for f in (self.q, self.k, self.v))
        seen = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2)
        return x + self.proj_out(seen.view(x.shape))  # type: ignore[no-any-return]

    def banded(self, x: Map) -> Stored:
        """Keys and values of the whole picture, then queries band by band."""
        assert isinstance(x, Stored)
        affine = x.affine(self.norm)
        k, v = x.empty(x.channels), x.empty(x.channels)
        for top, bottom in x.bands():
            normed = scaled(x.rows(top, bottom), affine)
            k.rows(top, bottom).copy_(self.k(normed))
            v.rows(top, bottom).copy_(self.v(normed))
        out = Stored(x.data, x.band_bytes)
        for top, bottom in x.bands():
            q = self.q(scaled(x.rows(top, bottom), affine))
            seen = F.scaled_dot_product_attention(_sequence(q), _sequence(k.data), _sequence(v.data))
            out.add(top, self.proj_out(seen[:, 0].transpose(1, 2).view(q.shape)))
        return out


class _Downsample(nn.Module):
    """(B,width,h,w) -> (B,width,h/2,w/2). Padded at the right and bottom alone, unlike in the U-Net."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # type: ignore[no-any-return]

    def banded(self, x: Map) -> Stored:
        out = Stored(empty(x.like, x.channels, x.height // 2, x.width // 2), x.band_bytes)
        for top, bottom in x.bands(step=2):
            rows = x.rows(top, min(bottom + 1, x.height))
            out.write(top // 2, self.conv(padded(rows, 0, bottom + 1 - top, right=1)))
        return out


class _Upsample(Upsample):
    def banded(self, x: Map) -> Map:
        assert isinstance(x, Stored)
        return Upsampled(x, self.conv).kept()


def _blocks(width_in: int, width: int, count: int) -> nn.Sequential:
    return nn.Sequential(_ResBlock(width_in, width), *(_ResBlock(width, width) for _ in range(count - 1)))


def _middle(width: int) -> nn.Sequential:
    return named(block_1=_ResBlock(width, width), attn_1=_Attention(width), block_2=_ResBlock(width, width))


def _encoder(config: VQConfig) -> nn.Sequential:
    """Picture -> latent before ``quant_conv``."""
    down = nn.Sequential()
    before = config.width
    for multiple in config.multiples:
        if len(down):
            down[-1].add_module("downsample", _Downsample(before))
        width = config.width * multiple
        down.append(named(block=_blocks(before, width, config.blocks)))
        before = width
    return named(
        conv_in=conv3(3, config.width),
        down=down,
        mid=_middle(before),
        norm_out=_norm(before),
        act=nn.SiLU(),
        conv_out=conv3(before, config.channels),
    )


def _decoder(config: VQConfig) -> nn.Sequential:
    """Latent after ``post_quant_conv`` -> picture. Levels run from the coarsest, but are numbered from the finest."""
    widest = before = config.width * config.multiples[-1]
    up = nn.Sequential()
    for index, multiple in reversed(list(enumerate(config.multiples))):
        width = config.width * multiple
        level = named(block=_blocks(before, width, config.blocks + 1))
        if index:
            level.add_module("upsample", _Upsample(width))
        up.add_module(str(index), level)
        before = width
    return named(
        conv_in=conv3(config.channels, widest),
        mid=_middle(widest),
        up=up,
        norm_out=_norm(before),
        act=nn.SiLU(),
        conv_out=conv3(before, 3),
    )


class _Codebook(nn.Module):
    def __init__(self, codes: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, channels, _weight=torch.empty(codes, channels))  # no default values first
        nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)


class VQAutoencoder(LatentSpace):
    """Latent space of a picture coded at a quarter of its size.

    A latent is continuous, as the encoder gives it; only ``decode`` takes each of its pixels to the nearest code.
    ``halo`` None: there is no bound to what a pixel depends on, so tiles differ from the whole picture.
    ``band_bytes``: without gradients, every layer works on so much of a map at a time; results do not depend on it.
    """

    halo = None
    band_bytes: int = bands.BYTES

    def __init__(self, config: VQConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VQConfig()
        self.factor, self.channels = 1 << (len(config.multiples) - 1), config.channels
        self.encoder = _encoder(config)
        self.decoder = _decoder(config)
        self.quantize = _Codebook(config.codes, config.channels)
        self.quant_conv = nn.Conv2d(config.channels, config.channels, 1)
        self.post_quant_conv = nn.Conv2d(config.channels, config.channels, 1)

    def encode(self, image: Tensor) -> Tensor:
        """As ``LatentSpace`` has it, before quantisation; ValueError where a side is no multiple of ``factor``."""
        check_multiple("image", image, self.factor)
        return self.quant_conv(self._run(self.encoder, image))  # type: ignore[no-any-return]

    def codes(self, latent: Tensor) -> Tensor:
        """(B,channels,h,w) -> (B,h,w) int64: the number of the nearest code, compared in float32."""
        codes = self.quantize.embedding.weight.detach().float()
        pixels = latent.detach().float().movedim(1, -1)
        squares = codes.square().sum(dim=1)
        with torch.autocast(latent.device.type, enabled=False):
            # |z - c|^2 without |z|^2, which is the same for every code.
            nearest = [
                torch.addmm(squares, rows, codes.T, alpha=-2).argmin(dim=1)
                for rows in torch.split(pixels.reshape(-1, self.channels), _ROWS)
            ]
        return torch.cat(nearest).view(pixels.shape[:-1])

    def quantise(self, latent: Tensor) -> Tensor:
        """(B,channels,h,w) -> the same shape: each pixel's nearest code, with the gradient of the identity."""
        nearest = F.embedding(self.codes(latent), self.quantize.embedding.weight.detach()).movedim(-1, 1)
        # The difference is exactly 0: the value is the code's, the gradient and the memory order are the latent's.
        return (latent - latent.detach()) + nearest

    def decode(self, latent: Tensor) -> Tensor:
        """As ``LatentSpace`` has it, of a latent as ``encode`` or a network gives it."""
        return self._run(self.decoder, self.post_quant_conv(self.quantise(latent)))

    def _run(self, network: nn.Sequential, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return network(x)  # type: ignore[no-any-return]
        return bands.run(network, x, self.band_bytes)
