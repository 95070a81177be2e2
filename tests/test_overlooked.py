"""What a file says of its picture where others overlook it, or cannot be read: carried, or one line that says so."""

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from tddsr.errors import ImageWarning
from tddsr.pictures.files import read_picture, write_picture
from tddsr.pictures.frames import count_pictures
from tddsr.pictures.metadata import Metadata
from tddsr.pictures.profiles import coded_profile, gamma_profile, in_srgb
from tests.conftest import photo
from tests.samples import IPTC, PROFILE, XMP, chunk, image, long_xmp, packet, png_with, saved

WIDE = coded_profile(12, 13) or b""


def told(content: bytes) -> tuple[Metadata, list[str]]:
    """What is read of a file, and what is said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ImageWarning)
        metadata = read_picture(content).metadata
    return metadata, [str(warning.message) for warning in caught]


def without_segment(content: bytes) -> bytes:
    """A JPEG without its first segment."""
    return content[:2] + content[4 + int.from_bytes(content[4:6], "big") :]


# -- XMP in several segments -------------------------------------------------------------------------------------------


def test_a_packet_that_goes_on_in_segments_that_are_missing_or_strange_is_said():
    content = long_xmp(packet('xmlns:crs="camera/"', f'crs:Look="{"x" * 120}"'), part=150)
    assert told(content)[1] == []
    without_some = without_segment(content)
    while (shorter := without_segment(without_some)).count(b"xmp/extension/"):
        without_some = shorter
    orphans = content.replace(b"xmpNote:HasExtendedXMP", b"xmpNote:ThatHasNothing")
    for broken in (without_segment(content), without_some, shorter, orphans):
        metadata, (said,) = told(broken)
        assert "second part of XMP" in said
        assert b"boats" in (metadata.xmp or b"")


def test_the_name_of_a_packet_is_the_same_in_small_letters():
    content = long_xmp(packet('xmlns:crs="camera/"', 'crs:Look="soft"'))
    mark = b"http://ns.adobe.com/xmp/extension/\0"
    at = content.index(mark) + len(mark)
    content = content[:at] + content[at : at + 32].lower() + content[at + 32 :]
    assert b"soft" in (told(content)[0].more_xmp or b"")


# -- EXIF --------------------------------------------------------------------------------------------------------------


def test_exif_that_cannot_be_read_is_said():
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "maker"
    whole = exif.tobytes()
    for damaged in (whole[:6] + b"II*\0" + whole[10:], whole[:16], b"Exif\0\0none at all"):
        assert any("EXIF left out" in said for said in told(saved(image(), "JPEG", exif=damaged))[1])
    for empty in (Image.Exif().tobytes(), b"Exif\0\0", whole):
        assert told(saved(image(), "JPEG", exif=empty))[1] == []


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_a_comment_of_16_bit_is_in_the_order_of_bytes_of_its_file(tmp_path, endian, suffix):
    coding = {"<": "utf-16-le", ">": "utf-16-be"}
    exif, comment = Image.Exif(), b"UNICODE\0" + "Zürich".encode(coding[endian])
    exif.endian = endian
    exif[ExifTags.Base.Make] = "maker"
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.UserComment: comment}
    write_picture(tmp_path / f"a{suffix}", read_picture(saved(image(), "JPEG", dpi=(300, 300), exif=exif.tobytes())))
    with Image.open(tmp_path / f"a{suffix}") as back:
        told = back.getexif()
        assert (
            told.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment][8:].decode(coding[told.endian or ""]) == "Zürich"
        )


def camera_exif(index: str) -> bytes:
    """As DCF has it: which colours is told in a third directory."""
    tail = struct.pack(">HHHI4sI", 1, 1, 2, 4, index.encode() + b"\0", 0)
    middle = struct.pack(">HHHIII", 1, 0xA005, 4, 1, 44, 0)
    return b"Exif\0\0MM\0*" + struct.pack(">IHHHIII", 8, 1, 0x8769, 4, 1, 26, 0) + middle + tail


def test_adobe_rgb_that_only_exif_tells_of_becomes_a_profile():
    picture = Image.new("RGB", (16, 16), (110, 150, 120))
    profile = told(saved(picture, "JPEG", exif=camera_exif("R03")))[0].icc
    assert profile is not None
    light = (np.array([110, 150, 120]) / 255) ** 2.2
    to_xyz = [[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]]
    from_xyz = [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]
    right = 255 * (1.055 * (np.array(from_xyz) @ to_xyz @ light) ** (1 / 2.4) - 0.055)
    assert np.abs(in_srgb(picture, profile)[0, 0] - right).max() < 1.5
    assert told(saved(picture, "JPEG", exif=camera_exif("R98")))[0].icc is None
    assert told(saved(picture, "JPEG", exif=camera_exif("R03"), icc_profile=PROFILE))[0].icc == PROFILE


# -- profiles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", [gamma_profile(1 / 1.8, grey=True), b"no profile at all" * 20])
def test_a_profile_that_does_not_fit_is_said(profile):
    metadata, (said,) = told(saved(image(), "PNG", icc_profile=profile))
    assert metadata.icc is None
    assert "profile left out" in said


def test_an_ink_profile_that_cannot_be_used_is_said():
    ink = image().convert("CMYK")
    for kind in ("JPEG", "TIFF"):
        assert any("profile" in said for said in told(saved(ink, kind, icc_profile=b"no profile at all" * 20))[1])


def bmp_with(profile: bytes) -> bytes:
    """Of version 5."""
    pixels = np.ascontiguousarray(photo(4, 8)[::-1, :, ::-1]).tobytes()
    head = struct.pack("<IiiHHIIiiII", 124, 8, 4, 1, 24, 0, len(pixels), 2835, 2835, 0, 0)
    head += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0) + b"DEBM" + bytes(48)
    head += struct.pack("<4I", 4, 124 + len(pixels), len(profile), 0)
    return b"BM" + struct.pack("<IHHI", 138 + len(pixels) + len(profile), 0, 0, 138) + head + pixels + profile


def block(name: bytes, content: bytes) -> bytes:
    """Of a GIF; of XMP, which is not cut into parts, readers that do not know it find its end all the same."""
    if name == b"XMP DataXMP":
        return b"!\xff\x0b" + name + content + b"\1" + bytes(range(255, -1, -1)) + b"\0"
    parts = [content[start : start + 255] for start in range(0, len(content), 255)]
    return b"!\xff\x0b" + name + b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def test_profiles_and_xmp_of_bmp_and_gif_are_kept():
    assert read_picture(bmp_with(WIDE)).metadata.icc == WIDE
    assert np.array_equal(read_picture(bmp_with(WIDE)).rgb, photo(4, 8))
    for kind, frames in (("GIF", {}), ("GIF", {"save_all": True, "append_images": [image().rotate(180)]})):
        content = saved(image(), kind, **frames)
        at = 13 + 3 * 2 ** ((content[10] & 7) + 1)  # behind the palette
        blocks = block(b"ICCRGBG1012", WIDE) + block(b"XMP DataXMP", XMP)
        content = content[:at].replace(b"GIF87a", b"GIF89a") + blocks + content[at:]
        metadata = told(content)[0]
        assert metadata.icc == WIDE
        assert metadata.xmp == XMP
        assert count_pictures(content) == 1 + bool(frames)


@pytest.mark.parametrize("size", [0, 2**31, 2**32 - 1])
def test_a_profile_of_a_bmp_that_is_elsewhere_costs_nothing(size):
    content = bytearray(bmp_with(WIDE))
    content[126:130] = struct.pack("<I", size or 2**32 - 1)
    content[130:134] = struct.pack("<I", size)
    assert read_picture(bytes(content)).size == (8, 4)


# -- others ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framed", [b"", b"8BIM\4\4\0\0"])
def test_iptc_in_the_text_of_a_png_is_kept(framed):
    data = framed + (struct.pack(">I", len(IPTC)) + IPTC + b"\0" if framed else IPTC)
    text = f"\niptc\n{len(data):8}\n{data.hex()[:8]}\n{data.hex()[8:]}\n".encode()
    content = png_with(chunk(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(text)))
    assert told(content)[0] == Metadata(iptc=IPTC)


def test_more_bits_than_are_read_are_said():
    deep = photo(4, 8).astype(">u2") * 257
    ppm = b"P6\n8 4\n65535\n" + deep.tobytes()
    assert "reduced to 8 bit" in told(ppm)[1][0]
    assert told(b"P6\n8 4\n255\n" + photo(4, 8).tobytes())[1] == []
    assert told(saved(Image.fromarray(photo()), "JPEG2000"))[1] == []
    grey = Image.fromarray(photo()[..., 0].astype(np.uint16) * 257)
    assert told(saved(grey, "JPEG2000"))[1] == []
    with_depth = bytearray(saved(Image.fromarray(photo()), "JPEG2000"))
    assert with_depth[with_depth.index(b"\xff\x4f\xff\x51") + 42] == 7  # where it tells of 8 bit


def test_the_film_of_a_photo_is_said_and_not_told_of_any_more():
    names = 'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" xmlns:dc="http://purl.org/dc/elements/1.1/"'
    xmp = packet(names, 'GCamera:MotionPhoto="1" GCamera:MicroVideoOffset="24" dc:title="boats"')
    metadata, (said,) = told(saved(image(), "JPEG", xmp=xmp) + b"\0\0\0\x18ftypmp42" + bytes(12))
    assert "film" in said
    assert b"boats" in (metadata.xmp or b"")
    assert b":Mo" not in (metadata.xmp or b"")
    assert b":MicroV" not in (metadata.xmp or b"")


def test_the_list_of_what_is_behind_a_photo_goes():
    items = b'<Container:Directory x="1"><rdf:Seq><rdf:li Item:Length="24"/></rdf:Seq></Container:Directory>'
    content = saved(image(), "JPEG", xmp=b"<x:xmpmeta>" + items + b"<dc:title>boats</dc:title></x:xmpmeta>")
    assert told(content)[0].xmp == b"<x:xmpmeta><dc:title>boats</dc:title></x:xmpmeta>"


def test_further_pictures_of_a_jpeg_are_said_but_not_its_previews():
    content = saved(image(), "MPO", save_all=True, append_images=[image().rotate(180)])
    assert "holds 2 pictures" in told(content)[1][0]
    second = content.index(b"MPF\0") + 4 + 8 + 2 + 3 * 12 + 4 + 16  # the entries, of 16 bytes, are behind a directory
    assert content[second - 16 : second + 4 : 4][:1] + content[second : second + 4] == bytes(5)
    preview = content[:second] + struct.pack("<I", 0x010001) + content[second + 4 :]
    assert told(preview)[1] == []
