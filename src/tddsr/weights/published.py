"""Published models that are known by name: which files they are made of, and how they were trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock

from tddsr.downloads.fetch import CACHE, cache_folder, fetch, forget
from tddsr.downloads.known import (
    AUTOENCODER,
    REALESRGAN_X4PLUS,
    RESSHIFT_V1,
    RESSHIFT_V2,
    RESSHIFT_V3,
    SINSR_V1,
    SINSR_V2,
    Licence,
    PublishedFile,
)
from tddsr.errors import DownloadError, ModelError
from tddsr.model import ModelConfig, Role, ScheduleConfig
from tddsr.networks.autoencoder import VQConfig
from tddsr.networks.rrdb import RRDBConfig
from tddsr.weights.file import write_file
from tddsr.weights.recognise import Published, read_published


@dataclass(frozen=True)
class PublishedModel:
    """A network's file and what its shapes do not tell; ``latent``: whether it needs ``AUTOENCODER`` beside.

    ``purpose`` is one line for whoever chooses a model.
    """

    file: PublishedFile
    role: Role
    schedule: ScheduleConfig
    purpose: str
    latent: bool = True

    @property
    def files(self) -> tuple[PublishedFile, ...]:
        """All that is downloaded for it."""
        return (self.file, AUTOENCODER) if self.latent else (self.file,)


_FIFTEEN = ScheduleConfig(steps=15, kappa=2, power=0.3, min_noise=0.04)
_FOUR = ScheduleConfig(steps=4, kappa=2, power=0.3, min_noise=0.2)

_ONE = ScheduleConfig(steps=1)
"""Of a network that sees neither x_t nor t."""

MODELS = {
    "realesrgan-x4plus": PublishedModel(
        REALESRGAN_X4PLUS, "teacher", _ONE, "Real-ESRGAN, the teacher of compact", latent=False
    ),
    "resshift": PublishedModel(RESSHIFT_V3, "teacher", _FOUR, "ResShift v3: diffusion in 4 steps"),
    "resshift-v1": PublishedModel(RESSHIFT_V1, "teacher", _FIFTEEN, "ResShift v1: diffusion in 15 steps"),
    "resshift-v2": PublishedModel(RESSHIFT_V2, "teacher", _FIFTEEN, "ResShift v2: diffusion in 15 steps"),
    "sinsr": PublishedModel(SINSR_V1, "student", _FIFTEEN, "SinSR: ResShift in one step, as scored on RealSet65"),
    "sinsr-v2": PublishedModel(SINSR_V2, "student", _FIFTEEN, "SinSR: ResShift in one step, as scored on RealSR"),
}
"""By name."""

UNPUBLISHED = {
    "tddsr-paper": "its authors published no weights; train it by recipes/paper/realsr.yaml of the repository"
}
"""Models that users may ask for by name, and why they cannot be had."""


def convert_published(
    source: Path,
    output: Path,
    *,
    autoencoder: Path | None = None,
    known: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write the published checkpoint ``source`` as a file of ours.

    Args:
        source: a Swin U-Net or RRDBNet, which becomes a model file; or a VQ autoencoder, which becomes a file for
            ``autoencoder``.
        output: a safetensors file.
        autoencoder: of a network: a published checkpoint or a converted one; by default the registered one, fetched.
        known: as which of the registered ``MODELS`` the network was trained; by default as its file's name says.
        dtype: of the weights in the file; integer buffers stay as they are.

    Raises:
        ModelError: a file that does not fit, or it is not known how the network was trained.
        OSError: ``output`` cannot be written.
    """
    read = read_published(source)
    if isinstance(read.config, VQConfig):
        if known or autoencoder:
            raise ModelError(f"{source} is an autoencoder, which is converted alone: leave the other options away")
        write_file(read.config, read.weights, output, dtype, _note(source))
        return
    name = known or next((name for name, model in MODELS.items() if model.file.name == source.name), None)
    if name not in MODELS:
        raise ModelError(
            f"{f'{name!r} is no registered model' if name else f'{source} does not tell how it was trained'}: "
            f"choose --as {', '.join(MODELS)}"
        )
    model = MODELS[name]
    if isinstance(read.config, RRDBConfig):
        if autoencoder or model.latent:
            raise ModelError(
                f"{source} is an RRDBNet, which has no autoencoder: --as realesrgan-x4plus, without --autoencoder"
            )
        config = ModelConfig(role=model.role, network=read.config, schedule=model.schedule)
        write_file(config, read.weights, output, dtype, _note(source, model.file.licence))
        return
    if not model.latent:
        raise ModelError(f"{source} is a Swin U-Net, not the network of {name}")
    place = autoencoder or fetch(AUTOENCODER)
    space = _space(place, len(read.weights["out.2.weight"]))
    config = ModelConfig(role=model.role, network=read.config, space=space.config, schedule=model.schedule)
    note = f"{_note(source, model.file.licence)}; {_note(place)}"
    write_file(config, read.weights, output, dtype, note, space.weights)


def files_here(name: str) -> list[Path]:
    """What there is of a registered model: its converted file, else all of its downloads, else nothing."""
    converted = cache_folder() / f"{name}.safetensors"
    if converted.is_file():
        return [converted]
    files = [cache_folder() / file.name for file in MODELS[name].files]
    return files if all(file.is_file() for file in files) else []


def have_model(name: str) -> Path:
    """The model file of a registered model: fetched and converted the first time, then from the cache.

    Raises:
        ModelError: a file cannot be had, or is not what it should be.
    """
    path = cache_folder() / f"{name}.safetensors"
    if path.is_file():  # always whole; and a cache may be read-only
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.is_file():  # nobody else was faster
                _make(name, path)
    except OSError as error:
        raise DownloadError(
            f"{path}: cannot be written ({error.strerror or error}); {CACHE} chooses another folder"
        ) from error
    return path


def _make(name: str, path: Path) -> None:
    """Fetch both files first, so that whatever fails after that is the fault of the network's."""
    file = MODELS[name].file
    source, autoencoder = fetch(file), fetch(AUTOENCODER) if MODELS[name].latent else None
    try:
        convert_published(source, path, autoencoder=autoencoder, known=name)
    except ModelError as error:
        if file.sha256 is not None:
            raise
        forget(source)  # without a known hash, what came may have been a hotspot's page of welcome
        raise DownloadError(f"{error}; it was deleted: try again, or look what {file.url} gives") from error


def _space(path: Path, channels: int) -> Published:
    space = read_published(path)
    if not isinstance(space.config, VQConfig):
        raise ModelError(f"{path} is not an autoencoder but a network")
    factor = 1 << (len(space.config.multiples) - 1)
    if (factor, space.config.channels) != (4, channels):
        raise ModelError(
            f"{path} codes pictures at 1/{factor} of their size in {space.config.channels} channels; "
            f"the network needs 1/4 and {channels}"
        )
    return space


def _note(path: Path, licence: Licence | None = None) -> str:
    """Where weights come from and, where it is known, their licence, which goes wherever they go."""
    found = licence or (AUTOENCODER.licence if path.name == AUTOENCODER.name else None)
    return f"from {path.name}" + (f", {found.name} ({found.url})" if found else "")
