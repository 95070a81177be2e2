"""Picture files opened: which page, by which package, and how large they may be; nothing is decoded yet."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten

from PIL import Image, PngImagePlugin, UnidentifiedImageError
from PIL.ExifTags import Base

from tddsr.errors import ImageError, ImageWarning, UsageError
from tddsr.pictures import decoding, jpeg, png, raw

HEIF = importlib.util.find_spec("pillow_heif") is not None
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL ")

# What Pillow logs of damaged files is nothing for a terminal.
logging.getLogger("PIL").addHandler(logging.NullHandler())
# Metadata of a picture may well be larger than Pillow expects.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 2**25)

_MOST_PAGES = 2**16

_MPO_PICTURES = 0xB002
"""The tag that tells of the pictures of a JPEG which holds several."""

_SWITCH = threading.RLock()

_PILLOW = r"PIL\b"
_READING = threading.Lock()
_readers: list[None] = []
"""One for each file that is being read."""

Source = Path | bytes
"""A file, or all that is in one."""


def name_of(source: Source) -> str:
    """What messages call it."""
    return "the given file" if isinstance(source, bytes) else str(source)


def _content(source: Source) -> bytes:
    return source if isinstance(source, bytes) else source.read_bytes()


def content_of(source: Source) -> bytes:
    """All that is in a file, without what is damaged of the metadata of a PNG or JPEG, which is said."""
    content = _without_damage(whole := _content(source))
    if len(content) < len(whole):
        warnings.warn(f"{name_of(source)}: what is damaged of its metadata is left out", ImageWarning, stacklevel=3)
    return content


def _without_damage(content: bytes) -> bytes:
    return jpeg.without_damage(png.without_damage(content))


def _head(source: Source) -> bytes:
    if isinstance(source, bytes):
        return source[:16]
    if source.exists() and not (source.is_file() or source.is_dir()):
        raise ImageError("is a pipe or a device, no file; - is standard input")
    with source.open("rb") as file:
        return file.read(16)


def _by_pillow(file: Path | io.BytesIO) -> Image.Image | None:
    with contextlib.suppress(UnidentifiedImageError, ValueError):  # the latter of damaged metadata
        return Image.open(file)
    return None


def open_picture(source: Source) -> Image.Image:
    """As Pillow opens it, at its first picture that is no preview; or what tells its size and metadata.

    Raises:
        Exception: of many kinds.
    """
    head = _head(source)
    file = source if isinstance(source, Path) else io.BytesIO(source)
    image = None if raw.is_raw_head(head) else _by_pillow(file)
    if image is not None and (image.format != "TIFF" or _is_picture(image)):
        return image
    if image is not None:
        image.close()
    if image is not None or raw.is_raw_head(head):
        return raw.opened(_content(source))
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        if not HEIF:
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


@contextlib.contextmanager
def allowed(megapixels: float | None) -> Iterator[None]:
    """Let pictures be as large as that inside the block; None: as Pillow lets them, 178 million pixels.

    By Pillow's own switch, which is that of all threads: one that asks for it waits for the others that did.

    Raises:
        UsageError: it is not more than 0.
    """
    if megapixels is None:
        yield
        return
    if not megapixels > 0:
        raise UsageError(f"{megapixels} million pixels of an input: it must be more than 0")
    with _SWITCH:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None if megapixels == float("inf") else round(megapixels * 10**6 / 2)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


@contextlib.contextmanager
def opened(source: Source) -> Iterator[Image.Image]:
    """Open a picture file; whatever goes wrong with it inside the block is an ImageError."""
    with reading(name_of(source)), open_picture(source) as image:
        yield image


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what Pillow warns of, damaged metadata and large pictures: an error here, or of no account.

    The filters are those of the process, and threads leave ``catch_warnings`` in another order than they came.
    """
    with _READING:
        _readers.append(None)
        if len(_readers) == 1:
            warnings.filterwarnings("ignore", module=_PILLOW)
    try:
        yield
    finally:
        with _READING:
            _readers.pop()
            if not _readers:
                with contextlib.suppress(ValueError):  # who called has put other filters in place
                    warnings.filters.remove(("ignore", None, Warning, re.compile(_PILLOW), 0))  # type: ignore[attr-defined]


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Whatever goes wrong inside the block with a file, or a part of it, is an ImageError."""
    try:
        with _quiet():
            yield
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: is a folder, not a picture") from None
    except PermissionError:
        raise ImageError(f"{name}: may not be read (permission denied)") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a picture, or of a kind that cannot be read") from None
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 10**6
        told = f"its header says more than {most:.4g} million pixels; --largest-input (largest_input) allows more"
        raise ImageError(f"{name}: {told}") from None
    except MemoryError:
        raise ImageError(f"{name}: too large for this machine's memory") from None
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except Exception as error:  # decoders raise whatever they happened upon in a damaged file
        if isinstance(error, OSError) and error.errno:  # of the system
            raise ImageError(f"{name}: cannot be read ({error.strerror})") from error
        reason = shorten(str(error), 200, placeholder=" ..") or type(error).__name__
        raise ImageError(f"{name}: damaged or unsupported ({reason})") from error


def _is_picture(image: Image.Image) -> bool:
    """Whether a TIFF has a picture that is no preview, to which it goes: the largest; of raws it may not be a page."""
    if raw.is_raw_tags(getattr(image, "tag_v2", {})):
        return False
    if not is_preview(image):
        return True
    areas = {}
    for page in range(getattr(image, "n_frames", 1)):
        if not _is_preview_at(image, page):
            areas[page] = image.width * image.height
    image.seek(max(areas, key=areas.__getitem__, default=0))
    return bool(areas) or Base.SubIFDs not in getattr(image, "tag_v2", {})


def is_preview(image: Image.Image) -> bool:
    """Whether it is at a preview, or a mask."""
    return bool(getattr(image, "tag_v2", {}).get(Base.NewSubfileType, 0) & 5)


def _is_preview_at(image: Image.Image, page: int) -> bool:
    image.seek(page)
    return is_preview(image)


def page_numbers(image: Image.Image) -> list[int]:
    """Of a TIFF, without previews and masks."""
    numbers = []
    for number in range(_MOST_PAGES):
        try:
            image.seek(number)
        except EOFError:
            break
        except SyntaxError:  # of a kind that Pillow does not know; its tags are there
            pass
        if not is_preview(image):
            numbers.append(number)
    return numbers


def count_pages(image: Image.Image) -> int:
    """How many pictures a file holds, apart from previews."""
    if image.format == "TIFF" and image.tell() > 0:
        return 1
    if image.format is None:
        return int(image.info.get(decoding.PAGES, 1))
    here = image.tell()
    try:
        if image.format == "MPO":
            infos = getattr(image, "mpinfo", {})[_MPO_PICTURES]
            return sum("Thumbnail" not in told["Attribute"]["MPType"] for told in infos)
        return len(page_numbers(image)) if image.format == "TIFF" else int(getattr(image, "n_frames", 1))
    except Exception:  # the others are damaged
        return 1
    finally:
        image.seek(here)
