"""The discriminators: small heads on the levels of a feature network, after StyleGAN-T (Sauer et al. 2023)."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from tddsr.networks.features import BackboneName
from tddsr.networks.layers import Config, FeatureNetwork, conv3

Augmentation = Literal["translation", "cutout"]


class DiscriminatorConfig(Config):
    """Heads on a feature network: what it looks at, and with what."""

    kind: Literal["features"] = Field("features", description="heads on a feature network, as StyleGAN-T's")
    features: BackboneName = Field("efficientnet_lite0", description="the feature network")
    train_features: bool = Field(False, description="train a copy of the feature network with the heads")
    size: int | None = Field(None, ge=64, description="side of the square that is looked at; unset: 224 (DINO) or 128")
    augment: tuple[Augmentation, ...] = Field(
        ("translation", "cutout"),
        description="of what is looked at; none of colours, which would hide a shift of them",
    )


class PixelDiscriminatorConfig(Config):
    """A U-Net on pixels, small enough for a CPU: 24 channels cost 0.9 M multiply-adds a pixel of the lr picture."""

    kind: Literal["pixels"] = Field(description="a small U-Net on pixels")
    channels: int = Field(24, ge=1, description="of its finest level; Real-ESRGAN's has 64")
    block: int = Field(1, ge=1, description="side of the blocks of pixels judged as one; 2 is three times as fast")


class BothDiscriminatorConfig(Config):
    """One of each, whose losses count alike."""

    kind: Literal["both"] = Field(description="one of each kind, whose losses count alike")
    features: DiscriminatorConfig = Field(DiscriminatorConfig(), description="of things and textures")
    pixels: PixelDiscriminatorConfig = Field(PixelDiscriminatorConfig(kind="pixels"), description="of pixels")


class GroupedBatchNorm(nn.Module):
    """Batch norm over groups of at most 8 samples, without running statistics: any batch size behaves alike."""

    largest_group = 8

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        groups = x.tensor_split(math.ceil(x.shape[0] / self.largest_group))
        return torch.cat([F.batch_norm(g, None, None, self.weight, self.bias, training=True) for g in groups])


class _Head(nn.Module):
    """Logits of one level: 1x1 convolution, a residual circular convolution over nine neighbours, 1x1 to one channel.

    Over tokens in their order (kernel 9), or over a map (kernel 3x3).
    """

    def __init__(self, channels: int, tokens: bool) -> None:
        super().__init__()
        conv: type[nn.Conv1d] | type[nn.Conv2d] = nn.Conv1d if tokens else nn.Conv2d
        kernel = 9 if tokens else 3

        def normed(layer: nn.Module) -> nn.Sequential:
            return nn.Sequential(spectral_norm(layer), GroupedBatchNorm(channels), nn.LeakyReLU(0.2))

        self.enter = normed(conv(channels, channels, 1))
        self.neighbours = normed(conv(channels, channels, kernel, padding=kernel // 2, padding_mode="circular"))
        self.leave = spectral_norm(conv(channels, 1, 1))

    def forward(self, level: Tensor) -> Tensor:
        x = self.enter(level)
        x = (x + self.neighbours(x)) * 0.5**0.5
        logits: Tensor = self.leave(x)
        return logits.flatten(1)


def _crop_each(image: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """A window of every sample, each at its own random place."""
    tops = torch.randint(image.shape[2] - height + 1, (image.shape[0],), generator=generator).tolist()
    lefts = torch.randint(image.shape[3] - width + 1, (image.shape[0],), generator=generator).tolist()
    windows = zip(image, tops, lefts, strict=True)
    return torch.stack([x[:, top : top + height, left : left + width] for x, top, left in windows])


def _translate(image: Tensor, generator: torch.Generator) -> Tensor:
    """Shift every sample by up to an eighth of its side; the border mirrors."""
    height, width = image.shape[-2:]
    margin_y, margin_x = height // 8, width // 8
    padded = F.pad(image, (margin_x, margin_x, margin_y, margin_y), mode="reflect")
    return _crop_each(padded, height, width, generator)


def _cut_out(image: Tensor, generator: torch.Generator) -> Tensor:
    """Grey out a rectangle of every sample, half as wide and high, centred anywhere."""
    batch, _, height, width = image.shape

    def inside(side: int) -> Tensor:
        centre = torch.randint(side, (batch, 1), generator=generator)
        return (torch.arange(side) - centre).abs() < side // 4

    hidden = inside(height)[:, None, :, None] & inside(width)[:, None, None, :]
    return image * (~hidden).to(image)


_AUGMENTATIONS = {"translation": _translate, "cutout": _cut_out}


class Discriminator(nn.Module):
    """Tells real pictures from made ones: logits (large: real) for each place of each level of a feature network.

    ``features`` becomes a part of the module (its weights, its state) only if it is trained with the heads; a frozen
    one is shared between discriminators and saved with none.
    """

    def __init__(self, config: DiscriminatorConfig, features: FeatureNetwork) -> None:
        super().__init__()
        self.config = config
        self.size = config.size or features.size
        self.features: FeatureNetwork
        if config.train_features:
            self.features = features
        else:
            self.__dict__["features"] = features  # not registered
        self.heads = nn.ModuleList(_Head(n, features.tokens) for n in features.channels)

    def _view(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Augmented, enlarged smoothly where it is small, and cut to the size that the feature network sees."""
        for name in self.config.augment:
            image = _AUGMENTATIONS[name](image, generator)
        size, (height, width) = self.size, image.shape[-2:]
        if min(height, width) < size:
            scale = size / min(height, width)
            image = F.interpolate(image, (round(height * scale), round(width * scale)), mode="bicubic")
        return _crop_each(image, size, size, generator)

    def forward(self, image: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B,3,H,W) in [-1,1] of any size -> logits (B, places) of every level; the generator augments."""
        levels = self.features(self._view(image, generator))
        return [head(level) for head, level in zip(self.heads, levels, strict=True)]


class PixelDiscriminator(nn.Module):
    """Tells made pixels from real ones: a U-Net with spectral norm, three halvings deep, as Real-ESRGAN's.

    Judges each pixel with a few dozen around it, where heads on a feature network judge textures and things.
    """

    def __init__(self, config: PixelDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels << level for level in range(4)]

        def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Module:
            return spectral_norm(nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False))

        steps = list(itertools.pairwise(widths))
        self.enter = conv3(3 * config.block**2, widths[0])
        self.down = nn.ModuleList(conv(fine, coarse, 4, 2) for fine, coarse in steps)
        self.up = nn.ModuleList(conv(coarse, fine) for fine, coarse in reversed(steps))
        self.leave = nn.Sequential(
            conv(widths[0], widths[0]), nn.LeakyReLU(0.2), conv(widths[0], widths[0]), nn.LeakyReLU(0.2),
            conv3(widths[0], 1),
        )  # fmt: skip

    def forward(self, image: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B,3,H,W) in [-1,1], sides of at least 8 blocks -> logits (B, blocks), one level; nothing is drawn."""
        x = F.leaky_relu(self.enter(F.pixel_unshuffle(image, self.config.block)), 0.2)
        skips = []
        for layer in self.down:
            skips.append(x)
            x = F.leaky_relu(layer(x), 0.2)
        for layer in self.up:
            skip = skips.pop()
            x = F.leaky_relu(layer(F.interpolate(x, skip.shape[-2:], mode="bilinear")), 0.2) + skip
        return [self.leave(x).flatten(1).float()]
