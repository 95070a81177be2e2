"""How sure a mean is: bootstrap over pictures, spread over noise seeds, and paired comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 5000
LEVEL = 0.95
SEED = 0
FEWEST = 5
"""Values from which on an interval is given: from fewer, resampling makes one that is far too narrow."""

Values = NDArray[np.float64]


def interval(values: Values) -> tuple[float, float] | None:
    """The percentile bootstrap interval of the mean of ``values`` (n,); None for fewer than ``FEWEST``."""
    count = len(values)
    if count < FEWEST:
        return None
    # A generator of its own for every call: an interval does not depend on what was computed before it.
    rng = np.random.default_rng(SEED)
    at_once = max(1, 1_000_000 // count)
    means = np.concatenate([
        values[rng.integers(0, count, (min(at_once, RESAMPLES - start), count))].mean(axis=1)
        for start in range(0, RESAMPLES, at_once)
    ])  # fmt: skip
    # Values that occur, not interpolated ones: between two infinite ones there is no number.
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    return float(low), float(high)


def spread(values: Sequence[float]) -> float | None:
    """The standard deviation (n - 1) of one mean for each noise seed; None for fewer than two or infinite ones."""
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    return float(np.std(values, ddof=1))


@dataclass(frozen=True)
class Paired:
    """A method less the first one on the same pictures; ``wins`` and ``losses`` count pictures, ties in neither."""

    mean: float
    interval: tuple[float, float] | None
    wins: int
    losses: int
    p: float
    """Of the two-sided sign test: how likely such uneven counts are if better and worse are equally likely."""


def sign_test(wins: int, losses: int) -> float:
    """The exact two-sided binomial test of a fair coin."""
    total, fewer = wins + losses, min(wins, losses)
    outcomes: int = 2 * sum(math.comb(total, k) for k in range(fewer + 1))
    return min(1.0, outcomes / (1 << total))


def paired(values: Values, first: Values, higher_is_better: bool) -> Paired:
    """Compare scores (n,) with those of the first method on the same pictures in the same order."""
    with np.errstate(invalid="ignore"):
        difference = np.where(values == first, 0.0, values - first)  # two infinite scores are equal
    better = difference if higher_is_better else -difference
    wins, losses = int((better > 0).sum()), int((better < 0).sum())
    return Paired(float(difference.mean()), interval(difference), wins, losses, sign_test(wins, losses))
