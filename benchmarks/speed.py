"""Time, memory and share of the machine's peak: ours, Real-ESRGAN x4plus, bicubic and the paper's scale.

    python benchmarks/speed.py --x4plus FILE [--ncnn FOLDER] [--output docs/benchmarks.md] [--quick]

Writes a page and, beside it, a plot of the same name. Each case is a process of its own; all cases of a round follow
each other, then comes the next round, so that what else the machine does falls on all of them. ``--x4plus``: a model
by name or file, such as ``realesrgan-x4plus``; ``--ncnn``: a folder with ``realesrgan-x4plus.param`` and ``.bin``, for
the package ncnn. ``--methods``, ``--sizes``, ``--threads``, ``--megapixels``, ``--rounds``: fewer cases; ``--quick``
is a few seconds of all. Linux only: memory as /proc tells it. Takes about 25 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from speed_page import Case, Page, Times

PHOTO = Path(__file__).parents[1] / "examples" / "coffee.jpg"
LARGE = (1500, 1000)

Pixels = NDArray[np.uint8]
Found = dict[str, Any]


# -- in a process of its own -------------------------------------------------------------------------------------------


def resident(what: str) -> float:
    """MiB of this process: ``VmRSS`` now, ``VmHWM`` at its peak."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    if found is None:
        raise SystemExit("memory is read from /proc: Linux only")
    return int(found[1]) / 1024


def _bicubic(picture: Pixels) -> object:
    height, width = picture.shape[:2]
    return Image.fromarray(picture).resize((4 * width, 4 * height), Image.Resampling.BICUBIC)


def _paper() -> Any:
    """The paper's networks with random weights, in one step."""
    from tddsr.engines.torch import TorchEngine
    from tddsr.model import Model, ModelConfig, ScheduleConfig
    from tddsr.networks.autoencoder import VQConfig
    from tddsr.networks.swin_unet import SwinUNetConfig
    from tddsr.upscaler import Upscaler

    config = ModelConfig(role="student", network=SwinUNetConfig(), space=VQConfig(), schedule=ScheduleConfig(steps=15))
    return Upscaler(TorchEngine(Model(config).place("cpu").frozen()))


def _ncnn(folder: Path, threads: int) -> Callable[[Pixels], object]:
    """Real-ESRGAN x4plus by ncnn on the CPU, the whole picture at once."""
    import ncnn  # type: ignore[import-not-found, import-untyped, unused-ignore]

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads
    net.load_param(str(folder / "realesrgan-x4plus.param"))
    net.load_model(str(folder / "realesrgan-x4plus.bin"))

    def enlarge(picture: Pixels) -> object:
        height, width = picture.shape[:2]
        lr = ncnn.Mat.from_pixels(np.ascontiguousarray(picture), ncnn.Mat.PixelType.PIXEL_RGB, width, height)
        lr.substract_mean_normalize([], [1 / 255] * 3)
        extractor = net.create_extractor()
        extractor.input("data", lr)
        failed, hr = extractor.extract("output")
        pixels = np.array(hr)
        if failed or pixels.shape != (3, 4 * height, 4 * width):
            raise SystemExit(f"ncnn gives {pixels.shape}")
        return (pixels.clip(0, 1) * 255).round().astype(np.uint8)

    return enlarge


def load(case: Case, options: argparse.Namespace) -> tuple[Callable[..., object], str]:
    """What enlarges, and what it is called in tables."""
    name, _, way = case.method.partition("/")
    if name == "bicubic":
        return _bicubic, "bicubic, Pillow"
    if way == "ncnn":
        return _ncnn(options.ncnn, case.threads), f"{name}, ncnn, float32"
    if name == "paper":
        upscaler = _paper()
    else:
        from tddsr.upscaler import Upscaler

        source = options.x4plus if name == "x4plus" else name
        engine, fast = ("torch", True) if way == "fast" else (way, False)
        upscaler = Upscaler.load(source, engine=engine, device="cpu", fast=fast)
    engine_name = {"onnx": "ONNX Runtime", "torch": "PyTorch"}[upscaler.engine.name]
    return upscaler, f"{name}, {engine_name}, {upscaler.engine.precision}"


def measure(case: Case, options: argparse.Namespace, began: float) -> Found:
    """Run one case in this process, which ``began`` at that time."""
    enlarge, label = load(case, options)
    with Image.open(PHOTO) as photo:
        image = photo.convert("RGB").resize((case.width, case.height), Image.Resampling.BICUBIC)
    rest = resident("VmRSS")
    warm: list[float] = []
    cpu: list[float] = []

    def timed(*given: object, **more: object) -> None:
        start, used = time.perf_counter(), time.process_time()
        enlarge(*given, **more)
        warm.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)

    if case.megapixels is not None:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "in.png")
            image.save(source)
            timed(source, output=Path(folder, "out.png"))
        cold = time.time() - began
    elif case.width >= LARGE[0]:  # beside which what only a first call does is nothing
        timed(np.asarray(image))
        cold = time.time() - began
    else:
        picture = np.asarray(image)
        enlarge(picture)
        cold = time.time() - began
        while not warm or (len(warm) < options.repeats and sum(warm) < options.seconds):
            timed(picture)
    return {"label": label, "cold": cold, "warm": warm, "cpu": cpu, "rest": rest, "peak": resident("VmHWM")}


def peaks() -> Found:
    """GFLOP that a CPU second does in matrix products, the best of ten, by type."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    best: Found = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.rand(1536, 1536).to(dtype)
        seconds = math.inf
        for _ in range(10):
            start = time.process_time()
            torch.mm(a, a)
            seconds = min(seconds, time.process_time() - start)
        best[str(dtype).removeprefix("torch.")] = 2 * len(a) ** 3 / seconds / 1e9
    return best


def costs(options: argparse.Namespace) -> Found:
    """Multiply-adds a pixel of the lr picture, by model."""
    from tddsr.model import multiply_adds_per_lr_pixel
    from tddsr.weights.names import load_model

    models = {"compact": "compact", "compact-small": "compact-small", "x4plus": options.x4plus}
    return {name: multiply_adds_per_lr_pixel(load_model(model)) for name, model in models.items() if model is not None}


# -- all of them -------------------------------------------------------------------------------------------------------


def apart(what: str, threads: int, **more: object) -> Found:
    """What a process of its own finds."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, *sys.argv[1:], "--apart", json.dumps({"what": what, **more})]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def run_cases(cases: list[Case], rounds: int) -> dict[Case, Times]:
    """All of them once, then again: A, B, A, B. Large pictures and the paper's scale once."""
    times = {case: Times() for case in cases}
    for number in range(rounds):
        for case in cases:
            if number and (case.width >= LARGE[0] or case.megapixels or case.method.startswith("paper")):
                continue
            times[case].add(apart("case", case.threads, case=asdict(case), began=time.time()))
            found = times[case]
            size = f"{case.width}x{case.height}, {case.threads} threads"
            print(f"{found.label}, {size}: {min(found.warm):.3f} s", file=sys.stderr, flush=True)
    return times


def start_up(rounds: int) -> dict[str, list[float]]:
    """CPU seconds of whole commands, in turn."""
    used: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, Image.open(PHOTO) as photo:
        source = Path(folder, "small.png")
        photo.convert("RGB").resize((64, 64)).save(source)
        models = {f"`tddsr upscale --model {name}`": ["upscale", str(source), "--overwrite", "--model", name]
                  for name in ("compact", "compact-small")}  # fmt: skip
        for _ in range(rounds):
            for name, arguments in {**models, "`tddsr --help`": ["--help"]}.items():
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                command = [sys.executable, "-m", "tddsr", *arguments]
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                used.setdefault(name, []).append(seconds)
    return used


def choose(options: argparse.Namespace) -> list[Case]:
    """Cases of pictures in memory, then of files; x4plus by ncnn and in bfloat16, and the paper's scale, not large."""
    cases = [
        Case(method, side, side, threads)
        for threads in options.threads
        for side in options.sizes
        for method in options.methods
        if side <= 128 or not method.startswith("paper")
    ]
    large = [m for m in options.methods if m not in ("x4plus/fast", "x4plus/ncnn", "paper/torch")]
    cases += [Case(m, *LARGE, max(options.threads)) for m in large if not options.no_photo]
    for megapixels in options.megapixels:
        side = round(250 * math.sqrt(megapixels))
        models = ["compact-small/onnx"] + ["compact/onnx"] * (megapixels <= 10 and not options.quick)
        cases += [Case(model, side, side, max(options.threads), megapixels) for model in models]
    return cases


METHODS = [
    "bicubic",
    *(f"{model}/{way}" for model in ("compact-small", "compact") for way in ("onnx", "torch", "fast")),
]


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--x4plus")
    parser.add_argument("--ncnn", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks.md"))
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--megapixels", type=float, nargs="*", default=[0.01, 0.1, 1, 10, 100])
    parser.add_argument("--no-photo", action="store_true")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5, help="warm calls of a case in a round, at most")
    parser.add_argument("--seconds", type=float, default=4, help="for them, after which there is none more")
    parser.add_argument("--starts", type=int, default=20, help="of each command, for its start-up")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--apart", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.threads, options.megapixels = [64], [1], [0.01, 0.1]
        options.no_photo, options.rounds, options.repeats, options.starts = True, 1, 2, 1
    theirs = ["x4plus/torch", "x4plus/fast"] * (options.x4plus is not None) + ["x4plus/ncnn"] * bool(options.ncnn)
    quick = ["bicubic", "compact-small/onnx"]
    options.methods = options.methods or (quick if options.quick else METHODS + theirs + ["paper/torch"])
    if options.apart:
        what = options.apart["what"]
        if what == "case":
            print(json.dumps(measure(Case(**options.apart["case"]), options, options.apart["began"])))
        else:
            print(json.dumps(peaks() if what == "peaks" else costs(options)))
        return

    began, load_before = time.time(), os.getloadavg()[0]
    page = Page(
        peaks={threads: apart("peaks", threads) for threads in options.threads},
        costs=apart("costs", 1),
        start_up=start_up(options.starts),
        times=run_cases(choose(options), options.rounds),
        load_before=load_before,
        seconds=time.time() - began,
    )
    page.write(options.output)


if __name__ == "__main__":
    main()
