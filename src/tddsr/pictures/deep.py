"""Files of more than 8 bits a channel, which PIL would reduce or cannot read: by libvips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image, UnidentifiedImageError

from tddsr.pictures.metadata import read_metadata
from tddsr.pictures.picture import Picture
from tddsr.pictures.vips import pyvips

_EXTRA, _PROFILE = 338, 34675
"""TIFF tags."""

_MULTIPLIED, _CLEAR = 1, 2
"""Kinds of transparency in these: the colours are multiplied with it, or are not."""


def _open(content: bytes, page: int = 0) -> pyvips.Image | None:
    """None: a file of another kind, or of 8 bits."""
    options = {"page": page} if page else {}
    try:
        image = pyvips.Image.new_from_buffer(content, "", access="sequential", fail_on="truncated", **options)
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
    if image is None:
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
    if image is None:
        return None
    metadata = read_metadata(opened)
    if image.interpretation not in ("rgb16", "grey16"):  # CMYK, Lab
        image, metadata = _in_srgb(image), replace(metadata, icc=None)
    if image.get_typeof("orientation") and image.get("orientation") > 1:
        image = image.copy_memory().autorot()
    extra = np.ravel(opened.getexif().get(_EXTRA, _CLEAR))[0]
    colours = 1 if image.bands < 3 else 3
    if image.bands > colours and extra == _MULTIPLIED:
        image = image.extract_band(0, n=colours + 1).unpremultiply().cast("ushort")
    pixels = image.numpy().reshape(image.height, image.width, -1)
    alpha = pixels[..., colours] if image.bands > colours and extra in (_CLEAR, _MULTIPLIED) else None
    rgb = pixels[..., :3] if colours == 3 else pixels[..., :1].repeat(3, axis=2)
    return Picture(rgb, alpha, colours == 1, metadata.fitting(grey=colours == 1))


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
