"""Picture files, read and written: colour, grey and transparency of 8 and 16 bit, metadata, orientation."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

import numpy as np
from PIL import Image, features

from tddsr.errors import ImageError, ImageWarning
from tddsr.files import whole_or_nothing
from tddsr.pictures import decoding, raw, streamed
from tddsr.pictures.encoding import encode
from tddsr.pictures.jpeg import endings, has_all_scans
from tddsr.pictures.metadata import Metadata
from tddsr.pictures.opening import HEIF, Source, content_of, count_pages, name_of, opened
from tddsr.pictures.overlooked import has_film, overlooked, overlooked_bits
from tddsr.pictures.picture import Layout, Picture, Pixels, convert
from tddsr.pictures.pil import BAND, from_pil
from tddsr.pictures.profiles import coded_colours, coded_profile
from tddsr.pictures.vips import pyvips

T = TypeVar("T")

READABLE = {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".tga"}
READABLE |= {".avif"} if features.check("avif") else set()
READABLE |= {".heic", ".heif"} if HEIF else set()
READABLE |= raw.SUFFIXES if raw.INSTALLED else set()
"""Suffixes of the files that a folder is searched for."""


class _Kind(NamedTuple):
    """A kind of file that is written: its name in PIL, and what it can hold."""

    name: str
    side: int = 2**31 - 1
    deep: bool = False
    alpha: bool = True


_PNG, _TIFF, _JPEG = _Kind("PNG", deep=True), _Kind("TIFF", deep=True), _Kind("JPEG", 65500, alpha=False)
_KINDS = {
    ".png": _PNG, ".jpg": _JPEG, ".jpeg": _JPEG, ".jfif": _JPEG, ".webp": _Kind("WEBP", 16383), ".tif": _TIFF,
    ".tiff": _TIFF,
}  # fmt: skip
WRITABLE = set(_KINDS)
"""Suffixes of the files that are written."""

ANIMATIONS = {"GIF", "WEBP", "PNG", "AVIF"}
"""Kinds of file whose several pictures are frames."""

_ANIMATED = {".gif", ".avif"}
"""Their suffixes, of those that are not written."""


def _load(name: str, content: bytes, image: Image.Image) -> Image.Image:
    """Decode a picture, of JPEG also one that only lacks the mark of its end."""
    try:
        image.load()
        return image
    except OSError:
        if image.format != "JPEG":
            raise
        content = content.removesuffix(b"\xff")
        ended, *others = (Image.open(io.BytesIO(content + ending)) for ending in endings(content))
        same = (np.array_equal(np.asarray(ended), np.asarray(other)) for other in others)
        if not (has_all_scans(content) and all(same)):
            raise
        warnings.warn(f"{name}: the mark of its end is missing, all pixels are there", ImageWarning, stacklevel=2)
        return ended


def _is_lossless_webp(content: bytes) -> bool:
    """Whether the first picture of a WebP file is packed so that it lost nothing."""
    at = 12
    while len(head := content[at : at + 8]) == 8:
        if head[:4] in (b"VP8 ", b"VP8L"):
            return head[:4] == b"VP8L"
        size = 16 if head[:4] == b"ANMF" else int.from_bytes(head[4:], "little")
        at += 8 + size + size % 2
    return False


def output_suffix(path: Path) -> str:
    """Of what is made of a file: its own; ``.png`` for one that is not written, or cannot hold its transparency.

    An animation of a kind that is not written becomes ``.webp``.
    """
    kind = _KINDS.get(path.suffix.lower())
    if kind is None and path.suffix.lower() not in _ANIMATED:
        return ".png"
    if kind is None or not kind.alpha:
        with contextlib.suppress(ImageError), opened(path) as image:
            return path.suffix if kind and not image.has_transparency_data else _other_suffix(image)
    return path.suffix if kind else ".png"


def _other_suffix(image: Image.Image) -> str:
    """Of what is made of a file whose own kind will not do."""
    return ".webp" if image.format in ANIMATIONS and getattr(image, "is_animated", False) else ".png"


def header_size(source: Source) -> tuple[int, int]:
    """(width, height) by the file's header, without decoding it.

    Raises:
        ImageError: the file is missing or not a picture.
    """
    with opened(source) as image:
        return image.size


def kind_of(source: bytes) -> str:
    """The suffix that fits an encoded picture; of a kind that cannot be written, as ``output_suffix``.

    Raises:
        ImageError: it is not a picture.
    """
    with opened(source) as image:
        name = "JPEG" if image.format == "MPO" else image.format
        return next((suffix for suffix, kind in _KINDS.items() if kind.name == name), _other_suffix(image))


def read_picture(source: Source, in_rows: bool = False) -> Picture:
    """Read a picture file; bytes are all that is in one.

    Args:
        source: the file.
        in_rows: ``rgb`` of a large one may be of ``streamed.Rows``.

    Raises:
        ImageError: the file is missing, not a picture, damaged, of an unsupported kind, or larger than ``allowed``.
    """
    name = name_of(source)
    with opened(source) as image:
        if (pages := count_pages(image)) > 1:
            warnings.warn(f"{name}: holds {pages} pictures, the first is taken", ImageWarning, stacklevel=2)
        return read_current(name, content_of(source), image, in_rows)


def read_current(name: str, content: bytes, image: Image.Image, in_rows: bool = False) -> Picture:
    """The picture that an opened file is at; ``content`` is all that is in the file."""
    bits = overlooked_bits(content, image)
    image.info.update(overlooked(content, image.format))
    picture = streamed.read(content, image) if in_rows else None
    picture = picture or decoding.read(content, image) or from_pil(_load(name, content, image))
    if bits > 8 and picture.rgb.dtype == np.uint8:
        warnings.warn(f"{name}: reduced to 8 bit", ImageWarning, stacklevel=2)
    if image.format in ("JPEG", "MPO") and has_film(content):
        warnings.warn(f"{name}: the film behind the photo is left out", ImageWarning, stacklevel=2)
    if image.format == "WEBP" and _is_lossless_webp(content):
        picture.metadata = replace(picture.metadata, lossless=True)
    if (codes := coded_colours(content)) and (image.format == "PNG" or not picture.metadata.icc):
        picture.metadata = replace(picture.metadata, icc=coded_profile(*codes, picture.grey))
    return picture


def check_writable(path: Path, size: tuple[int, int] | None = None, alpha: bool = False) -> None:
    """Raise ImageError if a picture of ``size`` (width, height) cannot be written to ``path``, before it is made."""
    check_kind(str(path), path.suffix, size, alpha)
    if path.is_dir():
        raise ImageError(f"{path}: is a folder, and cannot be written as a picture")
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ImageError(f"{path}: cannot be written (no permission to write to {existing}, or not a folder)")


def check_kind(name: str, suffix: str, size: tuple[int, int] | None = None, alpha: bool = False) -> str:
    """What PIL calls a file with this suffix, which can hold such a picture."""
    if suffix.lower() not in _KINDS:
        raise ImageError(f"{name}: cannot write '{suffix}' files; use one of {', '.join(sorted(WRITABLE))}")
    kind = _KINDS[suffix.lower()]
    if size is not None and max(size) > kind.side:
        told = f"{kind.name} holds at most {kind.side} pixels a side, not {size[0]}x{size[1]}"
        raise ImageError(f"{name}: {told}; write .png")
    if alpha and not kind.alpha:
        raise ImageError(f"{name}: {kind.name} cannot hold transparency; write .png or .webp")
    return kind.name


def stored_dtype(suffix: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type in which a file with this suffix holds pixels of ``dtype``: uint8, or uint16 where it can."""
    return np.dtype(np.uint16 if dtype != np.uint8 and _KINDS[suffix.lower()].deep else np.uint8)


class _BandsError(Exception):
    """What makes the bands has raised its cause: no fault of the file."""


def marked(made: Iterable[T]) -> Iterator[T]:
    """What is made while a file is written: its own faults are told from those of the file."""
    try:
        yield from made
    except Exception as error:
        raise _BandsError from error


def checked(bands: Iterable[Pixels], layout: Layout) -> Iterator[Pixels]:
    """The bands, if they are of such a picture."""
    rows = 0
    for band in bands:
        if band.shape[1:] != (layout.width, layout.channels) or band.dtype != layout.dtype:
            raise ValueError(f"a band is {band.shape} {band.dtype}, which does not fit {layout}")
        rows += len(band)
        yield band
    if rows != layout.height:
        raise ValueError(f"the bands have {rows} rows, which does not fit {layout}")


@contextlib.contextmanager
def writing(name: str) -> Iterator[None]:
    """Whatever goes wrong with a file inside the block is an ImageError; what the bands raise comes out as it is."""
    try:
        yield
    except _BandsError as error:
        raise cast("Exception", error.__cause__) from None
    except OSError as error:
        raise ImageError(f"{name}: cannot be written ({error.strerror or error})") from error
    except (pyvips.Error, ValueError) as error:
        raise ImageError(f"{name}: cannot be written ({' '.join(str(error).split())})") from error


@contextlib.contextmanager
def creating(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which is there whole or not at all; errors as of ``writing``."""
    with writing(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_or_nothing(path) as temporary, temporary.open("w+b") as file:
            yield file


def write_bands(path: Path, bands: Iterable[Pixels], layout: Layout, metadata: Metadata) -> None:
    """Write a picture file, whole or not at all, while its rows are made: few are in memory, except for WebP.

    Args:
        path: its suffix says which kind of file.
        bands: (rows, width, channels) of ``layout.dtype``, from top to bottom; any number of rows each.
        layout: of all of them together; ``stored_dtype`` tells the types that the file can hold.
        metadata: of the picture.

    Raises:
        ImageError: the kind of file is unknown or cannot hold the picture, or the folder cannot be written to.
        Exception: whatever ``bands`` raises.
    """
    check_writable(path, layout.size, layout.alpha)
    with creating(path) as file:
        encode(file, _KINDS[path.suffix.lower()].name, marked(checked(bands, layout)), layout, metadata)


def encode_bands(kind: str, bands: Iterable[Pixels], layout: Layout, metadata: Metadata) -> bytes:
    """What ``write_bands`` would write into a file with the suffix ``kind``."""
    file = io.BytesIO()
    name = check_kind("the result", kind, layout.size, layout.alpha)
    with writing("the result"):
        encode(file, name, marked(checked(bands, layout)), layout, metadata)
    return file.getvalue()


def write_picture(path: Path, picture: Picture) -> None:
    """Write a picture file, whole or not at all, of the kind that its suffix says.

    Raises:
        ImageError: the kind of file is unknown or cannot hold the picture, or the folder cannot be written to.
    """
    check_writable(path)
    layout = replace(picture.layout, dtype=stored_dtype(path.suffix, picture.rgb.dtype))
    write_bands(path, _bands(picture, layout.dtype), layout, picture.metadata)


def _bands(picture: Picture, dtype: np.dtype[Any]) -> Iterator[Pixels]:
    for top in range(0, picture.size[1], BAND):
        rows = slice(top, top + BAND)
        alpha = None if picture.alpha is None else picture.alpha[rows]
        yield convert(replace(picture, rgb=picture.rgb[rows], alpha=alpha).pixels, dtype)
