"""What a training recipe says: its keys, their types, and what goes together; ``load`` reads one from YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, Tag, model_validator

from tddsr.degradation.presets import PRESETS, Preset
from tddsr.model import ModelConfig, NetworkConfig, by_kind
from tddsr.networks.discriminator import BothDiscriminatorConfig, DiscriminatorConfig, PixelDiscriminatorConfig
from tddsr.networks.downsampler import DownsamplerConfig
from tddsr.networks.features import LPIPSBackbone
from tddsr.pictures.folders import check_part
from tddsr.training.losses import Adversarial


class _Section(BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """All of it known by name, and no number without end."""


Part = Annotated[tuple[float, float], AfterValidator(check_part)]


def _as_mix(value: Any) -> Any:
    return {value: 1.0} if isinstance(value, str) else value


def _some(mix: dict[Preset, float]) -> dict[Preset, float]:
    if min(mix.values(), default=0) < 0 or not any(mix.values()):
        raise ValueError(f"{mix} is no mix: give presets with weights of 0 or more, at least one above 0")
    return {name: mix[name] for name in PRESETS if mix.get(name)}


Mix = Annotated[
    dict[Preset, float],
    BeforeValidator(_as_mix, json_schema_input_type=Preset | dict[Preset, float]),
    AfterValidator(_some),
]
"""A preset, or several with their weights."""


class DataConfig(_Section):
    """Where the hr photos lie, how patches are cut from them, and how they are spoilt."""

    train: Path = Field(Path("data/train"), description="folder of the photos; folders in it count")
    degradation: Mix = Field({"resshift": 1.0}, description="a preset, or presets with their weights")
    drawings: float = Field(0.0, ge=0, le=1, description="share of pictures drawn by code: letters, hard edges")
    part: Part = Field((0.0, 1.0), description="which part of the photos, in an order that only their names decide")
    side: int | None = Field(None, ge=40, description="reduce photos so that their shorter side is this; unset: as is")
    patch: int = Field(128, ge=40, description="side of an hr patch")
    min_scale: float = Field(
        1.0, gt=0, le=1, description="reduce patches by a random factor down to this: finer detail for their size"
    )
    turn: bool = Field(True, description="quarter turns; faces want none")
    batch: int = Field(8, ge=1, description="patches that are computed at once")
    accumulate: int = Field(1, ge=1, description="batches a step, whose gradients are averaged")
    workers: int = Field(0, ge=0, description="processes that read pictures, or make scenes, ahead")
    scenes: int | None = Field(
        None,
        ge=1,
        description="cut patches from so many scenes, spoilt once, whose teacher's pictures are kept in 'targets';"
        " unset: each patch is new, and so is its target (distill only)",
    )
    scene: int = Field(512, ge=40, description="side of a scene, hr pixels")


class OptimConfig(_Section):
    """Adam, its rate over time, and the moving average of the weights that is kept."""

    rate: float = Field(5e-5, gt=0, description="the largest learning rate")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="cosine: the rate falls to 0 at the last step"
    )
    warmup: int = Field(0, ge=0, description="steps over which the rate rises from 0")
    betas: tuple[float, float] = Field((0.9, 0.99), description="how slowly Adam's two averages move")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(0.999, ge=0, lt=1, description="how slowly the average of the weights moves; 0: it is them")


class LossConfig(_Section):
    """Weights of the terms; a weight of 0 leaves the term out."""

    distill: float = Field(1.0, ge=0, description="Eq. 6 (distill only)")
    low_band: Literal["teacher", "truth"] = Field(
        "teacher",
        description="truth: the teacher's kept pictures get the truth's means over 33 hr pixels, as it shifts colours",
    )
    guide: Literal["truth", "teacher", "nearer"] = Field(
        "truth",
        description="what the terms below draw to: the truth, the teacher's picture (distill only), or for each patch"
        " the truth where the teacher is further from it than the student, by LPIPS",
    )
    truth: float = Field(0.0, ge=0, description="distance to the guide, as latents")
    truth_norm: Literal["l1", "l2"] = Field("l2", description="mean absolute or mean squared error")
    lpips: float = Field(0.0, ge=0, description="LPIPS (AlexNet) of the student's picture to the guide")
    features: float = Field(
        0.0,
        ge=0,
        description="distance of the student's picture to the guide in EfficientNet-Lite0's features, unweighted",
    )
    augment: bool = Field(
        False,
        description="show these networks both pictures turned or mirrored, inverted, with other colours: fewer"
        " blind spots",
    )
    hr: float = Field(0.0, ge=0, description="Eq. 8, the discriminator of hr pictures (distill only)")
    lr: float = Field(0.0, ge=0, description="Eq. 10, the discriminator of lr pictures (distill only)")


class PretrainConfig(_Section):
    """Steps before the student's first (Table 6)."""

    hr: int = Field(0, ge=0, description="of the hr discriminator, on the teacher's pictures")
    downsampler: int = Field(0, ge=0, description="of the downsampler, on pairs")
    lr: int = Field(0, ge=0, description="of the lr discriminator, on reduced hr pictures")

    @property
    def steps(self) -> int:
        """All of them."""
        return self.hr + self.downsampler + self.lr


AnyDiscriminator = Annotated[
    Annotated[DiscriminatorConfig, Tag("features")]
    | Annotated[PixelDiscriminatorConfig, Tag("pixels")]
    | Annotated[BothDiscriminatorConfig, Tag("both")],
    by_kind("features"),
]


class AdversaryConfig(_Section):
    """The two discriminators and the downsampler; they exist where ``loss.hr`` and ``loss.lr`` are not 0."""

    loss: Adversarial = Field("hinge", description="of Eq. 7-10; paper: as it prints them")
    update: Literal["joint", "cyclic"] = Field(
        "joint", description="one student step on the sum of all terms, or one on each part in turn"
    )
    adaptive: bool = Field(
        False, description="measure the adversarial gradients in units of the other terms' at the student's output"
    )
    hr: AnyDiscriminator = Field(DiscriminatorConfig(), description="the discriminator of hr pictures")
    lr: AnyDiscriminator = Field(DiscriminatorConfig(), description="the discriminator of lr pictures")
    downsampler: DownsamplerConfig = Field(
        DownsamplerConfig(), description="what makes the student's picture small for the lr discriminator"
    )
    optim: OptimConfig = Field(OptimConfig(rate=2e-4, betas=(0.0, 0.99)), description="of all three; they have no ema")
    downsampler_optim: OptimConfig | None = Field(None, description="of the downsampler; unset: optim")
    tie: float = Field(
        0.0,
        ge=0,
        description="weight of G(hr)'s mean error against lr, beside Eq. 10, in what the downsampler G minimises",
    )
    ahead: int = Field(0, ge=0, description="steps for which discriminators learn and the student ignores them")
    pretrain: PretrainConfig = Field(PretrainConfig(), description="steps before the student's first")

    @model_validator(mode="after")
    def _needs_joint(self) -> AdversaryConfig:
        if self.adaptive and self.update == "cyclic":
            raise ValueError("adaptive weights compare terms of one step: they need update=joint")
        if self.ahead and self.update == "cyclic":
            raise ValueError("ahead leaves the adversarial part out of a step, and nothing else is in it: update=joint")
        return self


class ValidationConfig(_Section):
    """Scores on held-out photos, degraded with a fixed seed."""

    folder: Path = Field(Path("data/val"), description="folder of the held-out photos; folders in it count")
    degradation: Mix | None = Field(None, description="each preset in its share of the photos; unset: that of data")
    part: Part = Field((0.0, 1.0), description="see data.part")
    side: int | None = Field(None, ge=32, description="see data.side")
    every: int = Field(1000, ge=1, description="the model's steps between two validations")
    count: int = Field(40, ge=1, description="at most so many pictures")
    crop: int = Field(256, ge=32, description="side of the central hr crop")
    seed: int = Field(0, ge=0, description="of the degradation")
    lpips: tuple[LPIPSBackbone, ...] = Field(
        ("vgg16", "alexnet"), min_length=1, description="LPIPS by these networks; the first one chooses"
    )


class Recipe(_Section):
    """One training run."""

    task: Literal["teacher", "distill"] = Field(description="train a teacher, or a one-step student of one")
    out: Path = Field(description="folder of the run", json_schema_extra={"default": "runs/NAME of the recipe"})
    steps: int = Field(ge=1, description="of the model; those of adversary.pretrain come before")
    seed: int = Field(0, ge=0, description="of all chance but the validation's")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of activations; weights are float32")
    recompute: bool = Field(False, description="make activations again in the backward pass: less memory, more time")
    checkpoint_every: int = Field(500, ge=1, description="steps between two checkpoints")
    log_every: int = Field(50, ge=1, description="steps between two lines for TensorBoard")
    features: Path | None = Field(
        None, description="folder of the feature networks' weights; unset: TDDSR_FEATURES, or downloaded"
    )
    model: ModelConfig | None = Field(None, description="of a teacher; a student follows from its teacher")
    start: Path | None = Field(
        None, description="model, by name or file, to start from; unset: a student starts from its teacher"
    )
    network: NetworkConfig | None = Field(
        None, description="of a student, where it is not that of the model it starts from; what that lacks is new"
    )
    keep_blocks: list[int] | None = Field(
        None, description="numbers, from 0, of the blocks that a smaller rrdb network keeps; unset: an even selection"
    )
    teacher: Path | None = Field(None, description="model, by name or file (distill only)")
    targets: Path | None = Field(None, description="folder where the teacher's samples are kept for other runs")
    data: DataConfig = Field(DataConfig(), description="photos, patches, degradations")
    optim: OptimConfig = Field(OptimConfig(), description="of the model")
    loss: LossConfig = Field(LossConfig(), description="weights of the terms")
    adversary: AdversaryConfig = Field(AdversaryConfig(), description="discriminators and downsampler")
    validation: ValidationConfig = Field(ValidationConfig(), description="scores on held-out photos")

    @model_validator(mode="after")
    def _task_needs(self) -> Recipe:
        if self.task == "teacher" and self.model is None:
            raise ValueError("a teacher recipe needs 'model'")
        if self.task == "teacher" and self.network is not None:
            raise ValueError("'network' is a student's; a teacher's is 'model.network'")
        if self.keep_blocks is not None and (self.network is None or self.network.kind != "rrdb"):
            raise ValueError("keep_blocks names blocks of a 'network' of kind rrdb, with as many 'blocks'")
        if self.task == "distill" and (self.teacher is None or self.model is not None):
            raise ValueError("a distill recipe needs 'teacher', a model file; of a 'model' it may only have 'network'")
        if self.model is not None and self.model.role != "teacher":
            raise ValueError(
                f"model.role is {self.model.role}; a recipe describes a teacher, a student follows from it"
            )
        if self.loss.guide != "truth" and self.task == "teacher":
            raise ValueError(f"loss.guide={self.loss.guide} needs a teacher: it is for distill recipes")
        if self.loss.guide == "nearer" and not self.loss.lpips:
            raise ValueError("loss.guide=nearer measures by LPIPS: it needs loss.lpips above 0")
        if self.data.scenes is not None and (self.task == "teacher" or self.targets is None):
            raise ValueError("data.scenes are kept with their targets: a distill recipe with 'targets', a folder")
        if self.data.scenes is not None and self.data.patch > self.data.scene:
            raise ValueError(f"data.patch={self.data.patch} is larger than data.scene={self.data.scene}")
        if self.loss.low_band == "truth" and self.data.scenes is None:
            raise ValueError("loss.low_band=truth corrects pictures that are kept: it needs data.scenes")
        fidelity = {"truth": self.loss.truth, "lpips": self.loss.lpips, "features": self.loss.features}
        if self.task == "distill":
            fidelity["distill"] = self.loss.distill
        if not any(fidelity.values()):
            names = ", ".join(f"loss.{name}" for name in fidelity)
            raise ValueError(f"nothing says what the picture has to be: all of {names} are 0")
        adversarial = {"hr": self.loss.hr, "lr": self.loss.lr}
        if self.task == "teacher" and any(adversarial.values()):
            raise ValueError("loss.hr and loss.lr are the student's: a teacher has no discriminators")
        pretrain = self.adversary.pretrain
        for key, steps, weight in (
            ("hr", pretrain.hr, "hr"), ("downsampler", pretrain.downsampler, "lr"), ("lr", pretrain.lr, "lr"),
        ):  # fmt: skip
            if steps and not adversarial[weight]:
                raise ValueError(f"adversary.pretrain.{key} trains what loss.{weight}=0 leaves out")
        return self

    @property
    def last(self) -> Path:
        """The file of the run's weights as they are at its latest step, averaged."""
        return self.out / "last.safetensors"

    def own_step(self, step: int) -> int:
        """The model's own number of ``step``: negative while it waits for its discriminators' pre-training."""
        return step - self.adversary.pretrain.steps

    def batch_numbers(self, step: int) -> range:
        """Which batches are seen at ``step``; the model's first step sees batch 0, with or without pre-training."""
        own = self.own_step(step)
        number = own if own >= 0 else self.steps + step
        return range(number * self.data.accumulate, (number + 1) * self.data.accumulate)
