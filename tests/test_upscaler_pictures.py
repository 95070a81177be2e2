"""What people's pictures are like: sizes, borders, depth, transparency, bytes, and faults on the way."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageDraw

from tddsr.engines.torch import TorchEngine
from tddsr.enlarge import Enlarger
from tddsr.errors import ImageWarning, ModelError
from tddsr.model import Model
from tddsr.pictures.files import write_bands
from tddsr.pictures.picture import used_range
from tddsr.pictures.sizes import Size, made_from, output_path
from tddsr.upscaler import Upscaler
from tests.conftest import photo
from tests.derived import small_paper_model

PHOTO = Path(__file__).parents[1] / "examples" / "coffee.jpg"


@pytest.fixture
def upscaler(student: Model) -> Upscaler:
    return Upscaler(TorchEngine(student))


@pytest.fixture(scope="module")
def trained() -> Upscaler:
    return Upscaler.load("compact-small", device="cpu")


# -- rows --------------------------------------------------------------------------------------------------------------


def test_rows_are_handed_on_while_tiles_are_made(student, tmp_path, monkeypatch):
    Image.fromarray(photo(100, 40)).save(tmp_path / "a.png")
    rows: list[tuple[int, int]] = []
    tiles: list[int] = []

    def spy(path, bands, layout, metadata):
        def watched():
            for band in bands:
                rows.append((len(tiles), len(band)))
                yield band

        write_bands(path, watched(), layout, metadata)

    monkeypatch.setattr("tddsr.upscaler.write_bands", spy)
    upscaler = Upscaler(TorchEngine(student), tile=20)
    upscaler(tmp_path / "a.png", progress=lambda done, _: tiles.append(done))
    assert len(tiles) == 10
    assert rows[0][0] == 2  # a row of tiles is done, four are not begun
    assert sum(count for _, count in rows) == 400
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a_x4.png")), upscaler(photo(100, 40)))


@pytest.mark.parametrize("scale", [1, 1.7, 2, 4, 5.3])
def test_tiles_give_the_pixels_of_the_whole_at_any_scale(student, scale):
    picture = photo(90, 61) / 255
    whole, tiled = (Upscaler(TorchEngine(student), tile=tile)(picture, scale=scale) for tile in (None, 24))
    assert np.abs(whole - tiled).max() < 1e-4


def test_other_scales_are_the_large_picture_reduced_once(upscaler):
    """In floating point: not rounded in between."""
    large = upscaler((photo() / 255).astype(np.float32))
    planes = [Image.fromarray(np.ascontiguousarray(large[..., c])) for c in range(3)]
    small = np.stack([np.asarray(p.resize((104, 80), Image.Resampling.LANCZOS)) for p in planes], axis=-1)
    expected = (small.clip(0, 1) * 65535).round()
    deep = upscaler(photo().astype(np.uint16) * 257, scale=2)
    assert np.abs(deep - expected).max() <= 2


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"width": 100}, (100, 77)),
        ({"height": 100}, (130, 100)),
        ({"max_side": 100}, (100, 77)),
        ({"max_side": 30}, (30, 23)),
        ({"width": 416}, (416, 320)),
        ({"width": 1}, (1, 1)),
    ],
)
def test_a_side_can_be_asked_for(upscaler, options, size):
    assert upscaler(Image.fromarray(photo()), **options).size == size
    assert upscaler(Image.fromarray(photo()).rotate(90, expand=True), max_side=100).size == (77, 100)


@pytest.mark.parametrize(
    ("options", "most"), [({"width": 417}, "416"), ({"height": 321}, "320"), ({"max_side": 417}, "416")]
)
def test_more_than_eight_times_is_refused_with_the_most_that_can_be(upscaler, options, most):
    with pytest.raises(ValueError, match=most):
        upscaler(photo(), **options)


@pytest.mark.parametrize(
    "options", [{"width": 0}, {"width": 9, "height": 9}, {"scale": 2, "max_side": 9}, {"height": 9.5}]
)
def test_impossible_sizes_are_refused(upscaler, options):
    with pytest.raises(ValueError, match="|".join(options)):
        upscaler(photo(), **options)


def test_the_size_is_in_the_name_by_which_a_result_is_known(tmp_path):
    source = tmp_path / "a.jpg"
    source.touch()
    sizes = [Size(), Size(2.5), Size(width=10), Size(height=10), Size(max_side=10)]
    paths = [output_path(source, size) for size in sizes]
    assert len(set(paths)) == 5
    assert all(made_from(path) == source for path in paths)


# -- borders -----------------------------------------------------------------------------------------------------------


def test_what_lies_beyond_the_border_hardly_matters(trained):
    """A crop is enlarged as in the picture, but for what could not be known."""
    picture = np.asarray(Image.open(PHOTO).convert("RGB").crop((20, 20, 100, 100)))
    whole, crop = trained(picture), trained(picture[:60, :60])
    error = np.abs(whole[:240, :240].astype(int) - crop)
    assert error[:160, :160].mean() < 1
    assert error[232:].mean() < 8


# -- depth -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(0, 4095), (2000, 3000), (60000, 60400)])
def test_a_part_of_the_range_is_enlarged_as_well_as_all_of_it(upscaler, low, high):
    full = photo(30, 40).astype(np.float64)
    full = (full - full.min()) / np.ptp(full)
    part = (low + full * (high - low)).round().astype(np.uint16)
    stretched = (part - float(part.min())) / float(np.ptp(part))
    expected = part.min() + upscaler(stretched) * float(np.ptp(part))
    result = upscaler(part)
    assert np.abs(result - expected).max() <= 0.51 + 1e-3 * (high - low) / 100
    assert part.min() <= result.min()
    assert result.max() <= part.max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dim_floats_are_enlarged_as_bright_ones(upscaler, dtype):
    full = photo(30, 40).astype(dtype)
    full = (full - full.min()) / np.ptp(full)
    assert np.abs(upscaler(full * dtype(0.06)) / 0.06 - upscaler(full)).max() < 1e-3


def test_tiles_of_dim_pictures_are_exact(student):
    picture = photo(90, 70).astype(np.uint16) * 9
    whole, tiled = (Upscaler(TorchEngine(student), tile=tile)(picture).astype(int) for tile in (None, 24))
    assert np.abs(whole - tiled).max() <= 1


def test_other_pictures_are_left_as_they_are():
    dim = photo(24, 24) // 4
    assert used_range(dim) == (0, 255)
    deep = dim.astype(np.uint16) * 257
    assert used_range(deep) == (deep.min(), deep.max())
    deep[3, 4, 0] = 65535  # one bright pixel
    assert used_range(deep) == (0, 65535)
    low, high = used_range(np.full((3, 3, 3), 700, np.uint16))  # within one step
    assert 699.5 < low < 700 < high < 700.5


# -- transparency ------------------------------------------------------------------------------------------------------


def masks() -> dict[str, np.ndarray]:
    """Large masks, (256,256) in [0,1]: smooth at four times that size."""
    drawings = {}
    for name in ("disc", "star"):
        image = Image.new("L", (1024, 1024))
        draw = ImageDraw.Draw(image)
        if name == "disc":
            draw.ellipse((150, 170, 830, 850), fill=255)
        else:
            angles = np.arange(14) * np.pi / 7
            radius = np.where(np.arange(14) % 2, 180, 440)
            draw.polygon([*zip(512 + radius * np.cos(angles), 512 + radius * np.sin(angles), strict=True)], fill=255)
        drawings[name] = np.asarray(image.reduce(4)) / 255
    y, x = np.mgrid[:256, :256]
    drawings["soft"] = (1.5 - np.hypot(y - 128, x - 128) / 64).clip(0, 1)
    return drawings


@pytest.mark.parametrize(("name", "share"), [("disc", 0.6), ("star", 0.7), ("soft", 1.3)])
def test_masks_are_sharper_than_interpolated_where_they_are_hard(trained, name, share):
    """And soft edges stay soft."""
    truth = masks()[name]
    small = (truth.reshape(64, 4, 64, 4).mean((1, 3)) * 255).round().astype(np.uint8)
    large = trained(np.dstack([np.full((64, 64, 3), 90, np.uint8), small]))[..., 3] / 255
    plain = np.asarray(Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC)) / 255

    def error(mask):
        return float(np.sqrt(np.mean((mask - truth) ** 2)))

    assert error(large) < share * error(plain) + 1e-3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("scale", [2, 4])
def test_clear_and_opaque_stay_exact_up_to_the_edge(upscaler, scale, dtype):
    white = np.iinfo(dtype).max
    mask = np.where(np.random.default_rng(0).random((30, 30)) < 0.5, 0, white).astype(dtype)
    mask[5:15, 5:15], mask[15:25, 15:25] = white, 0
    picture = np.dstack([photo(30, 30).astype(dtype), mask])
    large = upscaler(picture, scale=scale)
    opaque, clear = slice(6 * scale, 14 * scale), slice(16 * scale, 24 * scale)
    assert (large[opaque, opaque, 3] == white).all()
    assert (large[clear, clear, 3] == 0).all()
    if scale == 4:
        assert (large[22:58, 22:58, 3] == white).all()  # between the middles of the outermost opaque pixels


@pytest.mark.parametrize("value", [0, 70, 255])
def test_an_even_mask_stays_even_and_costs_nothing(upscaler, value):
    tiles = []
    large = upscaler(
        np.dstack([photo(), np.full((40, 52), value, np.uint8)]),
        progress=lambda done, total: tiles.append((done, total)),
    )
    assert (large[..., 3] == value).all()
    assert tiles == [(1, 1)]
    assert value == 0 or np.array_equal(large[..., :3], upscaler(photo()))


def test_tiles_of_masks_are_exact_and_counted(student):
    mask = np.where(photo(90, 70)[..., 0] > 120, 255, 0).astype(np.uint8)
    picture = np.dstack([photo(90, 70), mask])
    seen = []
    tiled = Upscaler(TorchEngine(student), tile=24)(picture, progress=lambda done, total: seen.append((done, total)))
    whole = Upscaler(TorchEngine(student), tile=None)(picture)
    assert np.abs(whole.astype(int) - tiled).max() <= 1
    assert seen == [(i + 1, 24) for i in range(24)]


# -- bytes and metadata ------------------------------------------------------------------------------------------------


def encoded(suffix: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo()).save(file, suffix, **options)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "expected"), [("JPEG", "JPEG"), ("PNG", "PNG"), ("TIFF", "TIFF"), ("GIF", "PNG")])
def test_an_encoded_file_becomes_one_of_its_kind(upscaler, kind, expected):
    result = upscaler(encoded(kind))
    image = Image.open(io.BytesIO(result))
    assert (image.format, image.size) == (expected, (208, 160))
    if kind == "PNG":
        assert np.array_equal(np.asarray(image), upscaler(photo()))


def test_an_encoded_file_can_be_written(upscaler, tmp_path):
    assert upscaler(encoded("PNG"), output=tmp_path / "a.jpg", scale=2) == tmp_path / "a.jpg"
    assert Image.open(tmp_path / "a.jpg").size == (104, 80)


def test_bytes_that_are_no_picture_are_refused(upscaler):
    with pytest.raises(ValueError, match="picture"):
        upscaler(b"no picture")


def test_metadata_can_be_stripped_but_for_the_profile(upscaler):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E] = "a secret"
    data = encoded("JPEG", exif=exif, icc_profile=profile, dpi=(72, 72), comment=b"another")
    kept, stripped = (Image.open(io.BytesIO(upscaler(data, strip_metadata=strip))) for strip in (False, True))
    assert kept.getexif()[0x010E] == "a secret"
    assert stripped.info["icc_profile"] == profile
    assert not dict(stripped.getexif())
    assert b"another" not in upscaler(data, strip_metadata=True)


# -- faults ------------------------------------------------------------------------------------------------------------


def tight_memory(monkeypatch, run_tile):
    """Make the second tile run out of memory."""
    calls = []

    def run(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("out of memory")
        return run_tile(self, *arguments)

    monkeypatch.setattr(TorchEngine, "_run", run)


def test_smaller_tiles_go_on_where_the_larger_ones_stopped(student, monkeypatch):
    picture = photo(160, 60)
    expected = Upscaler(TorchEngine(student), tile=None)(picture)
    tight_memory(monkeypatch, TorchEngine._run)
    with pytest.warns(RuntimeWarning, match="memory"):
        result = Upscaler(TorchEngine(student), tile=80)(picture)
    assert np.abs(result.astype(int) - expected).max() <= 1


def repeated(_, lr, *__):
    """A network that repeats pixels, whatever the tile."""
    return torch.from_numpy(lr.repeat(4, axis=2).repeat(4, axis=3))


def test_blended_rows_have_all_the_tiles_that_reach_them(monkeypatch):
    picture, rows = photo(150, 90), []
    monkeypatch.setattr(TorchEngine, "_run", repeated)
    bands = Enlarger.bands

    def spy(self, *arguments, **options):
        for band in bands(self, *arguments, **options):
            rows.append(len(band))
            yield band

    monkeypatch.setattr(Enlarger, "bands", spy)
    large = Upscaler(TorchEngine(small_paper_model("student")), tile=64)(picture)
    assert len(rows) > 2
    assert np.array_equal(large, picture.repeat(4, axis=0).repeat(4, axis=1))


@pytest.mark.parametrize("height", [150, 300])
def test_blended_tiles_that_become_smaller_are_said(monkeypatch, height):
    picture = photo(height, 60)
    tight_memory(monkeypatch, repeated)
    with pytest.warns(ImageWarning, match="other pixels"):
        large = Upscaler(TorchEngine(small_paper_model("student")), tile=128)(picture)
    assert np.array_equal(large, picture.repeat(4, axis=0).repeat(4, axis=1))


def test_the_smallest_tile_that_does_not_fit_is_an_error(student, monkeypatch):
    def no_memory(*_args):
        raise MemoryError

    monkeypatch.setattr(TorchEngine, "_run", no_memory)
    with pytest.warns(RuntimeWarning, match="memory"), pytest.raises(MemoryError):
        Upscaler(TorchEngine(student))(photo(100, 100))


def test_values_that_are_no_numbers_are_an_error(student):
    with torch.no_grad():
        next(student.parameters()).fill_(torch.nan)
    with pytest.raises(ModelError, match="damaged"):
        Upscaler(TorchEngine(student))(photo())
