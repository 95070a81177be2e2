"""Models by name or file: what the package carries, what is fetched the first time, or a file of the user's."""

from __future__ import annotations

from pathlib import Path

import torch

from tddsr.errors import ModelError
from tddsr.model import Model
from tddsr.weights.file import build, digest, read_file
from tddsr.weights.published import MODELS, UNPUBLISHED, have_model
from tddsr.weights.recognise import SUFFIXES

SHIPPED = {name: Path(__file__).with_name(f"{name}.safetensors") for name in ("compact", "compact-small")}
"""Models that the package carries, by name."""


def find_model(name_or_path: str | Path) -> Path:
    """The file of a model; a published one is fetched and converted the first time.

    Raises:
        ModelError: no such model, or it cannot be had.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if name in SHIPPED:
        return SHIPPED[name]
    if name in MODELS:
        return have_model(name)
    if name in UNPUBLISHED:
        raise ModelError(f"no model '{name}': {UNPUBLISHED[name]}")
    if not path.is_file():
        known = ", ".join([*SHIPPED, *MODELS])
        raise ModelError(f"no model '{name_or_path}': neither a file nor one of the named models ({known})")
    if path.suffix in SUFFIXES:
        to = path.with_suffix(".safetensors")
        raise ModelError(f"{path} is not a model file of tddsr; make one of it: tddsr convert {path} -o {to}")
    return path


def load_model(
    name_or_path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Model:
    """Read a model by name or from a file, ready to run.

    Raises:
        ModelError: no such model, not one of our files, or its weights do not fit its configuration.
    """
    return build(find_model(name_or_path)).place(device, dtype).frozen()


def fingerprint(name_or_path: str | Path) -> str:
    """sha256 of a model's configuration and weights, in hexadecimal; unlike its file's, the same at every saving."""
    return digest(*read_file(find_model(name_or_path)))


def read_notes(name_or_path: str | Path) -> str:
    """What ``save_model`` was given as ``notes``: for a trained model, its step and scores."""
    return read_file(find_model(name_or_path))[0].get("notes", "")
