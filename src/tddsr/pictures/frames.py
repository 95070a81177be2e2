"""Files of several pictures, of which one at a time is in memory: frames of an animation, pages of a TIFF."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.ExifTags import Base
from PIL.GifImagePlugin import GifImageFile

from tddsr.errors import ImageError, ImageWarning
from tddsr.pictures import decoding
from tddsr.pictures.files import (
    ANIMATIONS,
    check_kind,
    check_writable,
    checked,
    creating,
    marked,
    read_current,
    writing,
)
from tddsr.pictures.metadata import Metadata
from tddsr.pictures.opening import (
    Source,
    allowed,
    content_of,
    count_pages,
    name_of,
    open_picture,
    opened,
    page_numbers,
    reading,
)
from tddsr.pictures.picture import Layout, Picture, largest, to_8_bit
from tddsr.pictures.pil import from_pil
from tddsr.pictures.sequences import Made, Timing, encode_animation, encode_pages

_HOLD = {True: {"PNG", "WEBP", "TIFF"}, False: {"TIFF"}}
"""Kinds of file that can hold the pictures of an animation, or else of several pages."""

_LEAST = 128 * 128
"""Pixels that a picture counts as at least: each one takes time."""


@dataclass(frozen=True)
class Frames:
    """Several pictures of a file, read as they are asked for.

    Frames of an animation are as they are shown: whole, of 8 bit, with the size, colours and transparency that
    ``layouts`` say, and the metadata of the file. What shows the same as the frame before is part of that one. Pages
    are pictures of their own, and have no ``timing``.
    """

    source: Source
    numbers: Sequence[int]
    layouts: Sequence[Layout]
    metadata: Metadata = field(default_factory=Metadata)
    timing: Timing | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Picture]:
        pictures = _read(self.source, self.numbers, animated=self.timing is not None)
        for (picture, _), layout in zip(pictures, self.layouts, strict=True):
            yield picture if self.timing is None else self._unified(picture, layout)

    def _unified(self, picture: Picture, layout: Layout) -> Picture:
        inside = slice(layout.height), slice(layout.width)  # a frame of a GIF may reach beyond it
        rgb, alpha = to_8_bit(picture.rgb[inside]), None
        if layout.alpha:
            alpha = np.full(rgb.shape[:2], 255, np.uint8) if picture.alpha is None else to_8_bit(picture.alpha[inside])
        return Picture(rgb, alpha, layout.channels < 3, self.metadata)


def count_pictures(source: Source) -> int:
    """How many pictures a file holds; 1 where one alone is of use.

    Raises:
        ImageError: it is not a picture.
    """
    with allowed(math.inf), opened(source) as image:  # a result is as large as it is
        return count_pages(image)


def find_frames(source: Source, suffix: str) -> Frames | None:
    """The pictures of a file, each of which has been read once; None if it, or one with ``suffix``, holds one alone.

    Raises:
        ImageError: as ``read_picture``, of any of them; or they are too large together.
    """
    kind, metadata = check_kind("the result", suffix), Metadata()
    if kind not in _HOLD[True]:
        return None
    with opened(source) as image:
        several = getattr(image, "is_animated", False) and image.tell() == 0  # else it begins with a preview
        animated = image.format in ANIMATIONS
        if not several or not (animated or image.format == "TIFF") or kind not in _HOLD[animated]:
            return None
        plays, area = _plays(image), image.width * image.height
        if animated:
            metadata = read_current(name_of(source), content_of(source), image).metadata
        numbers = _frame_numbers(image) if animated else page_numbers(image)
    if len(numbers) < 2:
        return None
    if not animated:
        pages = [picture.layout for picture, _ in _limited(source, numbers, animated=False)]
        return Frames(source, numbers, pages)
    _check_area(source, len(numbers) * max(area, _LEAST))
    return _animation(source, numbers, metadata, plays)


def _frame_numbers(image: Image.Image) -> Sequence[int]:
    """Of an animation. A PNG may begin with a picture that is none of its frames."""
    return range(int(getattr(image, "default_image", False)), int(getattr(image, "n_frames", 1)))


def _plays(image: Image.Image) -> int:
    """How often an animation is played: 0 is without end, as is what Pillow tells nothing of (AVIF)."""
    loop = image.info.get("loop")
    if image.format == "GIF":  # tells how often it is played again
        return 1 if loop is None else int(loop + (loop > 0))
    return int(loop or 0)


def _animation(source: Source, numbers: Sequence[int], metadata: Metadata, plays: int) -> Frames:
    kept: list[int] = []
    durations: list[float] = []
    size, before, grey, clear = (0, 0), None, True, False
    for number, (picture, duration) in zip(numbers, _limited(source, numbers, animated=True), strict=True):
        if before is not None and _same(before, picture):
            durations[-1] += duration
            continue
        size = size if kept else picture.size
        kept.append(number)
        durations.append(duration)
        grey &= picture.grey
        clear |= picture.alpha is not None and bool(picture.alpha.min() < largest(picture.alpha.dtype))
        before = picture
    layout = Layout(*size, (1 if grey else 3) + clear, np.dtype(np.uint8))
    return Frames(source, kept, [layout] * len(kept), metadata, Timing(durations, plays))


def _same(before: Picture, picture: Picture) -> bool:
    """Whether both show the same; without transparency is opaque."""
    alphas = [np.asarray(255 if frame.alpha is None else frame.alpha) for frame in (before, picture)]
    return np.array_equal(before.rgb, picture.rgb) and bool((alphas[0] == alphas[1]).all())


def _limited(source: Source, numbers: Sequence[int], animated: bool) -> Iterator[tuple[Picture, float]]:
    area = 0
    for picture, duration in _read(source, numbers, animated):
        area += max(picture.size[0] * picture.size[1], _LEAST)
        _check_area(source, area)
        yield picture, duration


def _check_area(source: Source, area: int) -> None:
    most = 2 * (Image.MAX_IMAGE_PIXELS or np.inf)
    if area > most:
        told = f"its pictures have more than {int(most / 10**6)} million pixels together, which is refused"
        raise ImageError(f"{name_of(source)}: {told}; write a .jpg of the first")


def _read(source: Source, numbers: Sequence[int], animated: bool) -> Iterator[tuple[Picture, float]]:
    """Each picture, and the milliseconds that it is shown."""
    with reading(name_of(source)):
        image, content = open_picture(source), b"" if animated else content_of(source)
    with image:
        for place, number in enumerate(numbers, 1):
            name = f"{name_of(source)}, picture {place} of {len(numbers)}"
            with reading(name):
                if animated:
                    _go_to(image, number)
                    picture = from_pil(image)
                else:
                    if number != image.tell():
                        image.info.clear()  # Pillow would leave it the profile of another page
                    picture = _read_page(name, content, image, number)
            yield picture, image.info.get("duration", 0)


def _read_page(name: str, content: bytes, image: Image.Image, number: int) -> Picture:
    try:
        image.seek(number)
    except SyntaxError:  # of a kind that Pillow does not know; its tags are there
        tags = getattr(image, "tag_v2", {})
        image.info |= {"icc_profile": tags.get(Base.InterColorProfile), "xmp": tags.get(Base.XMLPacket)}
        if (picture := decoding.read(content, image)) is None:
            raise
        return picture
    return read_current(name, content, image)


def _go_to(image: Image.Image, number: int) -> None:
    """A frame behind the one that an animation is at, or that one itself; its duration is known then."""
    while image.tell() < number:
        if isinstance(image, GifImageFile):
            image.disposal_method = 0  # Pillow would dispose of a frame that tells nothing as of the one before
        image.seek(image.tell() + 1)
    image.load()


# -- written -----------------------------------------------------------------------------------------------------------


def write_frames(path: Path, layouts: Sequence[Layout], made: Made, timing: Timing | None) -> None:
    """Write a file of several pictures, whole or not at all, while they are made.

    An animation keeps two frames in memory, and what a WebP has so far; of a TIFF, a few rows.

    Args:
        path: its suffix says which kind of file.
        layouts: of the pictures; all the same, and of 8 bit, in a PNG or WebP.
        made: the pictures, each as bands of rows, and their metadata, in a PNG or WebP those of the first.
        timing: of an animation; None for pages, which only a TIFF holds.

    Raises:
        ImageError: the file cannot hold the pictures, or the folder cannot be written to.
        Exception: whatever ``made`` raises.
    """
    for layout in set(layouts):
        check_writable(path, layout.size, layout.alpha)
    with creating(path) as file:
        _encode(file, check_kind(str(path), path.suffix), layouts, made, timing)


def encode_frames(kind: str, layouts: Sequence[Layout], made: Made, timing: Timing | None) -> bytes:
    """What ``write_frames`` would write into a file with the suffix ``kind``."""
    file = io.BytesIO()
    names = {check_kind("the result", kind, layout.size, layout.alpha) for layout in layouts}
    with writing("the result"):
        _encode(file, names.pop(), layouts, made, timing)
    return file.getvalue()


def _encode(file: BinaryIO, kind: str, layouts: Sequence[Layout], made: Made, timing: Timing | None) -> None:
    pictures = marked(
        (marked(checked(bands, layout)), metadata) for layout, (bands, metadata) in zip(layouts, made, strict=True)
    )
    if timing is None or kind == "TIFF":
        if timing is not None:
            warnings.warn("its timing is left out: TIFF cannot hold it", ImageWarning, stacklevel=2)
        encode_pages(file, layouts, pictures)
    else:
        encode_animation(file, kind, layouts[0], pictures, timing)
