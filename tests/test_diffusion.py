from pathlib import Path

import numpy as np
import pytest
import torch

from tddsr import diffusion
from tests.derived import fifteen_steps

GOLDEN = np.load(Path(__file__).parent / "golden" / "derived_small.npz")
SCHEDULES = [
    fifteen_steps(),
    fifteen_steps(steps=4, min_noise=0.2),
    fifteen_steps(kappa=0.4),
    fifteen_steps(steps=1),
    fifteen_steps().respaced(5),
]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_schedule_equals_the_official_one():
    torch.testing.assert_close(fifteen_steps().sqrt_eta[1:], torch.from_numpy(GOLDEN["sqrt_etas"]).double())


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_eta_rises_from_0_to_just_below_1(schedule):
    assert schedule.eta[0] == 0
    assert (schedule.eta.diff() > 0).all()
    assert schedule.eta[-1] < 1


def test_respacing_visits_the_official_steps_and_keeps_their_index():
    full = fifteen_steps()
    five = full.respaced(5)
    assert five.index == (0, 3, 6, 9, 12)
    torch.testing.assert_close(five.sqrt_eta[1:], full.sqrt_eta[[1, 4, 7, 10, 13]])
    assert full.respaced(15).index == full.index
    assert full.respaced(1).index == (14,)


@pytest.mark.parametrize("steps", [0, 16])
def test_respacing_refuses_impossible_numbers(steps):
    with pytest.raises(ValueError, match=str(steps)):
        fifteen_steps().respaced(steps)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"min_noise": 0.0}, {"end": 1.0}])
def test_impossible_schedules_are_refused(settings):
    with pytest.raises(ValueError, match="schedule needs"):
        fifteen_steps(**settings)


def test_forward_has_the_mean_and_variance_of_eq_1():
    schedule = fifteen_steps()
    x_0, y = noise(1, 1, 1, 1, seed=1), noise(1, 1, 1, 1, seed=2)
    eps = noise(200_000, 1, 1, 1)
    for t in (1, 8, 15):
        x_t = diffusion.forward(schedule, x_0, y, t, eps)
        eta = schedule.eta[t]
        assert x_t.mean() == pytest.approx((x_0 + eta * (y - x_0)).item(), abs=0.02)
        assert x_t.std() == pytest.approx(2 * schedule.sqrt_eta[t].item(), rel=0.01)


def test_forward_takes_a_step_for_each_sample():
    schedule = fifteen_steps()
    x_0, y, eps = (noise(3, 2, 4, 4, seed=i) for i in range(3))
    together = diffusion.forward(schedule, x_0, y, torch.tensor([1, 7, 15]), eps)
    for i, t in enumerate((1, 7, 15)):
        torch.testing.assert_close(
            together[i : i + 1], diffusion.forward(schedule, x_0[i : i + 1], y[i : i + 1], t, eps[i : i + 1])
        )


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_coefficients_of_eq_4_sum_to_1(schedule):
    for t in range(1, schedule.steps + 1):
        k_t, m_t, j_t = diffusion.deterministic_coefficients(schedule, t)
        assert (k_t + m_t + j_t).item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_deterministic_step_stays_on_the_path_of_one_noise(schedule):
    """Eq. 3: with the true x_0, the step leads from x_t to the x_{t-1} that the same noise makes in Eq. 1."""
    x_0, y, eps = (noise(2, 3, 4, 4, seed=i) for i in range(3))
    for t in range(1, schedule.steps + 1):
        x_t = diffusion.forward(schedule, x_0, y, t, eps)
        torch.testing.assert_close(
            diffusion.deterministic_step(schedule, x_0, x_t, y, t), diffusion.forward(schedule, x_0, y, t - 1, eps)
        )


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_stochastic_moments_keep_the_marginal_of_eq_1(schedule):
    """Eq. 2 applied to x_t ~ Eq. 1 must give x_{t-1} ~ Eq. 1: mean and variance in closed form."""
    x_0, y = noise(1, 1, 2, 2, seed=1), noise(1, 1, 2, 2, seed=2)
    zero = torch.zeros_like(x_0)
    for t in range(1, schedule.steps + 1):
        mean_t = diffusion.forward(schedule, x_0, y, t, zero)
        mean, variance = diffusion.stochastic_moments(schedule, x_0, mean_t, t)
        torch.testing.assert_close(mean, diffusion.forward(schedule, x_0, y, t - 1, zero))
        slope = schedule.eta[t - 1] / schedule.eta[t]
        spread = slope**2 * schedule.kappa**2 * schedule.eta[t] + variance
        torch.testing.assert_close(spread, (schedule.kappa**2 * schedule.eta[t - 1]))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_oracle_is_returned_exactly(schedule):
    x_0, y, eps = (noise(2, 3, 4, 4, seed=i) for i in range(3))

    def oracle(_x_t, _index):
        return x_0

    torch.testing.assert_close(diffusion.sample_deterministic(schedule, oracle, y, eps), x_0)
    torch.testing.assert_close(diffusion.one_step(schedule, oracle, y, eps), x_0)
    torch.testing.assert_close(
        diffusion.sample_stochastic(schedule, oracle, y, eps, lambda t: noise(2, 3, 4, 4, seed=t)), x_0
    )


def test_the_network_sees_unit_variance_and_the_index_of_the_full_schedule():
    schedule = fifteen_steps().respaced(5)
    seen = []

    def predict(x_t, index):
        seen.append((x_t.std().item(), index.tolist()))
        return torch.zeros_like(x_t)

    y = noise(2, 3, 100, 100, seed=1)
    diffusion.sample_deterministic(schedule, predict, y, noise(2, 3, 100, 100))
    assert [index for _, index in seen] == [[i, i] for i in (12, 9, 6, 3, 0)]
    assert seen[0][0] == pytest.approx(1, abs=0.05)


def test_steps_are_computed_in_the_type_of_the_latent():
    schedule = fifteen_steps()
    x = noise(1, 3, 4, 4).float()
    assert diffusion.forward(schedule, x, x, 3, x).dtype == torch.float32
    assert diffusion.deterministic_step(schedule, x, x, x, 3).dtype == torch.float32
    assert diffusion.scale_input(schedule, x, 3).dtype == torch.float32
