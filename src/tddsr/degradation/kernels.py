"""Blur kernels of Real-ESRGAN: six density families and the sinc filter, one set of parameters per sample.

Every kernel is a (k, k) square that sums to 1, centred, zero outside its own (odd) size. Families (section 4 of the
method; Wang et al. 2021): isotropic and anisotropic Gaussian, generalised Gaussian exp(-q^beta / 2) and plateau
1 / (1 + q^beta), with q = p^T Sigma^-1 p.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def _offsets(size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    line = torch.arange(size, device=like.device, dtype=like.dtype) - (size - 1) / 2
    return line[None, :, None], line[None, None, :]


def _cut_and_normalise(kernel: Tensor, size: Tensor) -> Tensor:
    """Zero each kernel outside its own size, then scale its sum to 1."""
    y, x = _offsets(kernel.shape[-1], kernel)
    inside = torch.maximum(y.abs(), x.abs()) <= (size[:, None, None] - 1) / 2
    kernel = kernel * inside
    return kernel / kernel.sum(dim=(1, 2), keepdim=True)


def density_kernels(
    canvas: int, size: Tensor, sigma_x: Tensor, sigma_y: Tensor, angle: Tensor, beta: Tensor, plateau: Tensor
) -> Tensor:
    """(B, canvas, canvas) kernels of the six density families.

    Args:
        canvas: odd side of the square that holds every kernel.
        size: (B,) odd sizes of the kernels themselves, at most ``canvas``.
        sigma_x: (B,) standard deviation along the rotated x axis, pixels.
        sigma_y: (B,) along the y axis; equal to ``sigma_x`` for the isotropic families.
        angle: (B,) rotation, radians.
        beta: (B,) shape exponent; 1 makes a generalised kernel the plain Gaussian.
        plateau: (B,) bool, the plateau family instead of the Gaussian one.
    """
    y, x = _offsets(canvas, sigma_x)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along, across = cos * x + sin * y, cos * y - sin * x
    q = (along / sigma_x[:, None, None]) ** 2 + (across / sigma_y[:, None, None]) ** 2
    exponent = beta[:, None, None]
    gaussian = torch.exp(-0.5 * q**exponent)
    flat = 1 / (1 + q**exponent)
    return _cut_and_normalise(torch.where(plateau[:, None, None], flat, gaussian), size)


def sinc_kernels(canvas: int, size: Tensor, cutoff: Tensor) -> Tensor:
    """(B, canvas, canvas) circular low-pass filters, which ring: w J1(w r) / (2 pi r), w = ``cutoff`` in radians."""
    y, x = _offsets(canvas, cutoff)
    radius = torch.sqrt(y**2 + x**2)
    w = cutoff[:, None, None]
    safe = radius.clamp(min=1e-6)
    kernel = w * torch.special.bessel_j1(w * safe) / (2 * math.pi * safe)
    kernel = torch.where(radius == 0, w**2 / (4 * math.pi), kernel)
    return _cut_and_normalise(kernel, size)


def filter2d(image: Tensor, kernels: Tensor) -> Tensor:
    """Filter (B,C,H,W) with one (k,k) kernel per sample, edges replicated; by FFT, as kernels are large."""
    margin = kernels.shape[-1] // 2
    padded = F.pad(image, (margin,) * 4, mode="replicate")
    shape = padded.shape[-2:]
    # A kernel centred on the origin of the periodic canvas, so that the result is not shifted.
    centred = torch.roll(
        F.pad(kernels, (0, shape[1] - kernels.shape[-1], 0, shape[0] - kernels.shape[-2])),
        (-margin, -margin),
        dims=(1, 2),
    )
    # Correlation, as networks and OpenCV filter: conjugate the kernel's spectrum.
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(centred).conj()[:, None]
    filtered: Tensor = torch.fft.irfft2(spectrum, s=shape)
    return filtered[..., margin:-margin, margin:-margin] if margin else filtered
