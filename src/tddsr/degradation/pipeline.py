"""The two-stage degradation hr -> lr of Real-ESRGAN (Wang et al. 2021), with ResShift's settings or the original ones.

Two stages of blur, resize, noise and JPEG; then the final size with a sinc filter, and JPEG, in random order; then
8-bit rounding. Every sample of a batch has its own parameters, all drawn from one generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tddsr.degradation.jpeg import jpeg
from tddsr.degradation.kernels import density_kernels, filter2d, sinc_kernels
from tddsr.degradation.noise import film_grain, gaussian_noise, poisson_noise
from tddsr.degradation.presets import Degradation, Preset, Stage
from tddsr.degradation.resize import resize


class _Dice:
    """Per-sample random parameters on the CPU, so that choosing never waits for an accelerator."""

    def __init__(self, batch: int, generator: torch.Generator) -> None:
        self.batch, self.generator = batch, generator

    def uniform(self, low: float | Tensor, high: float | Tensor) -> Tensor:
        return low + (high - low) * torch.rand(self.batch, generator=self.generator)

    def coin(self, probability: float) -> Tensor:
        return torch.rand(self.batch, generator=self.generator) < probability

    def choice(self, weights: tuple[float, ...]) -> Tensor:
        # torch.multinomial, asked for a single sample, draws other ones on Intel's processors from the same seed.
        cumulated = torch.tensor(weights, dtype=torch.float64).cumsum(0)
        drawn = torch.rand(self.batch, generator=self.generator).double()
        return torch.searchsorted(cumulated, drawn * cumulated[-1], right=True)

    def odd(self, low: int, high: int) -> Tensor:
        return low + 2 * torch.randint((high - low) // 2 + 1, (self.batch,), generator=self.generator)

    def device_generator(self, device: torch.device) -> torch.Generator:
        if device.type == "cpu":
            return self.generator
        seed = int(torch.randint(2**62, (1,), generator=self.generator))
        return torch.Generator(device).manual_seed(seed)


def _only(
    mask: Tensor, operation: Callable[..., Tensor], image: Tensor, *parameters: Tensor, **options: object
) -> Tensor:
    """Apply ``operation(image, *parameters)`` to the samples in ``mask`` ((B,), on the CPU) and leave the others."""
    rows = mask.nonzero().squeeze(1)
    if len(rows) == 0:
        return image
    where = rows.to(image.device)
    changed = operation(image[where], *(p[rows].to(image.device) for p in parameters), **options)
    return image.index_copy(0, where, changed)


def _blur(image: Tensor, active: Tensor, stage: Stage, dice: _Dice) -> Tensor:
    size = dice.odd(*stage.kernel_sizes)
    family = dice.choice(stage.family_weights)
    isotropic, generalised, plateau = family % 2 == 0, (family == 2) | (family == 3), family >= 4
    sigma_x, sigma_y = dice.uniform(*stage.sigma), dice.uniform(*stage.sigma)
    sigma_y = torch.where(isotropic, sigma_x, sigma_y)
    angle = dice.uniform(-math.pi, math.pi)
    # As in Real-ESRGAN, half of the exponents are below 1 and half above, however wide the two ranges are.
    below = dice.coin(0.5)
    beta = torch.ones(dice.batch)
    for chosen, (low, high) in ((generalised, stage.generalised_beta), (plateau, stage.plateau_beta)):
        drawn = torch.where(below, dice.uniform(low, 1.0), dice.uniform(1.0, high))
        beta = torch.where(chosen, drawn, beta)
    canvas = stage.kernel_sizes[1]
    kernels = density_kernels(canvas, size, sigma_x, sigma_y, angle, beta, plateau)
    cutoff = dice.uniform(torch.where(size < 13, math.pi / 3, math.pi / 5), math.pi)
    sinc = sinc_kernels(canvas, size, cutoff)
    kernels = torch.where(dice.coin(stage.sinc_probability)[:, None, None], sinc, kernels)
    return _only(active & dice.coin(stage.blur_probability), filter2d, image, kernels)


def _noise(image: Tensor, active: Tensor, stage: Stage, dice: _Dice) -> Tensor:
    gaussian, grey = dice.coin(stage.gaussian_probability), dice.coin(stage.grey_probability)
    sigma, scale = dice.uniform(*stage.gaussian_sigma), dice.uniform(*stage.poisson_scale)
    generator = dice.device_generator(image.device)
    image = _only(active & gaussian, gaussian_noise, image, sigma, grey, generator=generator)
    image = _only(active & ~gaussian, poisson_noise, image, scale, grey, generator=generator)
    return image.clamp(0, 1)


def _resize(image: Tensor, size: Tensor, new_size: Tensor, modes: tuple[float, ...], dice: _Dice) -> Tensor:
    """By one of ``resize.MODES``, drawn by its weight."""
    mode = dice.choice(modes)
    canvas = (int(new_size[:, 0].max()), int(new_size[:, 1].max()))
    return resize(image, size, new_size, mode, canvas)


def _jpeg(
    image: Tensor, active: Tensor, quality: Tensor, settings: Degradation, dice: _Dice, shifted: bool = False
) -> Tensor:
    if not shifted and not settings.full_chroma_probability:
        return _only(active, jpeg, image, quality)
    full = dice.coin(settings.full_chroma_probability)
    shift = torch.randint(16, (dice.batch, 2), generator=dice.generator) * int(shifted)
    return _only(active, jpeg, image, quality, full, shift)


def _grain(image: Tensor, settings: Degradation, dice: _Dice) -> Tensor:
    if not settings.grain_probability:
        return image
    active, grey = dice.coin(settings.grain_probability), dice.coin(settings.grain_grey_probability)
    strength, size = dice.uniform(*settings.grain_strength), dice.uniform(*settings.grain_size)
    generator = dice.device_generator(image.device)
    return _only(active, film_grain, image, strength, size, grey, generator=generator)


def _stage(
    image: Tensor, size: Tensor, nominal: Tensor, stage: Stage, modes: tuple[float, ...], dice: _Dice
) -> tuple[Tensor, Tensor]:
    """Blur, resize to a random scale of ``nominal`` (B,2), noise; returns the canvas and the new sizes."""
    active = dice.coin(stage.probability)
    image = _blur(image, active, stage, dice)
    direction = dice.choice(stage.resize_weights)
    low, high = stage.resize_range
    scale = torch.where(direction == 0, dice.uniform(1.0, high), dice.uniform(low, 1.0))
    scale = torch.where(direction == 2, torch.ones_like(scale), scale)
    new_size = (nominal * scale[:, None]).floor().clamp(min=1).long()
    new_size = torch.where(active[:, None], new_size, size)
    image = _resize(image, size, new_size, modes, dice)
    return _noise(image, active, stage, dice), new_size


def degrade_pair(hr: Tensor, settings: Degradation, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(hr to train towards, lr): as ``degrade``, which see, with the sharpening that the settings ask for."""
    target = sharpen(hr) if settings.sharpen else hr
    return target, degrade(target, settings, generator)


def degrade_mixed(hr: Tensor, mix: Mapping[Preset, float], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """As ``degrade_pair``, each sample by one preset, drawn by its weight in ``mix``; samples keep their order."""
    names = list(mix)
    if len(names) == 1:
        return degrade_pair(hr, Degradation.preset(names[0]), generator)
    drawn = _Dice(len(hr), generator).choice(tuple(mix.values()))
    targets, lrs = torch.empty_like(hr), [torch.empty(0)] * len(hr)
    for kind in sorted(set(drawn.tolist())):
        rows = (drawn == kind).nonzero().squeeze(1)
        target, lr = degrade_pair(hr[rows.to(hr.device)], Degradation.preset(names[kind]), generator)
        targets[rows.to(hr.device)] = target
        for row, picture in zip(rows.tolist(), lr, strict=True):
            lrs[row] = picture
    return targets, torch.stack(lrs)


def degrade(hr: Tensor, settings: Degradation, generator: torch.Generator) -> Tensor:
    """Make the lr pictures that a bad camera, a resize and a web site would have made of ``hr``.

    (B,3,H,W) in [0,1] on any device -> (B,3,H/factor,W/factor), whole multiples of 1/255. The generator, on the CPU, is
    the only source of chance: the same state gives the same pictures on one device.

    Raises:
        ValueError: H or W is not a multiple of the factor.
    """
    batch, _, height, width = hr.shape
    factor = settings.factor
    if height % factor or width % factor:
        raise ValueError(f"hr is {height}x{width}; both must be multiples of {factor}: crop it first")
    dice = _Dice(batch, generator)
    everyone = torch.ones(batch, dtype=torch.bool)
    full = torch.tensor([[height, width]]).expand(batch, 2)
    final = full // factor

    image, size = _stage(hr, full, full, settings.first, settings.resize_modes, dice)
    once = dice.coin(settings.first_jpeg_probability) if settings.first_jpeg_probability < 1 else everyone
    image = _jpeg(image, once, dice.uniform(*settings.first_jpeg_quality), settings, dice, shifted=settings.shifted)
    image, size = _stage(image, size, final, settings.second, settings.resize_modes, dice)

    jpeg_first = dice.coin(1 - settings.jpeg_last_probability)
    quality = dice.uniform(*settings.final_jpeg_quality)
    image = _jpeg(image, jpeg_first, quality, settings, dice)
    image = _resize(image, size, final, settings.resize_modes, dice)
    sinc_size = dice.odd(*settings.final_sinc_sizes)
    kernels = sinc_kernels(settings.final_sinc_sizes[1], sinc_size, dice.uniform(math.pi / 3, math.pi))
    image = _only(dice.coin(settings.final_sinc_probability), filter2d, image, kernels)
    image = _grain(image, settings, dice)
    image = _jpeg(image, ~jpeg_first, quality, settings, dice)
    return (image.clamp(0, 1) * 255).round() / 255


def sharpen(hr: Tensor) -> Tensor:
    """Unsharp mask of Real-ESRGAN's training targets: (B,3,H,W) in [0,1], kernel side 51, half of what it finds added.

    Only where the difference to the blurred picture exceeds 10 / 255, with a soft mask.
    """
    side = 51
    # OpenCV's rule for a Gaussian given by its size alone.
    sigma = torch.full((hr.shape[0],), 0.3 * ((side - 1) * 0.5 - 1) + 0.8, device=hr.device)
    ones = torch.ones_like(sigma)
    kernel = density_kernels(side, ones * side, sigma, sigma, 0 * ones, ones, ones < 0).to(hr)
    residual = hr - filter2d(hr, kernel)
    mask = filter2d((residual.abs() * 255 > 10).to(hr), kernel)
    sharp = (hr + 0.5 * residual).clamp(0, 1)
    return mask * sharp + (1 - mask) * hr
