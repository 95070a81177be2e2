"""Picture files, read and written: RGB, grey (8 and 16 bit), transparency, metadata, orientation."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError, features

from tddsr.errors import ImageError, ImageWarning
from tddsr.files import whole_or_nothing
from tddsr.pictures.metadata import Metadata, read_metadata, save_options
from tddsr.pictures.picture import Picture, to_8_bit

READABLE = {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".tga"}
READABLE |= {".avif"} if "avif" in features.get_supported() else set()
"""Suffixes of the files that a folder is searched for."""

# Metadata of a picture may well be larger than Pillow expects.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 2**25)

_WRITERS: dict[str, tuple[str, int, dict[str, Any]]] = {
    ".png": ("PNG", 2**31 - 1, {}),
    ".jpg": ("JPEG", 65500, {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", 65500, {"quality": 95, "subsampling": 0}),
    ".jfif": ("JPEG", 65500, {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", 16383, {"quality": 95}),
    ".tif": ("TIFF", 2**31 - 1, {"compression": "tiff_lzw"}),
    ".tiff": ("TIFF", 2**31 - 1, {"compression": "tiff_lzw"}),
}
"""Suffix -> format, largest side, options."""

WRITABLE = set(_WRITERS)

_PHOTOMETRIC, _PLANES, _BITS, _SUBFILE, _SUB_PICTURES = 262, 284, 258, 254, 330
"""TIFF tags."""


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """CMYK, LAB or grey as RGB, by its profile where there is one that can be used."""
    with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
        source = (
            ImageCms.createProfile("LAB")
            if image.mode == "LAB"
            else ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
        )
        converted = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
        if converted is not None:
            return converted
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image, white_is_zero: bool, metadata: Metadata) -> Picture:
    """Of 16 bit, or of 32 bit that are no more than 16, or 8."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError("32-bit pictures are not supported: convert it to 8 or 16 bit")
    values = values.astype(np.uint8 if image.mode == "I" and values.max() <= 255 else np.uint16)
    alpha = None
    if isinstance(clear := image.info.get("transparency"), int):
        alpha = np.where(values == clear, 0, 255).astype(np.uint8)
        values = to_8_bit(values)  # PIL holds no 16-bit picture with transparency
    if white_is_zero:  # Pillow turns 8 bit over, not 16
        values = np.iinfo(values.dtype).max - values
    return Picture(np.repeat(values[..., None], 3, axis=2), alpha, True, metadata)


def from_pil(image: Image.Image) -> Picture:
    """Take a PIL image of any mode apart. Mode I is 16 bit, or 8 bit where no value is above 255.

    Raises:
        ImageError: it has no pixels, floating-point ones, or 16-bit ones in planes, which PIL decodes wrongly.
    """
    if 0 in image.size:
        raise ImageError(f"a picture of {image.width}x{image.height} has no pixels")
    metadata = read_metadata(image)
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PLANES) == 2 and tags.get(_BITS, (8,))[0] > 8:
        raise ImageError("16-bit colour in planes is not supported: save it as 8 bit, or with pixels side by side")
    white_is_zero = tags.get(_PHOTOMETRIC) == 0
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ImageError("floating-point pictures are not supported: convert it to 8 or 16 bit")
    if image.mode.startswith("I"):
        return _from_deep_grey(image, white_is_zero, metadata)
    if image.mode == "La":  # grey that is multiplied with its transparency: PIL knows one way out of it
        image = image.convert("LA")
    grey = image.mode in ("1", "L", "LA")
    fitting = {"GRAY", "RGB"} if grey else {"RGB"}
    if image.mode in ("CMYK", "LAB"):
        image, fitting = _in_srgb(image, metadata.icc), set()
    if image.mode in ("YCbCr", "HSV") or metadata.colour_space not in fitting:
        metadata = replace(metadata, icc=None)  # it describes other colours than those from here on
    if image.has_transparency_data:
        pixels = np.asarray(image.convert("RGBA"))
        return Picture(np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3]), grey, metadata)
    return Picture(np.asarray(image.convert("RGB")), None, grey, metadata)


def to_pil(picture: Picture) -> Image.Image:
    """Put a picture together again: L, LA, I;16, RGB or RGBA.

    Raises:
        ImageError: 16-bit colour or transparency, which PIL cannot hold.
    """
    if picture.rgb.dtype == np.uint16 and (not picture.grey or picture.alpha is not None):
        raise ImageError("16-bit pictures can only be grey and opaque")
    image = Image.fromarray(picture.luma if picture.grey else picture.rgb)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    image.info.update(picture.metadata.info)
    return image


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture file; whatever goes wrong with it inside the block is an ImageError."""
    try:
        with warnings.catch_warnings():
            # Damaged metadata, large pictures: an error, or of no account.
            warnings.filterwarnings("ignore", module=r"PIL\b")
            with Image.open(path) as image:
                _choose_page(image)
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


def _choose_page(image: Image.Image) -> None:
    """Of a TIFF file that begins with a preview, go to the largest page that is none."""
    if image.format != "TIFF" or not _is_preview(image):
        return
    areas = {}
    for page in range(getattr(image, "n_frames", 1)):
        image.seek(page)
        if not _is_preview(image):
            areas[page] = image.width * image.height
    image.seek(max(areas, key=areas.__getitem__, default=0))
    if not areas and _SUB_PICTURES in getattr(image, "tag_v2", {}):
        raise ImageError("only its preview can be read, as of raw files: convert it first")


def _is_preview(image: Image.Image) -> bool:
    return bool(getattr(image, "tag_v2", {}).get(_SUBFILE, 0) & 1)


def _pages(image: Image.Image) -> int:
    """How many pictures a file holds, apart from previews."""
    if image.format == "MPO" or (image.format == "TIFF" and image.tell() > 0):
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # the others are damaged
        return 1


def _load(path: Path, image: Image.Image) -> Image.Image:
    """Decode a picture, of JPEG also one that only lacks the mark of its end."""
    try:
        image.load()
        return image
    except OSError:
        if image.format != "JPEG":
            raise
        # Other bytes after the last one change nothing if all pixels are there.
        endings = (b"\xff\xd9", bytes.fromhex("5a") * 1000 + b"\xff\xd9")
        ended = [Image.open(io.BytesIO(path.read_bytes() + ending)) for ending in endings]
        if not np.array_equal(np.asarray(ended[0]), np.asarray(ended[1])):
            raise
        warnings.warn(f"{path}: the mark of its end is missing, all pixels are there", ImageWarning, stacklevel=2)
        return ended[0]


def _is_lossless_webp(path: Path) -> bool:
    """Whether the first picture of a WebP file is packed so that it lost nothing."""
    with path.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            if head[:4] in (b"VP8 ", b"VP8L"):
                return head[:4] == b"VP8L"
            size = 16 if head[:4] == b"ANMF" else int.from_bytes(head[4:], "little")
            file.seek(size + size % 2, os.SEEK_CUR)
    return False


def holds_transparency(path: Path) -> bool:
    """Whether a file is a picture with transparency, by its header."""
    with contextlib.suppress(ImageError), _opened(path) as image:
        return image.has_transparency_data
    return False


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
        if (pages := _pages(image)) > 1:
            warnings.warn(f"{path}: holds {pages} pictures, the first is taken", ImageWarning, stacklevel=2)
        picture = from_pil(_load(path, image))
        if image.format == "WEBP" and _is_lossless_webp(path):
            picture.metadata = replace(picture.metadata, lossless=True)
        return picture


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
    metadata = picture.metadata
    if name in ("JPEG", "WEBP") and picture.rgb.dtype == np.uint16:
        picture = replace(picture, rgb=picture.rgb_8_bit)  # all that these kinds of file can hold
    try:
        if name == "WEBP" and metadata.colour_space == "GRAY":  # such a file has three channels
            colour = np.asarray(_in_srgb(Image.fromarray(picture.luma), metadata.icc))
            picture, metadata = replace(picture, rgb=colour, grey=False), replace(metadata, icc=None)
        image = to_pil(replace(picture, metadata=Metadata()))
        if name == "WEBP" and metadata.lossless:
            options = {"lossless": True, "exact": True}
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_or_nothing(path) as temporary:
            _save(image, temporary, name, options, metadata)
    except OSError as error:
        raise ImageError(f"{path}: cannot be written ({error.strerror or error})") from error
    except ValueError as error:
        raise ImageError(f"{path}: cannot be written ({error})") from error


def _save(image: Image.Image, path: Path, name: str, options: dict[str, Any], metadata: Metadata) -> None:
    """Save with all the metadata; with less where the file, or PIL, cannot hold all: they must not cost the picture."""
    try:
        told, gone = save_options(metadata, name)
        image.save(path, name, **options | told)
        if gone:
            left_out = ", ".join(gone)
            warnings.warn(f"{left_out} left out: too long for {name}, which holds 64 KiB", ImageWarning, stacklevel=2)
    except Exception as error:
        if (isinstance(error, OSError) and error.errno is not None) or metadata == (
            least := Metadata(icc=metadata.icc)
        ):
            raise
        _save(image, path, name, options, least)
        warnings.warn(f"metadata left out: {name} cannot hold them ({error})", ImageWarning, stacklevel=2)
