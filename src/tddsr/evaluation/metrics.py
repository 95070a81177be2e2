"""Scores of a picture against its ground truth. Pictures are (B,3,H,W) in [0,1]; every score is per picture."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure


def luma_y(image: Tensor) -> Tensor:
    """(B,3,H,W) in [0,1] -> (B,1,H,W), the Y of studio-range YCbCr (16..235 of 255) that the field scores."""
    weights = torch.tensor([65.481, 128.553, 24.966], device=image.device, dtype=image.dtype)
    return ((image * weights[:, None, None]).sum(dim=1, keepdim=True) + 16) / 255


def to_8_bit(image: Tensor) -> Tensor:
    """Clamp to [0,1] and round to whole multiples of 1/255, as a saved picture would be."""
    return (image.clamp(0, 1) * 255).round() / 255


def psnr_y(image: Tensor, truth: Tensor) -> Tensor:
    """(B,) peak signal-to-noise ratio of Y in dB, no border cropped; higher is better, infinite for equal pictures."""
    error = (luma_y(image) - luma_y(truth)).square().mean(dim=(1, 2, 3))
    return -10 * error.log10()


def ssim_y(image: Tensor, truth: Tensor) -> Tensor:
    """(B,) structural similarity of Y (Wang et al. 2004: 11x11 Gaussian, sigma 1.5); higher is better, at most 1.

    The mean is over the windows that lie wholly inside the picture; torchmetrics' own mean takes those that reach
    into a reflected border, too.
    """
    result = structural_similarity_index_measure(
        luma_y(image), luma_y(truth), sigma=1.5, data_range=1.0, reduction="none", return_full_image=True
    )
    assert isinstance(result, tuple)
    return result[1][..., 5:-5, 5:-5].mean(dim=(1, 2, 3))
