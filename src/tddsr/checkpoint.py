"""Model files: safetensors with the model's configuration in the header. Reading one can never run code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tddsr.files import CheckpointError as CheckpointError
from tddsr.files import whole_or_nothing
from tddsr.model import Model, ModelConfig
from tddsr.networks.autoencoder import VQConfig
from tddsr.pretrained import SUFFIXES
from tddsr.registry import MODELS, UNPUBLISHED

_FORMAT = "tddsr-model-1"
_AUTOENCODER = "tddsr-autoencoder-1"
_SPACE = "space."
"""What the names of a learned latent space's weights begin with in a model file."""

_WEIGHTS = Path(__file__).with_name("weights")
NAMED_MODELS = {name: _WEIGHTS / f"{name}.safetensors" for name in ("compact", "compact-small")}
"""Models that are called by name, beside the registered ones: those that the package carries."""


def _write(header: dict[str, str], weights: Mapping[str, Tensor], path: Path, dtype: torch.dtype) -> None:
    stored = {
        key: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous()
        for key, value in weights.items()
    }
    with whole_or_nothing(path) as temporary:
        try:
            save_file(stored, temporary, metadata=header)
        except SafetensorError as error:  # what the disk said, a full one for example
            raise OSError(str(error)) from error


def write_model(
    config: ModelConfig,
    network: Mapping[str, Tensor],
    space: Mapping[str, Tensor],
    path: Path,
    dtype: torch.dtype = torch.float32,
    notes: str = "",
) -> None:
    """As ``save_model``, from the state dicts of a model that need not be built."""
    weights = {**network, **{_SPACE + key: value for key, value in space.items()}}
    _write({"format": _FORMAT, "config": config.model_dump_json(), "notes": notes}, weights, path, dtype)


def write_autoencoder(
    config: VQConfig, weights: Mapping[str, Tensor], path: Path, dtype: torch.dtype = torch.float32, notes: str = ""
) -> None:
    """Write a latent space alone, which ``tddsr convert --autoencoder`` takes."""
    _write({"format": _AUTOENCODER, "config": config.model_dump_json(), "notes": notes}, weights, path, dtype)


def save_model(model: Model, path: Path, dtype: torch.dtype = torch.float32, notes: str = "") -> None:
    """Write ``model``, its latent space included, to a safetensors file, whole or not at all.

    ``notes`` go into the header; ``dtype`` is for weights: whole numbers stay what they are.
    """
    write_model(model.config, model.network.state_dict(), model.space.state_dict(), path, dtype, notes)


def find_model(name_or_path: str | Path) -> Path:
    """The file of a model; a registered one is fetched and converted the first time.

    Raises:
        CheckpointError: no such model, or it cannot be had.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if name in NAMED_MODELS:
        return NAMED_MODELS[name]
    if name in MODELS:
        from tddsr.conversion import named  # stands on this module

        return named(name)
    if name in UNPUBLISHED:
        raise CheckpointError(f"no model '{name}': {UNPUBLISHED[name]}")
    if not path.is_file():
        known = ", ".join([*NAMED_MODELS, *MODELS])
        raise CheckpointError(f"no model '{name_or_path}': neither a file nor one of the named models ({known})")
    if path.suffix in SUFFIXES:
        to = path.with_suffix(".safetensors")
        raise CheckpointError(f"{path} is not a model file of tddsr; make one of it: tddsr convert {path} -o {to}")
    return path


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header and weights of one of our files."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
    if header.get("format") == _AUTOENCODER:
        raise CheckpointError(
            f"{path} is a latent space alone; make a model: tddsr convert NETWORK --autoencoder {path}"
        )
    if header.get("format") != _FORMAT:
        raise CheckpointError(f"{path} was not written by tddsr (its header says format={header.get('format')!r})")
    return header, weights


def fingerprint(name_or_path: str | Path) -> str:
    """sha256 of a model's configuration and weights, in hexadecimal; unlike its file's, the same at every saving."""
    header, weights = _read(find_model(name_or_path))
    digest = hashlib.sha256(header.get("config", "").encode())
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_notes(name_or_path: str | Path) -> str:
    """What ``save_model`` was given as ``notes``: for a trained model, its step and scores."""
    return _read(find_model(name_or_path))[0].get("notes", "")


def source_of(notes: str) -> str:
    """Where weights come from and under which licence, out of a converted model's notes or of one trained from it."""
    try:
        found = json.loads(notes)
    except ValueError:
        return notes
    return str(found.get("from", "")) if isinstance(found, dict) else notes


def average_models(models: Sequence[str | Path]) -> tuple[Model, str]:
    """The mean of the weights of models that were trained from one start, and notes for it ("Model soups", 2022).

    Args:
        models: two or more, by name or file, of one configuration and one latent space.

    Raises:
        CheckpointError: as ``load_model``; or the models have not the same configuration and latent space.
    """
    mean, *others = (load_model(model) for model in models)
    for name, other in zip(models[1:], others, strict=True):
        if other.config != mean.config:
            raise CheckpointError(f"{name} is another model than {models[0]}: {other.config}, not {mean.config}")
        if not other.shares_space(mean):
            raise CheckpointError(f"{name} has another latent space than {models[0]}: its weights differ")
    parts = [model.network.state_dict() for model in (mean, *others)]
    for key, value in parts[0].items():
        if value.is_floating_point():  # the others are tables of places, the same in all
            value.copy_(torch.stack([part[key] for part in parts]).mean(dim=0))
    sources = {source for model in models if (source := source_of(read_notes(model)))}
    notes = {"mean_of": [fingerprint(model) for model in models]}
    return mean, json.dumps(notes | ({"from": "; ".join(sorted(sources))} if sources else {}))


def load_model(
    name_or_path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Model:
    """Read a model by name or from a file, ready to run.

    Raises:
        CheckpointError: no such model, not one of our files, or its weights do not fit its configuration.
    """
    path = find_model(name_or_path)
    header, weights = _read(path)
    try:
        with torch.device("meta"):  # a large network's random weights take longer than its true ones
            model = Model(ModelConfig.model_validate_json(header["config"]))
        tensors = {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}
        space = {key.removeprefix(_SPACE): tensors.pop(key) for key in list(tensors) if key.startswith(_SPACE)}
        model.network.load_state_dict(tensors, assign=True)
        model.space.load_state_dict(space, assign=True)
    except (KeyError, ValidationError, RuntimeError) as error:
        raise CheckpointError(f"{path}: the weights do not fit the configuration in the header: {error}") from error
    return model.place(device, dtype).frozen()
