"""The loop that every training task shares: data, checkpoints, resuming, validation, logs.

Chance comes from (seed, stream, step) alone and the learning rate from the step, so a checkpoint needs only weights,
optimisers and the step: a run that was killed and started again ends with the same weights as an unbroken one. (On a
CPU, with the same number of threads; some backward passes on CUDA add up in any order. A batch of one small patch goes
through MKL, whose last bit hangs on memory addresses unless the environment says MKL_CBWR=AUTO,STRICT, as that of
``tddsr train`` does.)
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from tddsr import rng
from tddsr.degradation.pipeline import degrade_mixed
from tddsr.errors import TrainingError
from tddsr.files import whole_or_nothing
from tddsr.training.data import Patches, Scenes, Triple, batches, scene_settings
from tddsr.training.recipe import Recipe
from tddsr.training.targets import keyed
from tddsr.training.task import Batch, Task
from tddsr.training.validation import Scores, Validator
from tddsr.weights.file import save_model, source_of

_DEGRADATION, _STEP = 0, 1
"""Streams of chance, beside that of the patches."""


class Run:
    """One training run in its folder: ``state.pt``, ``best.safetensors``, ``last.safetensors``, scores, TensorBoard."""

    def __init__(self, recipe: Recipe, task: Task, device: torch.device, console: Console) -> None:
        self.recipe, self.task, self.device, self.console = recipe, task, device, console
        self.folder = recipe.out
        self.state_file = self.folder / "state.pt"
        self.patches = Patches(recipe.data, recipe.seed)
        self.source: Patches | Scenes = self.patches
        if recipe.data.scenes is not None:
            assert recipe.targets is not None  # the recipe's validator saw to it
            key = json.dumps([task.scene_key(), recipe.seed, scene_settings(recipe.data), self.patches.digest])
            self.source = Scenes(self.patches, task.teach, keyed(recipe.targets, key))
        mix = recipe.validation.degradation or recipe.data.degradation
        self.validator = Validator(recipe.validation, recipe.features, mix, device)
        unit = task.model.scale * task.model.multiple
        sides = {"data.patch": recipe.data.patch, "validation.crop": recipe.validation.crop}
        if recipe.data.scenes is not None:
            sides["data.scene"] = recipe.data.scene
        for key, side in sides.items():
            if side % unit:
                raise TrainingError(f"{key} is {side}; this network needs a multiple of {unit}")
        self.step = 0
        self.end = recipe.adversary.pretrain.steps + recipe.steps
        self.best = math.inf

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def _fingerprint(self) -> str:
        """What must not change between the parts of a resumed run."""
        free = {
            "validation",
            "out",
            "features",
            "checkpoint_every",
            "log_every",
            "teacher",
            "start",
            "targets",
            "recompute",
        }
        data = self.recipe.data.model_copy(update={"workers": 0, "train": Path()})
        fixed = self.recipe.model_copy(update={"data": data}).model_dump(
            mode="json", exclude=free, exclude_defaults=True
        )
        # With kept targets, all go through 16 bit.
        kept_targets = self.recipe.targets is not None
        beside = {"origin": self.task.origin, "photos": self.patches.digest, "kept_targets": kept_targets}
        return json.dumps({**fixed, **beside})

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "step": self.step,
            "best": self.best,
            "judge": self.recipe.validation.model_dump_json(),
            "recipe": self._fingerprint(),
            "players": {name: player.state_dict() for name, player in self.task.players.items()},
        }
        with whole_or_nothing(self.state_file) as temporary:
            torch.save(state, temporary)

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        if not self.state_file.is_file():
            return
        try:
            state = torch.load(self.state_file, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file fails in as many ways as it has bytes
            raise TrainingError(f"{self.state_file} is damaged: delete it to begin anew ({error})") from error
        if state["recipe"] != self._fingerprint():
            old, new = json.loads(state["recipe"]), json.loads(self._fingerprint())
            changed = ", ".join(key for key in sorted(old | new) if old.get(key) != new.get(key))
            raise TrainingError(
                f"{self.folder} holds a run of another recipe (differs in: {changed}); "
                "choose another folder with out=FOLDER, or delete this one"
            )
        self.step = state["step"]
        if state["judge"] == self.recipe.validation.model_dump_json():
            self.best = state["best"]  # else the old best was judged by another score
        for name, player in self.task.players.items():
            player.load_state_dict(state["players"][name])
        self.console.print(f"going on from step {self.step} of {self.state_file}")

    # -- one step ---------------------------------------------------------------------------------------------------

    def _batch(self, read: Tensor | Triple, number: int, draw: int) -> Batch:
        """Batch ``number``, made of what was read for it; what its step draws belongs to ``draw``."""
        chance = rng.generator(self.recipe.seed, _STEP, draw)
        if isinstance(read, Tensor):
            generator = rng.generator(self.recipe.seed, _DEGRADATION, number)
            hr, lr = degrade_mixed(read.to(self.device).float() / 255, self.recipe.data.degradation, generator)
            return Batch(hr * 2 - 1, lr * 2 - 1, number, chance)
        hr, lr, taught = (picture.to(self.device, non_blocking=True).float() / 127.5 - 1 for picture in read)
        return Batch(hr, lr, number, chance, taught)

    def _train_step(self, batches: Iterator[Tensor | Triple]) -> dict[str, float]:
        recipe = self.recipe
        own = recipe.own_step(self.step) % self.end  # steps of the preparation come after the last
        logged: dict[str, float] = {}
        for part, number in enumerate(recipe.batch_numbers(self.step)):
            batch = self._batch(next(batches), number, draw=own * recipe.data.accumulate + part)
            for name, value in self.task.update(batch, self.step).items():
                if name.endswith("gradient_norm"):
                    logged[name] = float(value)  # gradients gather: the last part knows it
                else:
                    logged[name] = logged.get(name, 0.0) + float(value.detach()) / recipe.data.accumulate
        if not all(map(math.isfinite, logged.values())):
            good = f"the last good checkpoint is {self.state_file}" if self.state_file.exists() else "no checkpoint yet"
            raise TrainingError(f"step {self.step}: the loss is not finite ({logged}); {good}")
        return logged

    def try_step(self) -> float:
        """Take the run's last step, in which every network takes part, from where the folder is; returns seconds.

        Nothing is written but kept targets, those of this step, and this object is of no use afterwards.
        """
        self.resume()
        self.step = self.end - 1
        start = time.perf_counter()
        self._train_step(iter(batches(self.source, self.recipe.batch_numbers(self.step), 0, self.device)))
        return time.perf_counter() - start

    # -- the run ----------------------------------------------------------------------------------------------------

    def validate(self, writer: Any) -> Scores:
        """Score the averaged weights, keep them if they are the best, and log."""
        model = self.task.averaged_model()
        scores = {}
        for name, picture in self.task.pictures().items():
            writer.add_image(f"training/{name}", picture, self.step)
        for name, sampler in self.task.samplers(model).items():
            scores[name], grid = self.validator.run(sampler, model.channels)
            for key, value in scores[name].items():
                writer.add_scalar(f"validation/{name}/{key}", value, self.step)
            writer.add_image(f"validation/{name}", grid, self.step)
            figures = "  ".join(f"{key} {value:.4f}" for key, value in scores[name].items())
            self.console.print(f"step {self.step}  {name}: {figures}")
        with (self.folder / "scores.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.step, **scores}) + "\n")
        source = source_of(self.task.notes)
        notes = json.dumps({"step": self.step, "scores": scores} | ({"from": source} if source else {}))
        save_model(model, self.recipe.last, notes=notes)
        first = next(iter(scores.values()))
        chosen = next(iter(first.values()))
        if chosen < self.best:
            self.best = chosen
            save_model(model, self.folder / "best.safetensors", notes=notes)
        return first

    def run(self) -> None:
        """Train from where the folder is to the recipe's last step."""
        recipe = self.recipe
        self.folder.mkdir(parents=True, exist_ok=True)
        self.resume()
        writer = SummaryWriter(str(self.folder), purge_step=self.step)
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=self.console, speed_estimate_period=120) as progress:
            bar = progress.add_task(recipe.task, total=self.end, completed=self.step)
            recent: dict[str, float] = {}
            numbers = [number for step in range(self.step, self.end) for number in recipe.batch_numbers(step)]
            if recipe.data.workers and isinstance(self.source, Scenes):
                self.source.make_all(recipe.data.workers)
            ahead = iter(batches(self.source, numbers, recipe.data.workers, self.device))
            while self.step < self.end:
                logged = self._train_step(ahead)
                recent |= logged  # not every step has every value
                self.step += 1
                progress.update(bar, completed=self.step, description=f"{recipe.task} loss {logged['loss']:.4f}")
                if self.step % recipe.log_every == 0:
                    for name, value in recent.items():
                        writer.add_scalar(f"training/{name}", value, self.step)
                    recent.clear()
                    for warning in self.task.warnings():
                        self.console.print(f"step {self.step}: {warning}", style="yellow")
                        writer.add_text("training/warnings", warning, self.step)
                end = self.step == self.end
                own_step = recipe.own_step(self.step)
                if end or (own_step > 0 and own_step % recipe.validation.every == 0):
                    self.validate(writer)
                if end or self.step % recipe.checkpoint_every == 0:
                    self.save()
        writer.close()
        self.console.print(f"done: {self.folder / 'best.safetensors'} (chosen score {self.best:.4f})")
