"""Large pictures are decoded in rows: the same pixels and metadata as of the whole; damage is found before the work."""

import io
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from tddsr.engines.torch import TorchEngine
from tddsr.errors import ImageError
from tddsr.pictures import streamed
from tddsr.pictures.files import read_picture
from tddsr.upscaler import Upscaler
from tests.conftest import photo
from tests.samples import PROFILE, deep_png, deep_tiff, exif, samples, saved, text

ROWS = {
    "png", "png metadata", "png 1x16", "png 3x16", "png bits", "jpeg", "jpeg grey", "jpeg metadata", "jpeg long xmp",
    "jpeg progressive", "tiff metadata", "tiff jpeg", "tiff bits", "tiff pages", "tiff tiles", "tiff big", "tiff 1x16",
    "tiff 3x16",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _all_are_large(monkeypatch):
    monkeypatch.setattr(streamed, "_LARGE", 0)


@pytest.mark.parametrize("name", samples())
@pytest.mark.filterwarnings("ignore::tddsr.errors.ImageWarning")
def test_rows_are_those_of_the_whole_picture(name):
    try:
        whole = read_picture(samples()[name])
    except ImageError:
        pytest.skip("not read at all")
    picture = read_picture(samples()[name], in_rows=True)
    assert isinstance(picture.rgb, streamed.Rows) == (name in ROWS)
    assert (picture.layout, picture.metadata) == (whole.layout, whole.metadata)
    assert np.array_equal(picture.rgb[:], whole.rgb)
    assert (picture.rgb.min(), picture.rgb.max()) == (whole.rgb.min(), whole.rgb.max())


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 1}, {"keep_rgb": True}, {"quality": 20}])
def test_rows_of_a_jpeg_are_those_that_pillow_decodes(options):
    content = saved(Image.fromarray(photo(333, 217)), "JPEG", **options)
    assert np.array_equal(read_picture(content, in_rows=True).rgb[:], np.asarray(Image.open(io.BytesIO(content))))


def test_rows_may_be_asked_for_again():
    content = saved(Image.fromarray(photo(300, 20)), "PNG")
    rows = read_picture(content, in_rows=True).rgb
    for first, last in ((0, 10), (0, 130), (70, 200), (60, 80), (299, 300), (0, 300)):
        assert np.array_equal(rows[first:last], photo(300, 20)[first:last])


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told elsewhere")
def test_a_file_is_in_memory_once():
    def pages() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    content = saved(Image.new("RGB", (5000, 4000)), "TIFF")
    read_picture(content, in_rows=True)  # after which libraries and buffers are there
    before = pages()
    rows = read_picture(content, in_rows=True).rgb
    assert not rows[:64].any()  # from here on it is decoded
    assert (pages() - before) * 4096 < len(content) / 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_what_is_enlarged_in_rows_is_the_same(student, monkeypatch, kind):
    upscaler = Upscaler(TorchEngine(student), tile=32)
    contents = [saved(Image.fromarray(photo(150, 90)), kind), saved(Image.fromarray(photo(90, 60)[..., 0]), kind)]
    contents += {"PNG": [deep_png(3)], "TIFF": [deep_tiff(3)]}.get(kind, [])
    for content in contents:
        made = upscaler(content)
        monkeypatch.setattr(streamed, "_LARGE", 1e9)
        assert made == upscaler(content)
        monkeypatch.setattr(streamed, "_LARGE", 0)


def test_what_stands_on_its_side_is_read_as_a_whole():
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    for kind in ("JPEG", "PNG", "TIFF"):
        content = saved(Image.fromarray(photo()), kind, exif=turned)
        assert read_picture(content, in_rows=True).rgb.shape == (52, 40, 3)


def test_what_a_png_tells_behind_its_pixels_is_read():
    content = saved(Image.fromarray(photo()), "PNG", pnginfo=text(), exif=exif().tobytes(), icc_profile=PROFILE)
    start = content.index(b"tEXt") - 4
    end = content.index(b"IDAT") - 4
    behind = content[:start] + content[end:-12] + content[start:end] + content[-12:]
    assert read_picture(behind, in_rows=True).metadata == read_picture(content).metadata


@pytest.mark.parametrize("content", [samples()["jpeg"], samples()["png"], samples()["tiff tiles"]])
def test_damage_is_found_before_the_work(content):
    with pytest.raises(ImageError):
        read_picture(content[: len(content) * 2 // 3], in_rows=True)


def test_a_jpeg_in_rows_may_lack_the_mark_of_its_end():
    content = saved(Image.fromarray(photo()), "JPEG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(read_picture(content[:-2], in_rows=True).rgb, read_picture(content).rgb)
