"""The student: one evaluation at t = T that reproduces the teacher's deterministic samples (Eq. 6)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tddsr import diffusion, losses
from tddsr.checkpoint import load_model
from tddsr.config import Recipe, RecipeError
from tddsr.files import file_hash
from tddsr.model import Model
from tddsr.training.loop import Player, Task
from tddsr.training.teacher import PictureLoss


class DistillTask(Task):
    """Eq. 6 from the same x_T for both, and, where weighted, terms against the truth."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        assert recipe.teacher is not None  # the recipe's validator saw to it
        self.teacher = load_model(recipe.teacher, device)
        if self.teacher.config.role != "teacher":
            raise RecipeError(f"{recipe.teacher} is a {self.teacher.config.role}; a student learns from a teacher")
        self.teacher_steps = recipe.teacher_steps or self.teacher.default_steps
        self.teacher.check_steps(self.teacher_steps)
        student = Model(self.teacher.config.model_copy(update={"role": "student"}))
        source = self.teacher if recipe.start is None else load_model(recipe.start)
        if source.config.network != student.config.network:
            raise RecipeError(f"{recipe.start} has another network than the teacher: {source.config.network}")
        student.network.load_state_dict(source.network.state_dict())
        self.model = student.place(device).train()
        self.origin = file_hash(recipe.teacher) + ("" if recipe.start is None else file_hash(recipe.start))
        self.weights = recipe.loss
        self.precision = getattr(torch, recipe.precision)
        self.loss = PictureLoss(recipe.loss, recipe, device)
        self.players = {"model": Player(self.model.network, recipe.optim, recipe.steps, recipe.precision)}

    def update(self, hr: Tensor, lr: Tensor, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        model = self.model
        y = model.encode_lr(lr)
        eps = torch.randn(y.shape, generator=generator).to(y)
        with torch.autocast(hr.device.type, self.precision, enabled=self.precision != torch.float32):
            estimate = diffusion.one_step(model.schedule, model.predictor(lr), y, eps)
            if self.weights.distill:
                with torch.no_grad():
                    schedule = self.teacher.schedule.respaced(self.teacher_steps)
                    target = diffusion.sample_deterministic(schedule, self.teacher.predictor(lr), y, eps)
        terms = self.loss(model, estimate, hr, generator)
        if self.weights.distill:
            terms["distill"] = self.weights.distill * losses.distill(estimate.float(), target.float())
        loss = torch.stack(list(terms.values())).sum()
        norm = self.players["model"].update(loss, step)
        return {"loss": loss.detach(), **terms, "gradient_norm": norm}

    def samplers(self, model: Model) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
        return {"student": model.sample}
