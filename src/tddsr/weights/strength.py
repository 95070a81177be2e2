"""Weights between those of two models of one network, a faithful and a sharp one, without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from tddsr.errors import ModelError

Weights = dict[str, NDArray[Any]]
"""By name, as in a model file."""


def between(sharp: Path, faithful: Path, strength: float) -> Weights:
    """(1 - strength) * faithful + strength * sharp, where they differ: network interpolation (ESRGAN, 2018).

    ``sharp`` is a model file, whose types the result has; ``faithful`` one of the same network and from the same line:
    before its discriminator, say.

    Raises:
        ModelError: a file that cannot be read, or the two are not of one network and latent space.
    """
    ours, theirs = _read(sharp), _read(faithful)
    if {key: value.shape for key, value in ours.items()} != {key: value.shape for key, value in theirs.items()}:
        raise ModelError(f"{faithful} is of another network than {sharp}: nothing lies between them")
    result = {}
    for key, value in ours.items():
        other = theirs[key]
        if np.array_equal(value, other):
            continue
        if key.startswith("space.") or value.dtype.kind == "i":  # a learned latent space, or a table of places
            raise ModelError(f"{faithful} has another {key} than {sharp}: nothing lies between them")
        mixed = (1 - strength) * other.astype(np.float32) + strength * value.astype(np.float32)
        result[key] = mixed.astype(value.dtype)
    return result


def _read(path: Path) -> Weights:
    try:
        return load_file(path)
    except (SafetensorError, OSError, TypeError) as error:  # the last: NumPy has no bfloat16
        raise ModelError(f"{path} is not a safetensors file that NumPy reads: {error}") from error
