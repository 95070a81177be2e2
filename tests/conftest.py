import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tddsr.model import Model, ModelConfig, Role, ScheduleConfig
from tddsr.networks.compact import CompactConfig

SMALL = CompactConfig(widths=(8, 12), encoder_blocks=(1,), middle_blocks=1, decoder_blocks=(1,), time_features=8)


def small_model(role: Role = "student", seed: int = 0) -> Model:
    """A small network whose every layer matters: zero initialisations are replaced by noise."""
    model = Model(ModelConfig(role=role, network=SMALL, schedule=ScheduleConfig(steps=4)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3 / max(1, weight[0].numel()) ** 0.5)
    return model.place("cpu").frozen()


@pytest.fixture
def student() -> Model:
    return small_model("student")


@pytest.fixture
def teacher() -> Model:
    return small_model("teacher")


def _shared(variable: str) -> Path:
    folder = os.environ.get(variable)
    if folder is None or not Path(folder).is_dir():
        pytest.skip(f"set {variable} to the folder (see CONTRIBUTING.md)")
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
