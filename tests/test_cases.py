"""Pictures as people have them: kinds of files that broke such tools, each made here."""

import contextlib
import errno
import io
import os
import signal
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from tddsr.engines.torch import TorchEngine
from tddsr.errors import ImageError, ImageWarning
from tddsr.files import whole_or_nothing
from tddsr.pictures.arrays import from_array
from tddsr.pictures.files import header_size, read_picture, write_picture
from tddsr.pictures.folders import find_files, search
from tddsr.pictures.metadata import Metadata, read_metadata
from tddsr.pictures.picture import Picture, spread_colours
from tddsr.pictures.pil import from_pil
from tddsr.pictures.profiles import SRGB as SRGB_XY
from tddsr.pictures.profiles import coded_profile, gamma_profile
from tddsr.pictures.sizes import Size, made_from, output_path
from tddsr.upscaler import Upscaler
from tests.conftest import photo
from tests.samples import chunk, long_xmp, packet, samples
from tests.samples import exif as exif_of_a_camera

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LONG = "x" * 150_000
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6" dc:title="boats"/>'


def scene(seed: int = 0) -> Image.Image:
    return Image.fromarray(photo(seed=seed))


@pytest.fixture
def upscaler(student) -> Upscaler:
    return Upscaler(TorchEngine(student))


def png_with(*chunks: bytes, image: Image.Image | None = None) -> bytes:
    """A PNG with chunks behind its header."""
    file = io.BytesIO()
    (image or scene()).save(file, "PNG")
    content = file.getvalue()
    return content[:33] + b"".join(chunks) + content[33:]


def as_srgb(light: np.ndarray) -> np.ndarray:
    """Light in [0,1] as sRGB's values of 255."""
    return 255 * np.where(light < 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


# -- written -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".webp"])
def test_exif_and_gps_directories_survive_in_every_kind(tmp_path, suffix):
    scene().save(tmp_path / "a.jpg", exif=exif_of_a_camera())
    write_picture(tmp_path / f"b{suffix}", read_picture(tmp_path / "a.jpg"))
    with Image.open(tmp_path / f"b{suffix}") as back:
        exif = back.getexif()
        assert exif[ExifTags.Base.Make] == "maker"
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] == 0.5
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".webp"])
def test_tags_that_are_not_true_of_a_result_go(tmp_path, suffix):
    stale = {290: 2, 37724: b"Adobe Photoshop Document Data Block\0", 270: "ImageJ=1.11a\nimages=5\n", 271: "maker"}
    scene().convert("L").save(tmp_path / "a.tif", tiffinfo=stale)
    write_picture(tmp_path / f"b{suffix}", read_picture(tmp_path / "a.tif"))
    with Image.open(tmp_path / f"b{suffix}") as back:
        assert {290, 37724, 270}.isdisjoint(back.getexif())
        assert back.getexif()[271] == "maker"


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".webp"])
def test_text_in_exif_stays_text(tmp_path, suffix):
    """Readers look for a date as text; Pillow would give other types as bytes."""
    told = {ExifTags.Base.DateTimeOriginal: "2020:01:02 03:04:05", ExifTags.Base.LensModel: "L\u00e4ns"}
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {**told, ExifTags.Base.UserComment: b"ASCII\0\0\0boats"}
    content = exif.tobytes().replace(b"L?ns", "L\u00e4ns".encode("latin-1"))
    scene().save(tmp_path / "a.jpg", exif=content)
    write_picture(tmp_path / f"b{suffix}", read_picture(tmp_path / "a.jpg"))
    with Image.open(tmp_path / f"b{suffix}") as back:
        kept = back.getexif().get_ifd(ExifTags.IFD.Exif)
    assert kept == {**told, ExifTags.Base.UserComment: b"ASCII\0\0\0boats"}


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".webp"])
def test_names_with_umlauts_survive(tmp_path, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Zo\u00eb".encode()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.LensMake: "L\u00e4ns".encode()}
    scene().save(tmp_path / "a.jpg", exif=exif)
    write_picture(tmp_path / f"b{suffix}", read_picture(tmp_path / "a.jpg"))
    for name in ("Zo\u00eb", "L\u00e4ns"):
        assert name.encode() in (tmp_path / f"b{suffix}").read_bytes()


def test_metadata_too_long_for_a_file_are_left_out_and_said(tmp_path):
    exif = exif_of_a_camera()
    exif[ExifTags.Base.ImageDescription] = "x" * 70_000
    xmp = b"<x:xmpmeta/>" + b" " * 70_000
    picture = Picture(photo(), metadata=Metadata(exif=exif.tobytes(), xmp=xmp, text={"Comment": "x" * 70_000}))
    with pytest.warns(ImageWarning, match="ImageDescription, XMP, comment"):
        write_picture(tmp_path / "a.jpg", picture)
    with Image.open(tmp_path / "a.jpg") as back:
        assert back.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] == 0.5
        assert not {"xmp", "comment"} & set(back.info)


@pytest.mark.parametrize(("suffix", "lost"), [
    (".jpg", "text"), (".tif", "comment, text"), (".webp", "IPTC, comment, text"),
])  # fmt: skip
def test_metadata_that_a_kind_cannot_hold_are_said(tmp_path, suffix, lost):
    told = Metadata(xmp=b"<x:xmpmeta/>", iptc=b"\x1c\x02\x78\0\5boats", text={"Comment": "box 4", "Title": "Boats"})
    with pytest.warns(ImageWarning, match=f"^{lost} left out"):
        write_picture(tmp_path / f"a{suffix}", Picture(photo(), metadata=told))
    kept = read_picture(tmp_path / f"a{suffix}").metadata
    names = {"IPTC": kept.iptc, "comment": kept.text.get("Comment"), "text": kept.text.get("Title"), "XMP": kept.xmp}
    assert [name for name, value in names.items() if not value] == lost.split(", ")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_long_xmp_of_a_jpeg_becomes_one_packet(tmp_path, suffix):
    more = packet('xmlns:crs="camera/"', f'crs:Look="{LONG}" tiff:Orientation="6"')
    write_picture(tmp_path / f"b{suffix}", read_picture(long_xmp(more)))
    told = read_picture(tmp_path / f"b{suffix}").metadata.xmp
    assert told is not None
    (rdf,) = ElementTree.fromstring(told)
    names = {name: value for part in rdf for name, value in part.attrib.items()}
    assert names["{http://purl.org/dc/elements/1.1/}title"] == "boats"
    assert names["{camera/}Look"] == LONG
    assert b"HasExtendedXMP" not in told
    assert b"Orientation" not in told


def test_a_jpeg_keeps_the_first_part_of_long_xmp(tmp_path):
    picture = read_picture(long_xmp(packet('xmlns:crs="camera/"', f'crs:Look="{LONG}"')))
    with pytest.warns(ImageWarning, match="second part of XMP"):
        write_picture(tmp_path / "a.jpg", picture)
    told = read_picture(tmp_path / "a.jpg").metadata
    assert b"boats" in (told.xmp or b"")
    assert told.more_xmp is None


def test_a_jpeg_keeps_all_of_xmp_in_several_segments_that_fits_into_one(tmp_path):
    picture = read_picture(long_xmp(packet('xmlns:crs="camera/"', 'crs:Look="soft"')))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_picture(tmp_path / "a.jpg", picture)
    told = read_picture(tmp_path / "a.jpg").metadata.xmp or b""
    assert b"boats" in told
    assert b'crs:Look="soft"' in told


def test_long_xmp_that_is_not_whole_or_odd_costs_nothing_else(tmp_path):
    more = packet('xmlns:crs="camera/"', 'crs:Look="plain"')
    content = long_xmp(more, part=100)
    cut = content[:2] + content[4 + int.from_bytes(content[4:6], "big") :]  # the last part is the first segment
    assert read_picture(content).metadata.more_xmp == more
    with pytest.warns(ImageWarning, match="second part of XMP"):
        assert read_picture(cut).metadata.more_xmp is None
    for odd in (b"no packet", packet('xmlns:dc="another/"', 'dc:x="1"')):
        with pytest.warns(ImageWarning, match="second part of XMP"):
            write_picture(tmp_path / "a.png", read_picture(long_xmp(odd)))
        assert b"boats" in (read_picture(tmp_path / "a.png").metadata.xmp or b"")


def test_metadata_that_cannot_be_written_cost_no_picture(tmp_path):
    picture = Picture(photo(), metadata=Metadata(icc=SRGB, text={"k" * 100: "a keyword has 79 letters", "": "none"}))
    broken = Picture(photo(), metadata=Metadata(icc=SRGB, exif=b"Exif\0\0no such thing"))
    for name, each in (("a.png", picture), ("b.jpg", broken)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImageWarning)
            write_picture(tmp_path / name, each)
        with Image.open(tmp_path / name) as back:
            assert back.size == (52, 40)
            assert back.info["icc_profile"] == SRGB


def test_a_grey_profile_is_never_that_of_a_colour_file(tmp_path):
    profile = gamma_profile(1 / 1.8, grey=True)
    scene().convert("L").save(tmp_path / "a.png", icc_profile=profile)
    picture = read_picture(tmp_path / "a.png")
    write_picture(tmp_path / "b.png", picture)
    write_picture(tmp_path / "b.webp", picture)
    with Image.open(tmp_path / "b.png") as grey, Image.open(tmp_path / "b.webp") as colour:
        assert (grey.mode, grey.info["icc_profile"]) == ("L", profile)
        assert (colour.mode, colour.info.get("icc_profile")) == ("RGB", None)
        assert np.abs(np.asarray(colour) - as_srgb((picture.rgb / 255) ** 1.8)).mean() < 3
    colourful = scene()
    colourful.info["icc_profile"] = profile
    assert from_pil(colourful).metadata.icc is None


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_what_a_share_cannot_do_is_skipped(tmp_path, monkeypatch, number):
    def refuse(*_arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "chmod", refuse)
    monkeypatch.setattr(os, "fsync", refuse)
    write_picture(tmp_path / "a.png", Picture(photo()))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_disk_that_fills_up_at_the_end_is_an_error(tmp_path, monkeypatch):
    def full(_file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"), whole_or_nothing(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_process_that_is_told_to_end_leaves_no_hidden_file(tmp_path, name):
    number = getattr(signal, name)
    code = (
        "import os, pathlib, signal, sys\n"
        f"signal.signal({int(number)}, signal.SIG_DFL)\n"  # the tests may run under nohup
        "from tddsr.files import clean_up_when_ended, whole_or_nothing\n"
        "clean_up_when_ended()\n"
        f"with whole_or_nothing(pathlib.Path({str(tmp_path)!r}, 'a.png')):\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 128 + number
    assert list(tmp_path.iterdir()) == []


# -- read --------------------------------------------------------------------------------------------------------------


def test_pngs_with_megabytes_of_text_are_read(tmp_path):
    text = b'{"a": 1}' * 200_000
    xmp = b"<x:xmpmeta>" + b" " * 2_000_000 + b"</x:xmpmeta>"
    chunks = (
        chunk(b"zTXt", b"workflow\0\0" + zlib.compress(text)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)),
    )
    (tmp_path / "a.png").write_bytes(png_with(*chunks))
    picture = read_picture(tmp_path / "a.png")
    write_picture(tmp_path / "b.png", picture)
    for kept in (picture.metadata, read_picture(tmp_path / "b.png").metadata):
        assert kept.text == {"workflow": text.decode()}
        assert kept.xmp == xmp


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_may_lack_the_mark_of_its_end_but_no_pixels(tmp_path, options):
    file = io.BytesIO()
    Image.fromarray(photo(200, 200)).save(file, "JPEG", **options)
    content = file.getvalue()
    for missing in (1, 2):
        (tmp_path / "a.jpg").write_bytes(content[:-missing])
        with pytest.warns(ImageWarning, match="end"):
            picture = read_picture(tmp_path / "a.jpg")
        assert np.array_equal(picture.rgb, np.asarray(Image.open(io.BytesIO(content))))
    for length in (len(content) // 2, len(content) - 60):
        (tmp_path / "a.jpg").write_bytes(content[:length])
        with pytest.raises(ImageError, match="damaged"):
            read_picture(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [
    {}, {"progressive": True}, {"restart_marker_blocks": 2}, {"progressive": True, "restart_marker_blocks": 2},
])  # fmt: skip
def test_a_jpeg_cut_anywhere_is_refused(kind, options):
    """Also between scans, and between parts that are decoded by themselves."""
    file = io.BytesIO()
    Image.fromarray(photo(40, 40)).convert(kind).save(file, "JPEG", **options)
    content = file.getvalue()
    whole = read_picture(content).rgb
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageWarning)
        for length in range(len(content) // 2, len(content) - 2):
            with contextlib.suppress(ImageError):
                assert np.array_equal(read_picture(content[:length]).rgb, whole), length


@pytest.mark.parametrize(("marker", "body"), [
    (0xE0, b"JFIF\0\1\1\1\1\x2c\1\x2c\0\0"), (0xEE, b"Adobe\0\x64\0\0\0\0\1"),
    (0xED, b"Photoshop 3.0\x008BIM\4\4\0\0\0\0\0\5boats\0"), (0xE2, b"ICC_PROFILE\0\1\1" + SRGB),
    (0xE1, b"Exif\0\0" + exif_of_a_camera().tobytes()), (0xFE, b"box 4"),
])  # fmt: skip
def test_what_a_jpeg_says_of_itself_may_be_cut_anywhere(marker, body):
    plain = samples()["jpeg"]
    content = plain[:2] + plain[4 + int.from_bytes(plain[4:6], "big") :]  # without its own JFIF
    expected = read_picture(content).rgb
    for length in range(min(len(body), 60)):
        segment = bytes([0xFF, marker]) + struct.pack(">H", length + 2) + body[:length]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImageWarning)
            assert np.array_equal(read_picture(content[:2] + segment + content[2:]).rgb, expected)


@pytest.mark.parametrize("transform", [0, 1, 2, 3, 255])
@pytest.mark.parametrize("density", [(1, 0, 0), (1, 0, 300), (9, 300, 300), (2, 65_535, 65_535)])
def test_a_jpeg_may_say_nonsense_of_its_colours_and_density(density, transform):
    plain = samples()["jpeg"]
    jfif = plain[:13] + struct.pack(">BHH", *density) + plain[18:]
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform])
    picture = read_picture(jfif[:20] + adobe + jfif[20:])
    assert np.array_equal(picture.rgb, read_picture(plain).rgb)
    assert picture.metadata.dpi is None


def test_a_transparent_picture_called_jpg_becomes_a_png(tmp_path, upscaler):
    image = scene()
    image.putalpha(128)
    image.save(tmp_path / "a.jpg", "PNG")
    scene().save(tmp_path / "b.jpg", "PNG")
    assert output_path(tmp_path / "b.jpg", Size()) == tmp_path / "b_x4.jpg"
    assert upscaler(tmp_path / "a.jpg") == tmp_path / "a_x4.png"
    assert Image.open(tmp_path / "a_x4.png").mode == "RGBA"


def test_cmyk_and_lab_become_rgb_by_their_profiles():
    lab = ImageCms.profileToProfile(scene(), SRGB_PROFILE, ImageCms.createProfile("LAB"), outputMode="LAB")
    assert lab is not None
    assert np.abs(from_pil(lab).rgb.astype(int) - photo()).mean() < 3
    # A "press" whose cyan ink is red: no formula without the profile tells so.
    cmyk = Image.fromarray(np.full((4, 4, 4), (255, 0, 0, 0), np.uint8), "CMYK")
    cmyk.info["icc_profile"] = press_profile(paper=(100, 0, 0), ink=(54, 81, 70))
    picture = from_pil(cmyk)
    assert np.abs(picture.rgb[0, 0].astype(int) - (255, 0, 0)).max() < 12
    assert picture.metadata.icc is None
    cmyk.info["icc_profile"] = b"damaged"
    assert from_pil(cmyk).rgb[0, 0].tolist() == [0, 255, 255]


SRGB_PROFILE = ImageCms.createProfile("sRGB")


def press_profile(paper: tuple[int, int, int], ink: tuple[int, int, int]) -> bytes:
    """A CMYK profile in which the first ink alone has a colour (L, a, b), and all others none."""

    def node(colour: tuple[int, int, int]) -> bytes:
        return bytes([round(colour[0] * 2.55), colour[1] + 128, colour[2] + 128])

    nodes = b"".join(node(ink if corner >= 8 else paper) for corner in range(16))
    identity = struct.pack(">9i", *(65536 if place % 4 == 0 else 0 for place in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + bytes(range(256)) * 4 + nodes + bytes(range(256)) * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1, 0.8249)))
    table += bytes(-len(table) % 4)
    tags = struct.pack(">I4sII4sII", 2, b"A2B0", 156, len(table), b"wtpt", 156 + len(table), len(white))
    head = b"\2\x40\0\0prtrCMYKLab " + bytes(12) + b"acsp"
    header = (struct.pack(">I4x", 156 + len(table) + len(white)) + head).ljust(68, b"\0") + white[8:]
    return header.ljust(128, b"\0") + tags + table + white


def planar_tiff(planes: np.ndarray) -> bytes:
    """A TIFF file of 4x2 RGB pixels in planes."""
    bits = 8 * planes.itemsize
    entries = [
        (256, 3, 1, 4), (257, 3, 1, 2), (258, 3, 3, 200), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 3, 206),
        (277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 3, 218), (284, 3, 1, 2),
    ]  # fmt: skip
    size = 8 * bits // 8
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    tail = struct.pack("<3H3I3I", *[bits] * 3, *(230 + plane * size for plane in range(3)), *[size] * 3)
    return head.ljust(200, b"\0") + tail + planes.tobytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colour_in_planes_is_put_together(tmp_path, dtype):
    planes = (np.arange(24).reshape(3, 2, 4) * 10).astype(dtype)
    (tmp_path / "a.tif").write_bytes(planar_tiff(planes))
    picture = read_picture(tmp_path / "a.tif")
    assert picture.rgb.dtype == dtype
    assert np.array_equal(picture.rgb, planes.transpose(1, 2, 0))


def test_the_picture_behind_a_preview_is_taken(tmp_path):
    preview = scene().resize((13, 10))
    preview.save(tmp_path / "a.tif", save_all=True, append_images=[scene()], tiffinfo={254: 1})
    content, mark = (tmp_path / "a.tif").read_bytes(), struct.pack("<HHII", 254, 4, 1, 1)
    assert content.count(mark) == 2  # Pillow gives the tags of the first page to all: take the second one's away
    at = content.rindex(mark)
    (tmp_path / "a.tif").write_bytes(content[:at] + struct.pack("<HHII", 254, 4, 1, 0) + content[at + 12 :])
    assert header_size(tmp_path / "a.tif") == (52, 40)
    assert np.array_equal(read_picture(tmp_path / "a.tif").rgb, photo())


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "a.webp", "a.png", "a.avif"])
def test_that_only_the_first_of_several_pictures_is_taken_is_said(tmp_path, name):
    scene().save(tmp_path / name, save_all=True, append_images=[scene(seed=1)])
    with pytest.warns(ImageWarning, match="holds 2 pictures"):
        read_picture(tmp_path / name)


@pytest.mark.parametrize("unit", [0, 4, 65535])
@pytest.mark.parametrize("order", ["<", ">"])
def test_an_unknown_unit_of_resolution_costs_no_picture(tmp_path, order, unit):
    deep = photo().astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", metadata=None, byteorder=order, resolution=(300, 300))
    content = (tmp_path / "a.tif").read_bytes()
    entry = struct.pack(f"{order}HHIH", 296, 3, 1, 2)
    assert content.count(entry) == 1
    picture = read_picture(content.replace(entry, struct.pack(f"{order}HHIH", 296, 3, 1, unit)))
    assert np.array_equal(picture.rgb, deep)
    assert picture.metadata.dpi is None


def test_cmyk_keeps_its_transparency():
    file, alpha = io.BytesIO(), photo()[..., 0]
    ink = np.asarray(scene().convert("CMYK"))
    tifffile.imwrite(file, np.dstack([ink, alpha]), photometric="separated", extrasamples=[2], metadata=None)
    picture = read_picture(file.getvalue())
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha, alpha)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colours", [9, 34892])
def test_colours_of_unknown_kinds_are_refused(colours, dtype):
    file = io.BytesIO()
    tifffile.imwrite(file, photo().astype(dtype), photometric=colours, metadata=None)
    with pytest.raises(ImageError, match="convert it to RGB"):
        read_picture(file.getvalue())


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_resolution_turns_with_the_picture(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    scene().save(tmp_path / f"a{suffix}", dpi=(300, 150), exif=exif)
    told = read_picture(tmp_path / f"a{suffix}").metadata.dpi
    assert told == pytest.approx((300, 150) if orientation < 5 else (150, 300), abs=0.1)


def test_previews_and_pages_that_pillow_does_not_know_are_of_no_account(tmp_path):
    for subfile in (1, 4):  # a preview; a mask, which Pillow does not read
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(photo(), photometric="rgb", metadata=None)
            file.write(photo()[..., 0] > 99, metadata=None, subfiletype=subfile)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.array_equal(read_picture(tmp_path / "a.tif").rgb, photo())


def test_16_bit_grey_with_a_transparent_value_keeps_its_transparency(tmp_path):
    values = np.full((4, 6), 40_000, np.uint16)
    values[:, :2] = 1234
    content = png_with(chunk(b"tRNS", struct.pack(">H", 1234)), image=Image.fromarray(values))
    (tmp_path / "a.png").write_bytes(content)
    picture = read_picture(tmp_path / "a.png")
    assert picture.grey
    assert picture.alpha is not None
    assert picture.alpha[0].tolist() == [0, 0, *[65535] * 4]
    write_picture(tmp_path / "b.png", picture)
    again = read_picture(tmp_path / "b.png")
    assert again.grey
    assert again.alpha is not None
    assert np.array_equal(again.alpha, picture.alpha)
    assert np.array_equal(again.rgb, picture.rgb)


def test_32_bit_that_are_8_or_16_are_known_by_their_values():
    values = np.arange(256, dtype=np.int32).reshape(16, 16)
    for factor, dtype in ((1, np.uint8), (257, np.uint16)):
        picture = from_pil(Image.fromarray(values * factor))
        assert picture.rgb.dtype == dtype
        assert np.array_equal(picture.rgb[..., 0], values * factor)


def test_floats_beyond_one_by_rounding_are_clipped():
    assert from_array(np.array([[1.0000005, -1e-7]], np.float32)).rgb[0, :, 0].tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"1\.25"):
        from_array(np.array([[1.25]], np.float32))


# -- metadata ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("source", ["a.png", "a.jpg", "a.tif"])
def test_a_print_keeps_its_size(tmp_path, upscaler, source, suffix):
    scene().save(tmp_path / source, dpi=(300, 150))
    upscaler(tmp_path / source, output=tmp_path / f"b{suffix}", scale=2)
    assert read_picture(tmp_path / f"b{suffix}").metadata.dpi == pytest.approx((600, 300), rel=1e-3)


def test_resolutions_in_centimetres_are_known_and_impossible_ones_left_out(tmp_path):
    scene().save(tmp_path / "a.tif", resolution_unit="cm", x_resolution=100, y_resolution=50)
    assert read_picture(tmp_path / "a.tif").metadata.dpi == pytest.approx((254, 127))
    for impossible in ((300, float("nan")), (0, 300), (1e9, 300)):
        image = scene()
        image.info["dpi"] = impossible
        assert read_metadata(image).dpi is None
    assert Metadata(dpi=(9600, 9600)).enlarged(8).dpi is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_no_resolution_is_made_up(tmp_path, suffix):
    scene().save(tmp_path / f"a{suffix}", exif=exif_of_a_camera().tobytes())
    assert read_picture(tmp_path / f"a{suffix}").metadata.dpi is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_xmp_survives_without_what_is_stale(tmp_path, suffix):
    scene().save(tmp_path / "a.jpg", xmp=XMP)
    write_picture(tmp_path / f"b{suffix}", read_picture(tmp_path / "a.jpg"))
    with Image.open(tmp_path / f"b{suffix}") as back:
        assert back.info["xmp"] == XMP.replace(b' tiff:Orientation="6"', b"")


P3_IN_SRGB = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])


def in_srgb(image: Image.Image, profile: bytes) -> np.ndarray:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    shown = ImageCms.profileToProfile(image, source, SRGB_PROFILE, outputMode="RGB")
    assert shown is not None
    return np.asarray(shown).astype(int)


def test_gamma_and_primaries_of_a_png_become_a_profile(tmp_path, upscaler):
    linear = chunk(b"gAMA", struct.pack(">I", 100_000))
    (tmp_path / "a.png").write_bytes(png_with(linear))
    for source, mode in ((scene(), "RGB"), (scene().convert("L"), "L")):
        (tmp_path / "a.png").write_bytes(png_with(linear, image=source))
        upscaler(tmp_path / "a.png", output=tmp_path / "b.jpg")
        with Image.open(tmp_path / "b.jpg") as back:
            assert back.mode == mode
            profile = back.info["icc_profile"]
        assert np.abs(in_srgb(source, profile) - as_srgb(np.asarray(source.convert("RGB")) / 255)).max() <= 2


def test_primaries_have_the_colours_they_say(tmp_path):
    # Display P3's, by the published matrices.
    p3 = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
    body = struct.pack(">8I", *(round(value * 100_000) for value in p3))
    (tmp_path / "a.png").write_bytes(png_with(chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"cHRM", body)))
    profile = read_picture(tmp_path / "a.png").metadata.icc
    assert profile is not None
    dull = Image.fromarray(np.full((1, 1, 3), (160, 120, 120), np.uint8))
    light = (np.array([160, 120, 120]) / 255) ** (1 / 0.45455)
    assert np.abs(in_srgb(dull, profile)[0, 0] - as_srgb(P3_IN_SRGB @ light)).max() <= 1.5


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_the_coded_colours_of_a_png_become_a_profile(tmp_path, suffix):
    # Display P3's curve is that of sRGB; the code overrides all else that the file tells of its colours.
    told = (chunk(b"gAMA", struct.pack(">I", 100_000)), chunk(b"cICP", bytes([12, 13, 0, 1])))
    dull = Image.fromarray(np.full((8, 8, 3), (160, 120, 120), np.uint8))
    (tmp_path / "a.png").write_bytes(png_with(*told, image=dull))
    write_picture(tmp_path / f"b{suffix}", read_picture(tmp_path / "a.png"))
    with Image.open(tmp_path / f"b{suffix}") as back:
        shown = in_srgb(back.convert("RGB"), back.info["icc_profile"])[4, 4]
    light = ((np.array([160, 120, 120]) / 255 + 0.055) / 1.055) ** 2.4
    assert np.abs(shown - as_srgb(P3_IN_SRGB @ light)).max() <= (4 if suffix in (".jpg", ".webp") else 1.5)


def test_codes_that_say_nothing_leave_a_profile(tmp_path):
    scene().save(tmp_path / "a.png", icc_profile=SRGB)
    content = (tmp_path / "a.png").read_bytes()
    for codes, profile in ((bytes([2, 2, 0, 1]), SRGB), (bytes([1, 13, 0, 1]), None)):
        assert read_picture(content[:33] + chunk(b"cICP", codes) + content[33:]).metadata.icc == profile


@pytest.mark.parametrize(("transfer", "white"), [(16, 0.5807), (18, 0.75)])
def test_white_paper_of_high_dynamic_range_is_shown_white(transfer, white):
    profile = coded_profile(9, transfer)
    assert profile is not None
    values = np.array([0, white / 2, white, 1]) * 255
    shown = in_srgb(Image.fromarray(values.round().astype(np.uint8)[None, :, None].repeat(3, axis=2)), profile)[0]
    assert shown[0].max() == 0
    assert 40 < shown[1].mean() < 160
    assert shown[2:].min() >= 250


def test_the_coded_colours_of_an_avif_become_a_profile_unless_it_has_one(tmp_path):
    scene().save(tmp_path / "a.avif", icc_profile=gamma_profile(1 / 1.8))
    assert read_picture(tmp_path / "a.avif").metadata.icc == gamma_profile(1 / 1.8)
    scene().save(tmp_path / "a.avif")
    assert read_picture(tmp_path / "a.avif").metadata.icc is None
    content = (tmp_path / "a.avif").read_bytes()
    coded = content.replace(b"colrnclx\0\1\0\r", b"colrnclx\0\x0c\0\r")
    assert coded != content
    assert read_picture(coded).metadata.icc == coded_profile(12, 13)


@pytest.mark.parametrize("chunks", [
    [chunk(b"cICP", bytes([1, 13, 0, 1])), chunk(b"gAMA", struct.pack(">I", 100_000))],
    [chunk(b"cICP", bytes([2, 2, 0, 1]))],
    [chunk(b"gAMA", struct.pack(">I", 45455))],
    [chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in SRGB_XY)))],
    [chunk(b"sRGB", b"\0"), chunk(b"gAMA", struct.pack(">I", 100_000))],
    [chunk(b"gAMA", bytes(4))],
    [chunk(b"cHRM", bytes(32))],
])  # fmt: skip
def test_a_png_of_common_or_impossible_colours_gets_no_profile(tmp_path, chunks):
    (tmp_path / "a.png").write_bytes(png_with(*chunks))
    assert read_picture(tmp_path / "a.png").metadata.icc is None


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".png"])
def test_iptc_survives_where_a_file_can_hold_it(tmp_path, suffix):
    iptc = b"\x1c\x02\x78\0\5boats"
    write_picture(tmp_path / f"a{suffix}", Picture(photo(), metadata=Metadata(iptc=iptc)))
    picture = read_picture(tmp_path / f"a{suffix}")
    assert picture.metadata.iptc == iptc
    assert np.abs(picture.rgb.astype(int) - photo()).mean() < 4


@pytest.mark.parametrize(
    "stale", ["xmpNote:HasExtendedXMP", "GPano:FullPanoWidthPixels", "GCamera:MotionPhoto", "hdrgm:Version"]
)
def test_what_is_stale_of_xmp_goes(stale):
    file = io.BytesIO()
    scene().save(file, "JPEG", xmp=f'<x:xmpmeta {stale}="0123" dc:title="boats"/>'.encode())
    assert read_picture(file.getvalue()).metadata.xmp == b'<x:xmpmeta dc:title="boats"/>'


def test_text_and_comments_survive(tmp_path):
    text = PngInfo()
    text.add_text("parameters", "a tree, Seed: 1")
    text.add_itxt("Title", "B\u00e4ume \u6728")
    text.add_text("Raw profile type exif", "stale")
    scene().save(tmp_path / "a.png", pnginfo=text)
    scene().save(tmp_path / "a.jpg", comment=b"box 4")
    for source, told in (("a.png", {"parameters": "a tree, Seed: 1", "Title": "B\u00e4ume \u6728"}),
                         ("a.jpg", {"Comment": "box 4"})):  # fmt: skip
        write_picture(tmp_path / "b.png", read_picture(tmp_path / source))
        assert read_picture(tmp_path / "b.png").metadata.text == told
    write_picture(tmp_path / "b.jpg", read_picture(tmp_path / "a.jpg"))
    assert Image.open(tmp_path / "b.jpg").info["comment"] == b"box 4"


@pytest.mark.parametrize("coding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("kind", ["JPEG", "GIF"])
def test_comments_are_read_in_either_coding(kind, coding):
    file = io.BytesIO()
    scene().save(file, kind, comment="Zo\u00eb".encode(coding))
    assert read_picture(file.getvalue()).metadata.text == {"Comment": "Zo\u00eb"}


def test_lossless_webp_stays_lossless(tmp_path):
    frames = {"save_all": True, "append_images": [scene(seed=1)]}
    lossless = {"lossless": True}
    for options, expected in ((lossless, True), ({}, False), (lossless | {"exif": b"Exif\0\0MM"}, True),
                              (lossless | frames, True), (frames, False)):  # fmt: skip
        scene().save(tmp_path / "a.webp", **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImageWarning)
            picture = read_picture(tmp_path / "a.webp")
        write_picture(tmp_path / "b.webp", picture)
        assert np.array_equal(read_picture(tmp_path / "b.webp").rgb, picture.rgb) == expected


def test_pil_images_carry_their_metadata_through(upscaler):
    image = scene()
    image.info |= {"dpi": (72, 72), "xmp": b"<x:xmpmeta/>"}
    assert read_metadata(upscaler(image)) == Metadata(xmp=b"<x:xmpmeta/>", dpi=(288, 288))


# -- transparency, greys, sizes ----------------------------------------------------------------------------------------


def sprite(hidden: int) -> Image.Image:
    """A white disc, and a colour hidden where nothing shows."""
    y, x = np.mgrid[:40, :40]
    disc = np.hypot(x - 20, y - 20) < 14
    rgb = np.where(disc[..., None], 255, hidden).repeat(3, axis=2).astype(np.uint8)
    return Image.fromarray(np.dstack([rgb, np.where(disc, 255, 0).astype(np.uint8)]))


@pytest.mark.parametrize("scale", [2, 4])
def test_colours_hidden_under_transparency_do_not_bleed(upscaler, scale):
    dark, white = (np.asarray(upscaler(sprite(hidden), scale=scale)) for hidden in (0, 255))
    assert np.array_equal(dark, white)


def test_hidden_colours_become_those_around_and_shown_ones_stay():
    rgb = photo(37, 41)
    alpha = np.zeros((37, 41), np.uint8)
    alpha[10:20, 5:30] = 1
    filled = spread_colours(rgb, alpha)
    assert np.array_equal(filled[alpha > 0], rgb[alpha > 0])
    shown = rgb[10:20, 5:30].reshape(-1, 3)
    assert (filled >= shown.min(0)).all()
    assert (filled <= shown.max(0)).all()
    assert np.array_equal(spread_colours(rgb, np.zeros_like(alpha)), rgb)


def test_greys_stored_as_colours_stay_grey(upscaler):
    grey = np.repeat(photo()[..., :1], 3, axis=2)
    large = upscaler(grey)
    assert (large == large[..., :1]).all()
    assert not (upscaler(photo()) == upscaler(photo())[..., :1]).all()


def test_halves_are_rounded_up(upscaler):
    assert upscaler(photo(5, 15), scale=1.5).shape == (8, 23, 3)
    assert upscaler(photo(5, 15), scale=1.1).shape == (6, 17, 3)


def test_the_border_of_a_picture_of_one_colour_is_as_its_inside():
    green = np.full((40, 40, 3), (0, 255, 0), np.uint8)
    for model in ("compact", "compact-small"):
        assert np.abs(Upscaler.load(model, device="cpu")(green).astype(int) - green[0, 0]).max() <= 8


# -- folders -----------------------------------------------------------------------------------------------------------


def test_a_result_is_known_by_the_picture_beside_it(tmp_path):
    for name in ("a.jpg", "a_x4.jpg", "a_x2.5.png", "b_x4.jpg", "a_x4_x4.jpg"):
        scene().save(tmp_path / name)
    sources = {path.name: source and source.name for path in tmp_path.iterdir() for source in [made_from(path)]}
    assert sources == {
        "a.jpg": None, "a_x4.jpg": "a.jpg", "a_x2.5.png": "a.jpg", "b_x4.jpg": None, "a_x4_x4.jpg": "a_x4.jpg",
    }  # fmt: skip


def test_a_folder_finds_more_kinds_and_counts_the_rest(tmp_path):
    scene().save(tmp_path / "a.jfif", "JPEG")
    scene().save(tmp_path / "b.tga")
    for name in ("c.psd", "d.psd", "README"):
        (tmp_path / name).write_text("")
    found, others = search(tmp_path)
    assert [path.name for path in found] == ["a.jfif", "b.tga"]
    assert others == {".psd": 2, "without suffix": 1}


def test_linked_folders_are_followed_once_and_never_upwards(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for path in (root / "z" / "a.png", elsewhere / "b.png"):
        path.parent.mkdir(parents=True)
        scene().save(path)
    for name, target in {"a": root / "z", "m": elsewhere, "n": elsewhere, "loop": root, "up": tmp_path}.items():
        (root / name).symlink_to(target, target_is_directory=True)
    assert find_files(root) == [root / "m" / "b.png", root / "z" / "a.png"]
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    assert find_files(tmp_path / "link") == [tmp_path / "link" / "m" / "b.png", tmp_path / "link" / "z" / "a.png"]
