"""Scores against seconds: which size of network is worth its time.

    python benchmarks/frontier.py NAME=MODEL... --hr PHOTOS [--preset web,clean] [--limit 40] [--plot FILE.png]

Prints a Markdown table: multiply-adds a pixel of the lr picture; seconds for 128x128 -> 512x512, all models in turn in
one process, the median; and the mean LPIPS-VGG of degraded photos. The first model's time is what others compare with.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from tddsr.degradation.presets import choose_presets
from tddsr.engines.torch import TorchEngine
from tddsr.evaluation.methods import Method
from tddsr.evaluation.pictures import find_pictures
from tddsr.evaluation.results import Protocol
from tddsr.evaluation.run import evaluate
from tddsr.metrics.table import METRICS, load_scores
from tddsr.model import multiply_adds_per_lr_pixel
from tddsr.upscaler import Upscaler
from tddsr.weights.names import load_model

SIDE = 128


def seconds(upscalers: dict[str, Upscaler], repeats: int) -> dict[str, float]:
    """Median time of each, in turn, after a first round that does not count."""
    lr = torch.rand(1, 3, SIDE, SIDE)
    times: dict[str, list[float]] = {name: [] for name in upscalers}
    for _ in range(repeats + 1):
        for name, upscaler in upscalers.items():
            start = time.perf_counter()
            upscaler(lr)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def scores(upscalers: dict[str, Upscaler], hr: Path, presets: str, limit: int) -> dict[str, float]:
    """Mean LPIPS-VGG over all presets and photos, one noise seed."""
    methods = {
        name: Method(name, lambda pair, seed, upscaler=upscaler: upscaler(pair.lr, seed=seed))  # type: ignore[misc]
        for name, upscaler in upscalers.items()
    }
    judge, means = load_scores([METRICS["LPIPS-VGG"]]), []
    for preset in choose_presets(presets):
        pictures = find_pictures(hr, preset=preset, limit=limit, crop=256)
        result = evaluate(methods, pictures, judge, Protocol(crop=256, seeds=1))
        means.append({name: values["LPIPS-VGG"] for name, values in result.means().items()})
    return {name: statistics.mean(found[name] for found in means) for name in upscalers}


def plot(path: Path, names: list[str], times: list[float], found: list[float]) -> None:
    """Write the points as a picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.scatter(times, found)
    for name, x, y in zip(names, times, found, strict=True):
        axes.annotate(name, (x, y), xytext=(5, 5), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_xlabel(f"seconds, {SIDE}x{SIDE} to {4 * SIDE}x{4 * SIDE}")
    axes.set_ylabel("LPIPS-VGG (lower is better)")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--hr", type=Path, required=True)
    parser.add_argument("--preset", default="realesrgan,clean,resshift-test,web")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    given = dict(model.split("=", 1) for model in options.models)
    upscalers = {name: Upscaler(TorchEngine.load(file, "cpu")) for name, file in given.items()}
    times = seconds(upscalers, options.repeats)
    found = scores(upscalers, options.hr, options.preset, options.limit)
    first = next(iter(times.values()))
    print("| network | M multiply-adds a pixel | halo | seconds | times as fast | LPIPS-VGG |\n" + "| --- " * 6 + "|")
    for name in upscalers:
        model = load_model(given[name])
        cost = multiply_adds_per_lr_pixel(model) / 1e6
        print(
            f"| {name} | {cost:.2f} | {model.halo(1)} | {times[name]:.3f} | {first / times[name]:.1f}",
            end="",
        )
        print(f" | {found[name]:.4f} |")
    if options.plot:
        plot(options.plot, list(given), list(times.values()), list(found.values()))


if __name__ == "__main__":
    main()
