"""Residual-shifting diffusion in any latent space: Eq. 1-5 of TDDSR, as plain functions on tensors.

The chain leads from the high-resolution latent ``x_0`` to ``y``, the latent of the enlarged low-resolution picture,
plus noise. Steps are ``t = 1..T`` as in the paper. The network is told ``t - 1`` of the *full* schedule, also where
sampling visits only some of the steps.

A ``predict`` function stands for the network f_theta(x_t, y, t): it takes ``x_t`` already scaled to unit variance and
the 0-based step index, and returns its estimate of ``x_0``. What it is conditioned on is its own affair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]
"""(scaled x_t of shape (B,C,h,w), 0-based step indices of shape (B,)) -> x_0 of shape (B,C,h,w)."""


@dataclass(frozen=True)
class Schedule:
    """The shifting sequence eta_0 = 0 < eta_1 < ... < eta_T < 1 and the noise scale kappa.

    ``sqrt_eta`` holds sqrt(eta_t) for t = 0..T in float64; ``index`` the 0-based index that the network sees for each
    t = 1..T, which differs from t - 1 only in a respaced schedule.
    """

    kappa: float
    sqrt_eta: Tensor
    index: tuple[int, ...]

    @classmethod
    def geometric(cls, steps: int, kappa: float, power: float, min_noise: float, end: float) -> Schedule:
        """ResShift's schedule: sqrt(eta_t) runs geometrically from its start to ``end``, with exponent ((t-1)/(T-1))^p.

        ``min_noise`` is the noise level at t = 1, so that sqrt(eta_1) = min(min_noise / kappa, min_noise).
        All have kappa = 2, p = 0.3 and ``end`` = 0.99; the paper's teacher T = 15, min_noise = 0.04, the four-step
        journal version T = 4, min_noise = 0.2.
        """
        if steps < 1:
            raise ValueError(f"a schedule needs at least 1 step, not {steps}")
        start = min(min_noise / kappa, min_noise)
        if not 0 < start < end < 1:
            raise ValueError(f"a schedule needs 0 < {start} (start) < {end} (end) < 1: change min_noise, kappa or end")
        with torch.device("cpu"):  # whatever device the model around it is made on
            if steps == 1:
                sqrt_eta = torch.tensor([0.0, end], dtype=torch.float64)
            else:
                position = torch.linspace(0, 1, steps, dtype=torch.float64) ** power
                sqrt_eta = torch.cat([torch.zeros(1, dtype=torch.float64), start * (end / start) ** position])
        return cls(kappa, sqrt_eta, tuple(range(steps)))

    @property
    def steps(self) -> int:
        """T, the number of steps."""
        return len(self.index)

    @property
    def eta(self) -> Tensor:
        """eta_t for t = 0..T, float64."""
        return self.sqrt_eta**2

    def respaced(self, steps: int) -> Schedule:
        """Visit only ``steps`` of the T steps, chosen as the official code does: int(T / steps * i).

        One step is the exception: there only t = T makes sense, the evaluation that the student is trained for.
        """
        if not 1 <= steps <= self.steps:
            raise ValueError(f"cannot take {steps} steps of a schedule of {self.steps}: choose 1 to {self.steps}")
        chosen = [self.steps - 1] if steps == 1 else [int(self.steps / steps * i) for i in range(steps)]
        sqrt_eta = torch.cat([self.sqrt_eta[:1], self.sqrt_eta[1:][chosen]])
        return replace(self, sqrt_eta=sqrt_eta, index=tuple(self.index[i] for i in chosen))


def _at(values: Tensor, t: Tensor | int, like: Tensor) -> Tensor:
    """``values[t]``, computed in float64 and cast at the last moment; shaped to broadcast over (B,C,h,w)."""
    picked = values[torch.as_tensor(t, device="cpu")]
    if like.is_cuda and picked.numel() == 1:  # a copy would wait for all that is queued there
        return like.new_full((1, 1, 1, 1), picked.item())
    return picked.to(like.device, like.dtype).reshape(-1, 1, 1, 1)


def forward(schedule: Schedule, x_0: Tensor, y: Tensor, t: Tensor | int, eps: Tensor) -> Tensor:
    """Eq. 1: draw x_t = x_0 + eta_t (y - x_0) + kappa sqrt(eta_t) eps.

    ``t`` is one step, or one per sample of the batch, in 0..T; the other tensors are (B,C,h,w).
    """
    noise_scale = schedule.kappa * schedule.sqrt_eta
    return x_0 + _at(schedule.eta, t, x_0) * (y - x_0) + _at(noise_scale, t, x_0) * eps


def start(schedule: Schedule, y: Tensor, eps: Tensor) -> Tensor:
    """The chain's end, where sampling starts: x_T = y + kappa sqrt(eta_T) eps (text under Eq. 2)."""
    return y + _at(schedule.kappa * schedule.sqrt_eta, schedule.steps, y) * eps


def scale_input(schedule: Schedule, x_t: Tensor, t: Tensor | int) -> Tensor:
    """x_t / sqrt(kappa^2 eta_t + 1), about unit variance: what the network sees (ResShift)."""
    return x_t * _at((schedule.kappa**2 * schedule.eta + 1) ** -0.5, t, x_t)


def stochastic_moments(schedule: Schedule, x_0: Tensor, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """Eq. 2: mean and variance of x_{t-1} given x_t and (an estimate of) x_0; alpha_t = eta_t - eta_{t-1}."""
    eta = schedule.eta
    alpha_t = eta[t] - eta[t - 1]
    mean = (eta[t - 1] / eta[t]).to(x_t) * x_t + (alpha_t / eta[t]).to(x_t) * x_0
    variance = (schedule.kappa**2 * eta[t - 1] / eta[t] * alpha_t).to(x_t)
    return mean, variance


def deterministic_coefficients(schedule: Schedule, t: int) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 4: k_t, m_t, j_t as float64 scalars; their sum is 1 at every t."""
    eta_t, eta_s = schedule.eta[t], schedule.eta[t - 1]
    cross = schedule.sqrt_eta[t - 1] * schedule.sqrt_eta[t]
    m_t = schedule.sqrt_eta[t - 1] / torch.sqrt(eta_t)
    j_t = eta_s - cross
    k_t = 1 - eta_s + cross - m_t
    return k_t, m_t, j_t


def deterministic_step(schedule: Schedule, x_0: Tensor, x_t: Tensor, y: Tensor, t: int) -> Tensor:
    """Eq. 3 and 5: x_{t-1} = k_t x_0 + m_t x_t + j_t y."""
    k_t, m_t, j_t = (c.to(x_t) for c in deterministic_coefficients(schedule, t))
    return k_t * x_0 + m_t * x_t + j_t * y


def _predict_x_0(schedule: Schedule, predict: Predict, x_t: Tensor, t: int) -> Tensor:
    index = torch.full((x_t.shape[0],), schedule.index[t - 1], device=x_t.device)
    return predict(scale_input(schedule, x_t, t), index)


def one_step(schedule: Schedule, predict: Predict, y: Tensor, eps: Tensor) -> Tensor:
    """The student: a single evaluation f_phi(x_T, y, T)."""
    return _predict_x_0(schedule, predict, start(schedule, y, eps), schedule.steps)


def sample_deterministic(schedule: Schedule, predict: Predict, y: Tensor, eps: Tensor) -> Tensor:
    """All steps of ``schedule`` by Eq. 5: a fixed map from x_T to x_0, the teacher's target in Eq. 6."""
    x_t = start(schedule, y, eps)
    for t in range(schedule.steps, 0, -1):
        x_t = deterministic_step(schedule, _predict_x_0(schedule, predict, x_t, t), x_t, y, t)
    return x_t


def sample_stochastic(
    schedule: Schedule, predict: Predict, y: Tensor, eps: Tensor, noise: Callable[[int], Tensor]
) -> Tensor:
    """All steps of ``schedule`` by Eq. 2, as ResShift samples.

    ``eps`` makes x_T; ``noise(t)`` gives the fresh unit noise of the step from t to t-1 (never asked for at t = 1,
    where the variance is 0).
    """
    x_t = start(schedule, y, eps)
    for t in range(schedule.steps, 0, -1):
        mean, variance = stochastic_moments(schedule, _predict_x_0(schedule, predict, x_t, t), x_t, t)
        x_t = mean if t == 1 else mean + variance.sqrt() * noise(t)
    return x_t
