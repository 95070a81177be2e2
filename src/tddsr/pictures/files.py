"""Picture files, read and written: RGB, grey (8 and 16 bit), transparency, ICC profile, EXIF, orientation."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from tddsr.errors import ImageError
from tddsr.files import whole_or_nothing
from tddsr.pictures.picture import Picture

READABLE = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"}
"""Suffixes of the files that a folder is searched for."""

_WRITERS: dict[str, tuple[str, int, dict[str, Any]]] = {
    ".png": ("PNG", 2**31 - 1, {}),
    ".jpg": ("JPEG", 65500, {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", 65500, {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", 16383, {"quality": 95}),
    ".tif": ("TIFF", 2**31 - 1, {"compression": "tiff_lzw"}),
    ".tiff": ("TIFF", 2**31 - 1, {"compression": "tiff_lzw"}),
}
"""Suffix -> format, largest side, options."""

WRITABLE = set(_WRITERS)


_LAYOUT_TAGS = {
    256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 288, 289, 317, 320, 322, 323, 324, 325, 330, 338, 339,
    513, 514, 529, 530, 531, 532, 700, 33723, 34377, 34675,
}  # fmt: skip
"""EXIF and TIFF tags that describe how this file's pixels are stored, orientation among them: not true of another."""

_SIZE_TAGS = {ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight}


def _kept_exif(image: Image.Image) -> bytes | None:
    """What the EXIF data say of the picture, apart from how its pixels are stored; None if that is nothing."""
    exif = Image.Exif()
    try:
        exif.load(image.getexif().tobytes())  # a copy: the picture still needs its orientation
        for tag in _LAYOUT_TAGS & set(exif):
            del exif[tag]
        if ExifTags.IFD.Exif in exif:
            details = exif.get_ifd(ExifTags.IFD.Exif)
            for tag in _SIZE_TAGS & set(details):
                del details[tag]
            if not details:
                del exif[ExifTags.IFD.Exif]
        return exif.tobytes() if len(exif) else None
    except Exception:  # damaged EXIF data must not cost the picture
        return None


def from_pil(image: Image.Image) -> Picture:
    """Take a PIL image of any mode apart.

    Raises:
        ValueError: it has no pixels, or floating-point ones.
    """
    if 0 in image.size:
        raise ValueError(f"a picture of {image.width}x{image.height} has no pixels")
    exif = _kept_exif(image)
    white_is_zero = getattr(image, "tag_v2", {}).get(ExifTags.Base.PhotometricInterpretation) == 0
    image = ImageOps.exif_transpose(image)
    icc = image.info.get("icc_profile")
    if image.mode == "F":
        raise ValueError("floating-point pictures are not supported: convert it to 8 or 16 bit")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if image.mode == "I" and (values.min() < 0 or values.max() > 65535):
            raise ValueError("32-bit pictures are not supported: convert it to 8 or 16 bit")
        values = values.astype(np.uint16)
        if white_is_zero:  # Pillow turns 8 bit over, not 16
            values = 65535 - values
        return Picture(np.repeat(values[..., None], 3, axis=2), None, True, icc, exif)
    if image.mode == "La":  # grey that is multiplied with its transparency: PIL knows one way out of it
        image = image.convert("LA")
    grey = image.mode in ("1", "L", "LA")
    if image.mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        icc = None  # the profile describes colours that are converted here
    if image.has_transparency_data:
        pixels = np.asarray(image.convert("RGBA"))
        return Picture(np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3]), grey, icc, exif)
    return Picture(np.asarray(image.convert("RGB")), None, grey, icc, exif)


def to_pil(picture: Picture) -> Image.Image:
    """Put a picture together again: L, LA, I;16, RGB or RGBA.

    Raises:
        ValueError: 16-bit colour or transparency, which PIL cannot hold.
    """
    if picture.rgb.dtype == np.uint16 and (not picture.grey or picture.alpha is not None):
        raise ValueError("16-bit pictures can only be grey and opaque")
    image = Image.fromarray(picture.luma if picture.grey else picture.rgb)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    for key, value in (("icc_profile", picture.icc), ("exif", picture.exif)):
        if value:
            image.info[key] = value
    return image


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture file; whatever goes wrong with it inside the block is an ImageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata, large pictures: an error, or of no account
            with Image.open(path) as image:
                yield image
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: is a folder, not a picture") from None
    except PermissionError:
        raise ImageError(f"{path}: may not be read (permission denied)") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not a picture, or of a kind that cannot be read") from None
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise ImageError(f"{path}: its header says more than {most} million pixels, which is refused") from None
    except MemoryError:
        raise ImageError(f"{path}: too large for this machine's memory") from None
    except Exception as error:  # Pillow's decoders raise whatever they happened upon in a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{path}: damaged or unsupported ({reason})") from error


def header_size(path: Path) -> tuple[int, int]:
    """(width, height) by the file's header, without decoding it.

    Raises:
        ImageError: the file is missing or not a picture.
    """
    with _opened(path) as image:
        return image.size


def read_picture(path: Path) -> Picture:
    """Read a picture file.

    Raises:
        ImageError: the file is missing, not a picture, damaged, too large, or of an unsupported kind.
    """
    with _opened(path) as image:
        image.load()
        return from_pil(image)


def check_writable(path: Path, size: tuple[int, int] | None = None, alpha: bool = False) -> None:
    """Raise ImageError if a picture of ``size`` (width, height) cannot be written to ``path``, before it is made."""
    if path.suffix.lower() not in _WRITERS:
        raise ImageError(f"{path}: cannot write '{path.suffix}' files; use one of {', '.join(sorted(WRITABLE))}")
    name, largest, _ = _WRITERS[path.suffix.lower()]
    if size is not None and max(size) > largest:
        raise ImageError(f"{path}: {name} holds at most {largest} pixels a side, not {size[0]}x{size[1]}; write .png")
    if alpha and name == "JPEG":
        raise ImageError(f"{path}: JPEG cannot hold transparency; write .png or .webp")
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ImageError(f"{path}: cannot be written (no permission to write to {existing}, or not a folder)")


def write_picture(path: Path, picture: Picture) -> None:
    """Write a picture file, whole or not at all, of the kind that its suffix says.

    Raises:
        ImageError: the kind of file is unknown or cannot hold the picture, or the folder cannot be written to.
    """
    check_writable(path, picture.size, picture.alpha is not None)
    name, _, options = _WRITERS[path.suffix.lower()]
    if name in ("JPEG", "WEBP") and picture.rgb.dtype == np.uint16:
        picture = replace(picture, rgb=picture.rgb_8_bit)  # all that these kinds of file can hold
    try:
        image = to_pil(picture)
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {key: value for key, value in (("icc_profile", picture.icc), ("exif", picture.exif)) if value}
        with whole_or_nothing(path) as temporary:
            image.save(temporary, name, **options, **metadata)
    except OSError as error:
        raise ImageError(f"{path}: cannot be written ({error.strerror or error})") from error
    except ValueError as error:
        raise ImageError(f"{path}: cannot be written ({error})") from error
