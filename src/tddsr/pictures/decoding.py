"""What Pillow would reduce or cannot read: TIFF, and more than 8 bits a channel; by libvips, HEIC by pillow_heif."""

from __future__ import annotations

import contextlib
import importlib
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image
from PIL.ExifTags import Base

from tddsr.errors import ImageError, ImageWarning
from tddsr.pictures import raw
from tddsr.pictures.metadata import read_metadata
from tddsr.pictures.picture import Picture, Pixels, in_range, to_type
from tddsr.pictures.profiles import UNUSED
from tddsr.pictures.vips import open_in_rows, pyvips

MARKS = (b"II", b"MM")
"""What a TIFF begins with."""

PAGES = "pages"
"""How many pictures a TIFF holds, in the ``info`` of what stands in for it."""

_COLOURS = {0, 1, 2, 3, 5, 6, 8}
"""Grey, RGB, palettes, CMYK, YCbCr, Lab: libvips would take others, such as ICCLab and raws, for RGB."""

_JPEG, _YCBCR = 7, 6
"""A compression, and colours that libvips takes for RGB if they are not compressed so."""

_CLEAR = (1, 2)
"""Kinds of extra channel that are transparency: 1, colours are multiplied by it (libvips undoes that); 2, not."""


def _is_usual(image: pyvips.Image) -> bool:
    """Whole numbers of 8 or 16 bits, or floating point."""
    return image.format in ("uchar", "ushort", "float") or image.interpretation == "labs"


def stand_in(content: bytes) -> Image.Image:
    """Size and metadata of a TIFF that PIL cannot open, of whose pictures the first is read.

    Raises:
        Image.DecompressionBombError: its header says that it is far too large.
        pyvips.Error: it is damaged.
    """
    tags = Image.Exif()
    tags.load(content)
    if raw.is_raw_tags(tags):
        return raw.opened(content)
    image = open_in_rows(content)
    if not _is_usual(image):
        raise ImageError("whole numbers of 32 bits, or with a sign, are not supported: convert it to 8 or 16 bit")
    if image.width * image.height > 2 * (Image.MAX_IMAGE_PIXELS or np.inf):
        raise Image.DecompressionBombError
    told = Image.new("1", (image.width, image.height))
    told.getexif().load(content)
    told.info |= {"icc_profile": tags.get(Base.InterColorProfile), PAGES: image.get_n_pages()}
    return told


def read(content: bytes, opened: Image.Image) -> Picture | None:
    """The picture; None if it is one for PIL, which has ``opened`` it.

    Raises:
        Exception: it is damaged.
        ImageError: libvips would read it wrongly.
    """
    if opened.format == "RAW":
        return raw.developed(content, opened)
    if opened.format == "HEIF":
        return _deep_heif(content, opened) if opened.info.get("bit_depth", 8) > 8 else None
    tags = tags_of(opened)
    colours = tags.get(Base.PhotometricInterpretation, 1)
    wrong = colours == _YCBCR and tags.get(Base.Compression) != _JPEG
    if opened.format not in ("TIFF", None, "PNG", "AVIF") or wrong or opened.mode == "LAB":
        return None
    if colours not in _COLOURS:
        raise ImageError(f"its kind of colours ({colours}) is not supported: convert it to RGB")
    try:
        image = open_in_rows(content, opened.tell())
    except pyvips.Error:
        if opened.format == "AVIF":  # libvips knows no animated ones
            return None
        raise
    if image.format == "char":  # Pillow would take those below 0 for the brightest
        raise ImageError("whole numbers of 8 bit with a sign are not supported: convert it")
    if not _is_usual(image) or (image.format == "uchar" and opened.format in ("PNG", "AVIF")):
        return None
    try:
        return _decoded(image, opened)
    except pyvips.Error as error:
        if "ResolutionUnit" in str(error) and (mended := _without_unit(content)) != content:
            return read(mended, opened)
        if opened.format is None or not re.search("support is not configured|planes not supported", str(error)):
            raise
        if image.format == "ushort" and not opened.mode.startswith("I"):
            warnings.warn("reduced to 8 bit: libvips cannot unpack it", ImageWarning, stacklevel=2)
        return None


def _without_unit(content: bytes) -> bytes:
    """A TIFF whose resolution has no unit: one that libvips does not know costs the picture."""
    for entry, none in ((b"\x28\1\3\0\1\0\0\0", b"\1\0"), (b"\1\x28\0\3\0\0\0\1", b"\0\1")):
        content = re.sub(re.escape(entry) + b"..", entry + none, content, flags=re.DOTALL)
    return content


def tags_of(opened: Image.Image) -> Mapping[int, Any]:
    """Of a TIFF."""
    return opened.getexif() if opened.format is None else getattr(opened, "tag_v2", {})


def _decoded(image: pyvips.Image, opened: Image.Image) -> Picture:
    metadata, tags = read_metadata(opened), tags_of(opened)
    floating, in_planes = image.format == "float", tags.get(Base.PlanarConfiguration) == 2
    negative = tags.get(Base.PhotometricInterpretation) == 0
    if floating and (negative or image.interpretation not in ("scrgb", "b-w", "grey16")):
        raise ImageError("floating point is read as RGB, or as grey of which 0 is black: convert it")
    if image.interpretation not in ("srgb", "rgb16", "scrgb", "b-w", "grey16"):  # CMYK, Lab
        image, metadata = _in_srgb(image), replace(metadata, icc=None)
    if image.get_typeof("orientation") and image.get("orientation") > 1:
        image = image.copy_memory().autorot()
    grey = image.interpretation in ("b-w", "grey16")
    colours = 1 if grey else 3
    half = floating and np.ravel(tags.get(Base.BitsPerSample, 32))[0] == 16
    if in_planes and image.bands > 1 and (grey or half):
        raise ImageError("such planes are read wrongly by libvips: save it with pixels side by side")
    pixels = image.numpy().reshape(image.height, image.width, -1)
    if opened.format == "AVIF" and image.get_typeof("bits-per-sample"):
        pixels = _widened(pixels, image.get("bits-per-sample"))
    return Picture.of(_without_others(pixels, colours, tags), metadata.fitting(grey))


def _deep_heif(content: bytes, opened: Image.Image) -> Picture:
    file = importlib.import_module("pillow_heif").open_heif(content, convert_hdr_to_8bit=False)
    pixels = np.asarray(file[opened.tell()]).reshape(opened.height, opened.width, -1)
    return Picture.of(_widened(pixels, opened.info["bit_depth"]), read_metadata(opened).fitting(pixels.shape[2] < 3))


def _widened(pixels: Pixels, bits: int) -> Pixels:
    """So many bits, the highest of 16, as 16: white as white."""
    unused = 16 - bits
    return to_type((pixels >> unused) * (65535 / (65535 >> unused)), pixels.dtype)


def _without_others(pixels: Pixels, colours: int, tags: Mapping[int, Any]) -> Pixels:
    """(H,W,channels): the first ``colours``, and of the extra ones that which is transparency."""
    extra = pixels.shape[2] - colours
    told = np.ravel(tags.get(Base.ExtraSamples, _CLEAR[1]))[:extra]
    clear = [colours + place for place, kind in enumerate(told) if kind in _CLEAR][:1]
    if extra > len(clear):
        warnings.warn(f"extra channels left out: {extra - len(clear)}", ImageWarning, stacklevel=2)
    kept = [*range(colours), *clear]
    pixels = pixels[..., : len(kept)] if kept == [*range(len(kept))] else pixels[..., kept]
    return in_range(pixels) if pixels.dtype == np.float32 else pixels


def _in_srgb(image: pyvips.Image) -> pyvips.Image:
    """CMYK or Lab as RGB, by the file's profile where there is one that can be used."""
    deep = image.format != "uchar"
    usual, depth, white = ("rgb16", 16, 65535) if deep else ("srgb", 8, 255)
    if image.interpretation != "cmyk":
        return image.colourspace(usual)
    profile = image.get("icc-profile-data") if image.get_typeof("icc-profile-data") else b""
    if profile[16:20] == b"CMYK":
        with contextlib.suppress(pyvips.Error):
            return image.icc_transform(
                "srgb", embedded=True, depth=depth, intent="relative", black_point_compensation=True
            )
    if profile:
        warnings.warn(UNUSED, ImageWarning, stacklevel=2)
    light = image.invert()
    rgb = (light[:3] * light[3] / white).rint().cast(image.format).copy(interpretation=usual)
    return rgb if image.bands == 4 else rgb.bandjoin(image[4:])
