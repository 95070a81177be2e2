"""Files of more than 8 bits a channel."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import ExifTags, Image, ImageCms

import tddsr
from tddsr.errors import ImageError, ImageWarning
from tddsr.pictures.files import header_size, read_picture, write_picture
from tddsr.pictures.picture import Picture
from tddsr.pictures.pil import from_pil
from tddsr.pictures.profiles import gamma_profile
from tests.conftest import photo
from tests.samples import chunk, deep_tiff, heif, pixels, tiff
from tests.test_cases import press_profile

GRADIENTS = np.arange(24 * 20 * 4, dtype=np.uint16).reshape(24, 20, 4) * 31 + 77
TRANSPARENCY, MULTIPLIED = 2, 1


def png(pixels: np.ndarray, colours: int) -> bytes:
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colours, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(("channels", "colours"), [(1, 0), (2, 4), (3, 2), (4, 6)])
def test_every_layout_of_16_bit_png_is_kept(tmp_path, channels, colours):
    content = png(GRADIENTS[..., :channels], colours)
    check(tmp_path, content, GRADIENTS[..., :channels])


def check(tmp_path, content: bytes, expected: np.ndarray) -> None:
    """It is read as ``expected``, also after it was written."""
    (tmp_path / "a").write_bytes(content)
    assert header_size(tmp_path / "a") == (expected.shape[1], expected.shape[0])
    picture: Picture = read_picture(content)
    for suffix in (".png", ".tif"):
        write_picture(tmp_path / f"b{suffix}", picture)
    for again in (picture, *(read_picture(tmp_path / f"b{suffix}") for suffix in (".png", ".tif"))):
        assert again.grey == (expected.shape[2] < 3)
        colours = expected[..., :1].repeat(3, axis=2) if again.grey else expected[..., :3]
        assert again.rgb.dtype == np.uint16
        assert np.array_equal(again.rgb, colours)
        assert (again.alpha is None) == (expected.shape[2] in (1, 3))
        if again.alpha is not None:
            assert again.alpha.dtype == np.uint16
            assert np.array_equal(again.alpha, expected[..., -1])


@pytest.mark.parametrize(("channels", "planar"), [(1, False), (2, False), (3, False), (4, False), (3, True), (4, True)])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"tile": (16, 16)}])
def test_every_layout_of_16_bit_tiff_is_kept(tmp_path, planar, channels, options):
    expected = GRADIENTS[..., :channels]
    arranged: dict[str, Any] = {"photometric": "rgb" if channels > 2 else "minisblack"}
    if planar:
        arranged["planarconfig"] = "separate"
    if channels in (2, 4):
        arranged["extrasamples"] = [TRANSPARENCY]
    content = tiff(np.moveaxis(expected, 2, 0) if planar else expected.squeeze(), **arranged, **options)
    if planar and "tile" in options:  # nobody reads it
        with pytest.raises(ImageError, match="planes"), pytest.warns(ImageWarning, match="8 bit"):
            read_picture(content)
    else:
        check(tmp_path, content, expected)


def test_grey_and_transparency_in_planes_are_refused_rather_than_read_wrongly():
    planes = np.moveaxis(GRADIENTS[..., :2], 2, 0)
    content = tiff(planes, photometric="minisblack", planarconfig="separate", extrasamples=[TRANSPARENCY])
    with pytest.raises(ImageError, match="planes"):
        read_picture(content)


def test_multiplied_colours_are_divided_and_other_channels_left_out(tmp_path):
    colour, alpha = np.full((6, 5, 3), 30_000), np.full((6, 5, 1), 20_000)
    multiplied = np.dstack([colour * alpha // 65535, alpha]).astype(np.uint16)
    picture = read_picture(tiff(multiplied, photometric="rgb", extrasamples=[MULTIPLIED]))
    assert picture.alpha is not None
    assert (picture.alpha == 20_000).all()
    assert np.abs(picture.rgb.astype(int) - 30_000).max() <= 2
    more = np.dstack([GRADIENTS, GRADIENTS])[..., :6]
    with pytest.warns(ImageWarning, match="left out"):
        check(tmp_path, tiff(GRADIENTS, photometric="rgb", extrasamples=[0]), GRADIENTS[..., :3])
    with pytest.warns(ImageWarning, match="left out"):
        check(tmp_path, tiff(more, photometric="rgb", extrasamples=[0, 0, 0]), GRADIENTS[..., :3])


@pytest.mark.parametrize("kinds", [[0, 2], [0, 1], [2, 0], [1, 0], [0, 0, 2], [0, 0, 1], [2, 2]])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_transparency_is_found_among_extra_channels(dtype, kinds):
    white = 1 if dtype == np.float32 else np.iinfo(dtype).max
    colour, alpha = np.full((6, 5, 3), 0.5), np.full((6, 5, 1), 0.25)
    place = next(place for place, kind in enumerate(kinds) if kind)
    others = [alpha if place == at else np.full((6, 5, 1), 0.8) for at in range(len(kinds))]
    multiplied = colour * alpha if kinds[place] == MULTIPLIED else colour
    content = tiff(
        (np.concatenate([multiplied, *others], 2) * white).astype(dtype), photometric="rgb", extrasamples=kinds
    )
    with pytest.warns(ImageWarning, match=f"left out: {len(kinds) - 1}"):
        picture = read_picture(content)
    assert picture.alpha is not None
    assert np.abs(picture.alpha / white - 0.25).max() < 1 / 255
    assert np.abs(picture.rgb / white - 0.5).max() < 4 / 255  # 8 bit of a quarter


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"tile": (16, 16)}])
def test_floating_point_is_read_as_it_is_and_written_as_16_bit(tmp_path, dtype, channels, options):
    expected = pixels(channels, dtype)
    picture = read_picture(deep_tiff(channels, dtype, **options))
    assert picture.rgb.dtype == np.float32
    assert np.array_equal(picture.pixels, expected)
    write_picture(tmp_path / "a.png", picture)
    assert np.abs(read_picture(tmp_path / "a.png").pixels - expected.astype(np.float64) * 65535).max() < 0.51


@pytest.mark.parametrize("mode", ["tiff", "pil"])
def test_floating_point_that_is_not_of_0_to_1_is_clipped_or_refused(mode):
    def read(values: np.ndarray) -> Picture:
        return read_picture(tiff(values)) if mode == "tiff" else from_pil(Image.fromarray(values))

    values = pixels(1, np.float32).squeeze()
    assert np.array_equal(read(values * np.float32(1.02)).rgb[..., 0], values * np.float32(1.02))
    with pytest.warns(ImageWarning, match="clipped"):
        lights = read(values * np.float32(1.05))
    assert np.array_equal(lights.rgb[..., 0], (values * np.float32(1.05)).clip(0, 1))
    for other in (values * 255, values * 65535, values * 2 - 1, np.full_like(values, 2)):
        with pytest.raises(ImageError, match="white"):
            read(other)
    for odd in (np.nan, np.inf, -np.inf):
        values[3, 4] = odd
        with pytest.raises(ImageError, match="no numbers"):
            read(values)


def test_floating_point_of_kinds_that_would_be_read_wrongly_is_refused():
    half = np.moveaxis(pixels(3, np.float16), 2, 0)
    planes = tiff(half, photometric="rgb", planarconfig="separate")
    inks, negative = (
        tiff(array, photometric=kind)
        for array, kind in ((pixels(4, np.float32), "separated"), (pixels(1, np.float32).squeeze(), "miniswhite"))
    )
    for content in (planes, inks, negative, deep_tiff(3, np.float64)):
        with pytest.raises(ImageError):
            read_picture(content)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_values_below_0_are_refused_rather_than_read_as_bright_ones(dtype, channels):
    values = (pixels(channels).astype(int) - 128).astype(dtype).squeeze()
    with pytest.raises(ImageError, match="convert it"):
        read_picture(tiff(values, photometric="rgb" if channels == 3 else "minisblack"))


@pytest.mark.parametrize("value", [0, 1, 300, 20_000, 65_535])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_deep_picture_of_one_value_keeps_it(dtype, value):
    picture = np.full((12, 15, 3), value, dtype) if dtype == np.uint16 else np.full((12, 15, 3), value / 65535, dtype)
    large = tddsr.upscale(picture, model="compact-small")
    assert large.dtype == dtype
    assert np.abs(large.astype(np.float64) - picture[0, 0]).max() <= (0 if dtype == np.uint16 else 2e-6)


def test_a_deep_picture_of_flat_areas_keeps_their_means():
    values = np.full((32, 32), 9_000, np.uint16)
    values[:, 16:] = 9_900
    large = tddsr.upscale(values, model="compact-small", scale=4).astype(np.float64)
    means = large.reshape(32, 4, 32, 4).mean((1, 3))
    inside = np.abs(means - values)[4:-4, [*range(4, 12), *range(20, 28)]]
    assert inside.max() < 65535 / 255 / 4
    assert values.min() <= large.min() <= large.max() <= values.max()


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_and_metadata_of_deep_files_are_used(channels, orientation):
    profile = gamma_profile(1 / 1.8, grey=channels == 2)
    options = {"photometric": "rgb"} if channels == 3 else {"photometric": "minisblack", "extrasamples": [TRANSPARENCY]}
    tags = [(274, 3, 1, orientation, True), (271, 2, 6, "maker", True)]
    picture = read_picture(
        tiff(GRADIENTS[..., :channels], **options, extratags=tags, iccprofile=profile, resolution=(300, 300))
    )
    flat = Image.fromarray((GRADIENTS[..., 0] // 257).astype(np.uint8))
    flat.getexif()[ExifTags.Base.Orientation] = orientation
    assert np.array_equal(picture.rgb[..., 0] // 257, from_pil(flat).rgb[..., 0])
    assert picture.metadata.icc == profile
    assert picture.metadata.dpi == pytest.approx((300, 300))
    assert b"maker" in (picture.metadata.exif or b"")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_cmyk_of_a_tiff_becomes_rgb_by_its_profile(dtype):
    white = np.iinfo(dtype).max
    ink = np.full((4, 4, 4), (white, 0, 0, 0), dtype)
    profile = press_profile(paper=(100, 0, 0), ink=(54, 81, 70))
    picture = read_picture(tiff(ink, photometric="separated", iccprofile=profile))
    assert picture.rgb.dtype == dtype
    assert picture.metadata.icc is None
    assert np.abs(picture.rgb[0, 0] / white * 255 - (255, 0, 0)).max() < 12
    assert read_picture(tiff(ink, photometric="separated")).rgb[0, 0].tolist() == [0, white, white]
    red, *others = read_picture(tiff(ink, photometric="separated", iccprofile=b"damaged")).rgb[0, 0]
    assert red < white / 4 < white / 2 < min(others)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
@pytest.mark.parametrize("packing", ["raw", "tiff_lzw", "zstd", "lzma", "jpeg", "group4"])
def test_tiffs_of_8_bit_have_the_same_pixels_by_libvips_as_by_pillow(mode, packing):
    flat = Image.fromarray((GRADIENTS // 257).astype(np.uint8))
    flat = {"LA": flat.convert("LA"), "LAB": lab(flat)}.get(mode) or flat.convert("RGB").convert(mode)
    file = io.BytesIO()
    try:
        flat.save(file, "TIFF", compression=packing)
    except (OSError, ValueError):
        pytest.skip("no such file")
    expected = from_pil(Image.open(file))
    picture = read_picture(file.getvalue())
    assert np.abs(picture.rgb.astype(int) - expected.rgb).max() <= 1
    assert np.array_equal(alpha_of(picture), alpha_of(expected))
    assert picture.grey == expected.grey
    assert picture.metadata == expected.metadata


def alpha_of(picture: Picture) -> np.ndarray:
    return np.empty(0) if picture.alpha is None else picture.alpha


def lab(image: Image.Image) -> Image.Image:
    converted = ImageCms.profileToProfile(
        image.convert("RGB"), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert converted is not None
    return converted


def test_deep_files_that_only_pillow_unpacks_are_read_with_8_bit(tmp_path):
    pixels = GRADIENTS[..., :3]
    content = tiff(pixels, photometric="rgb", compression="lzma")
    with pytest.warns(ImageWarning, match="8 bit"):
        picture = read_picture(content)
    assert np.array_equal(picture.rgb, (pixels >> 8).astype(np.uint8))
    check(tmp_path, tiff(GRADIENTS[..., 0], photometric="minisblack", compression="lzma"), GRADIENTS[..., :1])


@pytest.mark.parametrize("options", [{"tile": (16, 16)}, {"rowsperstrip": 8}])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_of_which_a_part_is_missing_is_refused(dtype, compression, options):
    file = io.BytesIO()
    tifffile.imwrite(file, photo().astype(dtype), photometric="rgb", metadata=None, compression=compression, **options)
    content = file.getvalue()
    assert np.array_equal(read_picture(content).rgb, photo())
    for share in (0.5, 0.7, 0.9, 0.98):
        with pytest.raises(ImageError):
            read_picture(content[: round(share * len(content))])


def test_deep_lab_becomes_rgb():
    lab = np.zeros((4, 4, 3), np.int16)
    lab[..., 0] = -(2**15)  # L is 50, without a sign
    picture = read_picture(tiff(lab.view(np.uint16), photometric="cielab"))
    assert np.abs(picture.rgb / 257 - 119).max() < 2


@pytest.mark.parametrize("bits", [10, 12])
def test_deep_avif_keeps_its_depth_and_its_white(bits):
    steps = np.arange(2**bits).reshape(32, -1, 1).repeat(3, axis=2) * 65535 / (2**bits - 1)
    image = pyvips.Image.new_from_array(steps.round().astype(np.uint16)).copy(interpretation="rgb16")
    content = image.heifsave_buffer(compression="av1", bitdepth=bits, lossless=True)
    picture = read_picture(content)
    assert picture.rgb.dtype == np.uint16
    assert np.abs(picture.rgb - steps).max() < 65535 / 2**bits
    assert picture.rgb.max() == 65535


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_deep_heic_keeps_its_depth_and_its_white(bits, channels):
    pytest.importorskip("pillow_heif")
    picture = read_picture(heif(bits, channels))
    assert picture.rgb.dtype == np.uint16
    assert np.abs(picture.pixels - pixels(channels, np.uint16).astype(float)).max() <= 65535 / (2**bits - 1)
    assert picture.alpha is None or picture.alpha.max() == 65535


@pytest.mark.parametrize("content", [png(GRADIENTS, 6), tiff(GRADIENTS, photometric="rgb", extrasamples=[2])])
def test_damaged_deep_files_are_one_line(content, capfd):
    for length in (len(content) // 2, len(content) - 100):
        with pytest.raises(ImageError) as raised:
            read_picture(content[:length])
        assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("channels", [2, 3])
def test_deep_files_that_claim_to_be_huge_are_refused(channels):
    options = {"photometric": "rgb"} if channels == 3 else {"photometric": "minisblack", "extrasamples": [TRANSPARENCY]}
    content = tiff(GRADIENTS[..., :channels], **options)
    for tag, size in ((256, 20), (257, 24)):
        old, new = (struct.pack("<HHII", tag, 4, 1, value) for value in (size, 60_000))
        assert old in content
        content = content.replace(old, new)
    with pytest.raises(ImageError, match="million"):
        read_picture(content)
