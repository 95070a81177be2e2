import io
import os
import stat
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms
from PIL.TiffImagePlugin import TiffImageFile

from tddsr.errors import ImageError, ImageWarning
from tddsr.pictures.files import WRITABLE, header_size, read_picture, write_picture
from tddsr.pictures.folders import find_files
from tddsr.pictures.opening import allowed
from tddsr.pictures.picture import Picture, to_8_bit
from tddsr.pictures.pil import from_pil, to_pil
from tests.conftest import photo
from tests.samples import HEIGHT, WIDTH, chunk, png_with, samples


def png_with_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", sorted(WRITABLE))
def test_pictures_survive_a_round_trip(tmp_path, suffix):
    rgb = photo(31, 45, noise=0)
    path = tmp_path / f"a{suffix}"
    write_picture(path, Picture(rgb))
    back = read_picture(path)
    assert back.alpha is None
    assert not back.grey
    error = np.abs(back.rgb.astype(int) - rgb).mean()
    assert error == 0 if suffix in (".png", ".tif", ".tiff") else error < 4


@pytest.mark.parametrize(("mode", "grey", "alpha"), [
    ("RGB", False, False), ("RGBA", False, True), ("L", True, False), ("LA", True, True), ("1", True, False),
    ("P", False, False), ("CMYK", False, False), ("YCbCr", False, False), ("PA", False, True), ("La", True, True),
])  # fmt: skip
def test_every_mode_is_taken_apart(mode, grey, alpha):
    through = {"PA": "P", "La": "LA"}  # PIL knows no direct way to these
    image = Image.fromarray(photo()).convert(through.get(mode, mode)).convert(mode)
    picture = from_pil(image)
    assert picture.grey == grey
    assert (picture.alpha is not None) == alpha
    assert picture.rgb.shape == (40, 52, 3)
    shown = image.convert("LA") if mode == "La" else image
    assert np.abs(picture.rgb.astype(int) - np.asarray(shown.convert("RGB"))).max() <= 1


def test_16_bit_is_rounded_to_8_bit():
    values = np.array([0, 128, 129, 65406, 65407, 65535], np.uint16)
    assert to_8_bit(values).tolist() == [0, 0, 1, 254, 255, 255]


def test_transparent_palettes_keep_their_transparency(tmp_path):
    image = Image.fromarray(photo()).convert("P")
    image.save(tmp_path / "a.png", transparency=image.getpixel((3, 3)))
    picture = read_picture(tmp_path / "a.png")
    assert picture.alpha is not None
    assert picture.alpha[3, 3] == 0
    assert picture.alpha.max() == 255


def test_grey_stays_grey_also_in_16_bit(tmp_path):
    values = (np.arange(40 * 52).reshape(40, 52) * 31).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert picture.grey
    assert np.array_equal(picture.rgb[..., 0], values)
    write_picture(tmp_path / "b.png", picture)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), values)
    assert to_pil(Picture(photo(), grey=True)).mode == "L"


def test_orientation_is_applied_once_and_the_rest_of_exif_kept(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    exif[0x010F] = "maker"
    Image.fromarray(photo(40, 52)).save(tmp_path / "a.jpg", exif=exif)
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.size == (40, 52)
    write_picture(tmp_path / "b.jpg", picture)
    with Image.open(tmp_path / "b.jpg") as back:
        assert back.size == (40, 52)
        assert back.getexif().get(0x0112, 1) == 1
        assert back.getexif()[0x010F] == "maker"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_the_icc_profile_survives(tmp_path, suffix):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(photo()).save(tmp_path / f"a{suffix}", icc_profile=profile)
    write_picture(tmp_path / f"b{suffix}", read_picture(tmp_path / f"a{suffix}"))
    with Image.open(tmp_path / f"b{suffix}") as back:
        assert back.info["icc_profile"] == profile


def truncated_jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo(200, 200)).save(file, "JPEG")
    return file.getvalue()[: len(file.getvalue()) // 2]


@pytest.mark.parametrize("content", [
    b"", b"just text", truncated_jpeg(), png_with_size(0, 10), png_with_size(100_000, 100_000), png_with_size(50, 50),
])  # fmt: skip
def test_bad_files_are_one_line_that_names_them(tmp_path, content):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(ImageError) as raised:
        read_picture(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "name", ["png", "png 3x16", "jpeg", "jpeg cmyk", "tiff lzw", "tiff 4x16", "tiff float", "webp"]
)
def test_how_many_pixels_are_too_many_can_be_said(name):
    content, most = samples()[name], Image.MAX_IMAGE_PIXELS
    with allowed(0.001), pytest.raises(ImageError, match=r"0\.001 million.*largest"):
        read_picture(content)  # it has 1280
    with allowed(0.002):
        assert read_picture(content).size == (WIDTH, HEIGHT)
    assert most == Image.MAX_IMAGE_PIXELS


def test_more_pixels_than_pillow_allows_are_read_where_they_are_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    for name in ("png", "jpeg", "tiff 4x16"):
        (tmp_path / name).write_bytes(samples()[name])
        for source in (tmp_path / name, samples()[name]):
            with pytest.raises(ImageError, match="million"):
                read_picture(source)
            with allowed(1):
                assert read_picture(source).size == (WIDTH, HEIGHT)


def test_missing_files_and_folders_are_not_pictures(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(ImageError, match=str(path)):
            read_picture(path)


def test_16_bit_grey_becomes_8_bit_where_a_file_holds_no_more(tmp_path):
    values = np.full((16, 16, 3), 30000, np.uint16)
    for suffix in (".jpg", ".webp"):
        write_picture(tmp_path / f"a{suffix}", Picture(values, grey=True))
        back = read_picture(tmp_path / f"a{suffix}").rgb
        assert np.abs(back.astype(int) - 30000 // 257).max() <= 2


@pytest.mark.parametrize(
    ("source", "target"), [(".tif", ".png"), (".tif", ".tif"), (".jpg", ".webp"), (".png", ".tif")]
)
def test_exif_survives_from_any_kind_to_any_other(tmp_path, source, target):
    exif = Image.Exif()
    exif[0x010F] = "maker"
    exif[0x0112] = 3
    pixels = photo(40, 52)
    Image.fromarray(pixels).save(tmp_path / f"a{source}", exif=exif)
    write_picture(tmp_path / f"b{target}", read_picture(tmp_path / f"a{source}"))
    with Image.open(tmp_path / f"b{target}") as back:
        assert back.getexif()[0x010F] == "maker"
        assert back.getexif().get(0x0112, 1) == 1
        assert back.size == (52, 40)
        assert np.abs(np.asarray(back.convert("RGB")).astype(int) - pixels[::-1, ::-1]).mean() < 6


def test_pil_images_keep_exif_and_get_none_they_had_not():
    exif = Image.Exif()
    exif[0x010F] = "maker"
    assert from_pil(Image.fromarray(photo())).metadata.exif is None
    image = Image.fromarray(photo())
    image.info["exif"] = exif.tobytes()
    again = to_pil(from_pil(image))
    assert again.getexif()[0x010F] == "maker"


def test_exif_does_not_tell_the_old_size(tmp_path):
    exif = Image.Exif()
    stale = {ExifTags.Base.ExifImageWidth: 52, ExifTags.Base.SubjectLocation: (20, 20), 41486: 3000.0}
    exif.get_ifd(ExifTags.IFD.Exif).update({**stale, ExifTags.Base.ExposureTime: 0.5})
    Image.fromarray(photo()).save(tmp_path / "a.jpg", exif=exif)
    write_picture(tmp_path / "b.jpg", read_picture(tmp_path / "a.jpg"))
    kept = Image.open(tmp_path / "b.jpg").getexif().get_ifd(ExifTags.IFD.Exif)
    assert kept == {ExifTags.Base.ExposureTime: 0.5}


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".webp"])
def test_exif_gets_no_directories_that_it_had_not(tmp_path, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "maker"
    Image.fromarray(photo()).save(tmp_path / "a.jpg", exif=exif)
    write_picture(tmp_path / f"b{suffix}", read_picture(tmp_path / "a.jpg"))
    assert {ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}.isdisjoint(Image.open(tmp_path / f"b{suffix}").getexif())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pictures_in_which_white_is_zero_are_no_negatives(tmp_path, dtype):
    values = np.arange(6, dtype=dtype).reshape(2, 3)
    Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo={ExifTags.Base.PhotometricInterpretation: 0})
    with TiffImageFile(tmp_path / "a.tif") as file:
        assert file.tag_v2[ExifTags.Base.PhotometricInterpretation] == 0
        stored = np.frombuffer((tmp_path / "a.tif").read_bytes()[file.tag_v2[273][0] :][: values.nbytes], dtype)
    white = np.iinfo(dtype).max
    assert np.array_equal(read_picture(tmp_path / "a.tif").rgb[..., 0].ravel(), white - stored)


@pytest.mark.parametrize("damaged", [b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x01", b"Exif\0\0MM", b"Exif\0\0", b"none"])
@pytest.mark.parametrize("suffix", [".webp", ".jpg", ".png"])
def test_damaged_exif_costs_no_picture(tmp_path, suffix, damaged):
    Image.fromarray(photo()).save(tmp_path / f"a{suffix}", exif=damaged)
    assert read_picture(tmp_path / f"a{suffix}").size == (52, 40)


def test_damage_of_what_a_png_says_of_itself_costs_no_picture(tmp_path):
    """Of every chunk but those of the pixels, each byte behind its length."""
    content, at = samples()["png metadata"], 33
    expected = read_picture(content)
    harmed = set()
    while (name := content[at + 4 : at + 8]) != b"IDAT":
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        for place in {at + 8, (at + end) // 2, end - 1}:
            damaged = bytearray(content)
            damaged[place] ^= 0x55
            (tmp_path / "a.png").write_bytes(damaged)
            assert header_size(tmp_path / "a.png") == expected.size
            with pytest.warns(ImageWarning, match="left out"):
                picture = read_picture(tmp_path / "a.png")
            assert np.array_equal(picture.rgb, expected.rgb)
        harmed.add(name)
        at = end
    assert {b"iCCP", b"eXIf", b"iTXt", b"tEXt", b"pHYs"} <= harmed


@pytest.mark.parametrize("name", [b"acTL", b"cHRM", b"gAMA", b"pHYs", b"sRGB", b"cICP", b"tIME", b"iTXt", b"zTXt"])
def test_chunks_of_a_png_that_are_too_short_cost_no_picture(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageWarning)
        assert read_picture(png_with(chunk(name, b""))).size == (WIDTH, HEIGHT)


def test_reasons_are_short(tmp_path):
    Image.fromarray(photo(300, 40)).convert("1").save(tmp_path / "a.tif", compression="tiff_raw_16")
    with pytest.raises(ImageError) as error:  # a complaint of each line
        read_picture(tmp_path / "a.tif")
    assert len(str(error.value)) < len(str(tmp_path)) + 300


def test_hidden_files_are_not_found(tmp_path):
    (tmp_path / ".thumbnails").mkdir()
    for name in ("._a.png", ".thumbnails/b.png", "b.png"):
        Image.fromarray(photo()).save(tmp_path / name)
    assert find_files(tmp_path) == [tmp_path / "b.png"]


@pytest.mark.parametrize(("name", "picture", "reason"), [
    ("a.xyz", Picture(photo()), r"\.png"),
    ("a.jpg", Picture(photo(), alpha=photo()[..., 0]), "transparency"),
    ("a.webp", Picture(np.zeros((2, 16384, 3), np.uint8)), "16383"),
])  # fmt: skip
def test_what_a_file_cannot_hold_is_refused_before_writing(tmp_path, name, picture, reason):
    with pytest.raises(ImageError, match=reason):
        write_picture(tmp_path / name, picture)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ImageError, match="cannot be written"):
        write_picture(tmp_path / "file" / "a.png", Picture(photo()))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_picture(path, Picture(photo()))
    before = path.read_bytes()

    def fail(*_args, **_options):
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(ImageError, match="disk full"):
        write_picture(path, Picture(photo(seed=1)))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_files_get_the_permissions_of_the_user(tmp_path):
    old = os.umask(0o027)
    try:
        write_picture(tmp_path / "a.png", Picture(photo()))
    finally:
        os.umask(old)
    assert stat.S_IMODE(Path(tmp_path / "a.png").stat().st_mode) == 0o640
