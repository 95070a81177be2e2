"""What a file says of its picture beside the pixels: what is still true of an enlarged one, and how files hold it."""

from __future__ import annotations

import contextlib
import re
import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import ExifTags, Image
from PIL.ExifTags import Base
from PIL.PngImagePlugin import PngInfo

from tddsr.errors import ImageWarning
from tddsr.pictures.jpeg import joined_xmp, xmp_extension
from tddsr.pictures.profiles import SRGB, gamma_profile

_TRUE_TAGS = {
    269, 270, 271, 272, 285, 305, 306, 315, 316, 18246, 18249, 33432, 36867, 40091, 40092, 40093, 40094, 40095, 50708,
}  # fmt: skip
"""Tags of what is shown, who made it, when and with what. All others (layout, layers, private ones) may be stale."""

_SIZE_TAGS = {37122, 37396, 40962, 40963, 40965, 41486, 41487, 41488, 41492}
"""Of the EXIF directory: bits a pixel, places and sizes in pixels, pixels of the sensor, a pointer to a directory."""

DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
RESOLUTION = (Base.XResolution, Base.YResolution, Base.ResolutionUnit)
_X, _Y, _UNIT = RESOLUTION
_ON_ITS_SIDE = (5, 6, 7, 8)
"""Orientations of which width and height are exchanged."""
_UNICODE = b"UNICODE\0"
_PHOTOSHOP_IPTC = 0x0404
_RAW_IPTC = "Raw profile type iptc"
"""The text of a PNG that holds them, as hexadecimal numbers."""

_ADOBE_RGB = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)

_STACK_DESCRIPTION = re.compile(r'ImageJ=|\{"shape"|<\?xml.*<OME', re.DOTALL)
"""Descriptions by programs of how many planes their file holds."""

_STALE_TEXT = re.compile(r"XML:com\.adobe\.xmp|Raw profile type |Thumb::")

_STALE_XMP_NAMES = (
    rb"(?:tiff:(?:Orientation|ImageWidth|ImageLength|XResolution|YResolution|ResolutionUnit)|exif:Pixel[XY]Dimension"
    rb"|xmpNote:HasExtendedXMP|GPano:(?:FullPano|CroppedArea)\w+Pixels|hdrgm:Version"
    rb"|(?:GCamera|Camera):(?:MicroVideo|MotionPhoto)\w*)"
)
_STALE_XMP = re.compile(
    rb"\s" + _STALE_XMP_NAMES + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')"
    rb"|<(" + _STALE_XMP_NAMES + rb")>[^<]*</\1>"
    rb"|<(xmp:Thumbnails|G?Container:Directory)\b[^>]*>.*?</\2>",
    re.DOTALL,
)  # fmt: skip

_HOLDS = {
    "JPEG": {"XMP", "IPTC", "comment"},
    "PNG": {"XMP", "IPTC", "comment", "text"},
    "TIFF": {"XMP", "IPTC"},
    "WEBP": {"XMP"},
}
"""What kinds of file can hold beside EXIF and profile."""

_MOST_IN_JPEG = 65000
"""Bytes of a kind of metadata that a JPEG file can hold, about."""


_MOST_DPI = 65535


@dataclass(frozen=True)
class Metadata:
    """``exif`` tells neither orientation, sizes nor resolution; ``dpi`` is the resolution across and down.

    ``more_xmp`` is a second packet, by which that of a JPEG goes on beyond 64 KiB. ``text`` is that of PNG files, whose
    ``Comment`` other kinds have as well. ``lossless`` is how the file was packed.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    more_xmp: bytes | None = None
    iptc: bytes | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    dpi: tuple[float, float] | None = None
    lossless: bool = False

    def enlarged(self, scale: float) -> Metadata:
        """With a resolution at which the larger picture is printed at the same size."""
        if self.dpi is None:
            return self
        across, down = self.dpi[0] * scale, self.dpi[1] * scale
        return replace(self, dpi=(across, down) if max(across, down) < _MOST_DPI else None)

    @property
    def colour_space(self) -> str:
        """That of the ICC profile: GRAY, RGB, CMYK .., or nothing."""
        return self.icc[16:20].decode("latin-1").strip() if self.icc else ""

    def fitting(self, grey: bool) -> Metadata:
        """Without a profile of other colours than those of a picture that is grey, or RGB, which is said."""
        if self.icc is None or self.colour_space in ({"GRAY", "RGB"} if grey else {"RGB"}):
            return self
        told = "its colour profile left out: it is damaged, or of other colours"
        warnings.warn(told, ImageWarning, stacklevel=2)
        return replace(self, icc=None)


def turned(details: dict[int, Any]) -> dict[int, Any]:
    """A directory with the two bytes of each letter swapped in a comment in 16-bit letters.

    For files whose numbers begin with the low byte, where those of ``Metadata.exif`` begin with the high one.
    """
    comment = details.get(Base.UserComment)
    if not (isinstance(comment, bytes) and comment.startswith(_UNICODE)):
        return details
    pairs = zip(comment[9::2], comment[8::2], strict=False)
    return details | {Base.UserComment: _UNICODE + bytes(byte for pair in pairs for byte in pair)}


def _exif(source: Image.Exif) -> bytes | None:
    kept = Image.Exif()
    for tag in sorted(_TRUE_TAGS & set(source)):
        value = source[tag]
        if not (isinstance(value, str) and _STACK_DESCRIPTION.match(value)):
            kept[tag] = _as_read(value)
    for directory in DIRECTORIES:
        details = {tag: _as_read(value) for tag, value in source.get_ifd(directory).items() if tag not in _SIZE_TAGS}
        if details:
            kept[directory] = turned(details) if source.endian == "<" else details
    return kept.tobytes() if len(kept) else None


def _directories(exif: Image.Exif) -> list[dict[int, Any]]:
    """Those that there are: Pillow makes what it is asked for."""
    return [exif.get_ifd(tag) for tag in DIRECTORIES if tag in exif]


class _Letters(str):
    """Of a tag: Pillow reads any, but writes only those of ASCII; and bytes not as text."""

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        return super().encode("latin-1", "replace")


def _as_read(value: Any) -> Any:
    return _Letters(value) if isinstance(value, str) else value


def _loaded(data: bytes | None) -> Image.Exif:
    exif = Image.Exif()
    if data:
        exif.load(data)
        for ifd in (exif, *_directories(exif)):
            for tag, value in list(ifd.items()):
                ifd[tag] = _as_read(value)
    return exif


def _dpi(image: Image.Image, exif: Image.Exif) -> tuple[float, float] | None:
    """The resolution, where the file tells one: Pillow makes one up for JPEG and TIFF files without."""
    told = image.info.get("dpi")
    if image.format == "TIFF" or (image.format in ("JPEG", "MPO") and not image.info.get("jfif_unit")):
        told = None
    if told is None and {_X, _Y} <= set(exif) and exif.get(_UNIT, 2) in (2, 3):
        unit = 2.54 if exif.get(_UNIT) == 3 else 1
        told = exif[_X] * unit, exif[_Y] * unit
    across, down = map(float, told or (0, 0))
    if exif.get(Base.Orientation) in _ON_ITS_SIDE:
        across, down = down, across
    return (across, down) if 0 < across < _MOST_DPI and 0 < down < _MOST_DPI else None


def _png_profile(image: Image.Image) -> bytes | None:
    """That of a PNG file which tells its colours by gamma and primaries, and not as those of sRGB."""
    gamma, chromaticity = image.info.get("gamma"), image.info.get("chromaticity")
    if "srgb" in image.info or (gamma is None and chromaticity is None):
        return None
    gamma, chromaticity = gamma or 1 / 2.2, chromaticity or SRGB
    if abs(gamma * 2.2 - 1) < 0.01 and max(abs(a - b) for a, b in zip(chromaticity, SRGB, strict=True)) < 0.002:
        return None
    return gamma_profile(gamma, chromaticity, grey=image.mode[0] in "1LI")


def _adobe_rgb(image: Image.Image, exif: Image.Exif) -> bytes | None:
    """The profile of the photo of a camera which tells only by EXIF that its colours are those of Adobe RGB."""
    with contextlib.suppress(Exception):
        if str(exif.get_ifd(ExifTags.IFD.Interop).get(1)).startswith("R03"):
            return gamma_profile(256 / 563, _ADOBE_RGB, grey=image.mode[0] in "1LI")
    return None


@contextlib.contextmanager
def _unless_damaged(name: str) -> Iterator[None]:
    """What is damaged must not cost the picture."""
    try:
        yield
    except Exception:
        warnings.warn(f"{name} left out: damaged, or not whole", ImageWarning, stacklevel=3)


def read_metadata(image: Image.Image) -> Metadata:
    """What is true of an image in whatever way it is stored; damaged parts are left out, which is said."""
    found: dict[str, Any] = {"icc": image.info.get("icc_profile"), "text": {}}
    tags = getattr(image, "tag_v2", {})
    if image.format == "PNG" and not found["icc"]:
        with _unless_damaged("gamma and primaries"):
            found["icc"] = _png_profile(image)
    with _unless_damaged("EXIF"):
        exif = image.getexif()
        found["dpi"] = _dpi(image, exif)
        found["exif"] = _exif(exif)
        found["icc"] = found["icc"] or _adobe_rgb(image, exif)
        told = (image.info.get("exif") or b"").removeprefix(b"Exif\0\0")
        if told and not exif and told[8:10] != bytes(2):
            raise ValueError("it has tags, and none can be read")
    with _unless_damaged("text"):
        texts = getattr(image, "text", {})
        found["text"] = {k: v for k, v in texts.items() if not _STALE_TEXT.match(k)}
        if packed := texts.get(_RAW_IPTC):
            found["iptc"] = _iptc_of(bytes.fromhex("".join(packed.split("\n")[3:])))
        if comment := image.info.get("comment"):
            found["text"]["Comment"] = _decoded(comment) if isinstance(comment, bytes) else comment
    xmp = image.info.get("xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    if isinstance(xmp, bytes):
        found["xmp"] = _STALE_XMP.sub(b"", xmp)
    with _unless_damaged("the second part of XMP"):
        segments = [segment for _, segment in getattr(image, "applist", ())]
        if more := xmp_extension(xmp if isinstance(xmp, bytes) else b"", segments):
            found["more_xmp"] = _STALE_XMP.sub(b"", more)
    photoshop = image.info.get("photoshop")
    iptc = photoshop.get(_PHOTOSHOP_IPTC) if isinstance(photoshop, dict) else tags.get(Base.IPTCNAA)
    if isinstance(iptc, bytes):
        found["iptc"] = iptc
    return Metadata(**found)


def _iptc_of(block: bytes) -> bytes:
    """IPTC data, which may be in a block of Photoshop's."""
    if (at := block.find(b"8BIM" + struct.pack(">H", _PHOTOSHOP_IPTC))) < 0:
        return block
    at += 7 + block[at + 6]
    at += at % 2
    return block[at + 4 : at + 4 + int.from_bytes(block[at : at + 4], "big")]


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _shorten(exif: Image.Exif, most: int) -> list[str]:
    """Take the longest tags out until no more than ``most`` bytes are left; their names."""
    gone = []

    def length(place: tuple[Any, int]) -> int:
        value = place[0][place[1]]
        return len(value) if isinstance(value, str | bytes) else len(repr(value))

    while len(exif.tobytes()) > most:
        places = [(exif, tag) for tag in exif if tag not in DIRECTORIES]
        holder, tag = max([*places, *((ifd, tag) for ifd in _directories(exif) for tag in ifd)], key=length)
        del holder[tag]
        gone.append(ExifTags.TAGS.get(tag, str(tag)))
    return gone


def _photoshop_segment(iptc: bytes) -> bytes:
    """The JPEG segment that holds IPTC data."""
    body = (
        b"Photoshop 3.0\0" + b"8BIM" + struct.pack(">HHI", _PHOTOSHOP_IPTC, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
    )
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body


def held(metadata: Metadata, kind: str) -> Metadata:
    """What a JPEG, PNG, TIFF or WEBP can hold of the metadata; a warning tells what is left out."""
    exif, xmp, texts = metadata.exif, metadata.xmp, dict(metadata.text)
    more = metadata.more_xmp
    if xmp and more and (whole := joined_xmp(xmp, more)) and (kind != "JPEG" or len(whole) <= _MOST_IN_JPEG):
        xmp, more = whole, None
    blocks = {"XMP": xmp, "IPTC": metadata.iptc, "comment": texts.pop("Comment", "").encode(), "text": texts}
    other = [name for name, block in blocks.items() if block and name not in _HOLDS[kind]]
    long = []
    if kind == "JPEG":
        tags = _loaded(exif)
        if long := _shorten(tags, _MOST_IN_JPEG):
            exif = tags.tobytes()
        long += [name for name, block in blocks.items() if name not in other and len(block or b"") > _MOST_IN_JPEG]
    if more:
        long.append("the second part of XMP")
    too_long = f"too long for {kind}, which holds 64 KiB" if kind == "JPEG" else "not written as such packets are"
    for names, reason in ((long, too_long), (other, f"{kind} cannot hold them")):
        if names:
            warnings.warn(f"{', '.join(names)} left out: {reason}", ImageWarning, stacklevel=2)
    gone = {*long, *other}
    return replace(
        metadata,
        exif=exif,
        xmp=None if "XMP" in gone else xmp,
        more_xmp=None,
        iptc=None if "IPTC" in gone else metadata.iptc,
        text={k: v for k, v in metadata.text.items() if ("comment" if k == "Comment" else "text") not in gone},
    )


def save_options(metadata: Metadata, kind: str) -> dict[str, Any]:
    """Options for PIL's ``save`` as JPEG, PNG or WEBP, which can hold the metadata."""
    exif = _loaded(metadata.exif)
    if metadata.dpi and (len(exif) or kind == "WEBP"):
        _set_resolution(exif, metadata.dpi)
    options: dict[str, Any] = {"icc_profile": metadata.icc, "dpi": metadata.dpi}
    if kind == "PNG":
        options["pnginfo"] = texts = PngInfo()
        for key, value in metadata.text.items():
            texts.add_text(key, value, zip=len(value) > 1000)
        if iptc := metadata.iptc:
            texts.add_text(_RAW_IPTC, f"\niptc\n{len(iptc):8}\n{iptc.hex()}\n", zip=True)
        if metadata.xmp:
            texts.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode(errors="replace"))
    else:
        options["xmp"] = metadata.xmp
    if kind == "JPEG":
        options["comment"] = metadata.text.get("Comment")
        options["extra"] = _photoshop_segment(metadata.iptc) if metadata.iptc else None
    if len(exif):
        options["exif"] = exif.tobytes()
    return {key: value for key, value in options.items() if value is not None}


def tiff_tags(metadata: Metadata) -> Image.Exif:
    """The tags that hold the metadata, which a TIFF can hold."""
    tags = _loaded(metadata.exif)
    told = {Base.XMLPacket: metadata.xmp, Base.IPTCNAA: metadata.iptc, Base.InterColorProfile: metadata.icc}
    tags.update({tag: data for tag, data in told.items() if data})
    if metadata.dpi:
        _set_resolution(tags, metadata.dpi)
    return tags


def _set_resolution(tags: Image.Exif, dpi: tuple[float, float]) -> None:
    tags[_X], tags[_Y], tags[_UNIT] = *dpi, 2
