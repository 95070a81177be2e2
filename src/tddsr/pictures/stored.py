"""Values of a network as the pixels of a file: a single rounding at the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tddsr.pictures.picture import Layout, Pixels, largest, to_type
from tddsr.pictures.rows import Floats

_BLOCK = 1 << 16
"""Values that are converted at once: few enough to stay in a cache."""


@dataclass(frozen=True)
class Store:
    """Turns values of the large picture into what ``layout`` says.

    Args:
        layout: of the large picture.
        span: the values of the small picture that 0 and 1 stand for.
        white: the value of the small picture that is white.
        alpha: of the small picture, the same everywhere; None: there is none, or it is the last channel of the values.
    """

    layout: Layout
    span: tuple[float, float]
    white: float
    alpha: float | None = None

    def __call__(self, values: Floats) -> Pixels:
        """(rows, width, 1 or 3, and one more of transparency) in [0,1] -> (rows, width, channels)."""
        stored = np.empty((*values.shape[:2], self.layout.channels), self.layout.dtype)
        (low, high), full = self.span, largest(stored.dtype)
        factor, given = full / self.white, values.shape[2]
        if self.alpha is not None:
            stored[..., -1] = to_type(np.array(self.alpha * factor), stored.dtype)
        masked = given % 2 == 0
        # Where each channel is from: of greys there is one, which may be stored as three.
        origins = [min(channel, given - 1 - masked) for channel in range(stored.shape[2] - self.layout.alpha)]
        origins += [given - 1] * masked
        step = max(_BLOCK // values[0].size, 1)
        # In float64: a float32 has no digits to spare for 16 bit within a narrow span. In place: new memory is slow.
        exact = np.empty_like(values[:step], np.float64)
        for top in range(0, len(values), step):
            block = values[top : top + step]
            part = np.multiply(block, (high - low) * factor, out=exact[: len(block)], dtype=np.float64)
            part += low * factor
            if masked:
                np.multiply(block[..., -1], full, out=part[..., -1], dtype=np.float64)
            part.clip(0, full, out=part)
            if np.issubdtype(stored.dtype, np.integer):
                np.rint(part, out=part)
            made = part.astype(stored.dtype)
            for channel, origin in enumerate(origins):  # all at once takes three times as long
                stored[top : top + step, :, channel] = made[..., origin]
        return stored
