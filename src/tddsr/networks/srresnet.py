"""SRResNet, the generator of SRGAN and RankSRGAN, by the names and sizes of BasicSR's MSRResNet files."""

from __future__ import annotations

import re
from pathlib import Path
from pickle import UnpicklingError

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tddsr.files import CheckpointError


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


def load_srresnet(path: Path) -> SRResNet:
    """Read a file of weights; width and depth are those of its shapes.

    Args:
        path: a PyTorch checkpoint, bare or below ``params_ema`` or ``params``, or safetensors. It cannot run code.

    Raises:
        CheckpointError: no such file, or not such a network enlarging four times.
    """
    try:
        if path.suffix == ".safetensors":
            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, UnpicklingError, RuntimeError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: cannot be read as a file of weights ({reason})") from error
    for wrapper in ("params_ema", "params"):
        if isinstance(weights, dict) and wrapper in weights:
            weights = weights[wrapper]
    blocks = {int(found[1]) for key in weights if (found := re.match(r"body\.(\d+)\.conv1\.weight$", str(key)))}
    try:
        network = SRResNet(len(weights["conv_first.weight"]), len(blocks))
        network.load_state_dict(weights)
    except (KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: not SRResNet's weights for x4 (conv_first, body.N.conv1, upconv1, upconv2, conv_hr, conv_last)"
        ) from error
    return network.eval().requires_grad_(False)
