"""The scores that are known by name: what each needs, how it is read, and what it lacks here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
from tddsr.networks.features import FeatureName

Score = Callable[[Tensor, Tensor | None], Tensor]
"""(picture, its truth), both (B,3,H,W) in [0,1] -> (B,), NaN where it is not defined; of a metric of sets (B,C)."""


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

    def try_load(self, setting: Setting) -> Score | str:
        """The score or, where something is lacking, one line: what it needs and where to put it."""
        try:
            return self.load(setting)
        except WeightsError as error:
            return " ".join(str(error).split())


def _plain(score: Callable[[Tensor, Tensor, Colour, int], Tensor]) -> Callable[[Setting], Score]:
    def load(setting: Setting) -> Score:
        return lambda image, truth: score(image, _known(truth), setting.colour, setting.border)

    return load


def _compared(network: torch.nn.Module, device: torch.device) -> Score:
    network = network.to(device)

    def score(image: Tensor, truth: Tensor | None) -> Tensor:
        result: Tensor = network(image.to(device) * 2 - 1, _known(truth).to(device) * 2 - 1)
        return result

    return score


def _lpips(name: FeatureName) -> Callable[[Setting], Score]:
    return lambda setting: _compared(LPIPS(name, setting.features), setting.device)


def _set(load: Callable[[Path | None, torch.device], frechet.Features]) -> Callable[[Setting], Score]:
    def build(setting: Setting) -> Score:
        features = load(setting.features, setting.device)
        return lambda image, _truth: features(image)

    return build


def _pyiqa(name: str) -> Callable[[Setting], Score]:
    """A score of the package pyiqa, which is neither part of this one nor needed by it."""

    def load(setting: Setting) -> Score:
        remedy = f"{name} needs the package pyiqa (pip install pyiqa); it and its weights are for non-commercial use"
        try:
            metric: Any = import_module("pyiqa").create_metric(name.lower(), device=setting.device)
        except Exception as error:  # what it lacks beneath shows as errors of any kind
            raise WeightsError(f"{remedy} ({' '.join(str(error).split())[:200]})") from error
        return lambda image, _truth: metric(image.to(setting.device)).flatten()

    return load


def _pattern(period: int) -> Callable[[Setting], Score]:
    return lambda _: lambda image, _truth: faults.pattern(image, period)


def _known(truth: Tensor | None) -> Tensor:
    if truth is None:
        raise ValueError("this score needs a true picture")
    return truth


METRICS = {
    metric.name: metric
    for metric in (
        Metric("PSNR", "higher", (0, None), "reference", _plain(psnr), default=True),
        Metric("SSIM", "higher", (-1, 1), "reference", _plain(ssim), default=True),
        Metric("MS-SSIM", "higher", (0, 1), "reference", _plain(ms_ssim)),
        Metric("LPIPS-Alex", "lower", (0, None), "reference", _lpips("alexnet"), default=True),
        Metric("LPIPS-VGG", "lower", (0, None), "reference", _lpips("vgg16"), default=True),
        Metric("DISTS", "lower", (0, 1), "reference", lambda s: _compared(DISTS(s.features), s.device)),
        Metric("NIQE", "lower", (0, None), "none", lambda _: lambda image, _truth: niqe(image), default=True),
        Metric("CLIPIQA", "higher", (0, 1), "none", _pyiqa("CLIPIQA")),
        Metric("MUSIQ", "higher", (0, 100), "none", _pyiqa("MUSIQ")),
        Metric("Blocks", "lower", (-1, None), "none", lambda _: lambda image, _truth: faults.blocks(image)),
        *(Metric(f"Pattern-{period}", "lower", (0, None), "none", _pattern(period)) for period in (2, 4, 8, 16)),
        Metric("Grain", "lower", (0, None), "none", lambda _: lambda image, _truth: faults.grain(image)),
        Metric("Ringing", "lower", (0, None), "reference", lambda _: lambda a, b: faults.ringing(a, _known(b))),
        Metric("Tint", "lower", (0, None), "reference", lambda _: lambda a, b: faults.tint(a, _known(b))),
        Metric("FID", "lower", (0, None), "set", _set(frechet.inception)),
        Metric("FD-VGG16", "lower", (0, None), "set", _set(frechet.vgg16)),
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

    def of(self, *needs: Literal["reference", "none", "set"]) -> dict[str, Score]:
        """The loaded ones that need one of ``needs``."""
        return {m.name: self.loaded[m.name] for m in self.metrics if m.name in self.loaded and m.needs in needs}


def load_scores(metrics: Sequence[Metric], setting: Setting | None = None) -> Scores:
    """Load what can be had; nothing is put in the place of what cannot."""
    loaded, missing = {}, {}
    for metric in metrics:
        score = metric.try_load(setting or Setting())
        if isinstance(score, str):
            missing[metric.name] = score
        else:
            loaded[metric.name] = score
    return Scores(tuple(metrics), loaded, missing)
