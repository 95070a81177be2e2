"""The pictures that methods are scored on: found at once, read one by one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tddsr.degradation.files import degrade_pixels
from tddsr.degradation.presets import Degradation, Preset
from tddsr.errors import ImageError, UsageError
from tddsr.files import files_hash
from tddsr.pictures.files import read_picture
from tddsr.pictures.folders import ALL, find_photos, read_photo
from tddsr.pictures.picture import Pixels, centre


@dataclass(frozen=True)
class Pair:
    """An lr picture and its truth, if that is known; both (H,W,3) uint8.

    ``name`` is the place below its folder, without suffix. ``whole`` is the height and width that lr had before it was
    cropped.
    """

    name: str
    lr: Pixels
    hr: Pixels | None
    whole: tuple[int, int]


@dataclass(frozen=True)
class PictureSet:
    """Pictures of a folder or of two, by name; iterating reads them and raises on the first that fails."""

    hr: Path | None
    lr: Path | None
    preset: Preset
    seed: int
    crop: int | None
    part: tuple[float, float]
    side: int | None
    files: dict[str, tuple[Path | None, Path | None]] = field(repr=False)
    """name -> files of hr and lr; one of the two may be None"""
    problems: dict[str, str] = field(default_factory=dict)
    """name -> why it cannot be used"""

    def __iter__(self) -> Iterator[Pair]:
        return map(self.load, self.files)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def degradation(self) -> str | None:
        """How lr was made, and of which pictures of the folder, where that is known."""
        if self.lr is not None:
            return None
        said = [self.preset, f"seed {self.seed}"]
        if self.side is not None:
            said.append(f"from a shorter side of {self.side}")
        if self.part != ALL:
            said.append(f"the part from {self.part[0]:g} to {self.part[1]:g}")
        return ", ".join(said)

    @property
    def title(self) -> str:
        """The folder's name, or its parent's where it says only which of the two it is."""
        folder = (self.hr or self.lr or Path()).absolute()
        return folder.parent.name if folder.name.lower() in ("hr", "gt", "lr", "lq") else folder.name

    @cached_property
    def digest(self) -> str:
        """Of the names and the content of the files: another set of pictures has another."""
        sides = ({f"{side}/{name}": pair[side] for name, pair in self.files.items()} for side in (0, 1))
        return files_hash({name: file for files in sides for name, file in files.items() if file is not None})[:16]

    def load(self, name: str) -> Pair:
        """Read a picture, or two.

        Raises:
            ImageError: a picture cannot be read, or the sizes do not fit.
        """
        true, small = self.files[name]
        if true is None:
            assert small is not None
            lr = read_picture(small).rgb_8_bit
            return Pair(name, lr if self.crop is None else centre(lr, self.crop // 4), None, lr.shape[:2])
        hr = read_photo(true, self.side)
        if small is None:
            hr = hr if self.crop is None else centre(hr, self.crop)
            try:
                hr, lr = degrade_pixels(hr, Degradation.preset(self.preset), name, self.seed)
            except ValueError as error:
                raise ImageError(f"{true}: {error}") from error
            return Pair(name, lr, hr, lr.shape[:2])
        lr = read_picture(small).rgb_8_bit
        if hr.shape[0] != 4 * lr.shape[0] or hr.shape[1] != 4 * lr.shape[1]:
            raise ImageError(
                f"{small} is not a quarter of the size of {true}: "
                f"{lr.shape[1]}x{lr.shape[0]} and {hr.shape[1]}x{hr.shape[0]}"
            )
        whole = lr.shape[:2]
        if self.crop is not None:
            lr, hr = centre(lr, self.crop // 4), centre_by_blocks(hr, self.crop)
        return Pair(name, lr, hr, whole)


def centre_by_blocks(hr: Pixels, side: int) -> Pixels:
    """The centre of (4h,4w,3) by 4x4 blocks, so that it shows what the centre of the small picture shows."""
    height, width = hr.shape[0] // 4, hr.shape[1] // 4
    blocks = centre(hr.reshape(height, 4, width, 4, 3).transpose(0, 2, 1, 3, 4), side // 4)
    return blocks.transpose(0, 2, 1, 3, 4).reshape(4 * blocks.shape[0], 4 * blocks.shape[1], 3)


def by_name(folder: Path, part: tuple[float, float] = ALL) -> tuple[dict[str, Path], dict[str, str]]:
    """The pictures below ``folder`` by place and name without suffix, and those whose name is taken, with the reason.

    Raises:
        ImageError: the folder is missing or empty, or the part of it is.
    """
    found: dict[str, Path] = {}
    problems: dict[str, str] = {}
    for path in find_photos(folder, part):
        name = os.fsencode(path.relative_to(folder).with_suffix("").as_posix()).decode(errors="backslashreplace")
        if found.setdefault(name, path) != path:
            problems[name] = f"{path} has the same name as {found[name].name}, which is used"
    return found, problems


def find_pictures(
    hr: Path | None,
    lr: Path | None = None,
    preset: Preset = "resshift",
    seed: int = 0,
    limit: int | None = None,
    crop: int | None = None,
    part: tuple[float, float] = ALL,
    side: int | None = None,
) -> PictureSet:
    """Pairs of ``hr`` and ``lr`` by place and name; without ``lr`` those of hr, degraded; without ``hr`` lr alone.

    ``limit``: only the first so many. ``crop``: only the centre, a square of so many hr pixels. ``part``, ``side``: of
    pictures that are degraded, as for ``find_photos`` and ``read_photo``.

    Raises:
        ImageError: a folder or the part of it is missing or empty.
        UsageError: neither folder is given, or pictures that are not degraded are to be reduced or parted.
    """
    if hr is None and lr is None:
        raise UsageError("there is nothing to score on: give --hr, --lr or both")
    if lr is not None and (part != ALL or side is not None):
        raise UsageError(f"part and side are for hr that is degraded: leave them out, or lr ({lr})")
    true, problems = ({}, {}) if hr is None else by_name(hr, part)
    small, more = ({}, {}) if lr is None else by_name(lr)
    problems |= more
    if hr is not None and lr is not None:
        problems |= {name: f"{lr} has no picture {name}, the partner of {true[name]}" for name in true.keys() - small}
        problems |= {name: f"{hr} has no picture {name}, the partner of {small[name]}" for name in small.keys() - true}
        names = true.keys() & small.keys()
    else:
        names = true.keys() | small.keys()
    files = {name: (true.get(name), small.get(name)) for name in sorted(names)[:limit]}
    return PictureSet(hr, lr, preset, seed, crop, part, side, files, dict(sorted(problems.items())))
