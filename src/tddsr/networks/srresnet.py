"""SRResNet, the generator of SRGAN and RankSRGAN, by the names and sizes of BasicSR's MSRResNet files."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.conv2(F.relu(self.conv1(x)))
        return x + change


class SRResNet(nn.Module):
    """(B,3,h,w) in [0,1] -> (B,3,4h,4w) about [0,1]: residual blocks at lr size, then two pixel shuffles."""

    def __init__(self, width: int = 64, blocks: int = 16) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(*(_Block(width) for _ in range(blocks)))
        self.upconv1 = nn.Conv2d(width, 4 * width, 3, padding=1)
        self.upconv2 = nn.Conv2d(width, 4 * width, 3, padding=1)
        self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, lr: Tensor) -> Tensor:
        x = self.body(F.leaky_relu(self.conv_first(lr), 0.1))
        for layer in (self.upconv1, self.upconv2):
            x = F.leaky_relu(F.pixel_shuffle(layer(x), 2), 0.1)
        change: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(x), 0.1))
        return change + F.interpolate(lr, scale_factor=4, mode="bilinear", align_corners=False)
