"""Scores during training: held-out photos, centre-cropped, degraded with a fixed seed, enlarged with fixed noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from tddsr import rng
from tddsr.degradation.files import degrade_pixels
from tddsr.degradation.presets import Degradation, Preset
from tddsr.errors import DataError
from tddsr.metrics.fidelity import as_saved, psnr, ssim
from tddsr.metrics.lpips import LPIPS
from tddsr.networks.layers import bicubic_x4
from tddsr.pictures.folders import find_photos, read_photo
from tddsr.pictures.picture import centre
from tddsr.pictures.tensors import to_tensor
from tddsr.training.recipe import ValidationConfig

Scores = dict[str, float]

_SHOWN = 6
"""pictures in the grid for TensorBoard"""


class Validator:
    """Holds the pairs and the LPIPS networks; ``run`` scores one way of enlarging."""

    def __init__(
        self, config: ValidationConfig, features: Path | None, mix: Mapping[Preset, float], device: torch.device
    ) -> None:
        self.device = device
        self.lpips = {name: LPIPS(name, features).to(device) for name in config.lpips}
        self.pairs: list[tuple[Tensor, Tensor]] = []
        kinds = [Degradation.preset(name) for name in mix]
        shares = [weight / sum(mix.values()) for weight in mix.values()]
        owed = [0.0 for _ in kinds]
        for path in find_photos(config.folder, config.part)[: config.count]:
            photo = read_photo(path, config.side)
            height, width = photo.shape[:2]
            side = config.crop
            if min(height, width) < side:
                raise DataError(f"{path} is {width}x{height}, smaller than validation.crop={side}")
            crop = centre(photo, side)
            # Each kind lies evenly among the others: the one furthest behind its share comes next.
            owed = [debt + share for debt, share in zip(owed, shares, strict=True)]
            turn = max(range(len(kinds)), key=lambda index: round(owed[index], 6))
            owed[turn] -= 1
            name = path.relative_to(config.folder).with_suffix("").as_posix()
            truth, small = degrade_pixels(crop, kinds[turn], name, config.seed)
            self.pairs.append((to_tensor(truth), to_tensor(small)))

    @torch.no_grad()
    def run(self, sampler: Callable[[Tensor, Tensor], Tensor], channels: int) -> tuple[Scores, Tensor]:
        """Mean scores, the choosing LPIPS first, and a (3,H,W) grid in [0,1]: bicubic, result, truth a row."""
        totals: dict[str, float] = {}
        rows = []
        for index, (hr, lr) in enumerate(self.pairs):
            hr, lr = hr.to(self.device), lr.to(self.device)
            eps = torch.randn(1, channels, *lr.shape[-2:], generator=rng.generator(index)).to(self.device)
            picture = as_saved(sampler(lr * 2 - 1, eps) / 2 + 0.5)
            scores = {f"lpips_{name}": lpips(picture * 2 - 1, hr * 2 - 1) for name, lpips in self.lpips.items()}
            scores |= {"psnr_y": psnr(picture, hr), "ssim_y": ssim(picture, hr)}
            for name, value in scores.items():
                totals[name] = totals.get(name, 0.0) + float(value) / len(self.pairs)
            if index < _SHOWN:
                bicubic = bicubic_x4(lr).clamp(0, 1)
                rows.append(torch.cat([bicubic[0], picture[0], hr[0]], dim=2))
        return totals, torch.cat(rows, dim=1).cpu()
