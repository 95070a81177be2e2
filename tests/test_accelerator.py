"""Tiles in batches, queued ahead and recorded: on an accelerator where there is one, and what can be on a CPU."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from tddsr.engines.accelerator import Pipeline, Recorder
from tddsr.engines.engine import NO_MARGINS
from tddsr.engines.torch import TorchEngine
from tddsr.model import Model
from tddsr.upscaler import Upscaler
from tests.conftest import photo, small_model, small_rrdb

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")

Make = Callable[..., TorchEngine]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=needs_cuda)])
def batching(request, monkeypatch) -> Make:
    """Makes an engine that works in batches, on a CPU too."""

    def make(model: Model | None = None, dtype: torch.dtype = torch.float32) -> TorchEngine:
        engine = TorchEngine((model or small_model()).place(request.param, dtype))
        if request.param == "cpu":
            engine.pipeline = Pipeline(torch.device("cpu"), engine.bytes_per_lr_pixel)
            monkeypatch.setattr(engine.pipeline, "free_memory", lambda: 1 << 30)
        return engine

    return make


@pytest.fixture
def passes(monkeypatch) -> list[tuple[int, ...]]:
    """The shapes of all that networks are given."""
    seen, enlarge = [], TorchEngine._enlarge

    def spy(self, lr, *rest, **options):
        seen.append(tuple(lr.shape))
        return enlarge(self, lr, *rest, **options)

    monkeypatch.setattr(TorchEngine, "_enlarge", spy)
    return seen


def expected(picture: np.ndarray, model: Model | None = None, **options) -> np.ndarray:
    """By the whole picture, on the CPU in float32."""
    return Upscaler(TorchEngine((model or small_model()).place("cpu")), tile=None)(picture, **options)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).max())


# -- batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [small_model, lambda: small_rrdb("student", blocks=1)], ids=["noisy", "blind"])
@pytest.mark.parametrize(("tile", "size"), [(16, (70, 91)), (24, (37, 122)), ("auto", (60, 61)), (40, (9, 13))])
def test_batches_of_tiles_give_the_pixels_of_the_whole(batching, make, tile, size):
    picture = photo(*size)
    large = Upscaler(batching(make()), tile=tile)(picture / 255, seed=4)
    assert difference(large, expected(picture / 255, make(), seed=4)) < 1e-4


@pytest.mark.parametrize("sampler", ["deterministic", "stochastic"])
def test_batches_take_many_steps(batching, sampler):
    picture = photo(90, 70) / 255
    options = {"steps": 3, "sampler": sampler}
    large = Upscaler(batching(small_model("teacher")), tile=24)(picture, **options)
    assert difference(large, expected(picture, small_model("teacher"), **options)) < 1e-4


def test_all_tiles_of_a_picture_have_one_size_and_share_passes(batching, passes):
    engine = batching()
    Upscaler(engine, tile=24)(photo(100, 200))
    (shape,) = {shape[1:] for shape in passes}
    count = sum(shape[0] for shape in passes)
    assert count == 5 * 9
    assert len(passes) == 1
    passes.clear()
    engine.pipeline.most = 4 * shape[1] * shape[2]
    Upscaler(engine, tile=24)(photo(100, 200))
    assert [shape[0] for shape in passes] == [4] * 11 + [1]


def test_batches_are_queued_before_the_ones_before_are_awaited(batching, passes):
    engine = batching()
    engine.pipeline.most = 1
    small = [photo(16, 16, seed).transpose(2, 0, 1)[None] for seed in range(4)]
    tiles = [((lr / 255).astype(np.float32), noise, NO_MARGINS) for lr in small]
    results = engine.run_each(tiles)
    first = next(results)
    assert len(passes) == 2
    assert len([first, *results]) == 4
    for (lr, *_), large in zip(tiles, engine.run_each(tiles), strict=True):
        assert difference(large, TorchEngine(small_model()).run(lr, noise)) < 1e-4


def noise(t: int) -> np.ndarray:
    return np.zeros((1, 48, 16, 16), np.float32)


def test_tiles_of_other_sizes_come_back_in_their_order(batching):
    sizes = [(16, 16), (16, 16), (8, 24), (16, 16), (24, 8), (24, 8)]
    tiles = [(np.zeros((1, 3, h, w), np.float32), lambda _, h=h, w=w: np.ones((1, 48, h, w), np.float32), NO_MARGINS)
             for h, w in sizes]  # fmt: skip
    assert [large.shape[2:] for large in batching().run_each(iter(tiles))] == [(4 * h, 4 * w) for h, w in sizes]


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def with_memory_for(pixels: int, monkeypatch) -> list[tuple[int, ...]]:
    """The shapes of passes, none of which has more lr pixels."""
    passed, enlarge = [], TorchEngine._enlarge

    def limited(self, lr, *rest, **options):
        if lr.shape[0] * lr.shape[2] * lr.shape[3] > pixels:
            raise torch.OutOfMemoryError("out of memory")
        passed.append(tuple(lr.shape))
        return enlarge(self, lr, *rest, **options)

    monkeypatch.setattr(TorchEngine, "_enlarge", limited)
    return passed


def test_where_memory_is_short_batches_are_halved_before_tiles(batching, monkeypatch):
    picture = photo(100, 200)
    whole = expected(picture)
    passed = with_memory_for(8 * 100**2, monkeypatch)
    upscaler = Upscaler(batching(), tile=24)
    assert difference(upscaler(picture), whole) <= 1
    assert len({shape[2:] for shape in passed}) == 1
    assert upscaler.enlarger.most is None
    assert max(shape[0] for shape in passed) > 1


def test_where_no_tile_fits_tiles_are_halved(batching, monkeypatch):
    picture = photo(150, 200)
    whole = expected(picture)
    passed = with_memory_for(100**2, monkeypatch)
    upscaler = Upscaler(batching(), tile=None)
    with pytest.warns(RuntimeWarning, match="out of memory"):
        assert difference(upscaler(picture), whole) <= 1
    assert passed
    assert upscaler.enlarger.most is not None


def test_half_precision_that_overflows_goes_on_in_float32(batching, monkeypatch):
    picture, sample = photo(60, 64), Model.sample
    engine = batching(dtype=torch.bfloat16)
    engine.pipeline.most = 1
    assert difference(Upscaler(engine, tile=16)(picture), expected(picture)) < 25

    def overflowing(self, *arguments):
        hr = sample(self, *arguments)
        return hr if hr.dtype == torch.float32 else hr / 0

    monkeypatch.setattr(Model, "sample", overflowing)
    engine = batching(dtype=torch.bfloat16)
    with pytest.warns(RuntimeWarning, match="float32") as told:
        large = Upscaler(engine, tile=16)(picture)
    assert len(told) == 1
    assert engine.precision == "float32"
    assert difference(large, expected(picture)) < 10  # its weights were rounded


def test_weights_move_while_no_other_thread_computes(batching, monkeypatch):
    place, sample, moving = Model.place, Model.sample, threading.Event()
    engine, picture = batching(dtype=torch.bfloat16), photo(60, 64)

    def slow(self, *arguments):
        moving.set()
        time.sleep(0.1)
        placed = place(self, *arguments)
        moving.clear()
        return placed

    def overflowing(self, *arguments):
        assert not moving.is_set()
        hr = sample(self, *arguments)
        return hr if hr.dtype == torch.float32 else hr / 0

    monkeypatch.setattr(Model, "place", slow)
    monkeypatch.setattr(Model, "sample", overflowing)
    with ThreadPoolExecutor(3) as pool, pytest.warns(RuntimeWarning, match="float32") as told:
        list(pool.map(lambda _: Upscaler(engine, tile=16)(picture), range(6)))
    assert len(told) == 1


# -- CUDA --------------------------------------------------------------------------------------------------------------


def cuda(name: str = "compact-small", precision: str = "float32") -> TorchEngine:
    return TorchEngine.load(name, "cuda", precision)  # type: ignore[arg-type]


@needs_cuda
@pytest.mark.parametrize("name", ["compact", "compact-small"])
@pytest.mark.parametrize("tile", ["auto", 64])
def test_float32_on_cuda_is_float32(name, tile):
    """Not TF32, in which convolutions round to 11 bit."""
    assert torch.backends.cudnn.allow_tf32  # what PyTorch does by default
    picture = photo(150, 170) / 255
    whole = Upscaler(TorchEngine.load(name, "cpu"), tile=None)(picture)
    assert difference(Upscaler(cuda(name), tile=tile)(picture), whole) < 2e-4
    assert torch.backends.cudnn.allow_tf32


@needs_cuda
@pytest.mark.parametrize("name", ["compact", "compact-small"])
def test_bfloat16_on_cuda_is_near(name):
    picture = photo(150, 170)
    whole = Upscaler(TorchEngine.load(name, "cpu"), tile=None)(picture)
    large = Upscaler(cuda(name, "bfloat16"), tile=64)(picture)
    assert difference(large, whole) <= 16
    assert np.abs(large.astype(float) - whole).mean() < 1


@needs_cuda
@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-4), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("noisy", [False, True])
def test_what_recurs_is_recorded_and_gives_the_same(precision, most, noisy):
    engine = (
        TorchEngine(small_model().place("cuda", getattr(torch, precision))) if noisy else cuda("compact", precision)
    )
    upscaler, pictures = Upscaler(engine), [photo(80, 90, seed, noise=40) / 255 for seed in range(5)]
    assert isinstance(engine.once, Recorder)
    larger = [upscaler(picture, seed=seed) for seed, picture in enumerate(pictures)]
    assert len(engine.once.graphs) == 1
    replayed = [upscaler(picture, seed=seed) for seed, picture in enumerate(pictures)]
    engine.once = engine._once
    for seed, (picture, first, second) in enumerate(zip(pictures, larger, replayed, strict=True)):
        eager = upscaler(picture, seed=seed)
        assert difference(first, eager) < most
        assert difference(second, eager) < most
    assert difference(replayed[0], replayed[1]) > 2 * most


@needs_cuda
def test_few_recordings_are_kept():
    engine = TorchEngine(small_model().place("cuda"))
    for side in range(20, 60, 4):
        for _ in range(4):
            Upscaler(engine)(photo(side, side))
    assert isinstance(engine.once, Recorder)
    assert 0 < len(engine.once.graphs) <= 8


@needs_cuda
def test_weights_that_moved_are_recorded_anew(monkeypatch):
    engine, picture = TorchEngine(small_model().place("cuda", torch.bfloat16)), photo(40, 40)
    for _ in range(4):
        Upscaler(engine)(picture)
    with pytest.warns(RuntimeWarning, match="float32"):
        engine._go_on_in_float32()
    for _ in range(5):
        assert difference(Upscaler(engine)(picture), expected(picture)) < 10


@needs_cuda
def test_memory_that_really_runs_out_on_cuda_halves_tiles():
    picture, engine = photo(1000, 1200), cuda()
    whole = Upscaler(engine, tile=None)(picture)
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + (600 << 20)) / total)
    try:
        upscaler = Upscaler(engine, tile=None)
        with pytest.warns(RuntimeWarning, match="out of memory"):
            assert difference(upscaler(picture), whole) <= 1
        assert upscaler.enlarger.most is not None
        batched = Upscaler(engine, tile=64)
        assert difference(batched(picture), whole) <= 1
        assert batched.enlarger.most is None
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@needs_cuda
def test_threads_may_share_an_engine_on_cuda():
    upscaler, pictures = Upscaler(cuda(), tile=48), [photo(90, 100, seed) for seed in range(4)]
    alone, shared = [upscaler(picture) for picture in pictures], {}

    def work(number: int) -> None:
        for _ in range(5):
            shared[number] = upscaler(pictures[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, large in enumerate(alone):
        assert difference(shared[number], large) <= 1
