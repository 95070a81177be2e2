"""The weights that the package carries, on real pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tddsr.engines.torch import TorchEngine
from tddsr.evaluation.methods import bicubic, find_method
from tddsr.evaluation.pictures import Pair, find_pictures
from tddsr.evaluation.results import Protocol
from tddsr.evaluation.run import evaluate
from tddsr.metrics.table import METRICS, Setting, load_scores
from tddsr.model import multiply_adds_per_lr_pixel
from tddsr.upscaler import Upscaler
from tddsr.weights.names import load_model
from tests.conftest import photo

PHOTO = Path(__file__).parents[1] / "examples" / "coffee.jpg"


@pytest.fixture(scope="module", params=["compact", "compact-small"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def upscaler(name: str) -> Upscaler:
    return Upscaler.load(name, device="cpu")


@pytest.fixture(scope="module")
def whole(upscaler: Upscaler) -> np.ndarray:
    return np.asarray(Upscaler(upscaler.engine, tile=None)(Image.open(PHOTO))).astype(int)


@pytest.mark.parametrize(("name", "limit"), [("compact", 5.8e6), ("compact-small", 0.6e6)])
def test_it_is_a_student_within_its_limit(name, limit):
    model = load_model(name)
    assert model.config.role == "student"
    assert multiply_adds_per_lr_pixel(model) <= limit


def test_without_a_name_it_is_the_better_one():
    small = photo(20, 24)
    assert np.array_equal(Upscaler.load(device="cpu")(small), Upscaler.load("compact", device="cpu")(small))


@pytest.mark.parametrize("tile", [64, 96, 200])
def test_tiles_give_the_pixels_of_the_whole(upscaler, whole, tile):
    tiled = np.asarray(Upscaler(upscaler.engine, tile=tile)(Image.open(PHOTO))).astype(int)
    assert np.abs(tiled - whole).max() <= 1


def test_colours_stay(whole):
    """Reduced again, the large picture is the small one: no channel shifts by more than about 1 % (see the card)."""
    lr = np.asarray(Image.open(PHOTO)).astype(float)
    small = np.asarray(Image.fromarray(whole.astype(np.uint8)).resize((lr.shape[1], lr.shape[0]), Image.Resampling.BOX))
    assert np.abs((small - lr).mean(axis=(0, 1))).max() < 3
    assert np.abs(small - lr).mean() < 6


def test_it_adds_detail(whole):
    """More fine contrast than the bicubic enlargement has."""
    lr = np.asarray(Image.open(PHOTO))
    plain = bicubic(Pair("photo", lr, None, lr.shape[:2])).astype(int)

    def fine(picture: np.ndarray) -> float:
        return float(np.abs(np.diff(picture, axis=1)).mean() + np.abs(np.diff(picture, axis=0)).mean())

    assert fine(whole) > 1.1 * fine(plain)


def test_flat_places_stay_flat(upscaler):
    for value in (10, 128, 245):
        flat = upscaler(np.full((48, 48, 3), value, np.uint8)).astype(float)
        assert abs(flat.mean() - value) < 4
        assert flat[64:-64, 64:-64].std() < 2.5


def test_the_seed_changes_nothing(name):
    """By PyTorch: a graph has no noise at all."""
    upscaler = Upscaler(TorchEngine.load(name, "cpu"))
    first, second = (np.asarray(upscaler(Image.open(PHOTO), seed=seed)).astype(int) for seed in (0, 1))
    assert np.array_equal(first, second)


def test_they_look_better_than_bicubic(data, features):
    """By LPIPS-VGG, which had no part in training, on held-out photos."""
    names = ("bicubic", "compact", "compact-small")
    lpips = load_scores([METRICS["LPIPS-VGG"]], Setting(features=features))
    pictures = find_pictures(data / "val", limit=3, crop=256)
    scores = evaluate(dict(find_method(name, "cpu") for name in names), pictures, lpips, Protocol(seeds=1)).means()
    for name in names[1:]:
        assert scores[name]["LPIPS-VGG"] < scores["bicubic"]["LPIPS-VGG"] - 0.02
