"""Every way to enlarge that ``tddsr eval`` knows, behind one interface."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tddsr.engines.torch import TorchEngine
from tddsr.errors import ImageError, MethodUnavailableError
from tddsr.evaluation.methods import PLAIN, find_method, find_methods
from tddsr.evaluation.pictures import Pair
from tddsr.upscaler import Upscaler
from tddsr.weights.file import save_model
from tests.conftest import photo

LR = photo(12, 20)
PAIR = Pair("sub/a", LR, None, (12, 20))


@pytest.mark.parametrize("name", PLAIN)
def test_plain_enlargements_keep_flat_pictures_and_shrink_back(name):
    called, method = find_method(name)
    assert (called, method.steps, method.noisy) == (name, None, False)
    big = method.enlarge(PAIR, 0)
    assert big.shape == (48, 80, 3)
    assert big.dtype == np.uint8
    blocks = big.reshape(12, 4, 20, 4, 3).mean(axis=(1, 3))
    assert np.abs(blocks - LR)[2:-2, 2:-2].mean() < 5
    flat = Pair("flat", np.full((8, 8, 3), 77, np.uint8), None, (8, 8))
    assert np.abs(method.enlarge(flat, 0).astype(int) - 77).max() <= 1


def test_nearest_repeats_pixels():
    assert np.array_equal(PLAIN["nearest"](PAIR, 0), LR.repeat(4, axis=0).repeat(4, axis=1))


def test_models_by_file_with_steps_sampler_and_seed(teacher, tmp_path):
    file = tmp_path / "mine.safetensors"
    save_model(teacher, file)
    name, method = find_method(f"{file}@2:stochastic", "cpu")
    assert (name, method.steps, method.noisy) == ("mine@2-stochastic", 2, True)
    expected = Upscaler(TorchEngine(teacher))(LR, seed=3, steps=2, sampler="stochastic")
    assert np.array_equal(method.enlarge(PAIR, 3), expected)
    assert not np.array_equal(method.enlarge(PAIR, 4), expected)
    name, plain = find_method(f"ours={file}", "cpu")
    assert (name, plain.spec, plain.steps) == ("ours", str(file), teacher.default_steps)
    assert plain.digest == method.digest != None  # noqa: E711
    save_model(teacher, file, torch.float16)
    assert find_method(str(file), "cpu")[1].digest != plain.digest


@pytest.mark.parametrize(
    "spec",
    [
        "x@a",
        "x@4:odd",
        "@",
        "no-such-model",
        "mine=no-such-folder",
        "compact@4",
        "hr=bicubic",
        "a/b=bicubic",
        "..=bicubic",
    ],
)
def test_methods_that_are_none_are_refused(spec):
    with pytest.raises(ValueError, match=r"no model|not MODEL|cannot take 4 steps|cannot be a method's name"):
        find_methods([spec], "cpu")


def test_folders_and_names(tmp_path):
    with pytest.raises(ValueError, match="say how the table shall call its pictures"):
        find_method(str(tmp_path))
    with pytest.raises(ValueError, match="two methods are called bicubic; give one another name: NAME=bicubic"):
        find_methods(["bicubic", "bicubic"])
    assert list(find_methods(["bicubic", "again=bicubic"])[0]) == ["bicubic", "again"]
    found, unavailable = find_methods([f"empty={tmp_path}", "nearest"])
    assert list(found) == ["nearest"]
    assert "holds no pictures" in unavailable["empty"]


def test_a_known_model_that_cannot_be_had_lacks_something(tmp_path, monkeypatch):
    def fail(name: str) -> Path:
        from tddsr.errors import ModelError

        raise ModelError(f"{name} cannot be downloaded; put the file there")

    monkeypatch.setattr("tddsr.weights.published.have_model", fail)
    found, unavailable = find_methods(["sinsr", "bicubic"])
    assert list(found) == ["bicubic"]
    assert unavailable == {"sinsr": "sinsr cannot be downloaded; put the file there"}


def test_finished_pictures_are_found_and_cropped(tmp_path):
    big = photo(96, 120)
    (tmp_path / "sub").mkdir()
    Image.fromarray(big).save(tmp_path / "sub" / "a.png")
    _, method = find_method(f"theirs={tmp_path}")
    whole = Pair("sub/a", photo(24, 30), None, (24, 30))
    assert np.array_equal(method.enlarge(whole, 0), big)
    crop = Pair("sub/a", photo(24, 30)[6:18, 9:21], None, (24, 30))
    assert np.array_equal(method.enlarge(crop, 0), big[24:72, 36:84])
    low = Pair("sub/a", photo(24, 30)[:, 2:28], None, (24, 30))
    assert np.array_equal(method.enlarge(low, 0), big[:, 8:112])
    with pytest.raises(ImageError, match="has no picture b"):
        method.enlarge(Pair("b", LR, None, (12, 20)), 0)
    with pytest.raises(ImageError, match=r"a\.png is 120x96, not four times the size of the lr picture \(80x48\)"):
        method.enlarge(PAIR, 0)


class _Descriptor(torch.nn.Module):
    scale = 4

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        return lr.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)


class _Loader:
    def __init__(self, device: torch.device) -> None:
        self.device = device

    def load_from_state_dict(self, weights: dict[str, torch.Tensor]) -> torch.nn.Module:
        if "scale" not in weights:
            raise RuntimeError("unsupported\nmodel")
        model = _Descriptor()
        model.scale = int(weights["scale"])
        return model


def test_spandrel_reads_other_networks(tmp_path, monkeypatch):
    """Its interface stands in for it: the package needs torchvision."""
    for name, weights in {"esrgan": {"scale": 4}, "x2": {"scale": 2}, "other": {"width": 3}}.items():
        torch.save({key: torch.tensor(value) for key, value in weights.items()}, tmp_path / f"{name}.pth")
    torch.save({"scale": print}, tmp_path / "code.pth")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(MethodUnavailableError, match="pip install spandrel"):
        find_method(f"spandrel:{tmp_path / 'esrgan.pth'}", "cpu")
    fake = types.SimpleNamespace(ModelLoader=_Loader, ImageModelDescriptor=_Descriptor)
    monkeypatch.setitem(sys.modules, "spandrel", fake)
    name, method = find_method(f"Real-ESRGAN=spandrel:{tmp_path / 'esrgan.pth'}", "cpu")
    assert name == "Real-ESRGAN"
    assert np.array_equal(method.enlarge(PAIR, 0), PLAIN["nearest"](PAIR, 0))
    for file, reason in (
        ("x2.pth", "does not enlarge four times"),
        ("other.pth", "unsupported model"),
        ("code.pth", "could run code"),
        ("missing.pth", "there is no file"),
    ):
        with pytest.raises(MethodUnavailableError, match=reason):
            find_method(f"spandrel:{tmp_path / file}", "cpu")
