"""What a JPEG file does to a picture, on any device: 4:2:0 or 4:4:4, 8x8 DCT, quantisation with libjpeg's tables.

Entropy coding is lossless and left out. Each sample has its own quality. Tested against Pillow's files.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from tddsr.pictures.picture import LUMA

# ITU-T T.81, tables K.1 and K.2.
_LUMINANCE = """
16 11 10 16 24 40 51 61   12 12 14 19 26 58 60 55   14 13 16 24 40 57 69 56   14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77   24 35 55 64 81 104 113 92   49 64 78 87 103 121 120 101   72 92 95 98 112 100 103 99
"""
_CHROMINANCE = """
17 18 24 47 99 99 99 99   18 21 26 66 99 99 99 99   24 26 56 99 99 99 99 99   47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99
"""
_TO_YCBCR = (LUMA, (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


@cache
def _dct() -> Tensor:
    """The orthonormal 8x8 DCT-II matrix."""
    k = torch.arange(8, dtype=torch.float64)
    matrix = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix.float()


def quantisation_tables(table: str, quality: Tensor) -> Tensor:
    """(B,8,8) tables at ``quality`` (B,) in 1..100, scaled as libjpeg does."""
    base = torch.tensor([float(v) for v in table.split()], device=quality.device).reshape(1, 8, 8)
    quality = quality.round().clamp(1, 100)
    percent = torch.where(quality < 50, torch.floor(5000 / quality), 200 - 2 * quality)[:, None, None]
    return torch.floor((base * percent + 50) / 100).clamp(1, 255)


def _mix(image: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.einsum("dc,bchw->bdhw", torch.tensor(matrix, device=image.device, dtype=image.dtype), image)


def _code_plane(plane: Tensor, table: Tensor) -> Tensor:
    """Quantise the 8x8 blocks of a (B,C,H,W) plane centred on 0; H and W multiples of 8."""
    b, c, h, w = plane.shape
    dct = _dct().to(plane)
    blocks = plane.reshape(b, c, h // 8, 8, w // 8, 8).transpose(3, 4)
    step = table.to(plane)[:, None, None, None]
    coefficients = torch.round(dct @ blocks @ dct.T / step) * step
    return (dct.T @ coefficients @ dct).transpose(3, 4).reshape(b, c, h, w)


def _double(chroma: Tensor) -> Tensor:
    """Libjpeg's smooth chroma enlargement: each new sample takes 3/4 of the nearer, 1/4 of the farther old one."""
    return F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False).round()


def jpeg(image: Tensor, quality: Tensor, full_chroma: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """Write and read (B,3,H,W) in [0,1] as JPEG of ``quality`` (B,) in 1..100; returns values of 8-bit pictures.

    ``full_chroma`` (B,) bool: 4:4:4 instead of 4:2:0; unset: nowhere. ``shift`` (B,2) in 0..15: how far down and to the
    right the picture lies on the grid of blocks, as where it was cut out of a larger file; unset: 0.
    """
    height, width = image.shape[-2:]
    pixels = (image.clamp(0, 1) * 255).round()
    if shift is not None:
        pixels = F.pad(pixels, (15, 15, 15, 15), mode="replicate")
        # Of each sample the part that puts its first block's corner `shift` pixels before the picture.
        corners = (15 - shift.long()).tolist()
        pixels = torch.stack(
            [p[:, y : y + height + 15, x : x + width + 15] for p, (y, x) in zip(pixels, corners, strict=True)]
        )
    pixels = F.pad(pixels, (0, -pixels.shape[-1] % 16, 0, -pixels.shape[-2] % 16), mode="replicate")
    ycbcr = _mix(pixels, _TO_YCBCR).round()
    luma = ycbcr[:, :1] - 128
    luma = _code_plane(luma, quantisation_tables(_LUMINANCE, quality)) + 128
    table = quantisation_tables(_CHROMINANCE, quality)
    chroma = _double(_code_plane(F.avg_pool2d(ycbcr[:, 1:], 2).round(), table).round())
    if full_chroma is not None:
        chroma = torch.where(full_chroma[:, None, None, None], _code_plane(ycbcr[:, 1:], table).round(), chroma)
    decoded = _mix(torch.cat([luma.round(), chroma], dim=1), _TO_RGB)
    if shift is not None:
        corners = shift.long().tolist()
        decoded = torch.stack([p[:, y : y + height, x : x + width] for p, (y, x) in zip(decoded, corners, strict=True)])
    return decoded[..., :height, :width].round().clamp(0, 255) / 255
