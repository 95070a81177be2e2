"""PIL images as pictures, and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image, ImageOps
from PIL.ExifTags import Base

from tddsr.errors import ImageError
from tddsr.pictures.metadata import Metadata, read_metadata
from tddsr.pictures.picture import Picture, Pixels, in_range, to_8_bit
from tddsr.pictures.profiles import in_srgb

BAND = 256
"""Rows that are converted, or put together, at a time."""


def _from_deep_grey(image: Image.Image, white_is_zero: bool, metadata: Metadata) -> Picture:
    """Of 16 bit, or of 32 bit that are no more than 16, or 8."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        told = f"{values.min()} to {values.max()}"
        raise ImageError(f"its values are {told}, and only 0 to 65535 are read: convert it to 8 or 16 bit")
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
        ImageError: it has no pixels, or 16-bit ones in planes, which PIL decodes wrongly; 32 bits, unless 16 suffice;
            or floating point that is not in [0,1].
    """
    if 0 in image.size:
        raise ImageError(f"a picture of {image.width}x{image.height} has no pixels")
    metadata = read_metadata(image)
    tags = getattr(image, "tag_v2", {})
    if tags.get(Base.PlanarConfiguration) == 2 and tags.get(Base.BitsPerSample, (8,))[0] > 8:
        raise ImageError("16-bit colour in planes is not supported: save it as 8 bit, or with pixels side by side")
    white_is_zero = tags.get(Base.PhotometricInterpretation) == 0
    if image.getexif().get(Base.Orientation, 1) != 1:  # or it would be copied all the same
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        return Picture.of(in_range(np.asarray(image)[..., None]), metadata.fitting(grey=True))
    if image.mode.startswith("I"):
        return _from_deep_grey(image, white_is_zero, metadata)
    if image.mode == "La":  # grey that is multiplied with its transparency: PIL knows one way out of it
        image = image.convert("LA")
    grey = image.mode in ("1", "L", "LA")
    if image.mode in ("CMYK", "LAB"):
        image, metadata = Image.fromarray(in_srgb(image, metadata.icc)), replace(metadata, icc=None)
    metadata = replace(metadata, icc=None) if image.mode in ("YCbCr", "HSV") else metadata.fitting(grey)
    if image.has_transparency_data:
        pixels = np.asarray(image.convert("RGBA"))
        return Picture(np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3]), grey, metadata)
    return Picture(_rgb(image), None, grey, metadata)


def _rgb(image: Image.Image) -> Pixels:
    """(H,W,3), band by band: of the whole at once there would be three copies for a while."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, BAND):
        box = (0, top, image.width, min(top + BAND, image.height))
        pixels[top : top + BAND] = np.asarray(image.crop(box).convert("RGB"))
    return pixels


def to_pil(picture: Picture) -> Image.Image:
    """Put a picture together again: L, LA, I;16, F, RGB or RGBA.

    Raises:
        ImageError: 16-bit or floating-point colour or transparency, which PIL cannot hold.
    """
    if picture.rgb.dtype != np.uint8 and (not picture.grey or picture.alpha is not None):
        raise ImageError("pictures of more than 8 bits can only be grey and opaque")
    image = Image.fromarray(picture.luma if picture.grey else picture.rgb)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    metadata = picture.metadata
    told = {"icc_profile": metadata.icc, "exif": metadata.exif, "xmp": metadata.xmp, "dpi": metadata.dpi}
    image.info.update({key: value for key, value in told.items() if value})
    return image
