"""What a teacher makes, kept on disk: runs with the same teacher, data and seed compute it once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tddsr.errors import DataError
from tddsr.files import whole_or_nothing


def keyed(folder: Path, key: str) -> Path:
    """The folder below ``folder`` for what depends on ``key`` alone."""
    return folder / hashlib.sha256(key.encode()).hexdigest()[:16]


def kept(file: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of ``file``, on the CPU; made and written first if they are not there.

    Raises:
        DataError: the file cannot be read.
    """
    if not file.is_file():
        made = {name: tensor.cpu().contiguous() for name, tensor in make().items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_or_nothing(file) as temporary:
            save_file(made, temporary)
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file} cannot be read ({error}); delete it") from error
