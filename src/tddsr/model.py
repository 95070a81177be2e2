"""A model: a network, the latent space it works in, the schedule it was trained for, and its role."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from tddsr import diffusion
from tddsr.diffusion import Schedule
from tddsr.networks.compact import BICUBIC_RADIUS, CompactConfig, CompactNet, SpaceToDepth, bicubic_x4

Role = Literal["teacher", "student"]
Sampler = Literal["deterministic", "stochastic"]


class ScheduleConfig(BaseModel):
    """Arguments of ``Schedule.geometric``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(4, ge=1)
    kappa: float = Field(2.0, gt=0)
    power: float = Field(0.3, gt=0)
    min_noise: float = Field(0.2, gt=0)
    end: float = Field(0.99, gt=0, lt=1)

    def build(self) -> Schedule:
        return Schedule.geometric(**self.model_dump())


class ModelConfig(BaseModel):
    """Everything that rebuilds a model around its weights; stored in the header of its file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Role
    network: CompactConfig = CompactConfig()
    schedule: ScheduleConfig = ScheduleConfig()


class Model(nn.Module):
    """lr pictures to hr pictures, in one step or many. All pictures are RGB in [-1, 1]."""

    scale = 4

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.space = SpaceToDepth()
        self.network = CompactNet(config.network, self.space)
        self.schedule = config.schedule.build()

    @property
    def default_steps(self) -> int:
        """1 for a student, all steps of its schedule for a teacher."""
        return 1 if self.config.role == "student" else self.schedule.steps

    @property
    def channels(self) -> int:
        """Channels of the latent, hence of the noise."""
        return self.space.channels

    @property
    def multiple(self) -> int:
        """Lr height and width must be multiples of this."""
        return self.network.multiple

    def halo(self, steps: int) -> int:
        """How many lr pixels around a pixel its result depends on, at most, after ``steps`` steps."""
        # x_T and every network evaluation see lr through y, the bicubic enlargement.
        return BICUBIC_RADIUS + steps * self.network.halo + self.space.halo

    def encode_lr(self, lr: Tensor) -> Tensor:
        """Y of Eq. 1: the latent of the bicubic enlargement."""
        return self.space.encode(bicubic_x4(lr))

    def predictor(self, lr: Tensor) -> diffusion.Predict:
        """f(x_t, y, t), bound to its ``lr``."""
        return lambda x_t, index: self.network(x_t, index, lr)

    def check_steps(self, steps: int) -> None:
        """Raise ValueError if this model cannot take ``steps`` steps."""
        most = 1 if self.config.role == "student" else self.schedule.steps
        if not 1 <= steps <= most:
            possible = "1 step; many need a teacher" if most == 1 else f"1 to {most} steps"
            raise ValueError(f"cannot take {steps} steps: this {self.config.role} takes {possible}")

    def sample(
        self,
        lr: Tensor,
        eps: Tensor,
        steps: int = 1,
        noise: Callable[[int], Tensor] | None = None,
    ) -> Tensor:
        """Enlarge ``lr``.

        Args:
            lr: (B,3,h,w) in [-1,1], h and w multiples of ``multiple``.
            eps: (B,channels,h,w) unit noise that makes x_T.
            steps: 1 is a single evaluation at t = T; more follow Eq. 5, or Eq. 2 where ``noise`` is given.
            noise: t -> unit noise like ``eps``, for the stochastic sampler.

        Returns:
            (B,3,4h,4w), about [-1,1], not clamped.
        """
        self.check_steps(steps)
        schedule, predict, y = self.schedule.respaced(steps), self.predictor(lr), self.encode_lr(lr)
        if steps == 1:
            latent = diffusion.one_step(schedule, predict, y, eps)
        elif noise is None:
            latent = diffusion.sample_deterministic(schedule, predict, y, eps)
        else:
            latent = diffusion.sample_stochastic(schedule, predict, y, eps, noise)
        return self.space.decode(latent)

    def place(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Model:
        """Move to ``device`` in channels-last order, three times as fast on a CPU and no slower on a GPU."""
        self.to(device, dtype)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    def frozen(self) -> Model:
        """Ready to run, without gradients."""
        return self.eval().requires_grad_(False)

    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())


def multiply_adds_per_lr_pixel(model: Model, side: int = 64) -> float:
    """Multiply-adds of the convolutions in one evaluation, per lr pixel."""
    total = 0

    def count(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        total += layer.weight.numel() * output.shape[-1] * output.shape[-2]

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d)]
    weight = next(model.parameters())
    lr, eps = weight.new_zeros(1, 3, side, side), weight.new_zeros(1, model.channels, side, side)
    with torch.no_grad():
        model.sample(lr, eps)
    for hook in hooks:
        hook.remove()
    return total / side**2
