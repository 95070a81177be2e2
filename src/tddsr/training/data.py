"""Patches of photos. A batch is a function of the seed and its number alone, so resuming is exact."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tddsr import images, rng
from tddsr.config import DataConfig
from tddsr.photos import find_photos, read_photo, reduced_size


class DataError(ValueError):
    """Photos that cannot be trained on, with the reason."""


class Patches(Dataset[Tensor]):
    """``self[number]`` is the (B,3,P,P) uint8 batch of that number: random photos, places, flips and quarter turns.

    Where ``min_scale`` is less than 1, a patch is cut larger at random, as far as the photo allows, and reduced.
    Decoded photos stay in memory (0.8 MiB for 512x512) up to ``cache`` bytes, all reading processes together.

    Raises:
        ImageError: the folder is missing or empty, or a file is not a picture.
        DataError: a photo is smaller than a patch.
    """

    def __init__(self, config: DataConfig, seed: int, cache: int = 2 << 30) -> None:
        self.config, self.seed = config, seed
        self.photos = find_photos(config.train, config.part)
        for photo in self.photos:
            width, height = reduced_size(images.header_size(photo), config.side)
            if min(height, width) < config.patch:
                raise DataError(f"{photo} is {width}x{height}, smaller than data.patch={config.patch}")
        listing = [f"{photo.relative_to(config.train)} {photo.stat().st_size}" for photo in self.photos]
        self.digest = hashlib.sha256(os.fsencode("\n".join(listing))).hexdigest()
        """Of the photos' names and sizes in bytes, wherever their folder lies."""
        self._room = cache // max(1, config.workers)
        self._decoded: dict[int, Tensor] = {}

    def _photo(self, index: int) -> Tensor:
        if index in self._decoded:
            return self._decoded[index]
        photo = torch.tensor(read_photo(self.photos[index], self.config.side)).permute(2, 0, 1)
        if photo.nbytes <= self._room:
            self._room -= photo.nbytes
            self._decoded[index] = photo
        return photo

    def _one(self, generator: torch.Generator) -> Tensor:
        def below(n: int) -> int:
            return int(torch.randint(n, (1,), generator=generator))

        photo = self._photo(below(len(self.photos)))
        target, side = self.config.patch, self.config.patch
        if self.config.min_scale < 1:
            scale = 1 - (1 - self.config.min_scale) * float(torch.rand(1, generator=generator))
            side = min(round(target / scale), *photo.shape[1:])
        top, left = below(photo.shape[1] - side + 1), below(photo.shape[2] - side + 1)
        patch = photo[:, top : top + side, left : left + side]
        if side != target:
            patch = F.interpolate(patch[None], (target, target), mode="bicubic", antialias=True)[0]
        if self.config.turn:
            patch = torch.rot90(patch, below(4), dims=(1, 2))
        return patch.flip(2) if below(2) else patch

    def __getitem__(self, number: int) -> Tensor:
        generator = rng.generator(self.seed, number)
        return torch.stack([self._one(generator) for _ in range(self.config.batch)])


def batches(patches: Patches, numbers: Sequence[int], workers: int) -> DataLoader[Tensor]:
    """The batches of these numbers, in order, read ahead by ``workers`` processes."""
    return DataLoader(patches, batch_size=None, sampler=numbers, num_workers=workers)
