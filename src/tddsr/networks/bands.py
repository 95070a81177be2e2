"""Feature maps in horizontal bands, for convolutional networks without gradients: memory for two maps, exact results.

A GroupNorm sees the whole picture, so a network cannot be cut into tiles. But once the moments of a map are known, the
norm is a scale and a shift of each channel, and a band of rows with a row of margin goes through norm, SiLU and
convolution as it would in the whole picture. So each layer runs band by band, and what lies between its input and its
output is never as large as the picture. Bands that fit a processor's cache also make it faster.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BYTES = 16 << 20
"""Of a band. Larger ones measured slower: they leave the cache, and their pages are taken from the system anew."""

KEPT = 16
"""Upsampled maps of more bands than this are not kept, but made again."""


@runtime_checkable
class Banded(Protocol):
    """A layer that can run in bands."""

    def banded(self, x: Map) -> Map:
        """Do as ``forward``, and perhaps overwrite ``x``."""


class Affine(NamedTuple):
    """A GroupNorm of known moments, ``scale * x + shift``: (1,C,1,1) each, float32."""

    scale: Tensor
    shift: Tensor


class Map(ABC):
    """A feature map of one picture, (1,channels,height,width), which is read in bands of rows.

    ``like``: a tensor of its type and device. ``band_bytes``: size of a band, though it has one row at least.
    """

    def __init__(self, like: Tensor, channels: int, height: int, width: int, band_bytes: int) -> None:
        self.like, self.channels, self.height, self.width, self.band_bytes = like, channels, height, width, band_bytes
        self._gathered = 0
        self._mean, self._variance = torch.zeros(2, channels, device=like.device)

    @abstractmethod
    def rows(self, top: int, bottom: int) -> Tensor:
        """(1,C,bottom-top,w) in channels-last order."""

    def empty(self, channels: int) -> Stored:
        """A map of the same size, to be written."""
        return Stored(empty(self.like, channels, self.height, self.width), self.band_bytes)

    def bands(self, step: int = 1) -> Iterator[tuple[int, int]]:
        """Top and bottom of bands of a height that keeps the budget, and is a multiple of ``step``."""
        row = self.channels * self.width * self.like.element_size()
        height = max(self.band_bytes // (row * step), 1) * step
        for top in range(0, self.height, height):
            yield top, min(top + height, self.height)

    def gather(self, rows: Tensor) -> None:
        """Take rows into mean and variance of each channel, in float32 (Chan et al. 1983): no large squares cancel.

        In place, as what outlives a band would sit in the way of the next band's memory.
        """
        rows = rows.float()
        if rows.is_cpu:  # where var_mean takes 12 times as long
            mean, variance = torch.batch_norm_update_stats(rows, None, None, 0.0)
        else:
            variance, mean = torch.var_mean(rows, dim=(0, 2, 3), correction=0)
        self._gathered += rows.shape[2]
        share = rows.shape[2] / self._gathered
        self._variance.lerp_(variance, share).add_((mean - self._mean).square_(), alpha=share * (1 - share))
        self._mean.lerp_(mean, share)

    def affine(self, norm: nn.GroupNorm) -> Affine:
        """``norm`` of the map, all of whose rows were gathered."""
        assert self._gathered == self.height
        mean, variance, weight, bias = (
            each.float().view(norm.num_groups, -1) for each in (self._mean, self._variance, norm.weight, norm.bias)
        )
        centre = mean.mean(dim=1, keepdim=True)
        spread = (variance + (mean - centre).square()).mean(dim=1, keepdim=True)
        scale = weight * (spread + norm.eps).rsqrt()
        shift = bias - scale * centre
        return Affine(scale.view(1, -1, 1, 1), shift.view(1, -1, 1, 1))


def empty(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    """(1,channels,height,width) in channels-last order, where the rows of a picture follow each other in memory."""
    size = (1, channels, height, width)
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


class Stored(Map):
    """A map in memory."""

    def __init__(self, data: Tensor, band_bytes: int) -> None:
        channels, height, width = data.shape[1:]
        super().__init__(data, channels, height, width, band_bytes)
        self.data = data

    def rows(self, top: int, bottom: int) -> Tensor:
        return self.data[:, :, top:bottom]

    def write(self, top: int, rows: Tensor) -> None:
        """Set and gather rows."""
        self.gather(self.rows(top, top + rows.shape[2]).copy_(rows))

    def add(self, top: int, change: Tensor) -> None:
        """Add to rows that were not gathered yet, and gather the sums."""
        self.gather(self.rows(top, top + change.shape[2]).add_(change))


class Upsampled(Map):
    """A 3x3 convolution of a map enlarged to twice its size, made when it is asked for: first for its moments.

    The enlargement repeats pixels, so of the kernel's three rows two meet the same pixel of the small map, and so of
    its columns: each output pixel is a 2x2 convolution, with one of four kernels by the parity of its row and column.
    That is 4/9 of the arithmetic, so that doing it twice costs no more than once did.
    """

    def __init__(self, small: Stored, conv: nn.Conv2d) -> None:
        super().__init__(small.data, conv.out_channels, 2 * small.height, 2 * small.width, small.band_bytes)
        assert conv.bias is not None
        self._bias = conv.bias.repeat(2)
        weight = conv.weight.permute(0, 2, 3, 1)  # channels last, where folding is quick
        # By the parity of the row; both parities of the column in one, (2C,C',2,2).
        self._kernels = [
            torch.cat([_fold(_fold(weight, 1, y), 2, x) for x in (0, 1)]).permute(0, 3, 1, 2) for y in (0, 1)
        ]

    def kept(self) -> Map:
        """Make the whole map once, to know its moments, and keep it if it is small."""
        if self.channels * self.height * self.width * self.like.element_size() <= KEPT * self.band_bytes:
            stored = self.empty(self.channels)
            for top, bottom in self.bands():
                stored.write(top, self.rows(top, bottom))
            return stored
        for top, bottom in self.bands():
            self.gather(self.rows(top, bottom))
        return self

    def rows(self, top: int, bottom: int) -> Tensor:
        rows = empty(self.like, self.channels, bottom - top, self.width)
        for parity, kernel in enumerate(self._kernels):
            # Row 2i + parity sees the small rows i - 1 + parity and i + parity.
            first, last = (top + 1 - parity) // 2, (bottom + 1 - parity) // 2
            if first == last:
                continue
            window = padded(self.like, first - 1 + parity, last + parity)
            both = F.conv2d(window, kernel, self._bias, padding=(0, 1))
            into = rows[:, :, 2 * first + parity - top :: 2]
            into[..., 0::2] = both[:, : self.channels, :, :-1]
            into[..., 1::2] = both[:, self.channels :, :, 1:]
        return rows


def _fold(kernel: Tensor, dim: int, parity: int) -> Tensor:
    """A kernel of 3 along ``dim``, where its last two meet the same pixel (parity 0), or its first two (parity 1)."""
    a, b, c = kernel.unbind(dim)
    return torch.stack([a + b, c] if parity else [a, b + c], dim)


def padded(x: Tensor, top: int, bottom: int, right: int = 0, affine: Affine | None = None) -> Tensor:
    """Rows ``top`` to ``bottom`` of ``x`` (1,C,h,w), and ``right`` columns more, with zeros outside of ``x``.

    ``affine``: scale, shift and SiLU that rows of ``x`` go through before, as in ``conv(silu(norm(x)))``.
    """
    height, width = x.shape[2:]
    first, last = max(top, 0), min(bottom, height)
    window = empty(x, x.shape[1], bottom - top, width + right)
    window[:, :, : first - top].zero_()
    window[:, :, last - top :].zero_()
    window[..., width:].zero_()
    inside = window[:, :, first - top : last - top, :width]
    if affine is None:
        inside.copy_(x[:, :, first:last])
    else:
        F.silu(scaled(x[:, :, first:last], affine, out=inside), inplace=True)
    return window


def scaled(x: Tensor, affine: Affine, out: Tensor | None = None) -> Tensor:
    """The norm of rows ``x``, rounded to their type only once."""
    return torch.addcmul(affine.shift, x, affine.scale, out=torch.empty_like(x) if out is None else out)


def convolved(x: Map, conv: nn.Conv2d, norm: nn.GroupNorm | None = None) -> Iterator[tuple[int, Tensor, Tensor]]:
    """``conv(silu(norm(x)))``, or ``conv(x)``, for a convolution of 3x3, band by band.

    Yields:
        The band's first row; its rows of ``x``; its rows of the result.
    """
    affine = None if norm is None else x.affine(norm)
    for top, bottom in x.bands():
        first = max(top - 1, 0)
        rows = x.rows(first, min(bottom + 1, x.height))
        window = padded(rows, top - 1 - first, bottom + 1 - first, affine=affine)
        yield top, rows[:, :, top - first : bottom - first], F.conv2d(window, conv.weight, conv.bias, padding=(0, 1))


def run(network: nn.Sequential, x: Tensor, band_bytes: int = BYTES) -> Tensor:
    """``network(x)`` in bands, one picture after the other: (B,C,H,W) -> (B,C',H',W'); ``x`` is not changed.

    The network is a 3x3 convolution, banded layers, and ``conv(silu(norm(x)))``; sequences may be nested. Of a map
    ``band_bytes`` are worked on at a time; whatever it is, the results are the same.
    """
    first, *layers, norm, _, last = _layers(network)
    assert isinstance(first, nn.Conv2d)
    assert isinstance(norm, nn.GroupNorm)
    assert isinstance(last, nn.Conv2d)
    results = []
    for picture in torch.split(x, 1):
        current: Map = _convolve(Stored(picture, band_bytes), first)
        for layer in layers:
            assert isinstance(layer, Banded)
            current = layer.banded(current)
        results.append(_convolve(current, last, norm).data)
    return torch.cat(results)


def _convolve(x: Map, conv: nn.Conv2d, norm: nn.GroupNorm | None = None) -> Stored:
    out = x.empty(conv.out_channels)
    for top, _, rows in convolved(x, conv, norm):
        out.write(top, rows)
    return out


def _layers(network: nn.Sequential) -> Iterator[nn.Module]:
    for layer in network:
        if isinstance(layer, nn.Sequential):
            yield from _layers(layer)
        else:
            yield layer
