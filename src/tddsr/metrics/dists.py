"""DISTS (Ding et al. 2020, "Image quality assessment: unifying structure and texture similarity").

Its weights for the channels are the authors' own (``DISTS_LICENSE``).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from tddsr.networks.features import load_features


class DISTS(nn.Module):
    """Similarity of texture (means) and structure (covariances) in the picture itself and in five levels of VGG16.

    ``forward(a, b)``: (B,3,H,W) in [-1,1] twice, at their own size -> (B,) distances, 0 for equal pictures. ``folder``:
    of VGG16's weights, as ``load_features``, like the errors.
    """

    alpha: Tensor
    beta: Tensor

    def __init__(self, folder: str | Path | None = None) -> None:
        super().__init__()
        self.network = load_features("vgg16", folder, trainable=True)  # its own copy, which is changed and may move
        features = self.network.get_submodule("features")
        for name, layer in features.named_children():
            if isinstance(layer, nn.MaxPool2d):
                features.register_module(name, _L2Pool())
        weights = load_file(Path(__file__).with_name("dists_weights.safetensors"))
        total = weights["alpha"].sum() + weights["beta"].sum()
        for name, value in weights.items():
            self.register_buffer(name, value / total)
        self.requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        similarity = []
        levels = ([image / 2 + 0.5, *self.network(image)] for image in (a, b))
        for x, y in zip(*levels, strict=True):
            x, y = x.flatten(2), y.flatten(2)
            mean_x, mean_y = x.mean(dim=2), y.mean(dim=2)
            variances = x.var(dim=2, correction=0) + y.var(dim=2, correction=0)
            covariance = (x * y).mean(dim=2) - mean_x * mean_y
            texture = (2 * mean_x * mean_y + 1e-6) / (mean_x**2 + mean_y**2 + 1e-6)
            similarity.append(torch.stack([texture, (2 * covariance + 1e-6) / (variances + 1e-6)]))
        texture, structure = torch.cat(similarity, dim=2)
        similar: Tensor = (texture * self.alpha + structure * self.beta).sum(dim=1)
        return (1 - similar).clamp(min=0)  # below by rounding alone


class _L2Pool(nn.Module):
    """(B,C,H,W) -> half the size, without aliasing: root of the squares' mean under a Hann window."""

    def forward(self, x: Tensor) -> Tensor:
        line = x.new_tensor([0.25, 0.5, 0.25])
        window = (line[:, None] * line).expand(x.shape[1], 1, 3, 3)
        return (F.conv2d(x.square(), window, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()
