"""Published models that are known by name: which files they are made of, and how they were trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tddsr.downloads import known
from tddsr.downloads.cache import cache_folder


@dataclass(frozen=True)
class PublishedModel:
    """A network's file and what its shapes do not tell; ``latent``: whether it needs ``AUTOENCODER`` beside.

    ``schedule``: of ``ScheduleConfig``. ``purpose`` is one line for whoever chooses a model.
    """

    file: known.PublishedFile
    role: Literal["teacher", "student"]
    schedule: Mapping[str, float]
    purpose: str
    latent: bool = True

    @property
    def files(self) -> tuple[known.PublishedFile, ...]:
        """All that is downloaded for it."""
        return (self.file, known.AUTOENCODER) if self.latent else (self.file,)


_FIFTEEN = {"steps": 15, "kappa": 2, "power": 0.3, "min_noise": 0.04}
_FOUR = {"steps": 4, "kappa": 2, "power": 0.3, "min_noise": 0.2}

_ONE = {"steps": 1}
"""Of a network that sees neither x_t nor t."""

MODELS = {
    "realesrgan-x4plus": PublishedModel(
        known.REALESRGAN_X4PLUS, "teacher", _ONE, "Real-ESRGAN, the teacher of compact", latent=False
    ),
    "resshift": PublishedModel(known.RESSHIFT_V3, "teacher", _FOUR, "ResShift v3: diffusion in 4 steps"),
    "resshift-v1": PublishedModel(known.RESSHIFT_V1, "teacher", _FIFTEEN, "ResShift v1: diffusion in 15 steps"),
    "resshift-v2": PublishedModel(known.RESSHIFT_V2, "teacher", _FIFTEEN, "ResShift v2: diffusion in 15 steps"),
    "sinsr": PublishedModel(known.SINSR_V1, "student", _FIFTEEN, "SinSR: ResShift in one step, as scored on RealSet65"),
    "sinsr-v2": PublishedModel(known.SINSR_V2, "student", _FIFTEEN, "SinSR: ResShift in one step, as scored on RealSR"),
}
"""By name."""

SUFFIXES = (".pth", ".pt", ".ckpt", ".bin")
"""What PyTorch's own checkpoints are called."""


def files_here(name: str) -> list[Path]:
    """What there is of a registered model: its converted file, else all of its downloads, else nothing."""
    converted = cache_folder() / f"{name}.safetensors"
    if converted.is_file():
        return [converted]
    files = [cache_folder() / file.name for file in MODELS[name].files]
    return files if all(file.is_file() for file in files) else []
