"""A discriminator in training: what it learns from, what it tells, and a watch on whether it still teaches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tddsr.networks.discriminator import (
    BothDiscriminatorConfig,
    Discriminator,
    DiscriminatorConfig,
    PixelDiscriminator,
    PixelDiscriminatorConfig,
)
from tddsr.networks.features import load_features
from tddsr.training import losses
from tddsr.training.recipe import AdversaryConfig, AnyDiscriminator, Recipe
from tddsr.training.task import Player, autocast

_PATIENCE = 0.99
"""of a watch's moving average: about the last hundred steps"""

_YOUNG = 100
"""steps before which a watch says nothing"""


class Watch(ABC):
    """Moving averages of some figures, which say early when a network stops to do what it is there for."""

    def __init__(self) -> None:
        self.means: Sequence[float] = ()
        self.seen = 0
        self._said: str | None = None

    def add(self, *figures: float) -> None:
        """Take in one step."""
        self.seen += 1
        share = max(1 - _PATIENCE, 1 / self.seen)
        self.means = [mean + share * (value - mean) for mean, value in zip(self.means or figures, figures, strict=True)]

    def warning(self) -> str | None:
        """What is wrong, once, when it begins to be; None otherwise."""
        state = self._state() if self.seen >= _YOUNG else None
        new = state if state != self._said else None
        self._said = state
        return new

    @abstractmethod
    def _state(self) -> str | None: ...


class DiscriminatorWatch(Watch):
    """Takes in the share of right answers, half of them on real pictures."""

    def _state(self) -> str | None:
        (accuracy,) = self.means
        if accuracy > 0.98:
            return "is always right, so that its gradient says little: lower its rate, or weaken its features"
        if accuracy < 0.51 and self.seen >= 300:  # every discriminator begins so
            return "tells nothing apart (collapsed): raise its rate, or look at its features"
        return None


class DownsamplerWatch(Watch):
    """Takes in how far G(hr) is from lr, how far the mean of 4x4 pixels is, and how far G(hr) is from that mean."""

    def _state(self) -> str | None:
        error, of_area, change = self.means
        if error > 1.5 * of_area:
            return "has left the pairs: raise adversary.tie, or lower adversary.downsampler_optim.rate"
        if change < 0.5 / 127.5 and self.seen >= 1000:
            return "is still a mean of 4x4 pixels: raise its rate or adversary.tie, or take downsampler.kind=conv"
        return None


class Adversary:
    """One of the two discriminators, of one kind or of both, with its player."""

    def __init__(self, name: str, config: AnyDiscriminator, recipe: Recipe, device: torch.device) -> None:
        self.name = name
        self.settings: AdversaryConfig = recipe.adversary
        self.device, self.precision = device, recipe.precision
        if isinstance(config, BothDiscriminatorConfig):
            networks = [_network(config.features, recipe, device), _network(config.pixels, recipe, device)]
        else:
            networks = [_network(config, recipe, device)]
        self.networks = nn.ModuleList(networks)
        self.player = Player(recipe, self.networks, self.settings.optim, averaged=False)
        self.watch = DiscriminatorWatch()

    def _judged(self, picture: Tensor, generator: torch.Generator) -> list[list[Tensor]]:
        """Logits of every network's heads."""
        logits = []
        for network in self.networks:
            # Pixels are judged in bfloat16 where the run is; heads on a feature network in float32, always.
            with autocast(self.device, self.precision if isinstance(network, PixelDiscriminator) else "float32"):
                logits.append(network(picture, generator))
        return logits

    def against(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        """Eq. 8 or 10: what whoever made ``picture`` has to minimise."""
        told = [losses.generator(self.settings.loss, logits) for logits in self._judged(picture, generator)]
        return torch.stack(told).mean()

    def learn(self, real: Tensor, made: Tensor, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One step on Eq. 7 or 9; no gradient reaches the pictures."""
        judged, fooled = self._judged(real.detach(), generator), self._judged(made.detach(), generator)
        told = [losses.discriminator(self.settings.loss, *pair) for pair in zip(judged, fooled, strict=True)]
        loss = torch.stack(told).mean()
        norm = self.player.update(loss, step)
        with torch.no_grad():
            on_real, on_made = ([head for heads in logits for head in heads] for logits in (judged, fooled))
            real_right = torch.stack([(head > 0).float().mean() for head in on_real]).mean()
            made_right = torch.stack([(head < 0).float().mean() for head in on_made]).mean()
            margin = torch.stack([a.mean() - b.mean() for a, b in zip(on_real, on_made, strict=True)]).mean()
        self.watch.add(float(real_right + made_right) / 2)
        return {
            f"{self.name}/loss": loss.detach(), f"{self.name}/gradient_norm": norm, f"{self.name}/margin": margin,
            f"{self.name}/right_on_real": real_right, f"{self.name}/right_on_made": made_right,
        }  # fmt: skip


def _network(
    config: DiscriminatorConfig | PixelDiscriminatorConfig, recipe: Recipe, device: torch.device
) -> Discriminator | PixelDiscriminator:
    if isinstance(config, PixelDiscriminatorConfig):
        pixels: PixelDiscriminator = PixelDiscriminator(config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return pixels
    features = load_features(config.features, recipe.features, trainable=config.train_features).to(device)
    return Discriminator(config, features).to(device)
