"""Degrading files: reproducible pairs on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tddsr import images, rng
from tddsr.degradation.pipeline import Degradation, degrade
from tddsr.images import Picture


def lr_path(folder: Path, hr: Path) -> Path:
    """The lr picture's place: FOLDER/lr, where the hr picture's is FOLDER/hr."""
    return folder / "lr" / hr.relative_to(folder / "hr")


def degrade_file(source: Path, hr: Path, lr: Path, settings: Degradation, keys: tuple[int, ...]) -> None:
    """Write the pair of one sharp picture; ``keys`` choose its degradation.

    Raises:
        ImageError: the picture cannot be read or written, or is smaller than the factor.
    """
    rgb = images.read(source).rgb
    if rgb.dtype != np.uint8:
        rgb = (rgb // 257).astype(np.uint8)
    height, width = (side - side % settings.factor for side in rgb.shape[:2])
    if not height or not width:
        raise images.ImageError(
            f"{source}: {rgb.shape[1]}x{rgb.shape[0]} is too small for a factor of {settings.factor}"
        )
    rgb = np.ascontiguousarray(rgb[:height, :width])
    picture = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
    small = degrade(picture, settings, rng.generator(*keys))[0].permute(1, 2, 0)
    images.write(lr, Picture((small * 255).round().to(torch.uint8).numpy()))
    images.write(hr, Picture(rgb))
