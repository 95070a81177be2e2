"""What a kind of training is made of: the networks that it trains, a batch, and what it does in a step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tddsr.model import Model
from tddsr.training.picture_loss import PictureLoss
from tddsr.training.recipe import OptimConfig, Recipe


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """What a recipe's ``precision`` means for activations; nothing is cast in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


class Player:
    """A network in training, with all that belongs to it: optimiser and moving average."""

    def __init__(
        self, recipe: Recipe, network: nn.Module, config: OptimConfig | None = None, averaged: bool = True
    ) -> None:
        """``config`` is the recipe's own where it is not given."""
        self.network, self.config, self.steps = network, config or recipe.optim, recipe.steps
        self.accumulate, self._gathered = recipe.data.accumulate, 0
        self.optimizer = torch.optim.Adam(network.parameters(), lr=self.config.rate, betas=self.config.betas)
        self.average = (
            AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(self.config.ema))  # type: ignore[no-untyped-call]
            if averaged
            else None
        )

    def rate(self, step: int) -> float:
        """Learning rate of 0-based ``step``."""
        rate = self.config.rate
        if self.config.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return rate * min(1.0, (step + 1) / self.config.warmup) if self.config.warmup else rate

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained of the network."""
        return [p for p in self.network.parameters() if p.requires_grad]

    def update(self, output: Tensor, step: int, gradient: Tensor | None = None) -> Tensor:
        """A step of Adam, or one ``accumulate``th of it; returns the norm of the gradient so far, before clipping.

        ``output`` is a loss, or any output of the network, whose ``gradient`` is then given. Only this network's
        parameters get gradients, whatever else ``output`` depends on.
        """
        return self.follow(torch.autograd.grad(output, self.parameters, gradient, allow_unused=True), step)

    def follow(self, slopes: Sequence[Tensor | None], step: int) -> Tensor:
        """``update`` with gradients of ``parameters`` that are known already; None where there is none."""
        parameters = self.parameters
        for p, slope in zip(parameters, slopes, strict=True):
            if self._gathered == 0:
                p.grad = None
            if slope is not None:
                part = slope if self.accumulate == 1 else slope / self.accumulate
                p.grad = part if p.grad is None else p.grad + part
        self._gathered = (self._gathered + 1) % self.accumulate
        if self._gathered:
            return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return norm

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


@dataclass(frozen=True)
class Batch:
    """Pairs to train on, and what their chance is drawn from."""

    hr: Tensor
    """(B,3,4h,4w) in [-1,1]"""
    lr: Tensor
    """(B,3,h,w) in [-1,1]"""
    number: int
    """which of the run's batches"""
    generator: torch.Generator
    """for what is drawn at this step alone"""
    taught: Tensor | None = None
    """(B,3,4h,4w), the teacher's pictures of ``lr``, where they were kept"""


class Task(ABC):
    """What one kind of training does in a step: ``model`` is what it makes, ``players`` are what it trains."""

    notes = ""
    """of the model that the task starts from or learns from"""
    origin: str
    """hash of the weights that the task starts from or learns from, so that a run is not gone on with from others"""

    def __init__(self, recipe: Recipe, model: Model, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.model = model.place(device).recomputing(recipe.recompute).train()
        self.loss = PictureLoss(recipe, device)
        self.players = {"model": Player(recipe, self.model.network)}

    def autocast(self) -> torch.autocast:
        """Activations in the recipe's precision."""
        return autocast(self.device, self.recipe.precision)

    @abstractmethod
    def update(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Train on a batch of ``step``; return scalars to log, among them ``loss``."""

    def scene_key(self) -> str:
        """All that the teacher's pictures of kept scenes depend on."""
        raise TypeError("only a student has scenes with a teacher's pictures")

    def teach(self, lr: Tensor) -> Tensor:
        """(B,3,h,w) uint8 -> the teacher's picture (B,3,4h,4w), uint8."""
        raise TypeError("only a student has a teacher")

    @abstractmethod
    def samplers(self, model: Model) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
        """Ways (lr, eps) -> hr of using ``model`` that are validated; the first one chooses the best weights."""

    def warnings(self) -> list[str]:
        """What the user should know of the training as it stands; each thing is said once."""
        return []

    def pictures(self) -> dict[str, Tensor]:
        """(3,H,W) pictures in [0,1] to log beside those of the validation."""
        return {}

    def averaged_model(self) -> Model:
        """The model with the moving average of its weights."""
        model = Model(self.model.config, self.model.space)
        average = self.players["model"].average
        assert average is not None
        assert isinstance(average.module, nn.Module)
        model.network.load_state_dict(average.module.state_dict())
        return model.place(self.device).frozen()
