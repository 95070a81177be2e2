"""The teacher: a network that predicts x_0 from x_t at every t (Eq. 1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tddsr import diffusion
from tddsr.errors import RecipeError
from tddsr.model import Model, begin
from tddsr.training.recipe import Recipe
from tddsr.training.task import Batch, Task
from tddsr.weights.names import fingerprint, load_model, read_notes


class TeacherTask(Task):
    """Random t, Eq. 1, and the picture loss on the estimate of x_0."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        assert recipe.model is not None  # the recipe's validator saw to it
        torch.manual_seed(recipe.seed)
        if recipe.start is None and recipe.model.space.kind != "pixels":
            raise RecipeError(
                f"model.space {recipe.model.space.kind} has weights: name a model file with them as 'start'"
            )
        if recipe.start is None:
            model = Model(recipe.model)
        else:
            source = load_model(recipe.start)
            try:
                model = begin(source, recipe.model)
            except ValueError as error:
                raise RecipeError(f"{recipe.start}: {error}") from error
        self.origin = "" if recipe.start is None else fingerprint(recipe.start)
        self.notes = "" if recipe.start is None else read_notes(recipe.start)
        model.network.requires_grad_(True)
        super().__init__(recipe, model, device)

    def update(self, batch: Batch, step: int) -> dict[str, Tensor]:
        model, schedule = self.model, self.model.schedule
        hr, lr, generator = batch.hr, batch.lr, batch.generator
        with torch.no_grad():
            x_0, y = model.space.encode(hr), model.encode_lr(lr)
        t = torch.randint(1, schedule.steps + 1, (len(hr),), generator=generator)
        eps = torch.randn(x_0.shape, generator=generator).to(x_0)
        x_t = diffusion.forward(schedule, x_0, y, t, eps)
        with self.autocast():
            estimate = model.predictor(lr)(diffusion.scale_input(schedule, x_t, t), (t - 1).to(hr.device))
        terms = self.loss(model, estimate, hr, generator)
        loss = torch.stack(list(terms.values())).sum()
        norm = self.players["model"].update(loss, step)
        return {"loss": loss, **terms, "gradient_norm": norm}

    def samplers(self, model: Model) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
        """One step first; a teacher whose many steps are worse than its one pulls a student down (docs/experiments)."""
        steps = model.schedule.steps

        def stochastic(lr: Tensor, eps: Tensor) -> Tensor:
            def noise(t: int) -> Tensor:
                return torch.randn(eps.shape, generator=torch.Generator().manual_seed(t)).to(eps)

            return model.sample(lr, eps, steps, noise)

        return {
            "one_step": model.sample,
            "deterministic": lambda lr, eps: model.sample(lr, eps, steps),
            "stochastic": stochastic,
        }
