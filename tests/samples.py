"""Small files of every kind that is read: what the page of formats and the mutations are made of."""

from __future__ import annotations

import functools
import hashlib
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
    values: Pixels = np.stack(chosen, axis=-1)
    if not np.issubdtype(dtype, np.floating):
        values = (values * np.iinfo(dtype).max).round()  # type: ignore[type-var]
    return values.astype(dtype)


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


def packet(names: str, properties: str) -> bytes:
    """Of XMP."""
    described = f'<rdf:Description rdf:about="" {properties}/>'
    rdf = f'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">{described}</rdf:RDF>'
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/" {names}>{rdf}</x:xmpmeta>'.encode()


def long_xmp(extension: bytes, part: int = 65_000) -> bytes:
    """A JPEG whose XMP goes on in further segments, the last of them first."""
    guid = hashlib.md5(extension).hexdigest().upper()
    names = 'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmpNote="http://ns.adobe.com/xmp/note/"'
    content = saved(image(), "JPEG", xmp=packet(names, f'dc:title="boats" xmpNote:HasExtendedXMP="{guid}"'))
    for start in range(0, len(extension), part):
        body = b"http://ns.adobe.com/xmp/extension/\0" + guid.encode() + struct.pack(">II", len(extension), start)
        body += extension[start : start + part]
        content = content[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + content[2:]
    return content


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


def deep_tiff(channels: int, dtype: type[np.generic] = np.uint16, **options: Any) -> bytes:
    arranged = {"photometric": "rgb" if channels > 2 else "minisblack"}
    clear = {"extrasamples": [2]} if channels in (2, 4) else {}
    return tiff(pixels(channels, dtype).squeeze(), **arranged, **clear, **options)


def extra_tiff() -> bytes:
    """With a channel of no colour in front of transparency, by which the colours are multiplied."""
    *colours, alpha = np.moveaxis(pixels(4, np.float64), 2, 0)
    channels = np.stack([*(colour * alpha for colour in colours), 1 - alpha, alpha], axis=-1)
    return tiff((channels * 65535).round().astype(np.uint16), photometric="rgb", extrasamples=[0, 1])


def dng(light: Pixels, orientation: int = 1, neutral: tuple[float, float, float] = (0.5, 1, 0.6)) -> bytes:
    """Of light (H,W,3) in [0,1] and the primaries of sRGB, by a camera to which white has the colour ``neutral``."""
    black, white = 512, 16383
    seen, mosaic = light * neutral, np.empty(light.shape[:2])
    for top, left, colour in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        mosaic[top::2, left::2] = seen[top::2, left::2, colour]
    to_xyz = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])
    matrix = np.linalg.inv(to_xyz) * np.array(neutral)[:, None]

    def fractions(values: Any) -> list[int]:
        return [number for value in np.ravel(values) for number in (round(value * 10_000), 10_000)]

    tags = [
        (50706, "B", 4, (1, 4, 0, 0)), (50707, "B", 4, (1, 1, 0, 0)), (50708, "s", 0, "a camera"),
        (271, "s", 0, "maker"), (272, "s", 0, "model"), (274, "H", 1, orientation),
        (33421, "H", 2, (2, 2)), (33422, "B", 4, (0, 1, 1, 2)), (50714, "H", 1, black), (50717, "H", 1, white),
        (50721, "2i", 9, fractions(matrix)), (50778, "H", 1, 21), (50728, "2I", 3, fractions(neutral)),
    ]  # fmt: skip
    values = (black + mosaic * (white - black)).round().astype(np.uint16)
    return tiff(values, photometric=32803, extratags=[(*tag, True) for tag in tags])


def avif(bits: int) -> bytes:
    """By libvips."""
    deep = pyvips.Image.new_from_array(pixels(3, np.uint16)).copy(interpretation="rgb16")
    content: bytes = deep.heifsave_buffer(compression="av1", bitdepth=bits, keep="none")
    return content


def heif(bits: int, channels: int = 3) -> bytes:
    """By pillow_heif, of 10 or 12 bits, without loss."""
    package = importlib.import_module("pillow_heif")
    package.options.SAVE_HDR_TO_12_BIT = bits == 12
    array, file = pixels(channels, np.uint16), io.BytesIO()
    mode = {1: "I;16", 3: "RGB;16", 4: "RGBA;16"}[channels]
    made = package.from_bytes(mode=mode, size=(WIDTH, HEIGHT), data=array.tobytes())
    made.save(file, quality=-1, chroma=444, matrix_coefficients=0)
    package.options.SAVE_HDR_TO_12_BIT = False
    return file.getvalue()


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
        "jpeg long xmp": long_xmp(packet('xmlns:a="a:b/"', 'a:c="1"'), 50),
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
        "tiff float": deep_tiff(3, np.float32),
        "tiff half float": deep_tiff(2, np.float16),
        "tiff extra channel": extra_tiff(),
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
        files["heif 10"] = heif(10)
        files["heif 12"] = heif(12, channels=4)
    return files
