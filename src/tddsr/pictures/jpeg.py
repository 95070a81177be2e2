"""The parts of JPEG files that tell of the picture: left out where they are damaged; XMP in several of them."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator

MARK = b"\xff\xd8\xff"
"""What such a file begins with."""

_PHOTOSHOP = b"Photoshop 3.0\0"
_LENGTHS = {(0xE0, b"JFIF"): 14, (0xEE, b"Adobe"): 12, (0xE2, b"ICC_PROFILE\0"): 14}
"""Of segments that a decoder passes over where they are shorter."""

_PROGRESSIVE, _SCAN, _END, _RESTARTS = 0xC2, 0xDA, 0xD9, 0xDD
_MARKER = re.compile(rb"\xff[^\0\xd0-\xd7\xff]")
"""That can stand behind the pixels of a scan, and not among them."""

_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_MARK = len(_EXTENSION) + 32
_HAS_EXTENSION = re.compile(rb"xmpNote:HasExtendedXMP\s*(?:=\s*[\"']|>)\s*([0-9A-Fa-f]{32})")

_RDF = re.compile(rb"<rdf:RDF\b([^>]*)>(.*)</rdf:RDF\s*>", re.DOTALL)
_NAMESPACE = re.compile(rb"(xmlns:[\w.-]+)\s*=\s*(\"[^\"]*\"|'[^']*')")


def _segments(content: bytes, scans: bool = False) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment in front of the pixels; or of all, those that begin scans among them."""
    at, last = 2, {_END} if scans else {_SCAN, _END}
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] not in last:
        if content[at + 1] == 0xFF:  # padding
            at += 1
            continue
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        yield content[at + 1], at, end
        following = _MARKER.search(content, end) if content[at + 1] == _SCAN else None
        at = following.start() if following else end


def _is_whole(marker: int, body: bytes) -> bool:
    for (kind, name), length in _LENGTHS.items():
        if marker == kind and body.startswith(name):
            return len(body) >= length
    if marker != 0xED or not body.startswith(_PHOTOSHOP):
        return True
    at = len(_PHOTOSHOP)
    while body[at : at + 4] == b"8BIM":
        at += 7 + int.from_bytes(body[at + 6 : at + 7], "big")
        at += at % 2
        at += 4 + int.from_bytes(body[at : at + 4], "big")
        if at > len(body):
            return False
        at += at % 2
    return True


def without_damage(content: bytes) -> bytes:
    """A JPEG file without segments that are cut off, and not needed to show it; others as they are."""
    if not content.startswith(MARK):
        return content
    damaged = [
        (start, end) for marker, start, end in _segments(content) if not _is_whole(marker, content[start + 4 : end])
    ]
    for start, end in reversed(damaged):
        content = content[:start] + content[end:]
    return content


def has_all_scans(content: bytes) -> bool:
    """Whether the scans that are begun have all bits of all coefficients; those of a JPEG in one scan have."""
    missing: dict[int, set[int]] = {}
    for marker, start, _ in _segments(content, scans=True):
        if marker == _PROGRESSIVE:
            missing = {name: set(range(64)) for name in content[start + 10 : start + 10 + 3 * content[start + 9] : 3]}
        elif marker == _SCAN:
            behind = start + 5 + 2 * content[start + 4]
            first, last, bits = content[behind : behind + 3]
            for name in content[start + 5 : behind : 2]:
                missing.get(name, set()).difference_update(range(first, last + 1) if bits & 15 == 0 else ())
    return not any(missing.values())


def endings(content: bytes) -> list[bytes]:
    """What can follow the pixels of a file without changing them, if all are there: the first only ends it."""
    others, end = [bytes([byte]) * 1000 for byte in (0x5A, 0xB6)], bytes([0xFF, _END])
    restarted = any(marker == _RESTARTS for marker, *_ in _segments(content))
    marks = [bytes([0xFF, 0xD0 + number]) for number in range(8)] if restarted else []
    return [end, *(mark + other + end for mark in (b"", *marks) for other in others)]


def xmp_extension(packet: bytes, segments: Iterable[bytes]) -> bytes | None:
    """The packet by which an XMP packet of a JPEG goes on, in other segments; None if there is none.

    Raises:
        ValueError: some of it is missing.
    """
    told, parts, length = _HAS_EXTENSION.search(packet), {}, 0
    others = [segment for segment in segments if segment.startswith(_EXTENSION)]
    if not told and not others:
        return None
    name = told[1].upper() if told else b""
    for segment in others:
        if segment[len(_EXTENSION) : _MARK].upper() == name and len(segment) >= _MARK + 8:
            length, offset = struct.unpack_from(">II", segment, _MARK)
            parts[offset] = segment[_MARK + 8 :]
    extension = b""
    for offset, part in sorted(parts.items()):
        if offset == len(extension):
            extension += part
    if not 0 < length == len(extension):
        raise ValueError("some of the packet is missing")
    return extension


def joined_xmp(packet: bytes, extension: bytes) -> bytes | None:
    """One packet of two; None if they are not written as such packets are."""
    into, part = _RDF.search(packet), _RDF.search(extension)
    if into is None or part is None:
        return None
    known, added = _namespaces(packet[: into.start(2)]), _namespaces(extension[: part.start(2)])
    if any(known.get(name, value)[1:-1] != value[1:-1] for name, value in added.items()):
        return None
    names = b"".join(b" " + name + b"=" + value for name, value in added.items() if name not in known)
    return packet[: into.end(1)] + names + packet[into.end(1) : into.end(2)] + part[2] + packet[into.end(2) :]


def _namespaces(text: bytes) -> dict[bytes, bytes]:
    return dict(_NAMESPACE.findall(text))
