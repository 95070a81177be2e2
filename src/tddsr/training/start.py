"""From a recipe to a run, or to a report of what the run would be."""

from __future__ import annotations

import torch
from rich.console import Console

from tddsr.model import multiply_adds_per_lr_pixel
from tddsr.training.distill import DistillTask
from tddsr.training.loop import Run
from tddsr.training.recipe import Recipe
from tddsr.training.task import Task
from tddsr.training.teacher import TeacherTask

_TASKS: dict[str, type[TeacherTask] | type[DistillTask]] = {"teacher": TeacherTask, "distill": DistillTask}


def _saved_for_backward(task: Task, recipe: Recipe, device: torch.device) -> int:
    """Bytes that one sample's forward pass keeps for the backward pass, measured."""
    weights = {weight.untyped_storage().data_ptr() for weight in task.model.parameters()}
    total = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal total
        if tensor.untyped_storage().data_ptr() not in weights:
            total += tensor.nbytes
        return tensor

    side = recipe.data.patch // 4
    model = task.model
    lr, eps = torch.zeros(1, 3, side, side, device=device), torch.zeros(1, model.channels, side, side, device=device)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.sample(lr, eps)
    return total


def describe(run: Run) -> str:
    """What a run would train, on what, and about how much memory it needs."""
    recipe, task = run.recipe, run.task
    state = sum(5 * 4 * sum(w.numel() for w in p.network.parameters()) for p in task.players.values())
    frozen = sum(4 * weight.numel() for module in task.frozen for weight in module.parameters())
    memory = state + frozen + recipe.data.batch * _saved_for_backward(task, recipe, run.device)
    photos, patches = len(run.patches.photos), recipe.data.batch * recipe.data.accumulate
    return "\n".join((
        f"task          {recipe.task}, {recipe.steps} steps of {patches} patches of {recipe.data.patch}"
        f" on {run.device} in {recipe.precision}",
        f"network       {task.model.parameter_count() / 1e6:.2f} M parameters,"
        f" {multiply_adds_per_lr_pixel(task.model) / 1e3:.0f} k multiply-adds per lr pixel, halo {task.model.halo(1)}",
        f"training on   {photos} photos of {recipe.data.train}: {max(1, photos // patches)} steps an epoch",
        f"validation on {len(run.validator.pairs)} photos of {recipe.validation.folder}",
        f"memory        about {memory / 2**20:.0f} MiB for weights, optimiser and the network's activations"
        " in float32, without those of losses on pictures",
        f"output        {recipe.out}" + (" (goes on from its checkpoint)" if run.state_file.exists() else ""),
    ))  # fmt: skip


def prepare(recipe: Recipe, device: torch.device, console: Console) -> Run:
    """Build everything that a run needs.

    Every path is opened and every photo's header read, so that mistakes show before the first step.
    """
    return Run(recipe, _TASKS[recipe.task](recipe, device), device, console)
