"""Small files of every kind that is read: what the page of formats and the mutations are made of."""

from __future__ import annotations

import functools
import importlib.util
import io
import struct
import zlib
from typing import Any

import numpy as np
import pyvips
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms
from PIL.PngImagePlugin import PngInfo

Pixels = NDArray[Any]

WIDTH, HEIGHT = 40, 32
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" dc:title="boats"/>'
IPTC = b"\x1c\x02\x78\0\5boats"


def pixels(channels: int = 3, dtype: type[np.generic] = np.uint8) -> Pixels:
    """(H,W,channels): smooth colours, the last of 2 or 4 channels from clear to opaque."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    planes = [x / WIDTH, y / HEIGHT, (x + y) / (WIDTH + HEIGHT), np.clip(x / WIDTH * 1.5 - 0.25, 0, 1)]
    chosen = {1: planes[:1], 2: [planes[0], planes[3]], 3: planes[:3], 4: planes}[channels]
    array: Pixels = (np.stack(chosen, axis=-1) * np.iinfo(dtype).max).round().astype(dtype)  # type: ignore[type-var]
    return array


def image(channels: int = 3) -> Image.Image:
    array = pixels(channels)
    return Image.fromarray(array.squeeze(axis=2) if channels == 1 else array)


def exif() -> Image.Exif:
    told = Image.Exif()
    told[ExifTags.Base.Make] = "maker"
    told[ExifTags.IFD.Exif] = {ExifTags.Base.ExposureTime: 0.5}
    told[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (1.0, 2.0, 3.0)}
    return told


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """By Pillow."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    """Of a PNG file."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def segment() -> bytes:
    """Of a JPEG file, with IPTC."""
    block = b"Photoshop 3.0\0" + b"8BIM\4\4\0\0" + struct.pack(">I", len(IPTC)) + IPTC + bytes(len(IPTC) % 2)
    return b"\xff\xed" + struct.pack(">H", len(block) + 2) + block


def png_with(*chunks: bytes, source: Image.Image | None = None) -> bytes:
    """A PNG with chunks behind its header."""
    content = saved(source or image(), "PNG")
    return content[:33] + b"".join(chunks) + content[33:]


def deep_png(channels: int) -> bytes:
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels(channels, np.uint16))
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(array: Pixels, **options: Any) -> bytes:
    """By tifffile."""
    file = io.BytesIO()
    tifffile.imwrite(file, array, metadata=None, **options)
    return file.getvalue()


def deep_tiff(channels: int, **options: Any) -> bytes:
    arranged = {"photometric": "rgb" if channels > 2 else "minisblack"}
    clear = {"extrasamples": [2]} if channels in (2, 4) else {}
    return tiff(pixels(channels, np.uint16).squeeze(), **arranged, **clear, **options)


def avif(bits: int) -> bytes:
    """By libvips."""
    deep = pyvips.Image.new_from_array(pixels(3, np.uint16)).copy(interpretation="rgb16")
    content: bytes = deep.heifsave_buffer(compression="av1", bitdepth=bits, keep="none")
    return content


def pages(kind: str, **options: Any) -> bytes:
    turned = image().transpose(Image.Transpose.ROTATE_180)
    return saved(image(), kind, save_all=True, append_images=[turned], **options)


def text() -> PngInfo:
    told = PngInfo()
    told.add_text("Comment", "box 4")
    told.add_text("Title", "Boats")
    told.add_itxt("XML:com.adobe.xmp", XMP.decode())
    return told


@functools.cache
def samples() -> dict[str, bytes]:
    """Name -> content: every kind, depth and layout that is read. Names begin with the kind."""
    linear = chunk(b"gAMA", struct.pack(">I", 100_000))
    told: dict[str, Any] = {"exif": exif().tobytes(), "icc_profile": PROFILE}
    tags = Image.Exif()
    tags.load(told["exif"])
    tags.update({700: XMP, 33723: IPTC})
    clear = image(3).quantize(16)
    files = {
        "png": png_with(linear, chunk(b"cICP", bytes([12, 13, 0, 1]))),
        "png metadata": saved(image(), "PNG", dpi=(300, 300), pnginfo=text(), **told),
        "png palette": saved(clear, "PNG", transparency=3),
        "png bits": saved(image(1).convert("1"), "PNG"),
        "png animated": pages("PNG", duration=[70, 200], loop=3),
        "png interlaced": pyvips.Image.new_from_array(pixels(4)).pngsave_buffer(interlace=True, keep="none"),
        "jpeg": saved(image(), "JPEG", quality=80),
        "jpeg metadata": saved(image(), "JPEG", dpi=(300, 300), comment=b"box 4", xmp=XMP, extra=segment(), **told),
        "jpeg progressive": saved(image(), "JPEG", progressive=True, restart_marker_blocks=4),
        "jpeg grey": saved(image(1), "JPEG"),
        "jpeg cmyk": saved(image().convert("CMYK"), "JPEG"),
        "webp": saved(image(), "WEBP", xmp=XMP, **told),
        "webp lossless": saved(image(4), "WEBP", lossless=True),
        "webp animated": pages("WEBP", duration=[70, 200], loop=3),
        "tiff metadata": saved(image(), "TIFF", dpi=(300, 300), compression="raw", tiffinfo=tags, icc_profile=PROFILE),
        "tiff jpeg": saved(image(), "TIFF", compression="jpeg"),
        "tiff lzw": saved(image(4), "TIFF", compression="tiff_lzw"),
        "tiff bits": saved(image(1).convert("1"), "TIFF", compression="group4"),
        "tiff cmyk": saved(image().convert("CMYK"), "TIFF", compression="tiff_adobe_deflate"),
        "tiff lab": saved(image().convert("LAB"), "TIFF"),
        "tiff pages": pages("TIFF"),
        "tiff planes": tiff(np.moveaxis(pixels(3, np.uint16), 2, 0), photometric="rgb", planarconfig="separate"),
        "tiff tiles": deep_tiff(3, tile=(16, 16), compression="zlib"),
        "tiff big": deep_tiff(1, bigtiff=True, compression="zlib"),
        "tiff 32": tiff(pixels(1, np.uint16).squeeze().astype(np.uint32)),
        "gif": saved(image(), "GIF", comment=b"box 4"),
        "gif animated": pages("GIF", duration=[70, 200], loop=2),
        "bmp": saved(image(), "BMP"),
        "bmp palette": saved(clear, "BMP"),
        "tga": saved(image(4), "TGA", rle=True),
        "avif": saved(image(4), "AVIF", xmp=XMP, **told),
        "avif 10": avif(10),
        "avif animated": pages("AVIF", duration=[70, 200]),
    }
    files |= {f"png {channels}x16": deep_png(channels) for channels in (1, 2, 3, 4)}
    files |= {f"tiff {channels}x16": deep_tiff(channels) for channels in (1, 2, 3, 4)}
    if importlib.util.find_spec("pillow_heif"):
        importlib.import_module("pillow_heif").register_heif_opener()
        files["heif"] = saved(image(), "HEIF", xmp=XMP, **told)
    return files
