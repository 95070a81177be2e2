import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tddsr.model import Model, ModelConfig, Role, ScheduleConfig
from tddsr.networks.compact import CompactConfig
from tddsr.networks.features import ConvFeatures
from tddsr.networks.rrdb import RRDBConfig
from tddsr.training.load import load_recipe
from tddsr.training.recipe import Recipe
from tddsr.weights.file import save_model

os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")  # as `tddsr train` does

SMALL = CompactConfig(
    widths=(8, 12), encoder_blocks=(1,), middle_blocks=1, decoder_blocks=(1,), time_features=8, tail=4
)


def small_model(role: Role = "student", seed: int = 0) -> Model:
    """A small network whose every layer matters: zero initialisations are replaced by noise."""
    model = Model(ModelConfig(role=role, network=SMALL, schedule=ScheduleConfig(steps=4)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3 / max(1, weight[0].numel()) ** 0.5)
    return model.place("cpu").frozen()


SMALL_RRDB = RRDBConfig(kind="rrdb", features=8, growth=4, blocks=1, tail_scale=2, tail_features=8)


def small_rrdb(role: Role = "teacher", seed: int = 0, **sizes: Any) -> Model:
    """A small network of Real-ESRGAN's kind, with PyTorch's own random weights."""
    torch.manual_seed(seed)
    network = RRDBConfig(**{"kind": "rrdb", "features": 12, "growth": 6, "blocks": 3, "tail_features": 12, **sizes})
    return Model(ModelConfig(role=role, network=network, schedule=ScheduleConfig(steps=1))).place("cpu").frozen()


@pytest.fixture
def student() -> Model:
    return small_model("student")


@pytest.fixture
def teacher() -> Model:
    return small_model("teacher")


def _shared(variable: str) -> Path:
    folder = os.environ.get(variable)
    if folder is None or not Path(folder).is_dir():
        pytest.skip(f"set {variable} to the folder (see docs/contributing.md)")
    return Path(folder)


@pytest.fixture(scope="session")
def features() -> Path:
    """Folder of the LPIPS networks' weights."""
    return _shared("TDDSR_FEATURES")


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of the test pictures."""
    return _shared("TDDSR_DATA")


def photo(height: int = 40, width: int = 52, seed: int = 0, noise: float = 5) -> np.ndarray:
    """A smooth picture with an edge and some noise, (H,W,3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.sin(x / 5) * np.cos(y / 7)
    colours = np.stack([np.sin(x / 40 + c) for c in range(3)], axis=-1)
    values = 100 + 40 * waves[..., None] + 30 * colours + 50 * (x + y > (height + width) // 2)[..., None]
    noisy: np.ndarray = (values + rng.normal(0, noise, values.shape)).clip(0, 255)
    return noisy.astype(np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of six photos of 96x96."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(6):
        Image.fromarray(photo(96, 96, seed)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def pair_folders(tmp_path: Path) -> Path:
    """hr and lr: two pairs of 80x80 and 20x20."""
    for seed in range(2):
        for name, side in (("hr", 80), ("lr", 20)):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(photo(side, side, seed)).save(tmp_path / name / f"{seed}.png")
    return tmp_path


def changed(recipe: Recipe, **values: object) -> Recipe:
    return Recipe.model_validate({**recipe.model_dump(), **values})


@pytest.fixture(scope="module")
def random_features(tmp_path_factory) -> Path:
    """AlexNet with random weights: a perceptual loss that needs no download."""
    folder: Path = tmp_path_factory.mktemp("features")
    torch.manual_seed(0)
    save_file(ConvFeatures("alexnet").state_dict(), folder / "alexnet_lpips.safetensors")
    return folder


@pytest.fixture
def recipe(photos: Path, random_features: Path, tmp_path: Path) -> Recipe:
    settings = {
        "features": random_features,
        "out": tmp_path / "run",
        "steps": 6,
        "checkpoint_every": 2,
        "model": {"role": "teacher", "network": SMALL.model_dump()},
        "data": {"train": photos, "patch": 48, "batch": 2},
        "validation": {"folder": photos, "count": 2, "crop": 64, "every": 3, "lpips": ["alexnet"]},
    }
    return load_recipe("compact-teacher").model_validate({**load_recipe("compact-teacher").model_dump(), **settings})


@pytest.fixture
def distill(recipe: Recipe, teacher, tmp_path: Path) -> Recipe:
    save_model(teacher, tmp_path / "teacher.safetensors")
    settings = {"task": "distill", "model": None, "teacher": tmp_path / "teacher.safetensors"}
    loss = {"distill": 1.0, "truth": 0.5, "lpips": 0.1}
    return Recipe.model_validate({**recipe.model_dump(), **settings, "loss": loss})


@pytest.fixture
def tddsr(distill: Recipe) -> Recipe:
    """All three parts of the method, each player in training."""
    looks = {"features": "alexnet", "size": 64}
    adversary = {"hr": looks, "lr": looks, "downsampler": {"width": 4}, "optim": {"rate": 1e-3}}
    loss = {**distill.loss.model_dump(), "hr": 0.1, "lr": 0.1}
    return changed(distill, loss=loss, adversary=adversary)
