"""EfficientNet-Lite0's convolutions (Tan & Le 2019; the Lite variant: no squeeze-excitation, ReLU6 for swish).

State-dict names and shapes are those of the released weights.
"""

from __future__ import annotations

import itertools

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

CONVOLUTIONS = ("_conv_stem.", "_bn0.", "_blocks.")
"""What the names of weights begin with, other than those of the classifier."""


class _Conv(nn.Conv2d):
    """Without bias; (B,C,H,W) -> (B,C',ceil(H/s),ceil(W/s)).

    TensorFlow's SAME padding: with stride 2 and an even side the surplus border pixel lies right and below.
    """

    def __init__(self, channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        self.reach = kernel // 2
        super().__init__(channels, width, kernel, stride, self.reach if stride == 1 else 0, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == (2, 2):
            (height, width), reach = x.shape[-2:], self.reach
            x = F.pad(x, (reach - 1 + width % 2, reach, reach - 1 + height % 2, reach))
        return super().forward(x)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class _Block(nn.Module):
    """Inverted bottleneck: widen, filter each channel on its own, narrow; a skip where the shape allows."""

    def __init__(self, channels: int, width: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.widens = expansion > 1
        if self.widens:
            self._expand_conv, self._bn0 = _Conv(channels, inner, 1), _norm(inner)
        self._depthwise_conv, self._bn1 = _Conv(inner, inner, kernel, stride, groups=inner), _norm(inner)
        self._project_conv, self._bn2 = _Conv(inner, width, 1), _norm(width)
        self.skip = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self.widens else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        return x + y if self.skip else y


class EfficientNetLite0(FeatureNetwork):
    """EfficientNet-Lite0 without its classifier, tapped at the last outputs at strides 2 to 32, as Projected GAN does.

    Levels are (B,C_i,ceil(H/s),ceil(W/s)). The released network was trained on (pixel - 127) / 128, which [-1,1] is up
    to half a grey level, so there is no other normalisation. Random weights until they are loaded.
    """

    channels = (16, 24, 40, 112, 320)

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _Conv(3, _STEM, 3, stride=2), _norm(_STEM)
        self._blocks = nn.ModuleList()
        last: dict[int, int] = {}  # stride of a level -> its last block
        channels, level = _STEM, 2
        for expansion, kernel, stride, width, count in _STAGES:
            level *= stride
            for index in range(count):
                self._blocks.append(_Block(channels, width, expansion, kernel, stride if index == 0 else 1))
                channels = width
            last[level] = len(self._blocks) - 1
        self.taps = tuple(last.values())
        self.settle()

    def forward(self, image: Tensor) -> list[Tensor]:
        x = image.contiguous(memory_format=torch.channels_last)
        x = F.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        return self.tapped(self._blocks, x)

    def fold(self) -> None:
        """Make every batch norm part of the convolution before it; equal in eval mode, up to rounding, and faster."""
        for part in list(self.modules()):
            for (name, conv), (after, norm) in itertools.pairwise(list(part.named_children())):
                if isinstance(conv, _Conv) and isinstance(norm, nn.BatchNorm2d):
                    part.register_module(name, fuse_conv_bn_eval(conv, norm))
                    part.register_module(after, nn.Identity())
