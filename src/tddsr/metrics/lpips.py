"""Perceptual distances: LPIPS with its official linear heads (BSD-2-Clause, Zhang et al. 2018), and without."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from tddsr.networks.features import LPIPSBackbone, load_features
from tddsr.networks.layers import FeatureNetwork


def _unit_difference(level_a: Tensor, level_b: Tensor) -> Tensor:
    """Squared difference of two levels whose places are scaled to length 1 over the channels."""
    return (F.normalize(level_a, dim=1, eps=1e-10) - F.normalize(level_b, dim=1, eps=1e-10)).square()


class FeatureDistance(nn.Module):
    """LPIPS' formula without learned weights, for any feature network: each channel of each level counts alike.

    ``forward(a, b)``: (B,3,H,W) in [-1,1] twice -> (B,) distances in 0..4, 0 for equal pictures.
    """

    def __init__(self, features: FeatureNetwork) -> None:
        super().__init__()
        self.features = features

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        pairs = zip(self.features(a), self.features(b), strict=True)
        levels = [_unit_difference(x, y).sum(dim=1).flatten(1).mean(dim=1) for x, y in pairs]
        return torch.stack(levels).mean(dim=0)


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity, v0.1 (Zhang et al. 2018), equal to the official values.

    ``forward(a, b)``: (B,3,H,W) in [-1,1] twice -> (B,) distances, 0 for equal pictures. H and W at least 32.
    ``name`` and ``folder``: of the feature network, as ``load_features``, like the errors.
    """

    def __init__(self, name: LPIPSBackbone, folder: str | Path | None = None) -> None:
        super().__init__()
        # Its own copy, which may move to another device than others.
        self.network = load_features(name, folder, trainable=True)
        heads = load_file(Path(__file__).with_name("lpips_heads.safetensors"))
        self.heads = nn.ParameterList(heads[f"{name}.lin{i}.weight"] for i in range(len(self.network.channels)))
        self.requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        distance = torch.zeros(a.shape[0], device=a.device)
        for level_a, level_b, head in zip(self.network(a), self.network(b), self.heads, strict=True):
            distance = distance + F.conv2d(_unit_difference(level_a, level_b), head).mean(dim=(1, 2, 3))
        return distance
