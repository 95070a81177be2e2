"""From a recipe to a run, or to one step of it that says what the run would take."""

from __future__ import annotations

import sys

import torch
from rich.console import Console

from tddsr.model import multiply_adds_per_lr_pixel
from tddsr.pictures.folders import find_files
from tddsr.training.distill import DistillTask
from tddsr.training.loop import Run
from tddsr.training.recipe import Recipe
from tddsr.training.teacher import TeacherTask

_TASKS: dict[str, type[TeacherTask] | type[DistillTask]] = {"teacher": TeacherTask, "distill": DistillTask}


def prepare(recipe: Recipe, device: torch.device, console: Console) -> Run:
    """Build everything that a run needs.

    Every path is opened and every photo's header read, so that mistakes show before the first step.
    """
    for photos in (recipe.data.train, recipe.validation.folder):
        find_files(photos)  # before a teacher is downloaded
    return Run(recipe, _TASKS[recipe.task](recipe, device), device, console)


def dry_run(run: Run) -> str:
    """Take one step, as ``Run.try_step``; say what the run would train, and what time and memory the step took."""
    recipe, model = run.recipe, run.task.model
    seconds, memory = run.try_step(), _peak_memory(run.device)
    photos, patches = len(run.patches.photos), recipe.data.batch * recipe.data.accumulate
    return "\n".join((
        f"task          {recipe.task}, {recipe.steps} steps of {patches} patches of {recipe.data.patch}"
        f" on {run.device} in {recipe.precision}",
        f"network       {model.parameter_count() / 1e6:.2f} M parameters,"
        f" {multiply_adds_per_lr_pixel(model) / 1e3:.0f} k multiply-adds per lr pixel, halo {model.halo(1)}",
        f"training on   {photos} photos of {recipe.data.train}: {max(1, photos // patches)} steps an epoch",
        f"validation on {len(run.validator.pairs)} photos of {recipe.validation.folder}",
        f"one step      {seconds:.2f} s, the first: others may be faster",
        f"memory        {memory}",
        f"output        {recipe.out}" + (" (goes on from its checkpoint)" if run.state_file.exists() else ""),
    ))  # fmt: skip


def _peak_memory(device: torch.device) -> str:
    """Of this process so far."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB of the GPU at the peak"
    try:
        import resource
    except ImportError:
        return "not known on this system"
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"{peak / 2**20:.0f} MiB at the peak, of this whole process"
