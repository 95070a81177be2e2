"""The student: one evaluation at t = T that learns from the teacher and from two discriminators.

Eq. 6 follows the teacher's samples; Eq. 7-8 a discriminator of hr pictures; Eq. 9-10 one of lr pictures, behind a
learnable downsampler.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tddsr import diffusion, rng
from tddsr.errors import DataError, RecipeError
from tddsr.model import Model, begin
from tddsr.networks.downsampler import FACTOR, build_downsampler
from tddsr.training import losses
from tddsr.training.adversary import Adversary, DiscriminatorWatch, DownsamplerWatch, Watch
from tddsr.training.recipe import Recipe
from tddsr.training.targets import kept, keyed
from tddsr.training.task import Batch, Player, Task
from tddsr.weights.names import fingerprint, load_model, read_notes

_LARGEST_FACTOR = 1e4
"""of an adaptive weight (VQGAN)"""

_LOW = 16
"""How far around a pixel the means of the low band reach, hr pixels."""

_NOISE = 2
"""Stream of the student's noise, beside those of the loop: it belongs to a batch, so that targets can be kept."""

Values = dict[str, Tensor]


def low_band(pictures: Tensor) -> Tensor:
    """Means of (B,C,H,W) over squares of 33 pixels around each pixel; the border mirrors."""
    padded = F.pad(pictures, (_LOW,) * 4, mode="reflect")
    return F.avg_pool2d(F.avg_pool2d(padded, (2 * _LOW + 1, 1), stride=1), (1, 2 * _LOW + 1), stride=1)


def _student_of(teacher: Model, recipe: Recipe) -> Model:
    source, name = teacher, recipe.teacher
    if recipe.start is not None:
        source, name = load_model(recipe.start), recipe.start
        ours, theirs = source.config.schedule, teacher.config.schedule
        if ours != theirs and recipe.data.scenes is None:  # kept pictures come from lr, not from x_T
            raise RecipeError(f"{recipe.start} has another schedule than the teacher: {ours}, not {theirs}")
        if not source.shares_space(teacher):
            raise RecipeError(
                f"{recipe.start} has another latent space than the teacher: of a kind, or weights, of its own"
            )
    torch.manual_seed(recipe.seed)
    network = recipe.network or source.config.network
    config = source.config.model_copy(update={"role": "student", "network": network})
    try:
        return begin(source, config, teacher.space, recipe.keep_blocks)
    except ValueError as error:
        raise RecipeError(f"'network' does not follow from {name}: {error}") from error


class DistillTask(Task):
    """Up to four players: the student ``model``, ``hr_discriminator``, ``lr_discriminator`` and ``downsampler``.

    Who is not needed by the weights of the recipe's losses is not there. Every phase asks autograd for the gradients of
    the network that it trains and no other's.
    """

    _shown: Sequence[Tensor] = ()

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        assert recipe.teacher is not None  # the recipe's validator saw to it
        self.weights = recipe.loss
        self._teacher_hash = fingerprint(recipe.teacher)
        self.teacher = load_model(recipe.teacher, device)
        if self.teacher.default_steps != self.teacher.schedule.steps:  # it knows the end of its chain alone
            raise RecipeError(
                f"{recipe.teacher} is a student of a teacher of {self.teacher.schedule.steps} steps; a student learns "
                "from a teacher, or from a student of one whose only step is at t = T"
            )
        super().__init__(recipe, _student_of(self.teacher, recipe), device)
        self.origin = self._teacher_hash + ("" if recipe.start is None else fingerprint(recipe.start))
        self.notes = read_notes(recipe.teacher)
        self._set_up_adversaries()
        if recipe.data.scenes is not None and self.teacher.default_steps > 1:
            raise RecipeError(
                f"data.scenes keeps a teacher's pictures without the noise they came from: {recipe.teacher}, of "
                f"{self.teacher.default_steps} steps, cannot have them; a teacher of one step can"
            )
        self.targets: Path | None = None
        if recipe.targets is not None and recipe.data.scenes is None:  # scenes have their own
            self.targets = keyed(recipe.targets, self._target_key())

    def _set_up_adversaries(self) -> None:
        recipe, settings = self.recipe, self.recipe.adversary
        self.adversaries: dict[str, Adversary] = {}
        # Everyone starts from the seed, so that each starts alike whoever else plays.
        for kind, config in (("hr", settings.hr), ("lr", settings.lr)):
            if getattr(self.weights, kind):
                torch.manual_seed(recipe.seed)
                adversary = Adversary(f"{kind}_discriminator", config, recipe, self.device)
                self.adversaries[kind], self.players[adversary.name] = adversary, adversary.player
        if self.weights.lr:
            torch.manual_seed(recipe.seed)
            self.downsampler = build_downsampler(settings.downsampler).to(self.device)
            own = settings.downsampler_optim or settings.optim
            self.players["downsampler"] = Player(recipe, self.downsampler, own, averaged=False)
            self.watch = DownsamplerWatch()

    def _target_key(self) -> str:
        """All that a batch's target depends on, but the photos, which the cache compares by their lr pictures."""
        recipe = self.recipe
        without = {"train", "part", "workers", "accumulate"}
        data = recipe.data.model_dump(mode="json", exclude=without)
        return json.dumps([self._teacher_hash, recipe.seed, data, recipe.precision, self.device.type])

    def scene_key(self) -> str:
        return json.dumps([self._teacher_hash, self.recipe.precision, self.device.type])

    @torch.no_grad()
    def teach(self, lr: Tensor) -> Tensor:
        lr = lr.to(self.device).float() / 127.5 - 1
        eps = lr.new_zeros(len(lr), self.teacher.channels, *lr.shape[-2:])
        with self.autocast():
            picture = self.teacher.sample(lr, eps).float()
        return ((picture + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    # -- what the student and the teacher make ----------------------------------------------------------------------

    @torch.no_grad()
    def _encode_lr(self, batch: Batch) -> Tensor:
        with self.autocast():
            return self.model.encode_lr(batch.lr).float()

    def _noise(self, y: Tensor, batch: Batch) -> Tensor:
        # On the device itself: on a CPU it takes as long as an accelerator's whole step.
        generator = rng.generator(self.recipe.seed, _NOISE, batch.number, device=y.device)
        return torch.randn(y.shape, generator=generator, device=y.device, dtype=y.dtype)

    def _target(self, batch: Batch, y: Tensor) -> Tensor:
        """The teacher's deterministic sample from the x_T that the student gets; of kept scenes, its picture."""
        if batch.taught is not None:  # by a teacher of one step, which sees lr alone
            taught = batch.taught
            if self.weights.low_band == "truth":
                taught = taught + low_band(batch.hr - taught)
            return self.model.space.encode(taught)

        @torch.no_grad()
        def compute() -> Tensor:
            with self.autocast():
                predict, eps = self.teacher.predictor(batch.lr), self._noise(y, batch)
                return diffusion.sample_deterministic(self.teacher.schedule, predict, y, eps).float()

        if self.targets is None:
            return compute()
        file = self.targets / f"{batch.number:08d}.safetensors"
        pixels = ((batch.lr + 1) * 127.5).round().to("cpu", torch.uint8)
        # Also a new target goes through 16 bit: a run is the same with a full folder and with an empty one.
        found = kept(file, lambda: {"lr": pixels, "target": compute().to(torch.float16)})
        if not torch.equal(found["lr"], pixels):
            raise DataError(f"{file} belongs to other pictures (of other photos?); delete {self.targets}")
        return found["target"].to(batch.lr)

    def _estimate(self, batch: Batch, y: Tensor) -> Tensor:
        with self.autocast():
            predict = self.model.predictor(batch.lr)
            return diffusion.one_step(self.model.schedule, predict, y, self._noise(y, batch)).float()

    # -- one step ---------------------------------------------------------------------------------------------------

    def _parts(self, step: int) -> set[str]:
        """Which of the three parts of the method take part in ``step``."""
        parts = ["distill", *self.adversaries]
        return set(parts) if self.recipe.adversary.update == "joint" else {parts[step % len(parts)]}

    def update(self, batch: Batch, step: int) -> Values:
        own_step = self.recipe.own_step(step)
        if own_step < 0:
            return self._prepare(batch, step)
        if own_step == 0:
            for adversary in self.adversaries.values():
                adversary.watch = DiscriminatorWatch()  # what it saw in its pre-training was easy
        judged, values = self._student_phase(batch, own_step, self._parts(own_step))
        for kind, made in judged.items():
            values |= self._adversary_phase(kind, batch, made, own_step)
        return values

    def _student_phase(self, batch: Batch, own_step: int, parts: set[str]) -> tuple[Values, Values]:
        """The student's step on the weighted sum of its terms, and G's on Eq. 10, which both of them minimise.

        Returns what the discriminators of ``parts`` judge, as it was before the step: ``hr``, the student's picture,
        and ``lr``, what G made of it; and the values to log.
        """
        model, weights, generator = self.model, self.weights, batch.generator
        y = self._encode_lr(batch)
        x_0 = self._estimate(batch, y)
        picture = None
        if parts & self.adversaries.keys():
            with self.autocast():
                picture = model.space.decode(x_0).float()
        fidelity: Values = {}
        if "distill" in parts:
            taught = self._target(batch, y) if weights.distill or weights.guide != "truth" else None
            fidelity = self.loss(model, x_0, self._guide(batch, taught, x_0), generator, picture)
            if weights.distill and taught is not None:
                fidelity["distill"] = weights.distill * losses.distill(x_0, taught)
        judged: Values = {}
        adversarial: Values = {}
        for kind, adversary in self.adversaries.items():
            if kind in parts and picture is not None:
                judged[kind] = picture if kind == "hr" else self.downsampler(picture, generator)
                if own_step >= self.recipe.adversary.ahead:
                    term = adversary.against(judged[kind], generator)
                    adversarial[f"adversarial_{kind}"] = getattr(weights, kind) * term

        # Each term's gradient is taken at the student's output, where their sizes compare, then their sum goes on.
        terms = fidelity | adversarial
        gradients, slopes = {}, {}
        for name, term in terms.items():
            others = self.players["downsampler"].parameters if name == "adversarial_lr" else []
            gradients[name], *slopes[name] = torch.autograd.grad(
                term, [x_0, *others], retain_graph=True, allow_unused=True
            )
        norms = {f"gradient_of/{name}": gradient.norm() for name, gradient in gradients.items()}
        factors: Values = {}
        if self.recipe.adversary.adaptive:
            # VQGAN's balance: a weight of 1 makes an adversarial gradient as large as that of all the other terms.
            reference = torch.stack([gradients[name] for name in fidelity]).sum(dim=0).norm()
            for name in adversarial:
                weighted = getattr(weights, name.removeprefix("adversarial_")) * reference
                factor = (weighted / norms[f"gradient_of/{name}"].clamp(min=1e-12)).clamp(max=_LARGEST_FACTOR)
                gradients[name] = factor * gradients[name]
                factors[f"factor_of/{name}"] = factor
        total = torch.stack(list(gradients.values())).sum(dim=0)
        norm = self.players["model"].update(x_0, own_step, gradient=total)
        loss = torch.stack([term.detach() for term in terms.values()]).sum()
        values = {"loss": loss, "gradient_norm": norm, **norms, **factors}
        values |= {name: term.detach() for name, term in terms.items()}
        if "lr" in judged:
            values |= self._downsampler_phase(batch, judged["lr"], slopes.get("adversarial_lr"), own_step)
        return {kind: pictures.detach() for kind, pictures in judged.items()}, values

    def _downsampler_phase(
        self, batch: Batch, made: Tensor, slopes: Sequence[Tensor | None] | None, step: int
    ) -> Values:
        """G's step on Eq. 10, whose ``slopes`` the student's phase took, and on its tie to the pairs.

        Returns also how it does on pairs: its error, that of the mean of 4x4 pixels, and how far it is from that mean.
        """
        player, tie = self.players["downsampler"], self.recipe.adversary.tie
        with torch.set_grad_enabled(tie > 0):
            small = self.downsampler(batch.hr, batch.generator)
            error = F.l1_loss(small, batch.lr)
        terms = [] if slopes is None else [slopes]
        if tie:
            terms.append(torch.autograd.grad(tie * error, player.parameters, allow_unused=True))
        area = F.avg_pool2d(batch.hr, FACTOR)
        values = {
            "downsampler/error": error.detach(),
            "downsampler/error_of_area": F.l1_loss(area, batch.lr),
            "downsampler/change": F.l1_loss(small.detach(), area),
        }
        self.watch.add(*map(float, values.values()))
        self._shown = [pictures[:4].detach() for pictures in (batch.lr, made, small, area)]
        if terms:
            given = ([part for part in parts if part is not None] for parts in zip(*terms, strict=True))
            total = [torch.stack(parts).sum(dim=0) if parts else None for parts in given]
            values["downsampler/gradient_norm"] = player.follow(total, step)
        return values

    def _guide(self, batch: Batch, taught: Tensor | None, x_0: Tensor) -> Tensor:
        """The pictures that the student is drawn to, beside Eq. 6."""
        if taught is None or self.weights.guide == "truth":
            return batch.hr
        with torch.no_grad():
            teachers = self.model.space.decode(taught)
            if self.weights.guide == "teacher":
                return teachers
            apart = self.loss.perceptual["lpips"]
            behind = apart(teachers, batch.hr) > apart(self.model.space.decode(x_0), batch.hr)
            return torch.where(behind[:, None, None, None], batch.hr, teachers)

    def _adversary_phase(self, kind: str, batch: Batch, made: Tensor, step: int) -> Values:
        """D_H's step on Eq. 7 (``hr``), or D_L's on Eq. 9 (``lr``)."""
        real = batch.hr if kind == "hr" else batch.lr
        return self.adversaries[kind].learn(real, made, step, batch.generator)

    def _prepare(self, batch: Batch, step: int) -> Values:
        """A step before the student's first (Table 6): D_H on teacher pictures, then G on pairs, then D_L on G's."""
        pretrain, rated = self.recipe.adversary.pretrain, self.recipe.adversary.optim.warmup  # the full rate
        if step < pretrain.hr:
            with torch.no_grad(), self.autocast():
                made = self.model.space.decode(self._target(batch, self._encode_lr(batch))).float()
            values = self._adversary_phase("hr", batch, made, rated)
            return {"loss": values["hr_discriminator/loss"], **values}
        small = self.downsampler(batch.hr, batch.generator)
        if step < pretrain.hr + pretrain.downsampler:
            loss, player = F.l1_loss(small, batch.lr), self.players["downsampler"]
            return {"loss": loss, "downsampler/gradient_norm": player.update(loss, player.config.warmup)}
        values = self._adversary_phase("lr", batch, small.detach(), rated)
        return {"loss": values["lr_discriminator/loss"], **values}

    # -- what is shown ----------------------------------------------------------------------------------------------

    def warnings(self) -> list[str]:
        watches: dict[str, Watch] = {adversary.name: adversary.watch for adversary in self.adversaries.values()}
        if self.weights.lr:
            watches["downsampler"] = self.watch
        said = [(name, watch.warning()) for name, watch in watches.items()]
        return [f"{name} {text}" for name, text in said if text is not None]

    def pictures(self) -> Values:
        """From above: lr pictures; what G made of the student's and of the hr pictures; these reduced by means."""
        if not self._shown:
            return {}
        rows = [torch.cat(list(pictures), dim=2) for pictures in self._shown]
        return {"downsampler": torch.cat(rows, dim=1).div(2).add(0.5).clamp(0, 1).cpu()}

    def samplers(self, model: Model) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
        return {"student": model.sample}
