"""Resizing a batch in which every sample has its own size and mode, as one matrix product per axis.

Samples of different size share a canvas: a picture fills the canvas' top left, and its last row and column are
repeated beyond, so that a following filter or JPEG block sees a replicated edge.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MODES = ("area", "bilinear", "bicubic", "clean")
"""The last is bicubic over all that a new pixel covers (antialiased), as programs reduce pictures today."""


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Keys' cubic convolution; a = -0.75 is PyTorch's and OpenCV's, -0.5 that of antialiased resizing."""
    d = distance.abs()
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def resize_matrices(size_in: Tensor, size_out: Tensor, mode: Tensor, canvas_in: int, canvas_out: int) -> Tensor:
    """(B, canvas_out, canvas_in) matrices that resize lines of ``size_in`` to ``size_out`` samples.

    Args:
        size_in: (B,) whole numbers, at most ``canvas_in``.
        size_out: (B,) whole numbers, at most ``canvas_out``.
        mode: (B,) index into ``MODES``; each equals ``torch.nn.functional.interpolate`` of that name, the last one its
            bicubic with ``antialias``.
        canvas_in: length of the lines that the matrices are applied to.
        canvas_out: length of the lines that they make; beyond ``size_out`` the last sample is repeated.

    All on the CPU, where float64 is always to be had.
    """
    n_in, n_out = size_in.double()[:, None, None], size_out.double()[:, None, None]
    row = torch.minimum(torch.arange(canvas_out, dtype=torch.float64)[None, :, None], n_out - 1)
    ratio = n_in / n_out
    centre = (row + 0.5) * ratio - 0.5
    first, last = torch.floor(row * ratio + 1e-9), torch.ceil((row + 1) * ratio - 1e-9)
    # The few source samples around each place, which may lie outside the picture: the edge stands for them.
    stretch = ratio.clamp(min=1)
    wide = math.ceil(2 * float(stretch.max())) if bool((mode == 3).any()) else 2
    taps = max(math.ceil(float(ratio.max())) + 6, 2 * wide + 2)
    column = torch.minimum(torch.floor(centre) + 2 - wide, first) - 2 + torch.arange(taps, dtype=torch.float64)

    area = ((column >= first) & (column < last)) / (last - first)
    bilinear = (1 - (centre.clamp(min=0).minimum(n_in - 1) - column).abs()).clamp(min=0)
    bicubic = _cubic(centre - column, -0.75)
    inside = (column >= 0) & (column < n_in)  # at the edge it takes fewer samples instead of repeating the last
    clean = _cubic((centre - column) / stretch, -0.5) * inside
    clean = clean / clean.sum(dim=2, keepdim=True)
    choice = mode[:, None, None]
    weights = torch.where(choice == 0, area, torch.where(choice == 1, bilinear, bicubic))
    weights = torch.where(choice == 3, clean, weights)

    edge = torch.minimum(column.clamp(min=0), n_in - 1).long()
    matrices = torch.zeros(len(size_in), canvas_out, canvas_in)
    return matrices.scatter_add_(2, edge, weights.float())


def resize(image: Tensor, size_in: Tensor, size_out: Tensor, mode: Tensor, canvas: tuple[int, int]) -> Tensor:
    """Resize each sample of (B,C,H,W) from its ``size_in`` (B,2: height, width) to ``size_out`` on a new canvas.

    The picture may be on any device; ``size_in``, ``size_out`` and ``mode`` (B,) are on the CPU.
    """
    rows = resize_matrices(size_in[:, 0], size_out[:, 0], mode, image.shape[-2], canvas[0]).to(image)
    columns = resize_matrices(size_in[:, 1], size_out[:, 1], mode, image.shape[-1], canvas[1]).to(image)
    return rows[:, None] @ image @ columns[:, None].transpose(-1, -2)
