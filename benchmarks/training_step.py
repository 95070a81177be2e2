"""Where the time of a training step goes, and what kept targets save.

    python benchmarks/training_step.py --teacher TEACHER --data DATA --features FEATURES [--steps 20]

Each recipe of the student takes steps in turn, with the teacher's samples computed anew and with samples from a full
cache; the table has medians. A second table splits the full method's step. CPU only: there, work ends when a call does.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from tddsr.training.distill import DistillTask
from tddsr.training.load import load_recipe
from tddsr.training.loop import Run
from tddsr.training.start import prepare

ROOT = Path(__file__).parents[1]
RECIPES = ("compact-distill", "compact-distill-hr", "compact-distill-lr", "compact-tddsr")


class Clock:
    """Adds up the time spent in wrapped calls, each by its name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def wrap(self, owner: object, attribute: str, name: str) -> None:
        """Time ``owner.attribute`` from now on."""
        inner: Callable[..., Any] = getattr(owner, attribute)

        def timed(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return inner(*args, **options)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

        setattr(owner, attribute, timed)


def one_step(run: Run, step: int) -> float:
    """Train step number ``step``; returns seconds."""
    run.step = step
    start = time.perf_counter()
    run._train_step(iter([run.patches[step]]))
    return time.perf_counter() - start


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default=str(ROOT / "models" / "compact-teacher.safetensors"))
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--features", type=Path, default=ROOT / "features")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()

    def load(recipe: str, folder: str, targets: bool) -> Run:
        overrides = [
            f"teacher={options.teacher}", "start=null", f"features={options.features}",
            f"data.train={options.data / 'train'}", f"validation.folder={options.data / 'val'}", "validation.count=1",
            f"out={folder}/out",
        ]  # fmt: skip
        if targets:
            overrides.append(f"targets={folder}/targets")
        return prepare(load_recipe(recipe, overrides), torch.device("cpu"), Console(quiet=True))

    with tempfile.TemporaryDirectory() as folder:
        runs = {(recipe, kept): load(recipe, folder, kept) for recipe in RECIPES for kept in (False, True)}
        times: dict[tuple[str, bool], list[float]] = {key: [] for key in runs}
        for step in range(options.steps + 2):
            one_step(runs["compact-distill", True], step)  # fills the cache of this step for all
            for key, run in runs.items():
                seconds = one_step(run, step)
                if step >= 2:
                    times[key].append(seconds)
        data = runs["compact-tddsr", True].recipe.data
        print(f"batch {data.batch} of {data.patch}x{data.patch}, {torch.get_num_threads()} threads")
        print("\n| recipe | seconds a step, targets computed | kept | ratio |\n| --- | --- | --- | --- |")
        for recipe in RECIPES:
            fresh, kept = (statistics.median(times[recipe, k]) for k in (False, True))
            print(f"| {recipe} | {fresh:.3f} | {kept:.3f} | {fresh / kept:.2f} |")

        run, clock = runs["compact-tddsr", False], Clock()
        task = run.task
        assert isinstance(task, DistillTask)
        clock.wrap(run, "_batch", "degradation")
        clock.wrap(task, "_target", "teacher's samples")
        clock.wrap(task, "_estimate", "student, forward")
        clock.wrap(task, "loss", "L1, LPIPS and feature distance, forward")
        clock.wrap(task.adversaries["hr"], "against", "D_H on the student's picture, forward")
        clock.wrap(task.downsampler, "forward", "G, forward")
        clock.wrap(task.adversaries["lr"], "against", "D_L on G's picture, forward")
        clock.wrap(task.adversaries["hr"], "learn", "D_H's own step")
        clock.wrap(task.adversaries["lr"], "learn", "D_L's own step")
        clock.wrap(task.players["model"], "update", "student, backward and Adam")
        total = sum(one_step(run, step) for step in range(options.steps))
        clock.seconds["the terms' gradients at the student's output, G's backward and Adam, and the rest"] = (
            total - sum(clock.seconds.values())
        )
        print("\n| part of compact-tddsr's step, targets computed | ms | share |\n| --- | --- | --- |")
        for name, seconds in sorted(clock.seconds.items(), key=lambda item: -item[1]):
            print(f"| {name} | {seconds / options.steps * 1e3:.0f} | {seconds / total:.0%} |")


if __name__ == "__main__":
    main()
