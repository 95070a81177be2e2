"""Camera raws."""

import io

import numpy as np
import pytest
import tifffile

from tddsr.errors import ImageError
from tddsr.pictures import raw
from tddsr.pictures.files import header_size, read_picture
from tddsr.pictures.opening import allowed
from tests.samples import dng, pixels

HEADS = [
    b"FUJIFILMCCD-RAW 0201",
    b"IIRO\x08\0\0\0",
    b"IIU\0\x18\0\0\0",
    b"\0\0\0\x18ftypcrx \0\0",
    b"II*\0\x10\0\0\0CR\2\0",
]


def light() -> np.ndarray:
    y, x = np.mgrid[:64, :80]
    colours: np.ndarray = np.stack([x / 80, y / 64, (x + y) / 144], axis=-1) ** 2
    return colours


def behind_a_preview() -> bytes:
    """As most cameras have it: a small picture first, the raw one in a directory below."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        tiff.write(pixels(), photometric="rgb", subfiletype=1, subifds=1, metadata=None)
        tiff.write(pixels(1, np.uint16).squeeze(), photometric=32803, metadata=None)
    return file.getvalue()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_raw_is_developed_by_the_white_of_its_camera(tmp_path, orientation):
    pytest.importorskip("rawpy")
    (tmp_path / "a.dng").write_bytes(dng(light(), orientation))
    picture = read_picture(tmp_path / "a.dng")
    assert picture.rgb.dtype == np.uint16
    assert header_size(tmp_path / "a.dng") == picture.size
    assert b"maker" in (picture.metadata.exif or b"")
    turned = np.rot90(light(), {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    assert picture.rgb.shape == turned.shape
    values = picture.rgb[4:-4, 4:-4] / 65535
    seen = np.where(values < 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    shown = turned[4:-4, 4:-4]
    between = (values < 0.99).all(2) & (shown > 0.05).all(2)
    brighter = (seen / shown)[between]
    assert between.mean() > 0.3
    assert np.abs(brighter / np.median(brighter) - 1).max() < 0.1  # LibRaw chooses how bright, the same for all colours


@pytest.mark.parametrize("damage", [0.1, 0.5, 0.9])
def test_damaged_raws_are_one_line(damage):
    pytest.importorskip("rawpy")
    content = dng(light())
    for broken in (content[: int(len(content) * damage)], *(head + bytes(1000) for head in HEADS)):
        with pytest.raises(ImageError) as raised:
            read_picture(broken)
        assert "\n" not in str(raised.value)


def test_raws_that_claim_to_be_huge_are_refused():
    pytest.importorskip("rawpy")
    with allowed(0.001), pytest.raises(ImageError, match="million"):
        read_picture(dng(light()))


@pytest.mark.parametrize("content", [dng(light()), behind_a_preview(), *HEADS])
def test_a_raw_names_the_extra_that_reads_it(monkeypatch, content):
    monkeypatch.setattr(raw, "INSTALLED", False)
    with pytest.raises(ImageError, match=r"tddsr\[raw\]"):
        read_picture(content)


@pytest.mark.parametrize("content", [b"\xff\x0a" + bytes(20), b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a" + bytes(20)])
def test_jpeg_xl_is_told_as_such(content):
    with pytest.raises(ImageError, match="JPEG XL"):
        read_picture(content)
