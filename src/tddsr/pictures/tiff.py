"""Metadata of TIFF files, whose pixels libvips has written."""

from __future__ import annotations

from typing import BinaryIO, Literal

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from tddsr.pictures.metadata import DIRECTORIES, RESOLUTION, Metadata, tiff_tags


def add_tags(file: BinaryIO, metadata: Metadata) -> None:
    """Put a directory with the metadata at the end of a TIFF file of one picture, in the place of its old one.

    Raises:
        Exception: Pillow cannot write the metadata; the file is as it was.
    """
    file.seek(0)
    header = file.read(16)
    order: Literal["little", "big"] = "little" if header.startswith(b"II") else "big"
    big = 43 in header[2:4]
    count_size, entry_size, pointer_size = (8, 20, 8) if big else (2, 12, 4)
    place = slice(8, 16) if big else slice(4, 8)

    def number(data: bytes) -> int:
        return int.from_bytes(data, order)

    file.seek(number(header[place]))
    entries = [file.read(entry_size) for _ in range(number(file.read(count_size)))]
    added = ImageFileDirectory_v2(header[: place.stop])
    tags = tiff_tags(metadata)
    for tag, value in tags.items():
        added[tag] = tags.get_ifd(tag) if tag in DIRECTORIES else value
    # libvips makes a resolution up.
    entries = [entry for entry in entries if number(entry[:2]) not in {*RESOLUTION, *added}]
    end = file.seek(0, 2)
    end += end % 2
    # What is too long for an entry comes behind the directory, which is that of Pillow with more entries.
    own = count_size + entry_size * len(added)
    longer = entry_size * len(entries)
    data = added.tobytes(end + longer)
    entries += [data[start : start + entry_size] for start in range(count_size, own, entry_size)]
    entries.sort(key=lambda entry: number(entry[:2]))
    file.seek(end)
    file.write(len(entries).to_bytes(count_size, order) + b"".join(entries) + data[own:])
    file.seek(place.start)
    file.write(end.to_bytes(pointer_size, order))
