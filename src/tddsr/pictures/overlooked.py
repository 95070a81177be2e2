"""What Pillow passes over in files of pictures: profiles and XMP, bits, and a film behind a photo."""

from __future__ import annotations

import re
import struct

from PIL import Image

_GIF_PROFILE, _GIF_XMP = b"!\xff\x0bICCRGBG1012", b"!\xff\x0bXMP DataXMP"

_CODESTREAM = b"\xff\x4f\xff\x51"
"""What that of a JPEG 2000 begins with."""

_FILM = re.compile(rb"(?:GCamera|Camera):(?:MicroVideo|MotionPhoto)\s*(?:=\s*[\"']|>)\s*1|MotionPhoto_Data")
"""Of photos by telephones."""


def overlooked(content: bytes, kind: str | None) -> dict[str, bytes]:
    """``icc_profile`` and ``xmp`` of a BMP or GIF."""
    if kind == "GIF":
        at, end = content.find(_GIF_XMP), content.find(b"\1\xff\xfe\xfd", content.find(_GIF_XMP))
        found = {"icc_profile": _joined(content, content.find(_GIF_PROFILE)), "xmp": content[at + len(_GIF_XMP) : end]}
        return {name: data for name, data in found.items() if data and (name != "xmp" or 0 <= at < end)}
    if kind != "BMP" or len(content) < 138 or int.from_bytes(content[14:18], "little") < 124:
        return {}
    space, start, size = struct.unpack_from("<4s52xII", content, 70)
    profile = content[14 + start : 14 + start + size]
    return {"icc_profile": profile} if space == b"DEBM" and profile else {}


def _joined(content: bytes, at: int) -> bytes:
    """The parts of a block of a GIF at ``at``; nothing if there is none."""
    parts, at = [], at + len(_GIF_PROFILE) if at >= 0 else len(content)
    while at < len(content) and (size := content[at]):
        parts.append(content[at + 1 : at + 1 + size])
        at += 1 + size
    return b"".join(parts)


def overlooked_bits(content: bytes, image: Image.Image) -> int:
    """Of a channel of a PPM, JPEG 2000 or SGI, of which Pillow makes 8 if there are colours; 8 of all others."""
    if image.format == "PPM":
        tiles = getattr(image, "tile", ())
        return max((int(tile[3][1]).bit_length() for tile in tiles if tile[0].startswith("ppm")), default=8)
    if image.format == "SGI":
        return 8 * content[3]
    at = content.find(_CODESTREAM) if image.format == "JPEG2000" else -1
    return (content[at + 42] & 127) + 1 if at >= 0 else 8


def has_film(content: bytes) -> bool:
    """Whether a JPEG says that there is one behind the picture."""
    return bool(_FILM.search(content))
