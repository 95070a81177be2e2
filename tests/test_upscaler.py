from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tddsr import enlarge as module
from tddsr.device import pick_device
from tddsr.engines.engine import describe
from tddsr.engines.load import load_engine
from tddsr.engines.torch import TorchEngine
from tddsr.enlarge import Enlarger
from tddsr.errors import ImageError
from tddsr.model import Model
from tddsr.networks.compact import CompactNet
from tddsr.pictures.sizes import Size, output_path
from tddsr.tiling import plan
from tddsr.upscaler import Upscaler
from tddsr.weights.file import save_model
from tests.conftest import photo, small_rrdb
from tests.derived import small_paper_model


@pytest.fixture
def upscaler(student: Model) -> Upscaler:
    return Upscaler(TorchEngine(student))


def difference(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize(("tile", "size"), [
    (1, (37, 7)), (16, (101, 142)), (33, (101, 142)), (64, (101, 142)), (200, (101, 142)), ("auto", (101, 142)),
])  # fmt: skip
def test_tiles_give_the_pixels_of_the_whole(student, tile, size):
    picture = photo(*size)
    assert max(size) > 2 * student.halo(1)  # so that there are tiles that see no border
    whole = Upscaler(TorchEngine(student), tile=None)(picture)
    assert difference(Upscaler(TorchEngine(student), tile=tile)(picture), whole) <= 1
    # Apart from 8 bit, only the order of sums differs: a halo too small by a few pixels would show.
    exact, tiled = (Upscaler(TorchEngine(student), tile=t)(picture / 255) for t in (None, tile))
    assert np.abs(exact - tiled).max() < 1e-5


@pytest.mark.parametrize("sampler", ["deterministic", "stochastic"])
def test_tiles_are_exact_with_many_steps(teacher, sampler):
    picture = photo(90, 70)
    whole = Upscaler(TorchEngine(teacher), tile=None)(picture, steps=3, sampler=sampler)
    assert difference(Upscaler(TorchEngine(teacher), tile=24)(picture, steps=3, sampler=sampler), whole) <= 1


def test_networks_that_see_the_whole_picture_are_blended_from_overlapping_tiles(monkeypatch):
    model, picture = small_paper_model("student"), photo(40, 150)
    seen, calls = [], []
    run = TorchEngine._run

    def spy(self, pixels, *rest):
        calls.append(pixels.shape[-2:])
        return run(self, pixels, *rest)

    monkeypatch.setattr(TorchEngine, "_run", spy)
    large = Upscaler(TorchEngine(model), tile=64)(picture, progress=lambda done, total: seen.append((done, total)))
    assert large.shape == (160, 600, 3)
    multiple = model.multiple
    assert all(height % multiple == width % multiple == 0 for height, width in calls)
    assert seen == [(i + 1, len(calls)) for i in range(len(calls))]
    assert len(calls) >= 3
    # Where one tile alone counts, its pixels are those of that part of the picture by itself: noise is by place.
    alone = Upscaler(TorchEngine(model), tile=None)(picture[:, :64])
    assert difference(large[:, :170], alone[:, :170]) <= 1


def test_half_precision_that_overflows_goes_on_in_float32(student, monkeypatch):
    picture, sample = photo(24, 32), Model.sample
    expected = Upscaler(TorchEngine(student))(picture)
    upscaler = Upscaler(TorchEngine(student.place("cpu", torch.bfloat16)))
    assert difference(upscaler(picture), expected) < 25
    assert describe(upscaler.engine)["precision"] == "bfloat16"

    def overflowing(self, *arguments):
        hr = sample(self, *arguments)
        return hr if hr.dtype == torch.float32 else hr / 0

    monkeypatch.setattr(Model, "sample", overflowing)
    with pytest.warns(RuntimeWarning, match="float32"):
        result = upscaler(picture)
    assert describe(upscaler.engine)["precision"] == "float32"
    assert difference(result, expected) < 10  # its weights were rounded


@pytest.mark.slow  # the compiler takes a minute
def test_a_compiled_network_gives_the_same_pixels(tmp_path, student):
    save_model(student, tmp_path / "a.safetensors")
    plain, compiled = (Upscaler.load(tmp_path / "a.safetensors", compiled=c)(photo(24, 32)) for c in (False, True))
    assert difference(plain, compiled) <= 1


def test_a_part_of_a_picture_has_the_noise_of_its_place(upscaler):
    """Where the crop starts at the picture's corner, the noise is the same; so is all but the far border."""
    picture = photo(120, 120)
    whole, part = upscaler(picture), upscaler(picture[:100, :100])
    inside = 4 * (100 - upscaler.engine.halo(1))
    assert difference(whole[:inside, :inside], part[:inside, :inside]) <= 1


def test_out_of_memory_halves_the_tile_and_goes_on(student, monkeypatch):
    picture = photo(100, 100)
    expected = Upscaler(TorchEngine(student))(picture)
    sizes = []
    run = TorchEngine._run

    def with_little_memory(self, pixels, *rest):
        sizes.append(pixels.shape[-1])
        if pixels.shape[-1] > 90:
            raise torch.OutOfMemoryError("out of memory")
        return run(self, pixels, *rest)

    monkeypatch.setattr(TorchEngine, "_run", with_little_memory)
    upscaler = Upscaler(TorchEngine(student), tile=None)
    with pytest.warns(RuntimeWarning, match="out of memory"):
        assert difference(upscaler(picture), expected) <= 1
    assert sizes[0] >= 100
    sizes.clear()
    assert difference(upscaler(picture), expected) <= 1
    assert max(sizes) <= 90  # it remembers


def test_errors_that_are_not_about_memory_are_not_swallowed(student, monkeypatch):
    def broken(*_args):
        raise RuntimeError("something else")

    monkeypatch.setattr(TorchEngine, "_run", broken)
    with pytest.raises(RuntimeError, match="something else"):
        Upscaler(TorchEngine(student))(photo())


def test_the_seed_decides(upscaler):
    picture = photo()
    assert np.array_equal(upscaler(picture, seed=1), upscaler(picture, seed=1))
    assert not np.array_equal(upscaler(picture, seed=1), upscaler(picture, seed=2))


@pytest.mark.parametrize("shape", [(20, 25), (20, 25, 1), (20, 25, 3), (20, 25, 4), (1, 1, 3), (3, 2, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_arrays_come_back_as_they_were(upscaler, shape, dtype):
    picture = photo(32, 32)[..., [0, 1, 2, 0]][: shape[0], : shape[1]]
    picture = picture[..., 0] if len(shape) == 2 else picture[..., : shape[2]]
    values = (picture / 255).astype(dtype) if np.issubdtype(dtype, np.floating) else picture.astype(dtype)
    large = upscaler(values)
    assert large.dtype == dtype
    assert large.shape == (4 * shape[0], 4 * shape[1], *shape[2:])
    if np.issubdtype(dtype, np.floating):
        assert large.min() >= 0
        assert large.max() <= 1


def test_8_bit_16_bit_and_floats_agree(upscaler):
    picture = photo(20, 20)
    expected = upscaler(picture)
    assert difference(upscaler(picture.astype(np.uint16) * 257) // 257, expected) <= 1
    assert difference((upscaler(picture / 255) * 255).round(), expected) <= 1


@pytest.mark.parametrize("shape", [(3, 20, 24), (2, 3, 20, 24), (1, 20, 24), (2, 4, 20, 24)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.float16])
def test_tensors_come_back_as_they_were(upscaler, shape, dtype):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    values = (values * 255).to(dtype) if dtype == torch.uint8 else values.to(dtype)
    large = upscaler(values)
    assert large.dtype == dtype
    assert large.shape == (*shape[:-2], 80, 96)


def test_a_tensor_is_enlarged_like_the_array(upscaler):
    picture = photo(20, 24)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)
    assert np.array_equal(upscaler(tensor).permute(1, 2, 0).numpy(), upscaler(picture))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
def test_pil_images_keep_their_mode(upscaler, mode):
    large = upscaler(Image.fromarray(photo()).convert(mode))
    assert (large.mode, large.size) == (mode, (208, 160))


def test_transparency_is_enlarged_smoothly(upscaler):
    image = Image.fromarray(photo())
    alpha = np.zeros((40, 52), np.uint8)
    alpha[:, 26:] = 255
    image.putalpha(Image.fromarray(alpha))
    large = np.asarray(upscaler(image))[..., 3]
    assert (large[:, :90] == 0).all()
    assert (large[:, 118:] == 255).all()


@pytest.mark.parametrize(
    ("scale", "size"), [(1, (52, 40)), (2, (104, 80)), (2.5, (130, 100)), (4, (208, 160)), (8, (416, 320))]
)
def test_other_scales_resize_at_the_end(upscaler, scale, size):
    image = Image.fromarray(photo())
    large = upscaler(image, scale=scale)
    assert large.size == (52 * scale, 40 * scale)
    reference = np.asarray(upscaler(image).resize((52, 40), Image.Resampling.BOX)).astype(float)
    small = np.asarray(large.resize((52, 40), Image.Resampling.BOX)).astype(float)
    assert np.abs(small - reference).mean() < 6


def test_files_are_written_beside_the_input(upscaler, tmp_path):
    source = tmp_path / "a.jpg"
    Image.fromarray(photo()).save(source)
    assert upscaler(source) == tmp_path / "a_x4.jpg"
    assert Image.open(tmp_path / "a_x4.jpg").size == (208, 160)
    assert upscaler(str(source), output=tmp_path / "b.png") == str(tmp_path / "b.png")


def test_rare_kinds_are_written_as_png():
    assert output_path(Path("x/a.gif"), Size(2)) == Path("x/a_x2.png")
    assert output_path(Path("a.TIFF"), Size(2.5)) == Path("a_x2.5.TIFF")


def test_a_file_that_cannot_hold_the_result_is_refused_before_any_work(upscaler, tmp_path, monkeypatch):
    Image.fromarray(photo()).convert("RGBA").save(tmp_path / "a.png")
    monkeypatch.setattr(TorchEngine, "_run", None)
    with pytest.raises(ImageError, match="transparency"):
        upscaler(tmp_path / "a.png", output=tmp_path / "b.jpg")
    with pytest.raises(ImageError, match=r"'\.xyz'"):
        upscaler(tmp_path / "a.png", output=tmp_path / "b.xyz")


@pytest.mark.parametrize("options", [
    {"sampler": "odd"}, {"scale": 0.5}, {"scale": 9}, {"seed": -1}, {"steps": 2}, {"steps": 0}, {"output": "a.png"},
])  # fmt: skip
def test_impossible_options_are_refused(upscaler, options):
    with pytest.raises(ValueError, match=next(iter(options)) if "steps" not in options else "step"):
        upscaler(photo(), **options)


@pytest.mark.parametrize("picture", [
    np.zeros((4, 4, 2), np.uint8), np.zeros((2, 3, 4, 4), np.uint8), np.zeros((4, 4), np.int32),
    np.full((4, 4, 3), 2.0), np.full((4, 4, 3), np.nan),
    np.zeros((0, 4, 3), np.uint8), torch.zeros(4, 4), torch.zeros(3, 4, 4, dtype=torch.int32),
    torch.zeros(3, 0, 4), torch.zeros(0, 3, 4, 4), [1, 2],
])  # fmt: skip
def test_other_arrays_and_things_are_refused(upscaler, picture):
    with pytest.raises(ValueError, match=r"not|cannot"):
        upscaler(picture)


@pytest.mark.parametrize("tile", [0, -1, "none", 1.5])
def test_impossible_tiles_are_refused(student, tile):
    with pytest.raises(ValueError, match="tile is"):
        Upscaler(TorchEngine(student), tile=tile)


def test_progress_counts_tiles(student):
    seen = []
    Upscaler(TorchEngine(student), tile=16)(photo(32, 32), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_auto_tiles_bound_the_memory(student, monkeypatch):
    monkeypatch.setattr(module, "_MOST_BUDGET", CompactNet.bytes_per_lr_pixel * 80**2)  # as if only 80x80 pixels fitted
    areas = []
    run = TorchEngine._run

    def spy(self, pixels, *rest):
        areas.append(pixels.shape[-1] * pixels.shape[-2])
        return run(self, pixels, *rest)

    monkeypatch.setattr(TorchEngine, "_run", spy)
    Upscaler(TorchEngine(student))(photo(150, 200))
    assert max(areas) <= 84**2


@pytest.mark.parametrize(("model", "width", "height", "most", "mebibytes"), [
    ("compact", 1500, 1000, 1.35, 1000),
    ("compact-small", 1500, 1000, 1.25, 330),
    ("compact-small", 2500, 2500, 1.4, 330),
])  # fmt: skip
def test_margins_cost_less_than_a_photo_within_the_memory_that_tiles_may_take(model, width, height, most, mebibytes):
    engine = load_engine(model, engine="onnx", device="cpu")
    tile, halo = Enlarger(engine, "auto")._cut(height, width, 1, kept=3)
    assert halo is not None
    assert engine.bytes_per_lr_pixel is not None
    areas = [t.source.height * t.source.width for t in plan(height, width, tile, halo, engine.multiple)]
    assert sum(areas) <= most * height * width
    row = 4 * tile[0] * 4 * width * 3
    assert max(areas) * engine.bytes_per_lr_pixel + row <= mebibytes * 2**20


def test_a_network_that_sees_too_far_for_memory_is_blended(monkeypatch):
    """Not cut into small tiles with wide margins; and its tiles hardly show."""
    model = small_rrdb(blocks=10)
    for name, weight in model.network.state_dict().items():
        if name.startswith("conv_"):
            weight *= 2  # PyTorch's random weights make a nearly flat picture
    halo, needed = model.halo(1), model.bytes_per_lr_pixel
    assert halo is not None
    assert needed is not None
    assert halo > 128
    picture = photo(120, 150)
    whole = Upscaler(TorchEngine(model))(picture).astype(int)
    monkeypatch.setattr(module, "_MOST_BUDGET", needed * 100**2)
    monkeypatch.setattr(module, "_BLENDED_TILE", 96)
    sides = []
    run = TorchEngine._run

    def spy(self, pixels, *rest):
        sides.append(max(pixels.shape[-2:]))
        return run(self, pixels, *rest)

    monkeypatch.setattr(TorchEngine, "_run", spy)
    blended = Upscaler(TorchEngine(model))(picture).astype(int)
    assert len(sides) > 1
    assert max(sides) <= 96
    assert whole.std() > 5
    assert np.abs(blended - whole).mean() < 0.02 * whole.std()


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_devices_that_are_not_there_are_refused(device):
    with pytest.raises(ValueError, match=device):
        pick_device(device)
