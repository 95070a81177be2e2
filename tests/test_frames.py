"""Animations and pages: every picture of a file is enlarged, where the output can hold them."""

import io
import json
import struct
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from tddsr.cli import app
from tddsr.engines.torch import TorchEngine
from tddsr.errors import ImageError, ImageWarning
from tddsr.pictures import encoding
from tddsr.pictures.files import read_picture
from tddsr.pictures.frames import Frames, count_pictures, encode_frames, find_frames, write_frames
from tddsr.pictures.metadata import Metadata
from tddsr.pictures.picture import Layout, Picture, to_8_bit
from tddsr.pictures.sequences import Timing
from tddsr.pictures.sizes import Size, output_path
from tddsr.upscaler import Upscaler
from tests.conftest import photo
from tests.samples import PROFILE, XMP, chunk, exif, saved

DURATIONS = [100, 70, 250]


@pytest.fixture
def upscaler(student) -> Upscaler:
    return Upscaler(TorchEngine(student))


def scenes(count: int = 3, channels: int = 3) -> list[np.ndarray]:
    """Something red that moves over a photo; the fourth channel shows more and more."""
    frames = []
    for i in range(count):
        frame = np.dstack([photo(12, 16, noise=0), np.full((12, 16), 255, np.uint8)])
        frame[2 + i : 6 + i, 3 * i : 3 * i + 5, :3] = (250, 30, 20)
        frame[:, : 2 + i, 3] = 0
        frames.append(frame[..., :channels])
    return frames


def animation(kind: str, frames: list[np.ndarray] | None = None, **options: Any) -> bytes:
    images = [Image.fromarray(frame) for frame in frames or scenes()]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    return saved(images[0], kind, save_all=True, append_images=images[1:], **lossless, **options)


def pages(*arrays: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        for array in arrays:
            tiff.write(array, metadata=None, **options)
    return file.getvalue()


def shown(content: bytes) -> tuple[list[np.ndarray], list[float], int | None]:
    """Frames (H,W,4) as Pillow shows them, their durations, and what it tells of the loop."""
    frames, durations = [], []
    with Image.open(io.BytesIO(content)) as image:
        loop = image.info.get("loop")
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGBA")))
            durations.append(image.info.get("duration", 0))
    return frames, durations, loop


def as_they_are(frames: Frames, suffix: str) -> bytes:
    """The same pictures in another file."""
    made = (([picture.pixels], picture.metadata) for picture in frames)
    return encode_frames(suffix, frames.layouts, made, frames.timing)


def found(content: bytes, suffix: str = ".png") -> Frames:
    frames = find_frames(content, suffix)
    assert frames is not None
    return frames


# -- animations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_a_frame_of_the_result_is_the_frame_enlarged_alone(upscaler, tmp_path, kind, channels):
    source = animation(kind, scenes(channels=channels), duration=DURATIONS, disposal=2 if kind == "GIF" else 0)
    upscaler(source, output=tmp_path / "a.png")
    large, durations, _ = shown((tmp_path / "a.png").read_bytes())
    assert durations == DURATIONS
    for frame, result in zip(shown(source)[0], large, strict=True):
        alone = upscaler(frame if channels == 4 else frame[..., :3])
        assert np.array_equal(result[..., :channels], alone)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize("suffix", [".png", ".webp"])
@pytest.mark.parametrize("plays", [0, 1, 3])
def test_durations_and_loop_are_kept(upscaler, tmp_path, kind, suffix, plays):
    loop = {0: {"loop": 0}, 1: {}, 3: {"loop": 2}}[plays] if kind == "GIF" else {"loop": plays}
    upscaler(animation(kind, duration=DURATIONS, **loop), output=tmp_path / f"a{suffix}")
    frames, durations, told = shown((tmp_path / f"a{suffix}").read_bytes())
    assert (durations, told) == (DURATIONS, plays)
    assert [frame.shape[:2] for frame in frames] == [(48, 64)] * 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_bytes_of_an_animation_become_an_animation_of_their_kind(upscaler, kind):
    result = upscaler(animation(kind, duration=50), width=40)
    with Image.open(io.BytesIO(result)) as image:
        assert (image.format, image.size) == (kind, (40, 30))
    assert count_pictures(result) == 3


def test_an_animation_of_a_kind_that_is_not_written_becomes_webp(upscaler, tmp_path):
    for kind in ("GIF", "AVIF"):
        path = tmp_path / f"a.{kind.lower()}"
        path.write_bytes(animation(kind))
        assert output_path(path, Size()).suffix == ".webp"
        assert Image.open(io.BytesIO(upscaler(path.read_bytes()))).format == "WEBP"
        path.write_bytes(animation(kind, scenes(1)))
        assert output_path(path, Size()).suffix == ".png"
        assert Image.open(io.BytesIO(upscaler(path.read_bytes()))).format == "PNG"


def test_a_lossless_animation_stays_lossless_with_its_transparency(upscaler):
    source = animation("WEBP", scenes(channels=4), duration=DURATIONS)
    large, _, _ = shown(upscaler(source))
    for frame, result in zip(shown(source)[0], large, strict=True):
        alone = upscaler(frame)
        assert np.array_equal(result[..., 3], alone[..., 3])
        seen = alone[..., 3] > 0
        assert np.array_equal(result[seen], alone[seen])


def test_what_does_not_move_is_still(student):
    """Beyond the reach of the network."""
    frames = [photo(24, 200) for _ in range(3)]
    for i, frame in enumerate(frames):
        frame[4:12, 4 * i : 4 * i + 8] = (250, 30, 20)
    large, _, _ = shown(Upscaler(TorchEngine(student))(animation("PNG", frames)))
    assert all(np.array_equal(large[0][:, 600:], result[:, 600:]) for result in large)


def test_a_frame_that_shows_the_same_is_not_computed_again(upscaler, monkeypatch):
    first, second, _ = scenes()
    source = animation("AVIF", [first, first, second, second], duration=[10, 20, 30, 40], quality=100)
    frames = found(source)
    assert frames.timing is not None
    ran, run = [], upscaler.engine.run

    def counted(*arguments: Any, **options: Any) -> Any:
        ran.append(arguments)
        return run(*arguments, **options)

    monkeypatch.setattr(upscaler.engine, "run", counted)
    large, durations, _ = shown(upscaler(source))
    assert len(ran) == len(frames) == len(large) < 4
    assert sum(durations) == 100
    assert durations == frames.timing.durations


def test_progress_counts_all_frames(upscaler):
    told: list[tuple[int, int]] = []
    upscaler(animation("PNG"), progress=lambda *counts: told.append(counts))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_metadata_of_an_animation_are_kept_or_stripped(upscaler):
    told: dict[str, Any] = {"icc_profile": PROFILE, "exif": exif().tobytes(), "duration": 50}
    for kind in ("PNG", "WEBP"):
        source = animation(kind, **told | ({"xmp": XMP} if kind == "WEBP" else {}))
        kept, stripped = (found(upscaler(source, strip_metadata=strip)) for strip in (False, True))
        assert kept.metadata == found(source).metadata
        assert kept.metadata.exif
        assert stripped.metadata == Metadata(icc=PROFILE, lossless=kind == "WEBP")
        assert stripped.timing == kept.timing


def test_grey_stays_grey(upscaler):
    grey = [np.asarray(Image.fromarray(scene).convert("L")) for scene in scenes()]
    result = upscaler(animation("PNG", grey))
    with Image.open(io.BytesIO(result)) as image:
        assert image.mode == "L"
    assert count_pictures(result) == 3


def test_deep_frames_become_8_bit():
    deep = [np.full((4, 6, 3), value, np.uint16) for value in (0, 40_000)]
    rows = [zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in frame)) for frame in deep]
    control = [chunk(b"fcTL", struct.pack(">5I2H2x", number, 6, 4, 0, 0, 1, 2)) for number in (0, 1)]
    parts = [
        chunk(b"IHDR", struct.pack(">2I5B", 6, 4, 16, 2, 0, 0, 0)), chunk(b"acTL", struct.pack(">2I", 2, 0)),
        control[0], chunk(b"IDAT", rows[0]), control[1], chunk(b"fdAT", struct.pack(">I", 2) + rows[1]),
        chunk(b"IEND", b""),
    ]  # fmt: skip
    frames = found(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert frames.timing == Timing([500, 500], 0)
    for picture, frame in zip(frames, deep, strict=True):
        assert picture.rgb.dtype == np.uint8
        assert np.abs(picture.rgb - frame / 257).max() <= 1


# -- odd animations ----------------------------------------------------------------------------------------------------


PALETTE = np.array([[200, 0, 0, 255], [0, 200, 0, 255], [0, 0, 200, 255], [0, 0, 0, 0]], np.uint8)
SIDE = 12


def parts_of_a_gif(chance: np.random.Generator) -> list[tuple[int, int, np.ndarray, int]]:
    """Left, top, values (3 is clear) and disposal of each frame."""
    parts = []
    for _ in range(5):
        width, height = chance.integers(2, SIDE, 2)
        left, top = chance.integers(0, SIDE - width + 1), chance.integers(0, SIDE - height + 1)
        parts.append((left, top, chance.integers(0, 4, (height, width)), int(chance.integers(0, 4))))
    return parts


def gif_of(parts: list[tuple[int, int, np.ndarray, int]]) -> bytes:
    """Not packed: each two values begin a new table."""
    content = b"GIF89a" + struct.pack("<2H3B", SIDE, SIDE, 0xF1, 0, 0) + PALETTE[:, :3].tobytes()
    for left, top, values, disposal in parts:
        codes = "".join(f"{value:03b}"[::-1] for pair in values.ravel().tolist() for value in (4, pair)) + "101"
        data = np.packbits([int(bit) for bit in codes], bitorder="little").tobytes()
        blocks = (data[at : at + 255] for at in range(0, len(data), 255))
        content += b"!\xf9\4" + struct.pack("<BHBB", disposal << 2 | 1, 5, 3, 0)
        content += b"," + struct.pack("<4HBB", left, top, values.shape[1], values.shape[0], 0, 2)
        content += b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
    return content + b";"


@pytest.mark.parametrize("seed", range(20))
def test_parts_of_a_gif_are_put_together_as_browsers_do(seed):
    parts = parts_of_a_gif(np.random.default_rng(seed))
    frames = found(gif_of(parts))
    shown_at = dict(zip(frames.numbers, frames, strict=True))
    canvas, picture = np.zeros((SIDE, SIDE, 4), np.uint8), None
    for number, (left, top, values, disposal) in enumerate(parts):
        before, place = canvas.copy(), np.s_[top : top + values.shape[0], left : left + values.shape[1]]
        canvas[place] = np.where(values[..., None] < 3, PALETTE[values], canvas[place])
        picture = shown_at.get(number, picture)
        assert picture is not None
        assert picture.alpha is not None
        assert np.array_equal(picture.alpha, canvas[..., 3])
        assert np.array_equal(picture.rgb[picture.alpha > 0], canvas[canvas[..., 3] > 0, :3])
        if disposal == 2:
            canvas[place] = 0
        elif disposal == 3:
            canvas = before


def test_frames_without_duration_and_a_clear_first_one(upscaler):
    clear = np.zeros((12, 16, 4), np.uint8)
    frames, durations, _ = shown(upscaler(animation("GIF", [clear, *scenes(2, 4)], duration=0)))
    assert durations == [0, 0, 0]
    assert not frames[0][..., 3].any()
    assert frames[1][..., 3].any()


def test_the_first_frame_says_how_large_an_animation_is():
    content = bytearray(animation("GIF"))
    content[6:10] = struct.pack("<2H", 5, 5)  # of the screen
    assert {layout.size for layout in found(bytes(content)).layouts} == {(16, 12)}
    content[6:10] = struct.pack("<2H", 40, 30)
    assert {layout.size for layout in found(bytes(content)).layouts} == {(40, 30)}


def test_a_picture_before_the_frames_of_a_png_is_none_of_them():
    still = np.zeros((12, 16, 3), np.uint8)
    frames = found(animation("PNG", [still, *scenes(2)], default_image=True, duration=50))
    assert len(frames) == 2
    assert all(picture.rgb.any() for picture in frames)


def test_short_and_long_durations_are_told_by_fractions():
    exact = [1000 / 60, 1000 / 24, 10, 65_535, 70_000, 655_350, 40_000_000]
    layout = Layout(1, 1, 3, np.dtype(np.uint8))
    made = (([np.full((1, 1, 3), i, np.uint8)], Metadata()) for i in range(len(exact)))
    _, durations, _ = shown(encode_frames(".png", [layout] * len(exact), made, Timing(exact, 0)))
    assert durations == pytest.approx(exact, rel=1e-3)
    made = (([np.full((1, 1, 3), 20 * i, np.uint8)], Metadata()) for i in range(12))
    _, durations, _ = shown(encode_frames(".webp", [layout] * 12, made, Timing([1000 / 60] * 12, 0)))
    assert sum(durations) == 200


def with_count(content: bytes, count: int) -> bytes:
    """A PNG that tells another number of frames."""
    place = content.index(b"acTL")
    part = b"acTL" + struct.pack(">II", count, 0)
    return content[:place] + part + struct.pack(">I", zlib.crc32(part)) + content[place + len(part) + 4 :]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.gif", animation("GIF")[:-200], "damaged"),
        ("a.webp", animation("WEBP")[:-100], "damaged"),
        ("a.png", animation("PNG")[:-100], "picture 3 of 3"),
        ("a.png", with_count(animation("PNG"), 5), "picture 4 of 5"),
        ("a.png", with_count(animation("PNG"), 2**31), "million pixels together"),
        ("a.tif", pages(scenes()[0], scenes()[1])[:-10], "picture 2 of 2"),
        ("a.tif", pages(scenes()[0], np.ones((4, 5, 3), np.uint32), photometric="rgb"), "picture 2 of 2"),
    ],
)
@pytest.mark.filterwarnings("ignore::tddsr.errors.ImageWarning")
def test_a_broken_later_frame_is_one_line_before_the_work(upscaler, tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    ran: list[int] = []
    with pytest.raises(ImageError, match=reason) as caught:
        upscaler(tmp_path / name, progress=lambda done, _: ran.append(done))
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not ran
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_frames_count_together_against_the_limit_of_pixels(upscaler, monkeypatch):
    source = animation("PNG", [photo(150, 150, seed) for seed in range(3)])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3 * 150 * 150 // 2 - 1)
    with pytest.raises(ImageError, match="together"):
        find_frames(source, ".png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3 * 150 * 150 // 2)
    assert find_frames(source, ".png")


def test_a_fault_while_frames_are_made_leaves_no_file(tmp_path):
    layout = Layout(4, 4, 3, np.dtype(np.uint8))

    def made():
        yield [np.zeros((4, 4, 3), np.uint8)], Metadata()
        raise KeyError("in the work")

    for suffix, timing in ((".png", Timing([1, 1], 0)), (".webp", Timing([1, 1], 0)), (".tif", None)):
        with pytest.raises(KeyError, match="in the work"):
            write_frames(tmp_path / f"a{suffix}", [layout, layout], made(), timing)
    assert not list(tmp_path.iterdir())


# -- pages -------------------------------------------------------------------------------------------------------------


def test_pages_keep_their_own_size_depth_colours_and_metadata(upscaler, tmp_path):
    images = [Image.fromarray(photo(9, 13)), Image.fromarray(photo(7, 6)[..., 0]), Image.fromarray(scenes(1, 4)[0])]
    told: list[dict[str, Any]] = [{"dpi": (300, 300)}, {"icc_profile": None}, {"icc_profile": PROFILE, "dpi": (72, 72)}]
    contents = [saved(image, "TIFF", **options) for image, options in zip(images, told, strict=True)]
    contents.insert(1, pages(photo(5, 8).astype(np.uint16) * 257, photometric="rgb"))
    sources = [read_picture(content) for content in contents]
    file = tmp_path / "a.tif"
    write_frames(file, [p.layout for p in sources], (([p.pixels], p.metadata) for p in sources), None)
    upscaler(file)
    results = list(found((tmp_path / "a_x4.tif").read_bytes(), ".tif"))
    assert [picture.layout for picture in results] == [
        Layout(52, 36, 3, np.dtype(np.uint8)), Layout(32, 20, 3, np.dtype(np.uint16)),
        Layout(24, 28, 1, np.dtype(np.uint8)), Layout(64, 48, 4, np.dtype(np.uint8)),
    ]  # fmt: skip
    for source, content, picture in zip(sources, contents, results, strict=True):
        alone = read_picture(upscaler(content))
        assert np.array_equal(picture.pixels, alone.pixels)
        assert picture.metadata == alone.metadata == source.metadata.enlarged(4)


@pytest.mark.parametrize("big", [False, True])
def test_each_page_is_written_as_it_would_be_alone(big, monkeypatch):
    """By strips of several pages, and in both kinds of file; EXIF is that of its page."""
    monkeypatch.setattr(encoding, "_CLASSIC_TIFF", 1e5 if big else 1e9)
    told = Metadata(exif=exif().tobytes(), xmp=XMP, dpi=(300, 150))
    sources = [Picture(photo(400, 300)), Picture(photo(30, 50), metadata=told), Picture(photo(500, 20), grey=True)]
    made = (([p.pixels], p.metadata) for p in sources)
    content = encode_frames(".tif", [p.layout for p in sources], made, None)
    assert (content[2] == 43) == big
    for source, page in zip(sources, found(content, ".tif"), strict=True):
        assert np.array_equal(page.pixels, source.pixels)
        assert page.metadata == source.metadata
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        assert [page.shape[:2] for page in file.pages] == [(400, 300), (30, 50), (500, 20)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint16])
def test_later_pages_that_pillow_does_not_know_are_enlarged_with_all_they_tell(upscaler, dtype):
    white = 65535 if dtype == np.uint16 else 1
    arrays = photo(8, 9), (photo(7, 5, 1) / 255 * white).astype(dtype), photo(6, 7)
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        for array, profile in zip(arrays, (None, PROFILE, None), strict=True):
            options: dict[str, Any] = {"resolution": (300, 300), "resolutionunit": 2, "iccprofile": profile}
            tiff.write(array, photometric="rgb", metadata=None, **(options if profile else {}))
    results = list(found(upscaler(file.getvalue()), ".tif"))
    assert [page.size for page in results] == [(36, 32), (20, 28), (28, 24)]
    assert [page.metadata.icc for page in results] == [None, PROFILE, None]
    assert [page.metadata.dpi for page in results] == [None, (1200, 1200), None]
    alone = upscaler((arrays[1] / white).astype(np.float32) if dtype != np.uint16 else arrays[1])
    assert np.abs(results[1].rgb / 65535 - alone / white).max() < 1e-4


def test_previews_and_masks_are_no_pages(upscaler):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        for array, subfile in ((photo(8, 9), 0), (photo(4, 4), 1), (photo(7, 5), 2), (photo(7, 5)[..., 0] > 99, 4)):
            tiff.write(array, photometric="rgb" if array.ndim == 3 else None, metadata=None, subfiletype=subfile)
    result = upscaler(file.getvalue())
    assert [layout.size for layout in found(result, ".tif").layouts] == [(36, 32), (20, 28)]
    assert find_frames(pages(photo(8, 9), photometric="rgb"), ".tif") is None


def test_threads_that_read_pages_silence_no_warnings_for_good():
    source = pages(*(photo(30, 40, seed) for seed in range(4)), photometric="rgb")
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: find_frames(source, ".tif"), range(40)))
    assert ("ignore", ImageWarning) not in {(action, category) for action, _, category, *_ in warnings.filters}


def test_threads_that_read_leave_the_filters_of_warnings_as_they_were():
    before, interval = list(warnings.filters), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: read_picture(saved(Image.fromarray(photo()), "PNG")), range(200)))
    finally:
        sys.setswitchinterval(interval)
    assert list(warnings.filters) == before


# -- outputs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "suffix"), [("GIF", ".jpg"), ("PNG", ".jpg"), ("TIFF", ".png"), ("TIFF", ".webp")])
def test_what_holds_one_picture_gets_the_first_which_is_said(upscaler, tmp_path, source, suffix):
    with pytest.warns(ImageWarning, match="3 pictures, the first is taken"):
        upscaler(animation(source), output=tmp_path / f"a{suffix}")
    assert count_pictures(tmp_path / f"a{suffix}") == 1


@pytest.mark.parametrize(("first", "suffix"), [(np.float32, ".tif"), (np.float32, ".png"), (np.uint8, ".png")])
def test_of_pages_that_pillow_does_not_know_the_first_is_taken_which_is_said(upscaler, tmp_path, first, suffix):
    frames = [photo(8, 9, seed) for seed in range(2)]
    deep = [(frame / 255).astype(np.float32) for frame in frames]
    source = pages(frames[0] if first == np.uint8 else deep[0], deep[1], photometric="rgb")
    with pytest.warns(ImageWarning, match="2 pictures, the first is taken"):
        upscaler(source, output=tmp_path / f"a{suffix}")
    with pytest.warns(ImageWarning, match="2 pictures"):
        assert np.array_equal(to_8_bit(read_picture(source).rgb), frames[0])


def test_frames_become_pages_without_their_timing_which_is_said(upscaler, tmp_path):
    source = animation("GIF", duration=DURATIONS)
    with pytest.warns(ImageWarning, match="timing"):
        upscaler(source, output=tmp_path / "a.tif")
    results = found((tmp_path / "a.tif").read_bytes(), ".tif")
    for frame, page in zip(shown(source)[0], results, strict=True):
        assert np.array_equal(page.rgb, upscaler(frame[..., :3]))


def test_the_number_of_pictures_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.gif").write_bytes(animation("GIF"))
    Image.fromarray(photo(8, 8)).save("b.png")
    command = ["upscale", "a.gif", "b.png", "--model", "compact-small", "--json"]
    lines = [json.loads(line) for line in CliRunner().invoke(app, command).stdout.splitlines()]
    assert [(line["output"], line["frames"]) for line in lines[:2]] == [("a_x4.webp", 3), ("b_x4.png", 1)]
    assert "3 pictures" in lines[0]["message"]
