"""Camera raws, which LibRaw develops, by the package rawpy."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
from collections.abc import Mapping
from typing import Any

from PIL import ExifTags, Image
from PIL.ExifTags import Base

from tddsr.errors import ImageError
from tddsr.pictures.metadata import read_metadata
from tddsr.pictures.picture import Picture

INSTALLED = importlib.util.find_spec("rawpy") is not None

SUFFIXES = {".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".pef", ".raf", ".rw2", ".srw"}

_HEADS = {0: (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0"), 4: (b"ftypcrx ",), 8: (b"CR\2",)}
"""Place -> what is there in a file of a camera: of Fujifilm, Olympus, Panasonic and Canon. Others are TIFFs."""

_SENSOR = 32803
"""What the colours of a TIFF are if they are those of a sensor."""

_MAKER_NOTE = 37500
"""Of megabytes, and with places in the file that it was in."""


def is_raw_head(head: bytes) -> bool:
    """Whether a file that begins so is a raw."""
    return any(head.startswith(mark, place) for place, marks in _HEADS.items() for mark in marks)


def is_raw_tags(tags: Mapping[int, Any]) -> bool:
    """Whether a TIFF with such tags is a raw."""
    return Base.DNGVersion in tags or tags.get(Base.PhotometricInterpretation) == _SENSOR


def opened(content: bytes) -> Image.Image:
    """Size and metadata of a raw.

    Raises:
        ImageError: rawpy is not installed.
        Image.DecompressionBombError: its header says that it is far too large.
        rawpy.LibRawError: it is damaged, or of an unknown camera.
    """
    if not INSTALLED:
        raise ImageError("camera raws need one more package: pip install 'tddsr[raw]'")
    with importlib.import_module("rawpy").imread(io.BytesIO(content)) as raw:
        sizes = raw.sizes
    size = (sizes.iheight, sizes.iwidth) if sizes.flip in (5, 6) else (sizes.iwidth, sizes.iheight)
    if Image.MAX_IMAGE_PIXELS and size[0] * size[1] > 2 * Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError
    told = Image.new("1", size)
    told.format = "RAW"
    with contextlib.suppress(Exception):  # not all are TIFFs
        tags = told.getexif()
        tags.load(content)
        tags.get_ifd(ExifTags.IFD.Exif).pop(_MAKER_NOTE, None)
    return told


def developed(content: bytes, opened: Image.Image) -> Picture:
    """The picture as 16-bit sRGB, by the white balance of the camera and as bright as LibRaw makes it."""
    rawpy = importlib.import_module("rawpy")
    with rawpy.imread(io.BytesIO(content)) as raw:
        pixels = raw.postprocess(use_camera_wb=True, output_bps=16, gamma=(2.4, 12.92))
    return Picture.of(pixels, read_metadata(opened))
