"""Patches of photos. A batch is a function of the seed and its number alone, so resuming is exact."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tddsr import rng
from tddsr.degradation.pipeline import degrade_mixed
from tddsr.degradation.presets import Degradation
from tddsr.errors import DataError
from tddsr.pictures.files import header_size
from tddsr.pictures.folders import find_photos, read_photo, reduced_size
from tddsr.training.drawings import draw, fonts
from tddsr.training.recipe import DataConfig
from tddsr.training.targets import kept

_SCENE = 3
"""Stream of chance of the scenes, beside those of the loop and of the student's noise."""

_TAUGHT_AT_ONCE = 8
"""Scenes, where they are made ahead."""


def _below(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (1,), generator=generator))


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
            width, height = reduced_size(header_size(photo), config.side)
            name, side = ("patch", config.patch) if config.scenes is None else ("scene", config.scene)
            if min(height, width) < side:
                raise DataError(f"{photo} is {width}x{height}, smaller than data.{name}={side}")
        listing = [f"{photo.relative_to(config.train)} {photo.stat().st_size}" for photo in self.photos]
        if config.drawings:
            listing += [f"{file.name} {file.stat().st_size}" for file in fonts()]
        self.digest = hashlib.sha256(os.fsencode("\n".join(listing))).hexdigest()
        """Of the names and sizes in bytes of the photos and, for drawings, of the fonts, wherever they lie."""
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

    def one(self, target: int, generator: torch.Generator) -> Tensor:
        """A random (3,target,target) uint8 piece of a random photo, or a drawing."""
        if self.config.drawings and float(torch.rand(1, generator=generator)) < self.config.drawings:
            return draw(target, generator)

        photo = self._photo(_below(len(self.photos), generator))
        side = target
        if self.config.min_scale < 1:
            scale = 1 - (1 - self.config.min_scale) * float(torch.rand(1, generator=generator))
            side = min(round(target / scale), *photo.shape[1:])
        top, left = _below(photo.shape[1] - side + 1, generator), _below(photo.shape[2] - side + 1, generator)
        patch = photo[:, top : top + side, left : left + side]
        if side != target:
            patch = F.interpolate(patch[None], (target, target), mode="bicubic", antialias=True)[0]
        if self.config.turn:
            patch = torch.rot90(patch, _below(4, generator), dims=(1, 2))
        return patch.flip(2) if _below(2, generator) else patch

    def __getitem__(self, number: int) -> Tensor:
        generator = rng.generator(self.seed, number)
        return torch.stack([self.one(self.config.patch, generator) for _ in range(self.config.batch)])


Triple = tuple[Tensor, Tensor, Tensor]
"""hr, lr and the teacher's picture of lr, uint8."""


def scene_settings(config: DataConfig) -> dict[str, Any]:
    """What a scene depends on, of a run's data."""
    kept = config.model_dump(mode="json", include={"degradation", "drawings", "side", "min_scale", "turn", "scene"})
    return kept | {"presets": [Degradation.preset(name).model_dump(mode="json") for name in config.degradation]}


class Scenes(Dataset[Triple]):
    """``self[number]`` is the batch of that number, cut from a limited number of scenes that are made once and kept.

    A teacher's picture takes several times as long as a student's step, so each is used for many patches. Scenes
    lie as files in ``folder``; what is not there is made when it is first needed, by whichever run needs it first, or
    ahead, by ``make_all``.

    ``patches``: where the pictures come from, with its ``config`` and ``seed``. ``teach``: (B,3,s,s) uint8 lr -> the
    teacher's pictures, (B,3,S,S) uint8. ``folder``: its name stands for all that the scenes depend on.
    """

    def __init__(self, patches: Patches, teach: Callable[[Tensor], Tensor], folder: Path) -> None:
        assert patches.config.scenes is not None
        self.patches, self.teach, self.folder = patches, teach, folder
        self.config, self.count = patches.config, patches.config.scenes

    def __getstate__(self) -> dict[str, Any]:
        """For other processes, which find the scenes made: a teacher cannot be sent to them."""
        return vars(self) | {"teach": None}

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:06d}.safetensors"

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """What the teacher's picture of scene ``index`` is made of, uint8: hr (3,S,S) and lr (3,s,s)."""
        generator = rng.generator(self.patches.seed, _SCENE, index)
        picture = self.patches.one(self.config.scene, generator)[None].float() / 255
        hr, lr = (
            (each[0] * 255).round().to(torch.uint8)
            for each in degrade_mixed(picture, self.config.degradation, generator)
        )
        return hr, lr

    def scene(self, index: int) -> Triple:
        """Scene ``index``, (3,S,S), (3,s,s) and (3,S,S)."""

        def make() -> dict[str, Tensor]:
            hr, lr = self.pair(index)
            return {"hr": hr, "lr": lr, "target": self.teach(lr[None])[0]}

        found = kept(self._file(index), make)
        return found["hr"], found["lr"], found["target"]

    def make_all(self, workers: int) -> None:
        """Make what is missing: pairs by ``workers`` processes, the teacher's pictures here, several at once.

        A process beside this one could not use the accelerator.
        """
        missing = [index for index in range(self.count) if not self._file(index).is_file()]
        workers = min(workers, len(missing))
        for indices, hrs, lrs in DataLoader(_Pairs(self, missing), _TAUGHT_AT_ONCE, num_workers=workers):
            for index, hr, lr, target in zip(indices.tolist(), hrs, lrs, self.teach(lrs), strict=True):
                kept(self._file(index), partial(dict, hr=hr, lr=lr, target=target))

    def __getitem__(self, number: int) -> Triple:
        generator = rng.generator(self.patches.seed, number)
        return tuple(map(torch.stack, zip(*(self._cut(generator) for _ in range(self.config.batch)), strict=True)))  # type: ignore[return-value]

    def _cut(self, generator: torch.Generator) -> list[Tensor]:
        """The same random part of a random scene's three pictures, turned and mirrored alike."""
        pictures = self.scene(_below(self.count, generator))
        side = pictures[1].shape[-1]
        factor, part = self.config.scene // side, self.config.patch * side // self.config.scene
        top, left = _below(side - part + 1, generator), _below(side - part + 1, generator)
        turns, mirrored = _below(4, generator) if self.config.turn else 0, _below(2, generator)
        cut = []
        for picture, scale in zip(pictures, (factor, 1, factor), strict=True):
            y, x, length = top * scale, left * scale, part * scale
            piece = torch.rot90(picture[:, y : y + length, x : x + length], turns, dims=(1, 2))
            cut.append(piece.flip(2) if mirrored else piece)
        return cut


class _Pairs(Dataset[tuple[int, Tensor, Tensor]]):
    """The scenes of these indices, each with its index, before they are taught."""

    def __init__(self, scenes: Scenes, indices: Sequence[int]) -> None:
        self.scenes, self.indices = scenes, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> tuple[int, Tensor, Tensor]:
        return self.indices[place], *self.scenes.pair(self.indices[place])


def batches(patches: Patches | Scenes, numbers: Sequence[int], workers: int, device: torch.device) -> DataLoader[Any]:
    """The batches of these numbers, in order, read ahead by ``workers`` processes, for ``device``."""
    pinned = device.type == "cuda"  # else copies there would wait for each other
    return DataLoader(patches, batch_size=None, sampler=numbers, num_workers=workers, pin_memory=pinned)
