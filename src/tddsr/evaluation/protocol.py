"""Scoring methods on pictures, with true ones or without; everything that moves a score is stated."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Literal

import torch
from torch import Tensor

from tddsr import __version__, images
from tddsr.degradation import Degradation
from tddsr.degradation.files import degrade_pixels
from tddsr.evaluation.metrics import psnr_y, ssim_y
from tddsr.evaluation.niqe import PATCH, niqe
from tddsr.images import Pixels
from tddsr.networks.compact import bicubic_x4
from tddsr.networks.features import LPIPS
from tddsr.pixels import centre, to_pixels, to_tensor
from tddsr.upscaler import Upscaler

Enlarge = Callable[[Pixels, int], Pixels]
"""(lr (h,w,3) uint8, noise seed) -> hr (4h,4w,3) uint8."""

Metric = Callable[[Tensor, Tensor], Tensor]
"""((B,3,H,W), (B,3,H,W)), both in [0,1] -> (B,)."""

NO_REFERENCE: dict[str, Callable[[Tensor], Tensor]] = {"NIQE": niqe}
"""Scores that need no true picture: (B,3,H,W) in [0,1] -> (B,), NaN where one is not defined."""


class PairError(ValueError):
    """Folders that do not hold pairs, with the reason."""


@dataclass(frozen=True)
class Pair:
    """An lr picture and its truth, if that is known; both (H,W,3) uint8."""

    name: str
    lr: Pixels
    hr: Pixels | None


@dataclass(frozen=True)
class Row:
    """Scores of one method on one picture, the mean over the noise seeds; one that is not defined is left out."""

    method: str
    picture: str
    scores: dict[str, float]


def load_pairs(
    hr: Path,
    lr: Path | None,
    preset: Literal["resshift", "realesrgan"],
    seed: int,
    limit: int | None = None,
    crop: int | None = None,
) -> Iterator[Pair]:
    """Pairs of ``hr`` with the pictures of the same place and name in ``lr``, or with its own pictures degraded.

    ``limit``: only the first so many. ``crop``: only the centre, a square of so many hr pixels.

    Raises:
        ImageError: a folder is empty, or a picture cannot be read.
        PairError: a picture has no partner, or the sizes do not fit.
    """
    partners = {} if lr is None else {p.relative_to(lr).with_suffix(""): p for p in images.find(lr)}
    for path in images.find(hr)[:limit]:
        truth = images.read(path).rgb_8_bit
        if lr is None:
            truth = truth if crop is None else centre(truth, crop)
            name = path.relative_to(hr).with_suffix("").as_posix()
            truth, small = degrade_pixels(truth, Degradation.preset(preset), name, seed)
        else:
            place = path.relative_to(hr).with_suffix("")
            partner = partners.get(place)
            if partner is None:
                raise PairError(f"{lr} has no picture {place}, the partner of {path}")
            small = images.read(partner).rgb_8_bit
            if truth.shape[0] != 4 * small.shape[0] or truth.shape[1] != 4 * small.shape[1]:
                raise PairError(f"{partner} is not a quarter of the size of {path}")
            if crop is not None:
                # The truth goes by 4x4 blocks, so that its centre is that of the small picture.
                height, width = small.shape[:2]
                blocks = truth.reshape(height, 4, width, 4, 3).transpose(0, 2, 1, 3, 4)
                small, blocks = centre(small, crop // 4), centre(blocks, crop // 4)
                truth = blocks.transpose(0, 2, 1, 3, 4).reshape(4 * small.shape[0], 4 * small.shape[1], 3)
        yield Pair(str(path.relative_to(hr)), small, truth)


def load_alone(lr: Path, limit: int | None = None, crop: int | None = None) -> Iterator[Pair]:
    """The pictures of ``lr``, whose truth is unknown; ``limit`` and ``crop`` as in ``load_pairs``.

    Raises:
        ImageError: the folder is empty, or a picture cannot be read.
    """
    for path in images.find(lr)[:limit]:
        small = images.read(path).rgb_8_bit
        yield Pair(str(path.relative_to(lr)), small if crop is None else centre(small, crop // 4), None)


def bicubic(lr: Pixels, _seed: int) -> Pixels:
    """PyTorch's bicubic enlargement (a = -0.75), which the networks start from."""
    return to_pixels(bicubic_x4(to_tensor(lr)))


def method(spec: str, device: str = "auto") -> Enlarge:
    """Find the method that ``spec`` names: ``bicubic``, or MODEL, MODEL@STEPS, MODEL@STEPS:stochastic."""
    if spec == "bicubic":
        return bicubic
    name, _, how = spec.partition("@")
    steps, _, sampler = how.partition(":")
    if (steps and not steps.isdigit()) or sampler not in ("", "deterministic", "stochastic"):
        raise ValueError(f"'{spec}' is not MODEL, MODEL@STEPS or MODEL@STEPS:stochastic")
    upscaler = Upscaler.load(name, device=device)
    count = int(steps) if steps else None
    if count is not None:
        upscaler.model.check_steps(count)
    stochastic = sampler == "stochastic"
    return lambda lr, seed: upscaler(
        lr, seed=seed, steps=count, sampler="stochastic" if stochastic else "deterministic"
    )


def metrics(features: Path | None, device: torch.device) -> dict[str, Metric]:
    """The scores against a truth, best known first; LPIPS needs its networks' weights (``networks.features``)."""
    alex, vgg = (LPIPS(name, features).to(device) for name in ("alexnet", "vgg16"))

    def perceptual(network: LPIPS) -> Metric:
        return lambda image, truth: network(image.to(device) * 2 - 1, truth.to(device) * 2 - 1)

    return {"PSNR-Y": psnr_y, "SSIM-Y": ssim_y, "LPIPS-Alex": perceptual(alex), "LPIPS-VGG": perceptual(vgg)}


def evaluate(
    methods: dict[str, Enlarge], pairs: Sequence[Pair], scorers: dict[str, Metric], seeds: int
) -> Iterator[Row]:
    """Score every method on every picture, with noise seeds 0 to ``seeds`` - 1; bicubic, which draws none, once.

    The scores are those of ``scorers`` where the truth is known, and always those of ``NO_REFERENCE``.
    """
    for pair in pairs:
        truth = None if pair.hr is None else to_tensor(pair.hr)
        for name, enlarge in methods.items():
            pictures = [to_tensor(enlarge(pair.lr, seed)) for seed in range(seeds if name != "bicubic" else 1)]
            with torch.inference_mode():
                scores = {}
                if truth is not None:
                    scores = {key: mean(float(score(p, truth)) for p in pictures) for key, score in scorers.items()}
                alone = {key: mean(float(score(p)) for p in pictures) for key, score in NO_REFERENCE.items()}
            yield Row(name, pair.name, scores | {key: value for key, value in alone.items() if not math.isnan(value)})


def means(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Mean over the pictures that have the score: method -> score -> value."""
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(row.method, []).append(row)
    return {
        name: {
            key: mean(row.scores[key] for row in group if key in row.scores)
            for key in dict.fromkeys(key for row in group for key in row.scores)
        }
        for name, group in by_method.items()
    }


def statement(pairs: Sequence[Pair], rows: Sequence[Row], source: str, seeds: int, crop: int | None = None) -> str:
    """The protocol, in one line."""
    paired = pairs[0].hr is not None
    part = "whole pictures" if crop is None else f"central {crop}x{crop} hr pixels"
    without = sum("NIQE" not in row.scores for row in rows)
    gaps = f", not defined for {without} of {len(rows)} outputs: too small or too flat" if without else ""
    return (
        f"{len(pairs)} {'pairs' if paired else 'lr pictures'} ({source}), x4, {part}, 8-bit outputs, "
        f"no border cropped, Y of BT.601 studio range, {'LPIPS v0.1 (lower is better), ' if paired else ''}"
        f"NIQE of Y in {PATCH}x{PATCH} patches (lower is better{gaps}), "
        f"mean over {seeds} noise seed{'s' * (seeds > 1)}; "
        f"tddsr {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    )
