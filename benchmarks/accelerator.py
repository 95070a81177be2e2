"""An accelerator: tiles one by one against batched, queued ahead and recorded; in float32 and bfloat16.

    python benchmarks/accelerator.py --output accelerator.md [--models compact compact-small] [--seconds 50]

``--models``: by name or file. Pictures are made of ``examples/coffee.jpg``, tiled where they are larger. All ways of a
case follow each other, each warm; cases left when ``--seconds`` are over are said to be missing, and a case that fails
is told and the others go on. ``--device cpu --sizes 48x32`` tries the script where there is no accelerator.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tddsr.engines.accelerator import Recorder, exact
from tddsr.engines.engine import PASS_PIXELS, Engine, Noise, Precision, Sampler, Work
from tddsr.engines.torch import TorchEngine
from tddsr.enlarge import Enlarger, Sampling, Tile
from tddsr.tiling import Margins

PHOTO = Path(__file__).parents[1] / "examples" / "coffee.jpg"

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


class OneByOne:
    """The same engine without any of it: a tile is sent, computed and fetched before the next one is read."""

    def __init__(self, engine: TorchEngine) -> None:
        self.engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    @torch.inference_mode()
    def run(
        self, lr: Floats, noise: Noise, margins: Margins, steps: int = 1, sampler: Sampler = "deterministic"
    ) -> Floats:
        with exact():
            return self.engine._enlarge(torch.from_numpy(lr), noise, steps, sampler, margins).float().cpu().numpy()

    def run_each(self, tiles: Iterable[Work], steps: int = 1, sampler: Sampler = "deterministic") -> Iterator[Floats]:
        return itertools.starmap(partial(self.run, steps=steps, sampler=sampler), tiles)


def prepared(engine: TorchEngine, way: str) -> Engine:
    """The engine set up so."""
    engine.once = Recorder(engine._once) if "recorded" in way and engine.weight.is_cuda else engine._once
    if engine.pipeline is not None:
        engine.pipeline.most = PASS_PIXELS if "batched" in way else 1
        engine.pipeline.ahead = 1 if "ahead" in way else 0
    return cast("Engine", OneByOne(engine)) if way == "one by one" else engine


def enlarge(enlarger: Enlarger, picture: Pixels) -> None:
    """To floating point in main memory, band by band: what engines and tiles take, without pictures in and out."""
    for _ in enlarger.bands(picture, Sampling(0, 1, "deterministic"), (0, 255)):
        pass


def alone(engine: TorchEngine, picture: Pixels, tf32: bool) -> Callable[[], None]:
    """The network alone on a picture that is on the device already: the most that can be reached in one pass."""
    lr = torch.from_numpy(picture).to(engine.weight.device).permute(2, 0, 1)[None].to(engine.weight) / 255

    @torch.inference_mode()
    def run() -> None:
        with nullcontext() if tf32 else exact():
            engine._enlarge(lr, lambda _: np.zeros((1, engine.channels, *lr.shape[2:]), np.float32), 1, "deterministic")
        if lr.is_cuda:
            torch.cuda.synchronize()

    return run


def timed(run: Callable[[], object], large: bool) -> tuple[list[float], float]:
    """Seconds of warm calls, or of a single first one of a large picture; MiB on the device at most."""
    cuda, warm = torch.cuda.is_available(), 0 if large else 4
    until = time.perf_counter() + 0.5
    for number in range(warm):
        if number == 0 or time.perf_counter() < until:  # small ones are recorded at the third
            run()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    times: list[float] = []
    while not times or (not large and len(times) < 30 and sum(times) < 0.25):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times, torch.cuda.max_memory_allocated() / 2**20 if cuda else 0


WAYS = ("one by one", "ahead", "batched, ahead", "batched, ahead, recorded")


class Table:
    """Rows, written anew after each case, so that nothing is lost."""

    def __init__(self, head: str, output: Path) -> None:
        self.head, self.output, self.rows, self.notes = head, output, list[str](), list[str]()

    def add(self, *cells: object) -> None:
        row = "| " + " | ".join(map(str, cells)) + " |"
        print(row, flush=True)
        self.rows.append(row)
        self.write()

    def note(self, line: str) -> None:
        print(line, flush=True)
        self.notes.append(line)
        self.write()

    def write(self) -> None:
        columns = ("model", "picture", "tile", "way", "times as fast", "ms least / median", "MP/s", "MiB")
        lines = [
            self.head,
            "| " + " | ".join(columns) + " |",
            "| --- " * len(columns) + "|",
            *self.rows,
            "",
            *self.notes,
        ]
        self.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def case(table: Table, engine: TorchEngine, name: str, picture: Pixels, tile: Tile) -> None:
    """All ways of one picture; beside them the network alone, and whole calls."""
    height, width = picture.shape[:2]
    large, single = height * width > 4 * PASS_PIXELS, tile == "auto" and height * width <= PASS_PIXELS
    first = 0.0

    def row(way: str, run: Callable[[], object]) -> None:
        nonlocal first
        times, memory = timed(run, large)
        least = min(times)
        first = first or least
        table.add(
            f"{name}, {engine.precision}", f"{width}x{height}", tile, way, f"{first / least:.2f}",
            f"{1e3 * least:.1f} / {1e3 * statistics.median(times):.1f}", f"{height * width / least / 1e6:.3g}",
            round(memory),
        )  # fmt: skip

    ways = (WAYS[0], *WAYS[2:]) if single else WAYS[:3] if tile != "auto" else (WAYS[0], WAYS[2])
    for way in ways:
        row(way, partial(enlarge, Enlarger(prepared(engine, way), tile), picture))
    engine.once = engine._once
    if single:
        row("the network alone", alone(engine, picture, tf32=False))
        if engine.precision == "float32":
            row("the network alone, TF32", alone(engine, picture, tf32=True))
    if tile == "auto":
        from tddsr.upscaler import Upscaler  # with libvips, which may be missing

        upscaler = Upscaler(prepared(engine, WAYS[-1]))
        row("whole call", lambda: upscaler(picture))


def pictures(sizes: list[str]) -> Iterator[Pixels]:
    """Of the photo, which is repeated where more is needed."""
    with Image.open(PHOTO) as photo:
        pixels = np.asarray(photo.convert("RGB"))
    for size in sizes:
        width, height = map(int, size.split("x"))
        times = -(-height // pixels.shape[0]), -(-width // pixels.shape[1]), 1
        yield np.ascontiguousarray(np.tile(pixels, times)[:height, :width])


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["compact-small", "compact"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", nargs="+", default=["128x128", "512x512", "1500x1000", "4000x3000"])
    parser.add_argument("--seconds", type=float, default=50, help="no case begins after that")
    parser.add_argument("--output", type=Path, default=Path("accelerator.md"))
    options = parser.parse_args()
    precisions: tuple[Precision, ...] = ("bfloat16", "float32")
    began = time.perf_counter()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA"
    head = [
        f"# Accelerators\n\nWritten by `python benchmarks/accelerator.py` on {time.strftime('%Y-%m-%d')}.\n",
        f"{device}, torch {torch.__version__}.",
        "Pictures in main memory to four times as large ones there, in floating point (*whole call*: bytes to bytes).",
        "*times as fast*: as one by one. Least and median of warm calls; above 4 megapixels there is a single one.",
        "MP/s: of lr. *MiB*: allocated on the device, at most. Float32 without TF32, if nothing else is said.\n",
    ]
    table = Table("\n".join(head), options.output)
    engines = [
        (Path(model).stem, TorchEngine.load(model, options.device, precision))
        for model in options.models
        for precision in precisions
    ]
    if torch.cuda.is_available():  # pinned memory is kept by PyTorch: not so that a first large picture takes it
        pinned = [torch.empty(48 * PASS_PIXELS, pin_memory=True) for _ in range(3)]
        del pinned
    jobs: list[tuple[str, Callable[[], None]]] = []
    for picture in pictures(options.sizes):
        height, width = picture.shape[:2]
        tiles: list[Tile] = ["auto", 256] if PASS_PIXELS // 8 < height * width < 4 * PASS_PIXELS else ["auto"]
        for name, engine in engines:
            told = f"{name}, {engine.precision}, {width}x{height}"
            jobs += [(f"{told}, tile {tile}", partial(case, table, engine, name, picture, tile)) for tile in tiles]
    for told, job in jobs:
        if time.perf_counter() - began > options.seconds:
            table.note(f"Not measured, for want of time: {told}.")
            continue
        try:
            job()
        except Exception as error:
            traceback.print_exc()
            table.note(f"Failed: {told}: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
    table.note(f"\nTook {time.perf_counter() - began:.0f} s.")


if __name__ == "__main__":
    main()
