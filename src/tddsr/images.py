"""Picture files, read and written: RGB, grey (8 and 16 bit), transparency, ICC profile, EXIF, orientation."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from tddsr.files import whole_or_nothing

Pixels = NDArray[Any]
"""(H,W,3) or (H,W); uint8, uint16, or floating point in [0,1]."""

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


class ImageError(ValueError):
    """A file that cannot be read or written as a picture; the message is one line that names the file."""


@dataclass
class Picture:
    """A picture apart from its file.

    ``rgb`` is (H,W,3) uint8 or uint16, ``alpha`` (H,W) of the same type or None. A grey picture has three equal
    channels and ``grey`` set, and is written as grey. Orientation has been applied.
    """

    rgb: Pixels
    alpha: Pixels | None = None
    grey: bool = False
    icc: bytes | None = None
    exif: bytes | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.rgb.shape[1], self.rgb.shape[0]

    @property
    def rgb_8_bit(self) -> Pixels:
        """``rgb`` as uint8."""
        return self.rgb if self.rgb.dtype == np.uint8 else (self.rgb // 257).astype(np.uint8)


def from_pil(image: Image.Image) -> Picture:
    """Take a PIL image of any mode apart.

    Raises:
        ValueError: it has no pixels, or floating-point ones.
    """
    if 0 in image.size:
        raise ValueError(f"a picture of {image.width}x{image.height} has no pixels")
    image = ImageOps.exif_transpose(image)
    exif = image.getexif().tobytes() or None
    icc = image.info.get("icc_profile")
    if image.mode == "F":
        raise ValueError("floating-point pictures are not supported: convert it to 8 or 16 bit")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if image.mode == "I" and (values.min() < 0 or values.max() > 65535):
            raise ValueError("32-bit pictures are not supported: convert it to 8 or 16 bit")
        return Picture(np.repeat(values.astype(np.uint16)[..., None], 3, axis=2), None, True, icc, exif)
    grey = image.mode in ("1", "L", "LA", "La")
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
    if picture.grey:
        # The channels of a grey picture may differ a little after a network; take their BT.601 luma.
        luma = (picture.rgb @ np.array([0.299, 0.587, 0.114])).round().astype(picture.rgb.dtype)
        image = Image.fromarray(luma)
    else:
        image = Image.fromarray(picture.rgb)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    if picture.icc:
        image.info["icc_profile"] = picture.icc
    return image


def find(folder: Path) -> list[Path]:
    """All picture files below ``folder``, sorted.

    Raises:
        ImageError: the folder is missing, or holds no pictures.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder}: no such folder")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in READABLE and p.is_file())
    if not found:
        raise ImageError(f"{folder}: holds no pictures ({', '.join(sorted(READABLE))})")
    return found


def read(path: Path) -> Picture:
    """Read a picture file.

    Raises:
        ImageError: the file is missing, not a picture, damaged, too large, or of an unsupported kind.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                return from_pil(image)
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
    # Pillow's decoders raise whatever their format's code happened upon in a damaged file.
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError, OverflowError) as error:
        raise ImageError(f"{path}: {error or 'damaged picture'}") from error


def check_writable(path: Path, size: tuple[int, int] | None = None, alpha: bool = False) -> None:
    """Raise ImageError if a picture of ``size`` (width, height) cannot be written as the kind that ``path`` names."""
    if path.suffix.lower() not in _WRITERS:
        raise ImageError(f"{path}: cannot write '{path.suffix}' files; use one of {', '.join(sorted(WRITABLE))}")
    name, largest, _ = _WRITERS[path.suffix.lower()]
    if size is not None and max(size) > largest:
        raise ImageError(f"{path}: {name} holds at most {largest} pixels a side, not {size[0]}x{size[1]}; write .png")
    if alpha and name == "JPEG":
        raise ImageError(f"{path}: JPEG cannot hold transparency; write .png or .webp")


def write(path: Path, picture: Picture) -> None:
    """Write a picture file, whole or not at all, of the kind that its suffix says.

    Raises:
        ImageError: the kind of file is unknown or cannot hold the picture, or the folder cannot be written to.
    """
    check_writable(path, picture.size, picture.alpha is not None)
    name, _, options = _WRITERS[path.suffix.lower()]
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
