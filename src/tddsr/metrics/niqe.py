"""NIQE, a score without a true picture (Mittal et al. 2013, "Making a completely blind image quality analyzer").

Its parameters, the mean and covariance of natural pictures' features, are the authors' own (``NIQE_LICENSE``).
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from tddsr.metrics.fidelity import luma_y

PATCH = 96
"""Side of a patch; what is left over at the right and at the bottom is not looked at."""


def niqe(image: Tensor) -> Tensor:
    """Distance of a picture's statistics from those of sharp natural photos, as the field measures it.

    Y is rounded to 8 bit first. The covariance takes two patches of 96x96, so the picture must be at least 96x192 or
    192x96. A flat patch (black bars, a white ground) has no statistics but a shape, which other programs set to 0.2: so
    does this, for scores that can be compared.

    (B,3,H,W) in [0,1] -> (B,) float64, not negative; lower is better. NaN where fewer than two patches are large enough
    and not flat.
    """
    return torch.stack([_distance(features(y)) for y in (luma_y(image.cpu().double()) * 255).round()[:, 0]])


def features(y: Tensor) -> Tensor:
    """(H,W) in [0,255] -> (patches,36): 18 features at full size and the same at half; NaN where not defined."""
    rows, columns = y.shape[0] // PATCH, y.shape[1] // PATCH
    y = y[: rows * PATCH, : columns * PATCH]
    if not y.numel():
        return y.new_empty(0, 36)
    return torch.cat([_patch_features(y, PATCH), _patch_features(halve(y), PATCH // 2)], dim=1)


def _distance(found: Tensor) -> Tensor:
    """(patches,36) -> the distance between the Gaussians of these features and of natural pictures'."""
    complete = found[found.isfinite().all(dim=1)]
    if len(complete) < 2:
        return found.new_tensor(math.nan)
    mean, covariance = _pristine()
    difference = mean - found.nanmean(dim=0)
    inverse: Tensor = torch.linalg.pinv((covariance + torch.cov(complete.T)) / 2, hermitian=True)
    return (difference @ inverse @ difference).sqrt()


@functools.cache
def _pristine() -> tuple[Tensor, Tensor]:
    """Mean (36) and covariance (36,36) of natural pictures' features, float64."""
    weights = load_file(Path(__file__).with_name("niqe_pristine.safetensors"))
    return weights["mean"], weights["covariance"]


def _patch_features(y: Tensor, side: int) -> Tensor:
    """(H,W), both multiples of ``side`` -> (patches,18)."""
    normal = _normalise(y)
    patches = normal.unfold(0, side, side).unfold(1, side, side).flatten(0, 1)
    shape, left, right = fit(patches)
    found = [shape, (left + right) / 2]
    # Products of neighbours: across, down, and the two diagonals. A patch's edge meets its opposite edge.
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = fit(patches * patches.roll(shift, dims=(1, 2)))
        mean = (right - left) * (torch.lgamma(2 / shape) - torch.lgamma(1 / shape)).exp()
        found += [shape, mean, left, right]
    return torch.stack(found, dim=1)


def _normalise(y: Tensor) -> Tensor:
    """(H,W) -> local mean taken off, divided by local contrast + 1: 7x7 Gaussian, sigma 7/6."""
    line = torch.exp(-(torch.arange(-3, 4, dtype=y.dtype).square()) / (2 * (7 / 6) ** 2))
    line = line / line.sum()

    def blur(x: Tensor) -> Tensor:
        x = F.pad(x[None, None], (3, 3, 3, 3), mode="replicate")
        return F.conv2d(F.conv2d(x, line.view(1, 1, 1, 7)), line.view(1, 1, 7, 1))[0, 0]

    mean = blur(y)
    difference = y - mean
    # Where the picture is flat, the difference is rounding error, whose sign must not count.
    difference = difference.where(difference.abs() > 1e-9, 0)
    return difference / ((blur(y * y) - mean * mean).abs().sqrt() + 1)


@functools.cache
def _shapes() -> tuple[Tensor, Tensor]:
    """Shapes 0.2, 0.201 ... 10, and E|x|^2 / E x^2 of the generalised Gaussian of each; both rise."""
    shapes = torch.arange(200, 10001, dtype=torch.float64) / 1000
    ratios = 2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes)
    return shapes, ratios.exp()


def fit(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit asymmetric generalised Gaussians to patches (N,h,w) by their moments: shape, left and right scale, each (N).

    0.2, NaN and NaN where a patch has no values on a side of zero.
    """
    x = patches.flatten(1)
    square = x.square()
    left = (square.where(x < 0, 0).sum(dim=1) / (x < 0).sum(dim=1)).sqrt()
    right = (square.where(x > 0, 0).sum(dim=1) / (x > 0).sum(dim=1)).sqrt()
    skew = left / right
    ratio = x.abs().mean(dim=1).square() / square.mean(dim=1)
    ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shapes, ratios = _shapes()
    # The nearest entry of the table: bounds lie halfway between entries.
    shape = shapes[torch.searchsorted((ratios[1:] + ratios[:-1]) / 2, ratio.nan_to_num(0))]
    scale = ((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2).exp()
    return shape, left * scale, right * scale


def halve(x: Tensor) -> Tensor:
    """(H,W) -> (H/2,W/2), both even: antialiased bicubic (a = -0.5), edges mirrored, as MATLAB's imresize."""
    mirrored = torch.from_numpy(np.pad(x.numpy(), 4, mode="symmetric"))[None, None]
    return F.interpolate(mirrored, scale_factor=0.5, mode="bicubic", antialias=True)[0, 0, 2:-2, 2:-2]
