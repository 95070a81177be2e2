"""Randomness by address: the same keys give the same numbers, in whatever order they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


def _seed(keys: tuple[int, ...]) -> np.random.SeedSequence:
    # The length goes in too: SeedSequence takes (1,) and (1, 0) for the same.
    return np.random.SeedSequence((len(keys), *keys))


def generator(*keys: int, device: torch.device | str = "cpu") -> torch.Generator:
    """One whose stream belongs to ``keys`` (whole numbers >= 0), independent of any other keys'.

    Each kind of device has streams of its own.
    """
    import torch  # here, since noise does without

    state = _seed(keys).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0] >> np.uint64(1)))


_BLOCK = 64
"""Side of the squares that noise is made in."""


def noise_at(keys: tuple[int, ...], channels: int, top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
    """The part (channels, height, width) of an endless field of unit noise whose first pixel lies at (top, left).

    A pixel's noise depends on ``keys`` and its place alone: however a picture is cut, the same noise.
    """
    field = np.empty((channels, height, width), np.float32)
    for row in range(top // _BLOCK, (top + height - 1) // _BLOCK + 1):
        for column in range(left // _BLOCK, (left + width - 1) // _BLOCK + 1):
            chance = np.random.Generator(np.random.PCG64(_seed((*keys, row, column))))
            block = chance.standard_normal((channels, _BLOCK, _BLOCK), np.float32)
            y, x = row * _BLOCK - top, column * _BLOCK - left
            y0, x0, y1, x1 = max(y, 0), max(x, 0), min(y + _BLOCK, height), min(x + _BLOCK, width)
            field[:, y0:y1, x0:x1] = block[:, y0 - y : y1 - y, x0 - x : x1 - x]
    return field
