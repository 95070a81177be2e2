"""Time and peak memory of enlarging pictures, each case in a process of its own, after a warm-up.

    python benchmarks/upscale.py [MODEL] [--engine onnx] [--fast] [--threads 2] [--repeats 5] [--peer]

Prints a Markdown table. "x bicubic" is the time as a multiple of Pillow's bicubic enlargement in the same process.
``--peer`` adds a line: how much longer the network of Real-ESRGAN x4plus takes for the first case, with random weights,
the two in turn in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from tddsr.engines.engine import describe
from tddsr.enlarge import Tile
from tddsr.upscaler import Upscaler

CASES = [("128x128 -> 512x512", 128, 128), ("1500x1000 -> 6000x4000", 1500, 1000)]


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of ``work`` after one call that does not count."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def load(options: argparse.Namespace) -> Upscaler:
    """What is measured."""
    tile: Tile = "auto" if options.tile == "auto" else int(options.tile)
    return Upscaler.load(options.model, engine=options.engine, fast=options.fast, device="cpu", tile=tile)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run one case in this process."""
    width, height = options.case
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(picture)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    upscaler = load(options)
    ours = seconds(lambda: upscaler(picture), options.repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bicubic = seconds(lambda: image.resize((4 * width, 4 * height), Image.Resampling.BICUBIC), options.repeats)
    memory = {"peak": peak / 1024, "idle": before / 1024}
    return {"seconds": ours, "bicubic": bicubic, **memory, **describe(upscaler.engine)}


def peer(options: argparse.Namespace) -> tuple[float, float]:
    """Seconds for the first case: ours and Real-ESRGAN's by PyTorch, in turn."""
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    import torch

    from tddsr.engines.torch import TorchEngine
    from tddsr.model import Model, ModelConfig, ScheduleConfig
    from tddsr.networks.rrdb import RRDBConfig

    _, width, height = CASES[0]
    config = ModelConfig(role="teacher", network=RRDBConfig(kind="rrdb"), schedule=ScheduleConfig(steps=1))
    upscaler, network = load(options), Upscaler(TorchEngine(Model(config).place("cpu").frozen()))
    lr = torch.rand(1, 3, height, width)
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    with torch.inference_mode():
        for _ in range(options.repeats + 1):
            for name, enlarge in (("ours", upscaler), ("theirs", network)):
                start = time.perf_counter()
                enlarge(lr)
                times[name].append(time.perf_counter() - start)
    ours, theirs = (statistics.median(found[1:]) for found in times.values())  # the first was to warm up
    return ours, theirs


def main() -> None:
    """Start a process for each case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="compact")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tile", default="auto")
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--case", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options)))
        return
    print(f"| {options.model}, {options.threads} threads | engine | seconds | x bicubic | peak MiB | before loading |")
    print("| --- | --- | --- | --- | --- | --- |")
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    for name, width, height in CASES:
        command = [sys.executable, __file__, *sys.argv[1:], "--case", str(width), str(height)]
        output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        f = json.loads(output)
        ratio = f["seconds"] / f["bicubic"]
        row = f"{f['seconds']:.3f} | {ratio:.0f} | {f['peak']:.0f} | {f['idle']:.0f}"
        print(f"| {name} | {f['engine']}, {f['precision']} | {row} |", flush=True)
    if options.peer:  # last: a process's peak starts at that of its parent
        ours, theirs = peer(options)
        print(f"\n{CASES[0][0]}: {ours:.3f} s, Real-ESRGAN x4plus {theirs:.2f} s: {theirs / ours:.1f} times as long")


if __name__ == "__main__":
    main()
