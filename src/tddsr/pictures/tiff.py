"""Metadata of TIFF files, whose pixels libvips has written; and further pages, which it writes as files."""

from __future__ import annotations

import io
import os
from typing import BinaryIO, Literal, NamedTuple

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from tddsr.pictures.metadata import DIRECTORIES, RESOLUTION, Metadata, tiff_tags, turned

_HEADER = 16
"""Bytes of the longer one of the two kinds of header."""


class _Form(NamedTuple):
    """Of a file: the order of bytes; bytes of the head of a directory and of an entry; where its place is told."""

    order: Literal["little", "big"]
    head: int
    entry: int
    pointer: slice

    def number(self, data: bytes) -> int:
        return int.from_bytes(data, self.order)


def _start(file: BinaryIO) -> tuple[_Form, bytes, int]:
    """The form of a file, its header, and the place of its directory."""
    file.seek(0)
    header = file.read(_HEADER)
    big = 43 in header[2:4]
    form = _Form(
        "little" if header.startswith(b"II") else "big", *((8, 20, slice(8, 16)) if big else (2, 12, slice(4, 8)))
    )
    return form, header[: form.pointer.stop], form.number(header[form.pointer])


def add_tags(file: BinaryIO, metadata: Metadata) -> None:
    """Put a directory with the metadata at the end of a TIFF file of one picture, in the place of its old one.

    Raises:
        Exception: Pillow cannot write the metadata; the file is as it was.
    """
    form, header, place = _start(file)
    file.seek(place)
    entries = [file.read(form.entry) for _ in range(form.number(file.read(form.head)))]
    added = ImageFileDirectory_v2(header)
    tags = tiff_tags(metadata)
    for tag, value in tags.items():
        if tag in DIRECTORIES:
            value = turned(tags.get_ifd(tag)) if form.order == "little" else tags.get_ifd(tag)
        added[tag] = value
    # libvips makes a resolution up.
    entries = [entry for entry in entries if form.number(entry[:2]) not in {*RESOLUTION, *added}]
    end = file.seek(0, os.SEEK_END)
    end += end % 2
    # What is too long for an entry comes behind the directory, which is that of Pillow with more entries.
    own = form.head + form.entry * len(added)
    longer = form.entry * len(entries)
    data = added.tobytes(end + longer)
    entries += [data[start : start + form.entry] for start in range(form.head, own, form.entry)]
    entries.sort(key=lambda entry: form.number(entry[:2]))
    file.seek(end)
    file.write(len(entries).to_bytes(form.head, form.order) + b"".join(entries) + data[own:])
    _point(file, form.pointer.start, form, end)


def _point(file: BinaryIO, place: int, form: _Form, to: int) -> None:
    file.seek(place)
    file.write(to.to_bytes(form.pointer.stop - form.pointer.start, form.order))


class NextPage(io.BytesIO):
    """A file of one more page, at the end of a TIFF file: of its own it has nothing but the header.

    Who writes a TIFF appends one part after the other, and tells their places, which are those in the whole file.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self.file = file
        self.in_header = True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_CUR:
            offset, whence = offset + self.tell(), os.SEEK_SET
        self.in_header = whence == os.SEEK_SET and offset < _HEADER
        return super().seek(offset) if self.in_header else self.file.seek(offset, whence)

    def tell(self) -> int:
        return super().tell() if self.in_header else self.file.tell()

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size) if self.in_header else self.file.read(-1 if size is None else size)

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # nothing else is written here
        return super().write(data) if self.in_header else self.file.write(data)


def link(page: BinaryIO, following: BinaryIO) -> None:
    """Tell in the directory of a page, which is the last one, where the following one's is."""
    form, _, place = _start(page)
    page.seek(place)
    entries = form.number(page.read(form.head))
    _point(page, place + form.head + form.entry * entries, form, _start(following)[2])
