"""EfficientNet-Lite0's convolutions (Tan & Le 2019; the Lite variant: no squeeze-excitation, ReLU6 for swish)."""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tddsr.networks.layers import FeatureNetwork

_STEM = 32
_STAGES = (  # expansion, kernel, stride, width, blocks
    (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1),
)  # fmt: skip

_RELEASE_NAMES = (  # of the released weights -> ours, in this order
    (r"^_conv_stem\.", "stem.conv."), (r"^_bn0\.", "stem.norm."), (r"^_blocks\.", "blocks."),
    (r"\._expand_conv\.", ".expand.conv."), (r"\._bn0\.", ".expand.norm."),
    (r"\._depthwise_conv\.", ".depthwise.conv."), (r"\._bn1\.", ".depthwise.norm."),
    (r"\._project_conv\.", ".project.conv."), (r"\._bn2\.", ".project.norm."),
)  # fmt: skip


class _Unit(nn.Module):
    """Convolution without bias, batch norm, and ReLU6 where ``bent``; (B,C,H,W) -> (B,C',ceil(H/s),ceil(W/s)).

    TensorFlow's SAME padding: with stride 2 and an even side the surplus border pixel lies right and below.
    """

    def __init__(
        self, channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1, bent: bool = True
    ) -> None:
        super().__init__()
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(channels, width, kernel, stride, padding, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(width, eps=1e-3)
        self.bend = nn.ReLU6(inplace=True) if bent else nn.Identity()
        self.reach = kernel // 2
        self.strided = stride == 2

    def forward(self, x: Tensor) -> Tensor:
        if self.strided:
            (height, width), reach = x.shape[-2:], self.reach
            x = F.pad(x, (reach - 1 + width % 2, reach, reach - 1 + height % 2, reach))
        bent: Tensor = self.bend(self.norm(self.conv(x)))
        return bent

    def fold(self) -> None:
        """Make the batch norm part of the convolution: the same function in one step fewer."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class _Block(nn.Module):
    """Inverted bottleneck: widen, filter each channel on its own, narrow; a skip where the shape allows."""

    def __init__(self, channels: int, width: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.expand = _Unit(channels, inner, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _Unit(inner, inner, kernel, stride, groups=inner)
        self.project = _Unit(inner, width, 1, bent=False)
        self.skip = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.skip else y


class EfficientNetLite0(FeatureNetwork):
    """EfficientNet-Lite0 without its classifier, tapped at the last outputs at strides 2 to 32, as Projected GAN does.

    Levels are (B,C_i,ceil(H/s),ceil(W/s)). The released network was trained on (pixel - 127) / 128, which [-1,1] is up
    to half a grey level, so there is no other normalisation. Random weights until they are loaded.
    """

    channels = (16, 24, 40, 112, 320)

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Unit(3, _STEM, 3, stride=2)
        blocks: list[nn.Module] = []
        last: dict[int, int] = {}  # stride of a level -> its last block
        channels, level = _STEM, 2
        for expansion, kernel, stride, width, count in _STAGES:
            level *= stride
            for index in range(count):
                blocks.append(_Block(channels, width, expansion, kernel, stride if index == 0 else 1))
                channels = width
            last[level] = len(blocks) - 1
        self.blocks = nn.ModuleList(blocks)
        self.taps = tuple(last.values())
        self.settle()

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.stem(image.contiguous(memory_format=torch.channels_last))
        levels = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.taps:
                levels.append(x)
        return levels

    def fold(self) -> None:
        """Make every batch norm part of its convolution; equal in eval mode, up to rounding, and faster."""
        for module in list(self.modules()):
            if isinstance(module, _Unit):
                module.fold()


def own_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The released weights under this module's names, without the classifier; own names stay as they are."""
    named = {}
    for name, value in weights.items():
        for theirs, ours in _RELEASE_NAMES:
            name = re.sub(theirs, ours, name)
        if name.startswith(("stem.", "blocks.")):
            named[name] = value
    return named
