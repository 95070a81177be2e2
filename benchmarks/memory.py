"""Memory and time of enlarging files of 1, 10 and 100 megapixels (out), each in a process of its own.

    python benchmarks/memory.py [MODEL] [--engine onnx] [--threads 1] [--megapixels 1 10 100] [--suffix .png]
                                [--budget MIB] [--scale 4]

Prints a Markdown table. "Above rest" is the largest resident memory while the file is read, enlarged and written, less
the process's after loading the model. ``--budget``: what a tile and a finished row of tiles may take, instead of what
the package lets them. Linux only: resident memory as /proc tells it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from tddsr import enlarge
from tddsr.upscaler import Upscaler

PHOTO = Path(__file__).parents[1] / "examples" / "coffee.jpg"


def resident(what: str) -> float:
    """MiB of this process: ``VmRSS`` now, ``VmHWM`` at its peak."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(rf"{what}:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Enlarge one file in this process."""
    if options.budget is not None:
        enlarge._BUDGET = options.budget * 2**20
    source, target = options.case
    upscaler = Upscaler.load(options.model, engine=options.engine, device="cpu")
    rest, start = resident("VmRSS"), time.perf_counter()
    upscaler(source, output=target, scale=options.scale)
    return {"seconds": time.perf_counter() - start, "rest": rest, "peak": resident("VmHWM")}


def main() -> None:
    """Start a process for each size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="compact-small")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 10, 100])
    parser.add_argument("--suffix", default=".png")
    parser.add_argument("--budget", type=int, metavar="MIB")
    parser.add_argument("--scale", type=float, default=4)
    parser.add_argument("--case", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options)))
        return
    print(f"| {options.model}, {options.threads} threads | seconds | a megapixel | MiB at rest | above rest |")
    print("| --- | --- | --- | --- | --- |")
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    with tempfile.TemporaryDirectory() as folder:
        for megapixels in options.megapixels:
            side = round(1000 * math.sqrt(megapixels) / options.scale)
            source, target = Path(folder, f"in{options.suffix}"), Path(folder, f"out{options.suffix}")
            Image.open(PHOTO).resize((side, side), Image.Resampling.BICUBIC).save(source)
            command = [sys.executable, __file__, *sys.argv[1:], "--case", str(source), str(target)]
            output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
            f = json.loads(output)
            row = (
                f"{f['seconds']:.1f} | {f['seconds'] / megapixels:.2f} | {f['rest']:.0f} | {f['peak'] - f['rest']:.0f}"
            )
            print(f"| {side}x{side} -> {megapixels:g} MP | {row} |", flush=True)


if __name__ == "__main__":
    main()
