"""Model files: safetensors with the model's configuration in the header. Reading one can never run code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tddsr.errors import ModelError
from tddsr.files import whole_or_nothing
from tddsr.model import Model, ModelConfig

_FORMAT = "tddsr-model-1"
_SPACE = "space."
"""What the names of a learned latent space's weights begin with in a model file."""


def write_file(
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    path: Path,
    dtype: torch.dtype = torch.float32,
    notes: str = "",
    space: Mapping[str, Tensor] | None = None,
) -> None:
    """As ``save_model``, from the state dicts of a network and its latent space, which need not be built."""
    header = {"format": _FORMAT, "config": config.model_dump_json(), "notes": notes}
    named = {**weights, **{_SPACE + key: value for key, value in (space or {}).items()}}
    stored = {
        key: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous()
        for key, value in named.items()
    }
    with whole_or_nothing(path) as temporary:
        try:
            save_file(stored, temporary, metadata=header)
        except SafetensorError as error:  # what the disk said, a full one for example
            raise OSError(str(error)) from error


def save_model(model: Model, path: Path, dtype: torch.dtype = torch.float32, notes: str = "") -> None:
    """Write ``model``, its latent space included, to a safetensors file, whole or not at all.

    ``notes`` go into the header; ``dtype`` is for weights: whole numbers stay what they are.
    """
    write_file(model.config, model.network.state_dict(), path, dtype, notes, model.space.state_dict())


def read_file(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header and weights of one of our files.

    Raises:
        ModelError: not a file that ``save_model`` wrote.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a readable safetensors file: {error}") from error
    if header.get("format") != _FORMAT:
        raise ModelError(f"{path} was not written by tddsr (its header says format={header.get('format')!r})")
    return header, weights


def source_of(notes: str) -> str:
    """Where weights come from and under which licence, out of a converted model's notes or of one trained from it."""
    try:
        found = json.loads(notes)
    except ValueError:
        return notes
    return str(found.get("from", "")) if isinstance(found, dict) else notes


def build(path: Path, replaced: Mapping[str, NDArray[Any]] | None = None) -> Model:
    """The model of one of our files, on the CPU in float32; with ``replaced`` in place of its weights of these names.

    Raises:
        ModelError: not one of our files, or its weights do not fit its configuration.
    """
    header, weights = read_file(path)
    weights |= {key: torch.from_numpy(value) for key, value in (replaced or {}).items()}
    try:
        with torch.device("meta"):  # a large network's random weights take longer than its true ones
            model = Model(ModelConfig.model_validate_json(header["config"]))
        tensors = {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}
        space = {key.removeprefix(_SPACE): tensors.pop(key) for key in list(tensors) if key.startswith(_SPACE)}
        model.network.load_state_dict(tensors, assign=True)
        model.space.load_state_dict(space, assign=True)
    except (KeyError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: the weights do not fit the configuration in the header: {error}") from error
    return model


def digest(header: Mapping[str, str], weights: Mapping[str, Tensor]) -> str:
    """sha256 of a file's configuration and weights, in hexadecimal."""
    result = hashlib.sha256(header.get("config", "").encode())
    for name in sorted(weights):
        result.update(name.encode())
        result.update(weights[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return result.hexdigest()
