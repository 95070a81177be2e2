"""Faults that scores of whole pictures hardly see, each as a number that is about 0 where the fault is not there.

All take pictures (B,3,H,W) in [0,1], enlarged four times, and return (B,). JPEG's blocks are looked for where a
compressed lr picture has them, on a grid of 8 of its pixels from its corner.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tddsr.pictures.tensors import luma

_SCALE = 4
_BLOCK = 8
"""Side of JPEG's blocks, lr pixels."""

_FLAT_SIDE = 32
"""Of the squares that are looked at for grain, hr pixels."""

_FLAT_SHARE = 0.1
"""Of the squares, the calmest."""

_HARD = 100 / 255
"""Least difference of light within reach that makes a hard edge."""

_REACH = 6
"""hr pixels beside a hard edge that are looked at for ringing."""

_LINE = 5
"""Length of the lines through a pixel of which none is as bright, hr pixels."""

_SPECK = 40 / 255
"""By how much it is brighter."""

_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))

_TINT_SIDE = 64
"""Of the squares over which colours are compared, hr pixels."""


def blocks(picture: Tensor) -> Tensor:
    """How much larger the steps of light at the borders of JPEG's blocks are than those elsewhere, less 1.

    Seen at the size of the lr picture, since enlarging spreads a step. NaN where the picture has no two blocks in a row
    or no steps inside them.
    """
    small = F.avg_pool2d(luma(picture), _SCALE)
    on, off = picture.new_zeros(len(picture)), picture.new_zeros(len(picture))
    counts = [0, 0]
    for axis in (2, 3):
        steps = small.diff(dim=axis).abs()[:, 0].transpose(1, axis - 1)
        border = torch.arange(1, small.shape[axis], device=picture.device) % _BLOCK == 0
        on, off = on + steps[:, border].sum(dim=(1, 2)), off + steps[:, ~border].sum(dim=(1, 2))
        counts = [counts[0] + steps[:, border][0].numel(), counts[1] + steps[:, ~border][0].numel()]
    if not all(counts):
        return torch.full_like(on, torch.nan)
    return torch.where(off > 0, (on / counts[0]) / (off / counts[1]) - 1, torch.nan)


def pattern(picture: Tensor, period: int) -> Tensor:
    """Root mean square, in levels of 255, of the pattern that all squares of ``period`` by ``period`` have in common.

    A network that makes several pixels each with weights of their own leaves such patterns. What is left in the average
    of other texture is in it, too: compare with the truth's or bicubic's. NaN where fewer than two squares lie beside
    each other.
    """
    if min(picture.shape[-2:]) < 3 * period:
        return picture.new_full((len(picture),), torch.nan)
    blurred = F.avg_pool2d(F.avg_pool2d(picture, period, stride=1), 2, stride=1)  # nothing of that period is left in it
    edge = period // 2
    fine = picture[..., edge : edge + blurred.shape[-2], edge : edge + blurred.shape[-1]] - blurred
    height, width = (side - side % period for side in fine.shape[-2:])
    means = F.pixel_unshuffle(fine[..., :height, :width], period).mean(dim=(2, 3))
    spread: Tensor = means.reshape(len(picture), 3, period**2).std(dim=2, correction=0).mean(dim=1)
    return spread * 255


def grain(picture: Tensor) -> Tensor:
    """Noise in flat places, in levels of 255: how far light strays from an even slope.

    Of each square of 32 by 32, the deviation from the plane that fits it best; of these the mean of the smallest tenth.
    Squares that are quite black or white do not count. NaN where there are none.
    """
    light = luma(picture)
    height, width = (side - side % _FLAT_SIDE for side in light.shape[-2:])
    squares = F.pixel_unshuffle(light[..., :height, :width], _FLAT_SIDE).flatten(2).transpose(1, 2)
    line = torch.linspace(-1, 1, _FLAT_SIDE, dtype=squares.dtype, device=squares.device).expand(_FLAT_SIDE, -1)
    plane = torch.stack([torch.ones_like(line), line, line.T]).flatten(1)
    plane = plane / plane.norm(dim=1, keepdim=True)
    rest = squares - squares @ plane.T @ plane
    found = []
    for rests, whole in zip(rest, squares, strict=True):
        mean = whole.mean(dim=1)
        levels = rests.std(dim=1)[(mean > 5 / 255) & (mean < 250 / 255)].sort().values
        found.append(levels[: max(1, int(len(levels) * _FLAT_SHARE))].mean() * 255)  # of none: NaN
    return torch.stack(found)


def ringing(picture: Tensor, truth: Tensor) -> Tensor:
    """How far light overshoots beside hard edges, in levels of 255: beyond all that the truth has within reach.

    NaN where the truth has no hard edge.
    """
    light, true = luma(picture), luma(truth)
    window = 2 * _REACH + 1
    highest = F.max_pool2d(true, window, stride=1, padding=_REACH)
    lowest = -F.max_pool2d(-true, window, stride=1, padding=_REACH)
    beside = (highest - lowest > _HARD).to(light)
    beyond = (light - highest).clamp(min=0) + (lowest - light).clamp(min=0)
    return (beyond * beside).sum(dim=(1, 2, 3)) / beside.sum(dim=(1, 2, 3)) * 255


def specks(picture: Tensor) -> Tensor:
    """Bright dots, in 10 000 pixels: those that outshine the lines through them in all four directions.

    Discriminators strew them over leaves and fur. Hairs and edges are lines themselves. Fine texture has some: compare
    with the truth's.
    """
    light = luma(picture)
    # Of every line of that length the darkest pixel, then of all such lines through a pixel the brightest of these.
    lines = torch.stack([-_darkest(-_darkest(light, *along), *along) for along in _DIRECTIONS]).amax(dim=0)
    return (light - lines > _SPECK).double().mean(dim=(1, 2, 3)) * 10_000


def _darkest(light: Tensor, down: int, right: int) -> Tensor:
    """The least of (B,1,H,W) on the line around each pixel that goes on by this; the border is repeated."""
    height, width, middle = *light.shape[-2:], _LINE // 2
    padded = F.pad(light, (middle,) * 4, mode="replicate")
    places = [(middle + step * down, middle + step * right) for step in range(-middle, middle + 1)]
    return torch.stack([padded[..., y : y + height, x : x + width] for y, x in places]).amin(dim=0)


def tint(picture: Tensor, truth: Tensor) -> Tensor:
    """How far colours are shifted, in levels of 255: the mean difference of means over squares of 64 by 64."""
    side = min(_TINT_SIDE, *picture.shape[-2:])
    return F.avg_pool2d(picture - truth, side).abs().mean(dim=(1, 2, 3)) * 255
