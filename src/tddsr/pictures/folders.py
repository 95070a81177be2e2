"""Folders of pictures: found, a part of them, reduced to a size."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tddsr.errors import ImageError, UsageError
from tddsr.pictures.files import READABLE, read_picture
from tddsr.pictures.picture import Pixels

ALL = (0.0, 1.0)
"""The part of a folder that is the whole of it."""


def check_part(part: tuple[float, float]) -> tuple[float, float]:
    """``part``, if it is one.

    Raises:
        UsageError: it is not two shares from 0 to 1, the first one smaller.
    """
    if not 0 <= part[0] < part[1] <= 1:
        raise UsageError(f"{list(part)} is not a part: two shares from 0 to 1, the first one smaller")
    return part


def find_photos(folder: Path, part: tuple[float, float] = ALL) -> list[Path]:
    """The photos of a folder, or a part of them: shares from and to, in an order that only their names decide.

    Parts that do not overlap share no photo, on any machine and whoever asks.

    Raises:
        ImageError: the folder is missing or empty, or the part holds no photo.
        UsageError: as ``check_part``.
    """
    check_part(part)
    photos = find_files(folder)
    if part == ALL:
        return photos

    def chance(photo: Path) -> bytes:
        return hashlib.sha256(os.fsencode(photo.relative_to(folder).as_posix())).digest()

    shuffled = sorted(photos, key=chance)
    start, stop = (round(share * len(photos)) for share in part)
    if start == stop:
        raise ImageError(f"{folder} holds {len(photos)} photos, none of them in the part from {part[0]} to {part[1]}")
    return sorted(shuffled[start:stop])


def reduced_size(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    """(width, height) of a photo whose shorter side is reduced to ``side``, if it is longer."""
    factor = 1.0 if side is None else min(1.0, side / min(size))
    return round(size[0] * factor), round(size[1] * factor)


def read_photo(path: Path, side: int | None = None) -> Pixels:
    """(H,W,3) uint8 RGB; reduced by an area filter so that its shorter side is ``side``, if it is longer.

    Raises:
        ImageError: it cannot be read.
    """
    pixels = read_picture(path).rgb_8_bit
    size = reduced_size((pixels.shape[1], pixels.shape[0]), side)
    if size == (pixels.shape[1], pixels.shape[0]):
        return pixels
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def find_files(folder: Path) -> list[Path]:
    """All picture files below ``folder``, sorted; hidden ones are left out.

    Raises:
        ImageError: the folder is missing, or holds no pictures.
    """
    return search(folder)[0]


def search(folder: Path) -> tuple[list[Path], Counter[str]]:
    """The files of ``find_files``, and how many others there are of each suffix; folders that are closed among them.

    Raises:
        ImageError: as ``find_files``.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder}: no such folder")
    found, others = [], Counter[str]()

    def closed(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise ImageError(f"{folder}: cannot be looked into ({error.strerror})") from error
        others[f"folder {error.filename} ({error.strerror})"] += 1

    for path in _walk(folder, closed):
        suffix = path.suffix.lower()
        if suffix in READABLE and _may_be_file(path):
            found.append(path)
        else:
            others[f"{suffix} that is no file" if suffix in READABLE else suffix or "without suffix"] += 1
    if not found:
        raise ImageError(f"{folder}: holds no pictures ({', '.join(sorted(READABLE))})")
    return sorted(found), others


def _may_be_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # in a folder that can be listed, but not entered: told when it is read
        return True


def _walk(folder: Path, closed: Callable[[OSError], None]) -> Iterator[Path]:
    """What is below ``folder`` and not hidden; a folder that several links lead to comes once, by no link if it can."""
    seen: set[Path] = set()
    waiting = [folder]
    while waiting:
        for name, folders, files in os.walk(waiting.pop(0), onerror=closed):
            here, real = Path(name), Path(name).resolve()
            above = folder.resolve().is_relative_to(real) and here != folder
            if real in seen or above:  # a link to what is above would lead to everything
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            waiting += [here / name for name in folders if (here / name).is_symlink()]
            yield from (here / name for name in files if not name.startswith("."))
