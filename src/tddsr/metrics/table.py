"""The scores that are known by name: what each needs, how it is read, and what it lacks here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tddsr.errors import UsageError, WeightsError
from tddsr.metrics import faults, frechet
from tddsr.metrics.dists import DISTS
from tddsr.metrics.fidelity import Colour, ms_ssim, psnr, ssim
from tddsr.metrics.lpips import LPIPS
from tddsr.metrics.niqe import niqe
from tddsr.networks.features import LPIPSBackbone

Score = Callable[..., Tensor]
"""(picture) or, where it compares, (picture, its truth), both (B,3,H,W) in [0,1] -> (B,), NaN where it is not defined;
of a metric of sets (B,C)."""


@dataclass(frozen=True)
class Setting:
    """What the scores are computed with. ``border`` and ``colour`` concern PSNR, SSIM and MS-SSIM alone."""

    colour: Colour = "y"
    border: int = 0
    features: Path | None = None
    """folder of weights; else the environment's ``TDDSR_FEATURES``"""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True)
class Metric:
    """A score.

    ``needs``: a true picture for each (``reference``), nothing (``none``), or the set of true pictures (``set``: the
    score is of all pictures together, by ``frechet.frechet_distance``). ``load`` raises WeightsError where something is
    lacking, and says what it needs and where to put it.
    """

    name: str
    better: Literal["higher", "lower"]
    range: tuple[float, float | None]
    needs: Literal["reference", "none", "set"]
    load: Callable[[Setting], Score]
    default: bool = False


def _ready(score: Score) -> Callable[[Setting], Score]:
    """One without settings."""
    return lambda _: score


def _plain(score: Score) -> Callable[[Setting], Score]:
    return lambda setting: partial(score, colour=setting.colour, border=setting.border)


def _compared(network: torch.nn.Module, device: torch.device) -> Score:
    network = network.to(device)
    return lambda image, truth: network(image.to(device) * 2 - 1, truth.to(device) * 2 - 1)


def _lpips(name: LPIPSBackbone) -> Callable[[Setting], Score]:
    return lambda setting: _compared(LPIPS(name, setting.features), setting.device)


def _pyiqa(name: str) -> Callable[[Setting], Score]:
    """A score of the package pyiqa, which is neither part of this one nor needed by it."""

    def load(setting: Setting) -> Score:
        remedy = f"{name} needs the package pyiqa (pip install pyiqa); it and its weights are for non-commercial use"
        try:
            metric: Any = import_module("pyiqa").create_metric(name.lower(), device=setting.device)
        except Exception as error:  # what it lacks beneath shows as errors of any kind
            raise WeightsError(f"{remedy} ({' '.join(str(error).split())[:200]})") from error
        return lambda image: metric(image.to(setting.device)).flatten()

    return load


METRICS = {
    metric.name: metric
    for metric in (
        Metric("PSNR", "higher", (0, None), "reference", _plain(psnr), default=True),
        Metric("SSIM", "higher", (-1, 1), "reference", _plain(ssim), default=True),
        Metric("MS-SSIM", "higher", (0, 1), "reference", _plain(ms_ssim)),
        Metric("LPIPS-Alex", "lower", (0, None), "reference", _lpips("alexnet"), default=True),
        Metric("LPIPS-VGG", "lower", (0, None), "reference", _lpips("vgg16"), default=True),
        Metric("DISTS", "lower", (0, 1), "reference", lambda s: _compared(DISTS(s.features), s.device)),
        Metric("NIQE", "lower", (0, None), "none", _ready(niqe), default=True),
        Metric("CLIPIQA", "higher", (0, 1), "none", _pyiqa("CLIPIQA")),
        Metric("MUSIQ", "higher", (0, 100), "none", _pyiqa("MUSIQ")),
        Metric("Blocks", "lower", (-1, None), "none", _ready(faults.blocks)),
        *(
            Metric(f"Pattern-{period}", "lower", (0, None), "none", _ready(partial(faults.pattern, period=period)))
            for period in (2, 4, 8, 16)
        ),
        Metric("Grain", "lower", (0, None), "none", _ready(faults.grain)),
        Metric("Specks", "lower", (0, None), "none", _ready(faults.specks)),
        Metric("Ringing", "lower", (0, None), "reference", _ready(faults.ringing)),
        Metric("Tint", "lower", (0, None), "reference", _ready(faults.tint)),
        Metric("FID", "lower", (0, None), "set", lambda s: frechet.inception(s.features, s.device)),
        Metric("FD-VGG16", "lower", (0, None), "set", lambda s: frechet.vgg16(s.features, s.device)),
    )
}
"""By name, in the order of a table's columns."""


def choose(names: Sequence[str], truth: bool) -> list[Metric]:
    """Metrics by name, in any case; ``all``, or without names the usual ones: those that can be had with such data.

    Raises:
        UsageError: no such metric, or it needs true pictures where there are none.
    """
    possible = [metric for metric in METRICS.values() if truth or metric.needs == "none"]
    if not names:
        return [metric for metric in possible if metric.default]
    known = {name.lower(): metric for name, metric in METRICS.items()}
    chosen: list[Metric] = []
    for name in names:
        if name.lower() == "all":
            chosen += possible
        elif (metric := known.get(name.lower())) is None:
            raise UsageError(f"no metric '{name}'; choose of {', '.join(METRICS)}, or all")
        elif metric not in possible:
            raise UsageError(f"{metric.name} compares with true pictures: give their folder, or leave {name} away")
        else:
            chosen.append(metric)
    return [metric for metric in METRICS.values() if metric in chosen]


@dataclass(frozen=True)
class Scores:
    """Metrics ready to score with, and those that lack something."""

    metrics: tuple[Metric, ...]
    loaded: dict[str, Score]
    missing: dict[str, str]
    """name -> what it needs and where to put it"""

    def of(self, needs: Literal["reference", "none", "set"]) -> dict[str, Score]:
        """The loaded ones with such needs."""
        return {m.name: self.loaded[m.name] for m in self.metrics if m.name in self.loaded and m.needs == needs}


def load_scores(metrics: Sequence[Metric], setting: Setting | None = None) -> Scores:
    """Load what can be had; nothing is put in the place of what cannot."""
    loaded, missing = {}, {}
    for metric in metrics:
        try:
            loaded[metric.name] = metric.load(setting or Setting())
        except WeightsError as error:
            missing[metric.name] = " ".join(str(error).split())
    return Scores(tuple(metrics), loaded, missing)
