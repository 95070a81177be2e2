"""Model files out of others: one again, the mean of several, or a published network with its autoencoder, whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from tddsr.errors import ModelError
from tddsr.model import Model
from tddsr.weights.file import save_model, source_of
from tddsr.weights.names import fingerprint, load_model, read_notes
from tddsr.weights.published import convert_published
from tddsr.weights.registry import SUFFIXES


def convert(
    sources: Sequence[str],
    output: Path,
    *,
    autoencoder: Path | None = None,
    known: str | None = None,
    dtype: torch.dtype = torch.float32,
    deterministic: bool = False,
    reach: int | None = None,
) -> None:
    """Write one model again, the mean of several from one start, or one published checkpoint as a file of ours.

    Which of the three follows from ``sources``, names or files: a published checkpoint's suffix tells it. For one alone
    are ``known`` and ``autoencoder``; they, ``output``, ``dtype`` and the errors are as of ``convert_published``.
    ``deterministic``: zero the weights that see x_T, so that pictures hang on no noise. ``reach``: lr pixels beyond
    which nothing moves a pixel, as measured: the margin of tiles.
    """
    first, *others = sources
    if not others and Path(first).suffix in SUFFIXES:
        if deterministic or reach is not None:
            raise ModelError(f"{first} is a published checkpoint: convert it first, then what came of it")
        convert_published(Path(first), output, autoencoder=autoencoder, known=known, dtype=dtype)
        return
    if known or autoencoder:
        raise ModelError(f"--as and --autoencoder are for one published checkpoint (.pth), not for {sources}")
    model, notes = average_models(sources) if others else (load_model(first), read_notes(first))
    if deterministic or reach is not None:
        if model.network.entrance is None:
            raise ModelError(f"{first} sees noise and picture in one, and all of both: no --deterministic, no --reach")
        if deterministic:
            if model.default_steps > 1:
                raise ModelError(
                    f"{first} takes {model.default_steps} steps, each from what the one before left of the noise"
                )
            model.network.ignore_noise()
    if reach is not None:
        network = model.config.network.model_copy(update={"reach": reach})
        model.config = model.config.model_copy(update={"network": network})
    save_model(model, output, dtype, notes)


def average_models(models: Sequence[str | Path]) -> tuple[Model, str]:
    """The mean of the weights of two or more models trained from one start, and notes for it ("Model soups", 2022).

    Raises:
        ModelError: as ``load_model``; or the models have not the same configuration and latent space.
    """
    mean, *others = (load_model(model) for model in models)
    for name, other in zip(models[1:], others, strict=True):
        if other.config != mean.config:
            raise ModelError(f"{name} is another model than {models[0]}: {other.config}, not {mean.config}")
        if not other.shares_space(mean):
            raise ModelError(f"{name} has another latent space than {models[0]}: its weights differ")
    parts = [model.network.state_dict() for model in (mean, *others)]
    for key, value in parts[0].items():
        if value.is_floating_point():  # the others are tables of places, the same in all
            value.copy_(torch.stack([part[key] for part in parts]).mean(dim=0))
    sources = {source for model in models if (source := source_of(read_notes(model)))}
    notes = {"mean_of": [fingerprint(model) for model in models]}
    return mean, json.dumps(notes | ({"from": "; ".join(sorted(sources))} if sources else {}))
