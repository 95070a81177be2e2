"""The parts of PNG files: written, and left out where they are damaged and can be missing."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

MARK = b"\x89PNG\r\n\x1a\n"
"""What such a file begins with."""

_LENGTHS = {b"acTL": 8, b"cHRM": 32, b"fcTL": 26, b"gAMA": 4, b"pHYs": 9, b"sRGB": 1}
"""Of the parts that are not needed to show a PNG."""

_FRAMES = {b"acTL", b"fcTL", b"fdAT"}
"""Parts of animations."""


def chunk(name: bytes, content: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(name)))


def parts_of(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, content) of the parts of a PNG file that is whole."""
    start = len(MARK)
    while start < len(content):
        end = start + 8 + int.from_bytes(content[start : start + 4], "big")
        yield content[start + 4 : start + 8], content[start + 8 : end]
        start = end + 4


def with_one_pixel(content: bytes) -> bytes:
    """A PNG file of one pixel, with all that is told of the picture of another file, which is whole."""
    written, parts = False, [MARK]
    for name, data in parts_of(content):
        if name == b"IHDR":
            data = struct.pack(">II", 1, 1) + data[8:]
        if name not in _FRAMES and (name != b"IDAT" or not written):
            parts.append(chunk(name, zlib.compress(bytes(9)) if name == b"IDAT" else data))
            written |= name == b"IDAT"
    return b"".join(parts)


def without_damage(content: bytes) -> bytes:
    """A PNG file without parts that can be missing and whose checksum or length is wrong; others as they are."""
    if not content.startswith(MARK):
        return content
    parts = list(_whole_parts(memoryview(content)))
    return content if sum(map(len, parts)) == len(content) else b"".join(parts)


def _whole_parts(content: memoryview) -> Iterator[memoryview]:
    start, name = len(MARK), b""
    yield content[:start]
    while start < len(content) and name != b"IEND":
        size, name = int.from_bytes(content[start : start + 4], "big"), bytes(content[start + 4 : start + 8])
        part = content[start : start + size + 12]
        needed = not name[:1].islower() or name == b"fdAT"
        if needed or (size == _LENGTHS.get(name, size) and zlib.crc32(part[4:-4]).to_bytes(4, "big") == part[-4:]):
            yield part
        start += len(part)
    yield content[start:]
