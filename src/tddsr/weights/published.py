"""Published checkpoints as files of ours: one that is given, or a registered one that is fetched the first time."""

from __future__ import annotations

from pathlib import Path

import torch

from tddsr.downloads.cache import cache_folder
from tddsr.downloads.fetch import fetch, forget, making
from tddsr.downloads.known import AUTOENCODER, Licence
from tddsr.errors import DownloadError, ModelError
from tddsr.model import ModelConfig, ScheduleConfig
from tddsr.networks.autoencoder import VQConfig
from tddsr.networks.rrdb import RRDBConfig
from tddsr.weights.file import write_file
from tddsr.weights.recognise import Published, read_published
from tddsr.weights.registry import MODELS


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
        source: a Swin U-Net or RRDBNet.
        output: a safetensors file.
        autoencoder: of a Swin U-Net, a published checkpoint; by default the registered one, fetched.
        known: as which of the registered ``MODELS`` the network was trained; by default as its file's name says.
        dtype: of the weights in the file; integer buffers stay as they are.

    Raises:
        ModelError: a file that does not fit, or it is not known how the network was trained.
        OSError: ``output`` cannot be written.
    """
    read = read_published(source)
    if isinstance(read.config, VQConfig):
        raise ModelError(f"{source} is an autoencoder: convert the network that needs it, with --autoencoder {source}")
    name = known or next((name for name, model in MODELS.items() if model.file.name == source.name), None)
    if name not in MODELS:
        raise ModelError(
            f"{f'{name!r} is no registered model' if name else f'{source} does not tell how it was trained'}: "
            f"choose --as {', '.join(MODELS)}"
        )
    model = MODELS[name]
    schedule = ScheduleConfig.model_validate(model.schedule)
    if isinstance(read.config, RRDBConfig):
        if autoencoder or model.latent:
            raise ModelError(
                f"{source} is an RRDBNet, which has no autoencoder: --as realesrgan-x4plus, without --autoencoder"
            )
        config = ModelConfig(role=model.role, network=read.config, schedule=schedule)
        write_file(config, read.weights, output, dtype, _note(source, model.file.licence))
        return
    if not model.latent:
        raise ModelError(f"{source} is a Swin U-Net, not the network of {name}")
    place = autoencoder or fetch(AUTOENCODER)
    space = _space(place, len(read.weights["out.2.weight"]))
    config = ModelConfig(role=model.role, network=read.config, space=space.config, schedule=schedule)
    note = f"{_note(source, model.file.licence)}; {_note(place)}"
    write_file(config, read.weights, output, dtype, note, space.weights)


def have_model(name: str) -> Path:
    """The model file of a registered model: fetched and converted the first time, then from the cache.

    Raises:
        ModelError: a file cannot be had, or is not what it should be.
    """
    file, path = MODELS[name].file, cache_folder() / f"{name}.safetensors"
    with making(path) as missing:
        if missing:
            # Both first, so that whatever fails after that is the fault of the network's.
            source, autoencoder = fetch(file), fetch(AUTOENCODER) if MODELS[name].latent else None
            try:
                convert_published(source, path, autoencoder=autoencoder, known=name)
            except ModelError as error:
                if file.sha256 is not None:
                    raise
                forget(source)  # without a known hash, what came may have been a hotspot's page of welcome
                raise DownloadError(f"{error}; it was deleted: try again, or look what {file.url} gives") from error
    return path


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
