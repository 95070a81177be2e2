"""Fréchet distance of two sets of pictures: how far the Gaussians of their features lie apart (Heusel et al. 2017)."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tddsr.errors import ModelError, WeightsError
from tddsr.networks.features import FEATURES_FOLDER, features_folder, load_features
from tddsr.weights.recognise import read_weights

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
"""Inception's weights as torch-fidelity publishes them: the original TensorFlow ones, which FID is defined by."""

Features = Callable[[Tensor], Tensor]
"""(B,3,H,W) in [0,1] -> (B,C)."""


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared distance of means and covariances of (N,C) and (M,C), a row for each picture; 0 for equal sets.

    NaN where a set has fewer than two pictures. Biased upwards for few: compare only scores of equally many.
    """
    if min(len(a), len(b)) < 2:
        return math.nan
    a, b = a.double(), b.double()
    # Each covariance is R'R, and the trace of the root of their product is the sum of the singular values of RS'.
    r, s = (torch.linalg.qr((x - x.mean(dim=0)) / math.sqrt(len(x) - 1), mode="r").R for x in (a, b))
    covariances = r.square().sum() + s.square().sum() - 2 * torch.linalg.svdvals(r @ s.T).sum()
    return max(0.0, float((a.mean(dim=0) - b.mean(dim=0)).square().sum() + covariances))


def vgg16(folder: Path | None, device: torch.device) -> Features:
    """Means over the places of VGG16's last level, 512 numbers; not FID, and not comparable with it.

    ``folder``: of VGG16's weights, as ``load_features``, like the errors.
    """
    network = load_features("vgg16", folder, trainable=True).requires_grad_(False).to(device)
    return lambda image: network(image.to(device) * 2 - 1)[-1].mean(dim=(2, 3))


def inception(folder: Path | None, device: torch.device) -> Features:
    """Inception's last pooling, 2048 numbers: what FID is defined by. Needs the package torch-fidelity.

    Raises:
        WeightsError: the package or the weights cannot be had.
    """
    place = features_folder(folder)
    remedy = (
        f"FID needs the package torch-fidelity, which needs torchvision (pip install torch-fidelity), and {INCEPTION} "
        f"in the folder that --features or {FEATURES_FOLDER} names"
    )
    if place is None or not (file := place / INCEPTION).is_file():
        raise WeightsError(remedy)
    try:
        fidelity: Any = import_module("torch_fidelity.feature_extractor_inceptionv3")
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit this torch is a RuntimeError
        raise WeightsError(f"{remedy} ({error})") from error
    copy = io.BytesIO()
    try:
        # The package would run whatever code the file holds; so it gets a file of ours, with the weights alone.
        torch.save(read_weights(file), copy)
        copy.seek(0)
        network: Any = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], copy)
    except (ModelError, RuntimeError) as error:
        raise WeightsError(f"{file} is not Inception's weights: {error}") from error
    network = network.to(device).eval()

    def features(image: Tensor) -> Tensor:
        result: Tensor = network((image * 255).round().to(device, torch.uint8))[0]
        return result

    return features
