"""Patches of photos. Batch number ``step`` is a function of the seed and the step alone, so resuming is exact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tddsr import images, rng


class DataError(ValueError):
    """Photos that cannot be trained on, with the reason."""


def read_photo(path: Path) -> Tensor:
    """(3,H,W) uint8 RGB."""
    return torch.from_numpy(np.array(images.read(path).rgb_8_bit)).permute(2, 0, 1)


class Patches(Dataset[Tensor]):
    """``self[step]`` is the (B,3,P,P) uint8 batch of that step: random photos, places, flips and quarter turns.

    Decoded photos stay in memory (0.8 MiB for 512x512) up to ``cache`` bytes.

    Raises:
        ImageError: the folder is missing or empty, or a file is not a picture.
        DataError: a photo is smaller than a patch.
    """

    def __init__(self, folder: Path, patch: int, batch: int, seed: int, cache: int = 2 << 30) -> None:
        self.photos, self.patch, self.batch, self.seed = images.find(folder), patch, batch, seed
        for photo in self.photos:
            width, height = images.header_size(photo)
            if min(height, width) < patch:
                raise DataError(f"{photo} is {width}x{height}, smaller than data.patch={patch}")
        self._room = cache
        self._decoded: dict[int, Tensor] = {}

    def _photo(self, index: int) -> Tensor:
        if index in self._decoded:
            return self._decoded[index]
        photo = read_photo(self.photos[index])
        if photo.nbytes <= self._room:
            self._room -= photo.nbytes
            self._decoded[index] = photo
        return photo

    def _one(self, generator: torch.Generator) -> Tensor:
        def below(n: int) -> int:
            return int(torch.randint(n, (1,), generator=generator))

        photo = self._photo(below(len(self.photos)))
        top, left = below(photo.shape[1] - self.patch + 1), below(photo.shape[2] - self.patch + 1)
        patch = photo[:, top : top + self.patch, left : left + self.patch]
        patch = torch.rot90(patch, below(4), dims=(1, 2))
        return patch.flip(2) if below(2) else patch

    def __getitem__(self, step: int) -> Tensor:
        generator = rng.generator(self.seed, step)
        return torch.stack([self._one(generator) for _ in range(self.batch)])


def batches(patches: Patches, numbers: Sequence[int], workers: int) -> DataLoader[Tensor]:
    """The batches of these numbers, in order, read ahead by ``workers`` processes."""
    return DataLoader(patches, batch_size=None, sampler=numbers, num_workers=workers)
