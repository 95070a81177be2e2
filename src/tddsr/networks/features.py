"""Frozen ImageNet feature networks and LPIPS, the perceptual distance that they carry.

AlexNet's and VGG16's convolutions, with torchvision's names and weights (BSD-3-Clause); LPIPS v0.1 with its official
linear heads (BSD-2-Clause, Zhang et al. 2018). torchvision itself is not needed. The weights come from a folder of
the user's, or from torchvision's own release files, verified by the hash in their names.
"""

from __future__ import annotations

import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

FeatureName = Literal["alexnet", "vgg16"]

FEATURES_FOLDER = "TDDSR_FEATURES"
"""Environment variable: a folder with ``alexnet_lpips.safetensors`` and ``vgg16_lpips.safetensors``."""

_RELEASES = {
    "alexnet": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
}
_HEADS = Path(__file__).with_name("lpips_heads.safetensors")

_VGG_WIDTHS: tuple[int | str, ...] = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)


def _alexnet() -> tuple[nn.Sequential, tuple[int, ...]]:
    layers = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    )  # fmt: skip
    return layers, (1, 4, 7, 9, 11)


def _vgg16() -> tuple[nn.Sequential, tuple[int, ...]]:
    layers: list[nn.Module] = []
    channels = 3
    for width in _VGG_WIDTHS:
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers), (3, 8, 15, 22, 29)


class WeightsError(ValueError):
    """Weights of a feature network that cannot be had or used; the message says what to do."""


class FeatureNetwork(nn.Module):
    """A frozen convolutional network that returns the levels LPIPS taps.

    ``forward`` takes (B,3,H,W) in [-1,1] and returns five tensors (B,C_i,H_i,W_i), finest first. Gradients reach the
    picture, never the weights.
    """

    def __init__(self, name: FeatureName) -> None:
        super().__init__()
        self.features, self.taps = _alexnet() if name == "alexnet" else _vgg16()
        # The scaling layer of LPIPS: ImageNet's mean and deviation for pictures in [-1, 1].
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None], persistent=False)
        self.requires_grad_(False)
        self.eval()

    def forward(self, image: Tensor) -> list[Tensor]:
        x = (image - self.shift) / self.scale  # type: ignore[operator]
        levels = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                levels.append(x)
        return levels


def _backbone(name: FeatureName, folder: str | Path | None) -> dict[str, Tensor]:
    folder = folder or os.environ.get(FEATURES_FOLDER)
    if folder is None:
        try:
            weights = torch.hub.load_state_dict_from_url(
                _RELEASES[name], map_location="cpu", check_hash=True, progress=False, weights_only=True
            )
        except (OSError, RuntimeError, UnpicklingError) as error:
            raise WeightsError(
                f"cannot load {_RELEASES[name]} ({error}); set {FEATURES_FOLDER} to a folder with {name}'s weights"
            ) from error
    else:
        file = Path(folder) / f"{name}_lpips.safetensors"
        if not file.is_file():
            raise WeightsError(
                f"{file} does not exist: put {name}'s weights there, or unset the folder and {FEATURES_FOLDER} "
                "to download them"
            )
        try:
            weights = load_file(file)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{file} is not a readable safetensors file ({error})") from error
    return {key: value.float() for key, value in weights.items() if key.startswith("features.")}


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity, v0.1 (Zhang et al. 2018), equal to the official values.

    ``forward(a, b)``: (B,3,H,W) in [-1,1] twice -> (B,) distances, 0 for equal pictures. H and W at least 32.

    Args:
        name: the feature network.
        folder: where ``NAME_lpips.safetensors`` lies; else the environment's ``TDDSR_FEATURES``; else torchvision's
            release file is downloaded once and its hash verified.

    Raises:
        WeightsError: the weights cannot be had, are damaged, or are those of another network.
    """

    def __init__(self, name: FeatureName, folder: str | Path | None = None) -> None:
        super().__init__()
        self.network = FeatureNetwork(name)
        try:
            self.network.load_state_dict(_backbone(name, folder))
        except RuntimeError as error:
            raise WeightsError(f"the weights given for {name} are not {name}'s: {error}") from error
        heads = load_file(_HEADS)
        self.heads = nn.ParameterList(heads[f"{name}.lin{i}.weight"] for i in range(len(self.network.taps)))
        self.requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        distance = torch.zeros(a.shape[0], device=a.device)
        for level_a, level_b, head in zip(self.network(a), self.network(b), self.heads, strict=True):
            difference = F.normalize(level_a, dim=1, eps=1e-10) - F.normalize(level_b, dim=1, eps=1e-10)
            distance = distance + F.conv2d(difference.square(), head).mean(dim=(1, 2, 3))
        return distance
