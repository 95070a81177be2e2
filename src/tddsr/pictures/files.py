"""Picture files, read and written: colour, grey and transparency of 8 and 16 bit, metadata, orientation."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import threading
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple, cast

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError, features
from PIL.ExifTags import Base

from tddsr.errors import ImageError, ImageWarning
from tddsr.files import whole_or_nothing
from tddsr.pictures import decoding, jpeg, png, raw
from tddsr.pictures.encoding import encode
from tddsr.pictures.metadata import Metadata
from tddsr.pictures.picture import Layout, Picture, Pixels, convert
from tddsr.pictures.pil import from_pil
from tddsr.pictures.profiles import coded_colours, coded_profile
from tddsr.pictures.vips import pyvips

_HEIF = importlib.util.find_spec("pillow_heif") is not None
_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL ")
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}

READABLE = {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".tga"}
READABLE |= {".avif"} if features.check("avif") else set()
READABLE |= {".heic", ".heif"} if _HEIF else set()
READABLE |= raw.SUFFIXES if raw.INSTALLED else set()
"""Suffixes of the files that a folder is searched for."""

# What Pillow logs of damaged files is nothing for a terminal.
logging.getLogger("PIL").addHandler(logging.NullHandler())
# Metadata of a picture may well be larger than Pillow expects.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 2**25)


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

_BAND = 256
"""Rows that are put together at a time."""

_SWITCH = threading.RLock()

Source = Path | bytes
"""A file, or all that is in one."""


def _name(source: Source) -> str:
    return "the given file" if isinstance(source, bytes) else str(source)


def _content(source: Source) -> bytes:
    return source if isinstance(source, bytes) else source.read_bytes()


def _without_damage(content: bytes) -> bytes:
    return jpeg.without_damage(png.without_damage(content))


def _by_pillow(file: Path | io.BytesIO) -> Image.Image | None:
    with contextlib.suppress(UnidentifiedImageError, ValueError):  # the latter of damaged metadata
        return Image.open(file)
    return None


def _open(source: Source) -> Image.Image:
    head = _head(source)
    file = source if isinstance(source, Path) else io.BytesIO(source)
    image = None if raw.is_raw_head(head) else _by_pillow(file)
    if image is not None and (image.format != "TIFF" or _is_picture(image)):
        return image
    if image is not None or raw.is_raw_head(head):
        return raw.opened(_content(source))
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        if not _HEIF:
            raise ImageError("HEIC pictures need one more package: pip install 'tddsr[heif]'")
        importlib.import_module("pillow_heif").register_heif_opener()
        return Image.open(file)
    if head.startswith(decoding.MARKS):
        return decoding.stand_in(_content(source))
    if head.startswith((png.MARK, jpeg.MARK)):
        return Image.open(io.BytesIO(_without_damage(_content(source))))
    if head.startswith(_JPEG_XL):
        raise ImageError("JPEG XL is not read: convert it to PNG or TIFF")
    raise UnidentifiedImageError  # before all of it is read: it may be a film, or have no end


def _head(source: Source) -> bytes:
    if isinstance(source, bytes):
        return source[:16]
    with source.open("rb") as file:
        return file.read(16)


@contextlib.contextmanager
def _allowed(megapixels: float | None) -> Iterator[None]:
    """Let Pillow open larger pictures, or only smaller ones, than it does: by its own switch, which threads share."""
    if megapixels is None:
        yield
        return
    with _SWITCH:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, round(megapixels * 10**6 / 2)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


@contextlib.contextmanager
def _opened(source: Source, largest: float | None = None) -> Iterator[Image.Image]:
    """Open a picture file; whatever goes wrong with it inside the block is an ImageError."""
    name = _name(source)
    try:
        with warnings.catch_warnings(), _allowed(largest):
            # Damaged metadata, large pictures: an error, or of no account.
            warnings.filterwarnings("ignore", module=r"PIL\b")
            with _open(source) as image:
                yield image
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: is a folder, not a picture") from None
    except PermissionError:
        raise ImageError(f"{name}: may not be read (permission denied)") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a picture, or of a kind that cannot be read") from None
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6 if largest is None else largest
        told = f"its header says more than {most:g} million pixels; --largest-input (largest_input) allows more"
        raise ImageError(f"{name}: {told}") from None
    except MemoryError:
        raise ImageError(f"{name}: too large for this machine's memory") from None
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except Exception as error:  # decoders raise whatever they happened upon in a damaged file
        reason = shorten(str(error), 200, placeholder=" ..") or type(error).__name__
        raise ImageError(f"{name}: damaged or unsupported ({reason})") from error


def _is_picture(image: Image.Image) -> bool:
    """Whether a TIFF has a picture that is no preview, to which it goes: the largest; of raws it may not be a page."""
    if raw.is_raw_tags(getattr(image, "tag_v2", {})):
        return False
    if not _is_preview(image):
        return True
    areas = {}
    for page in range(getattr(image, "n_frames", 1)):
        if not _is_preview_at(image, page):
            areas[page] = image.width * image.height
    image.seek(max(areas, key=areas.__getitem__, default=0))
    return bool(areas) or Base.SubIFDs not in getattr(image, "tag_v2", {})


def _is_preview(image: Image.Image) -> bool:
    return bool(getattr(image, "tag_v2", {}).get(Base.NewSubfileType, 0) & 1)


def _is_preview_at(image: Image.Image, page: int) -> bool:
    image.seek(page)
    return _is_preview(image)


def _pages(image: Image.Image) -> int:
    """How many pictures a file holds, apart from previews."""
    if image.format == "MPO" or (image.format == "TIFF" and image.tell() > 0):
        return 1
    here = image.tell()
    try:
        pages = int(getattr(image, "n_frames", 1))
        return pages - sum(_is_preview_at(image, page) for page in range(pages) if image.format == "TIFF")
    except Exception:  # the others are damaged, or of a kind that PIL does not know
        return 1
    finally:
        image.seek(here)


def _load(name: str, content: bytes, image: Image.Image) -> Image.Image:
    """Decode a picture, of JPEG also one that only lacks the mark of its end."""
    try:
        image.load()
        return image
    except OSError:
        if image.format != "JPEG":
            raise
        # Other bytes after the last one change nothing if all pixels are there.
        content = content.removesuffix(b"\xff")
        endings = (b"\xff\xd9", bytes.fromhex("5a") * 1000 + b"\xff\xd9")
        ended = [Image.open(io.BytesIO(content + ending)) for ending in endings]
        if not np.array_equal(np.asarray(ended[0]), np.asarray(ended[1])):
            raise
        warnings.warn(f"{name}: the mark of its end is missing, all pixels are there", ImageWarning, stacklevel=2)
        return ended[0]


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
    """Of what is made of a file: its own; ``.png`` for one that is not written, or cannot hold its transparency."""
    kind = _KINDS.get(path.suffix.lower())
    if kind is not None and not kind.alpha:
        with contextlib.suppress(ImageError), _opened(path) as image:
            return ".png" if image.has_transparency_data else path.suffix
    return ".png" if kind is None else path.suffix


def header_size(source: Source) -> tuple[int, int]:
    """(width, height) by the file's header, without decoding it.

    Raises:
        ImageError: the file is missing or not a picture.
    """
    with _opened(source) as image:
        return image.size


def kind_of(source: bytes, largest: float | None = None) -> str:
    """The suffix that fits an encoded picture; ``.png`` if its kind cannot be written.

    Raises:
        ImageError: it is not a picture, or has more than ``largest`` million pixels.
    """
    with _opened(source, largest) as image:
        name = "JPEG" if image.format == "MPO" else image.format
    return next((suffix for suffix, kind in _KINDS.items() if kind.name == name), ".png")


def read_picture(source: Source, largest: float | None = None) -> Picture:
    """Read a picture file; bytes are all that is in one.

    Args:
        source: the file, or its content.
        largest: million pixels; what has more is refused before it is decoded. None: 178, which is twice
            ``PIL.Image.MAX_IMAGE_PIXELS``.

    Raises:
        ImageError: the file is missing, not a picture, damaged, too large, or of an unsupported kind.
    """
    name = _name(source)
    with _opened(source, largest) as image:
        if (pages := _pages(image)) > 1:
            warnings.warn(f"{name}: holds {pages} pictures, the first is taken", ImageWarning, stacklevel=2)
        content = _without_damage(whole := _content(source))
        if len(content) < len(whole):
            warnings.warn(f"{name}: what is damaged of its metadata is left out", ImageWarning, stacklevel=2)
        picture = decoding.read(content, image) or from_pil(_load(name, content, image))
        if image.format == "WEBP" and _is_lossless_webp(content):
            picture.metadata = replace(picture.metadata, lossless=True)
        if (codes := coded_colours(content)) and (image.format == "PNG" or not picture.metadata.icc):
            picture.metadata = replace(picture.metadata, icc=coded_profile(*codes, picture.grey))
        return picture


def check_writable(path: Path, size: tuple[int, int] | None = None, alpha: bool = False) -> None:
    """Raise ImageError if a picture of ``size`` (width, height) cannot be written to ``path``, before it is made."""
    _check_kind(str(path), path.suffix, size, alpha)
    if path.is_dir():
        raise ImageError(f"{path}: is a folder, and cannot be written as a picture")
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ImageError(f"{path}: cannot be written (no permission to write to {existing}, or not a folder)")


def _check_kind(name: str, suffix: str, size: tuple[int, int] | None, alpha: bool) -> str:
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


def _marked(bands: Iterable[Pixels], layout: Layout) -> Iterator[Pixels]:
    try:
        rows = 0
        for band in bands:
            if band.shape[1:] != (layout.width, layout.channels) or band.dtype != layout.dtype:
                raise ValueError(f"a band is {band.shape} {band.dtype}, which does not fit {layout}")
            rows += len(band)
            yield band
        if rows != layout.height:
            raise ValueError(f"the bands have {rows} rows, which does not fit {layout}")
    except Exception as error:
        raise _BandsError from error


@contextlib.contextmanager
def _writing(name: str) -> Iterator[None]:
    """Whatever goes wrong with a file inside the block is an ImageError; what the bands raise comes out as it is."""
    try:
        yield
    except _BandsError as error:
        raise cast("Exception", error.__cause__) from None
    except OSError as error:
        raise ImageError(f"{name}: cannot be written ({error.strerror or error})") from error
    except (pyvips.Error, ValueError) as error:
        raise ImageError(f"{name}: cannot be written ({' '.join(str(error).split())})") from error


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
    with _writing(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_or_nothing(path) as temporary, temporary.open("w+b") as file:
            encode(file, _KINDS[path.suffix.lower()].name, _marked(bands, layout), layout, metadata)


def encode_bands(kind: str, bands: Iterable[Pixels], layout: Layout, metadata: Metadata) -> bytes:
    """What ``write_bands`` would write into a file with the suffix ``kind``."""
    file = io.BytesIO()
    name = _check_kind("the result", kind, layout.size, layout.alpha)
    with _writing("the result"):
        encode(file, name, _marked(bands, layout), layout, metadata)
    return file.getvalue()


def write_picture(path: Path, picture: Picture) -> None:
    """Write a picture file, whole or not at all, of the kind that its suffix says.

    Raises:
        ImageError: the kind of file is unknown or cannot hold the picture, or the folder cannot be written to.
    """
    check_writable(path)
    layout = Layout(*picture.size, picture.channels, stored_dtype(path.suffix, picture.rgb.dtype))
    write_bands(path, _bands(picture, layout.dtype), layout, picture.metadata)


def _bands(picture: Picture, dtype: np.dtype[Any]) -> Iterator[Pixels]:
    for top in range(0, picture.size[1], _BAND):
        rows = slice(top, top + _BAND)
        alpha = None if picture.alpha is None else picture.alpha[rows]
        yield convert(replace(picture, rgb=picture.rgb[rows], alpha=alpha).pixels, dtype)
