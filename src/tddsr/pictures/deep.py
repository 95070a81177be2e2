"""Files of more than 8 bits a channel, which PIL would reduce or cannot read: by libvips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image, UnidentifiedImageError

from tddsr.errors import ImageError
from tddsr.pictures.metadata import read_metadata
from tddsr.pictures.picture import Picture, to_type
from tddsr.pictures.vips import pyvips

_PLANES, _EXTRA, _PROFILE = 284, 338, 34675
"""TIFF tags."""

_CLEAR = (2, 1)
"""What the first extra channel may say of itself if it is transparency. libvips has divided the colours by it."""


def _open(content: bytes, page: int = 0) -> pyvips.Image | None:
    """None: a file of another kind, or of 8 bits."""
    options = {"page": page} if page else {}
    try:
        image = pyvips.Image.new_from_buffer(content, "", access="sequential", fail_on="error", **options)
    except pyvips.Error:
        return None
    return image if image.format == "ushort" or image.interpretation == "labs" else None


def stand_in(content: bytes) -> Image.Image:
    """Size and metadata of a deep file that PIL cannot open, which is a TIFF.

    Raises:
        UnidentifiedImageError: it is none.
        Image.DecompressionBombError: its header says that it is far too large.
    """
    image = _open(content)
    if image is None or not content.startswith((b"II", b"MM")):
        raise UnidentifiedImageError
    if image.width * image.height > 2 * (Image.MAX_IMAGE_PIXELS or np.inf):
        raise Image.DecompressionBombError
    told = Image.new("1", (image.width, image.height))
    tags = told.getexif()
    tags.load(content)
    told.info["icc_profile"] = tags.get(_PROFILE)
    return told


def read(content: bytes, opened: Image.Image) -> Picture | None:
    """The picture, all of its bits; None if ``opened`` by PIL is as good.

    Raises:
        pyvips.Error: it is damaged.
    """
    image = _open(content, opened.tell() if opened.format == "TIFF" else 0)
    if image is None or opened.format == "HEIF":  # which only PIL's plugin decodes
        return None
    metadata = read_metadata(opened)
    if image.interpretation not in ("rgb16", "grey16"):  # CMYK, Lab
        image, metadata = _in_srgb(image), replace(metadata, icc=None)
    if image.get_typeof("orientation") and image.get("orientation") > 1:
        image = image.copy_memory().autorot()
    tags = opened.getexif()
    grey = image.interpretation == "grey16"
    colours = 1 if grey else 3
    if grey and image.bands > 1 and tags.get(_PLANES) == 2:
        raise ImageError("grey in planes is read wrongly by libvips: save it with pixels side by side")
    pixels = image.numpy().reshape(image.height, image.width, -1)
    unused = 16 - (image.get("bits-per-sample") if image.get_typeof("bits-per-sample") else 16)
    if unused in (4, 6):  # of AVIF, whose lowest bits are zero here
        pixels = to_type((pixels >> unused) * (65535 / (65535 >> unused)), pixels.dtype)
    clear = image.bands > colours and np.ravel(tags.get(_EXTRA, _CLEAR[0]))[0] in _CLEAR
    rgb = pixels[..., :1].repeat(3, axis=2) if grey else pixels[..., :3]
    return Picture(rgb, pixels[..., colours] if clear else None, grey, metadata.fitting(grey))


def _in_srgb(image: pyvips.Image) -> pyvips.Image:
    """CMYK or Lab as 16-bit RGB, by the file's profile where there is one that can be used."""
    if image.interpretation == "cmyk" and image.get_typeof("icc-profile-data"):
        try:
            return image.icc_transform(
                "srgb", embedded=True, depth=16, intent="relative", black_point_compensation=True
            )
        except pyvips.Error:
            pass
    return image.colourspace("rgb16")
