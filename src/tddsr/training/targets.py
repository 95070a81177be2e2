"""The teacher's samples, kept on disk: runs with the same teacher, data and seed compute them once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tddsr.errors import DataError
from tddsr.files import whole_or_nothing


class TargetCache:
    """One file a batch, in 16 bit, under a folder named after all that the targets depend on.

    Targets go through 16 bit also when they are new, so a run is the same with a full cache and with an empty one.
    Each file carries the lr pictures it belongs to; others are refused.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder / hashlib.sha256(key.encode()).hexdigest()[:16]

    def get(self, batch: int, lr: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """The target of batch number ``batch``, whose pictures are ``lr`` in [-1,1]; ``compute``d if there is none."""
        file = self.folder / f"{batch:08d}.safetensors"
        pixels = ((lr + 1) * 127.5).round().to("cpu", torch.uint8)
        if file.is_file():
            try:
                stored = load_file(file)
            except (OSError, SafetensorError) as error:
                raise DataError(f"{file} cannot be read ({error}); delete it") from error
            if not torch.equal(stored["lr"], pixels):
                raise DataError(f"{file} belongs to other pictures (of other photos?); delete {self.folder}")
            return stored["target"].to(lr)
        target = compute().to("cpu", torch.float16)
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_or_nothing(file) as temporary:
            save_file({"lr": pixels, "target": target.contiguous()}, temporary)
        return target.to(lr)
