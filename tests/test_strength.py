"""Between two models of one network: by either engine, by name or file."""

import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import tddsr
from tddsr import rng
from tddsr.engines.export import export
from tddsr.engines.load import load_engine
from tddsr.engines.onnx import OnnxEngine
from tddsr.errors import ModelError, UsageError
from tddsr.upscaler import Upscaler
from tddsr.weights import names
from tddsr.weights.file import save_model
from tddsr.weights.strength import between
from tests.conftest import photo, small_model, small_rrdb
from tests.derived import small_paper_model
from tests.test_cli import call
from tests.test_engines import command, without_torch

PICTURE = photo(23, 34)


def pixels(model: str | Path, **options: Any) -> np.ndarray:
    """In levels of 255, not rounded."""
    large: np.ndarray = Upscaler.load(model, device="cpu", **options)(PICTURE / 255)
    return 255 * large


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """A folder of a model with its graph, and others of the same network: far from it, and in its last layer alone."""
    folder: Path = tmp_path_factory.mktemp("pair")
    chance = rng.generator(1)
    model = small_rrdb(role="student", blocks=1)
    model.network.get_parameter("conv_last.bias").data.fill_(0.5)  # or all would be black

    def save(name: str, layers: str | tuple[str, ...], amount: float) -> None:
        for key, weight in model.network.named_parameters():
            if key.startswith(layers):
                weight.data += amount * torch.randn(weight.shape, generator=chance)
        save_model(model, folder / f"{name}.safetensors", torch.float16)

    save("sharp", "time", 0.1)
    save("last", "conv_last", 0.03)
    save("faithful", ("time", "body", "conv"), 0.03)  # not enter_x, which sees noise
    export(folder / "sharp.safetensors", folder / "sharp.onnx", linked=True)
    return folder


@pytest.fixture
def shipped(pair: Path, monkeypatch) -> str:
    """Its name, as if the package carried the model, its graph and its partner."""
    monkeypatch.setitem(names.SHIPPED, "tiny", pair / "sharp.safetensors")
    monkeypatch.setitem(names.FAITHFUL, "tiny", pair / "faithful.safetensors")
    return "tiny"


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_the_ends_are_the_two_models_and_what_is_between_lies_between(pair, shipped, engine):
    sharp, faithful = (pixels(pair / f"{name}.safetensors") for name in ("sharp", "faithful"))
    steps = [pixels(shipped, strength=strength, engine=engine) for strength in (0, 0.25, 0.5, 0.75, 1)]
    least = 0 if engine == "torch" else 0.01  # of another order of sums
    assert np.abs(steps[0] - faithful).max() <= least
    assert np.abs(steps[-1] - sharp).max() <= least
    away = [np.abs(step - faithful).mean() for step in steps]
    assert away[-1] > 5
    assert all(near < 0.9 * far for near, far in itertools.pairwise(away))


def test_both_engines_give_the_same_pixels_at_every_strength(shipped):
    for strength in (0, 0.3, 0.8):
        by_onnx, by_torch = (pixels(shipped, strength=strength, engine=engine) for engine in ("onnx", "torch"))
        assert np.abs(by_onnx - by_torch).max() < 0.1


def test_where_a_linear_layer_alone_differs_pictures_are_mixed_as_weights_are(pair):
    sharp, last = pair / "sharp.safetensors", pair / "last.safetensors"
    ends = pixels(last), pixels(sharp)
    assert np.abs(ends[0] - ends[1]).mean() > 5
    mixed = pixels(sharp, faithful=last, strength=0.3)
    assert np.abs(mixed - (0.7 * ends[0] + 0.3 * ends[1])).max() < 0.2  # weights have 11 bit


def test_a_linked_graph_reads_all_weights_from_the_model_file(pair):
    """Also those of which nothing but constants is made: with others they are others."""
    graph = onnx.load(pair / "sharp.onnx", load_external_data=False).graph
    assert {t.name for t in graph.initializer if t.external_data} == set(load_file(pair / "sharp.safetensors"))


def test_weights_that_a_graph_does_not_read_from_a_file_are_refused(pair, tmp_path):
    export(pair / "sharp.safetensors", tmp_path / "whole.onnx")
    weights = between(pair / "sharp.safetensors", pair / "faithful.safetensors", 0.5)
    with pytest.raises(ModelError, match=r"whole\.onnx"):
        OnnxEngine(tmp_path / "whole.onnx", "cpu", weights=weights)


def test_an_upscaler_has_its_strength_in_other_processes_too(shipped):
    upscaler = Upscaler.load(shipped, strength=0.5, device="cpu")
    again = pickle.loads(pickle.dumps(upscaler))
    assert np.array_equal(again(PICTURE), upscaler(PICTURE))
    assert np.array_equal(tddsr.upscale(PICTURE, model=shipped, strength=0.5, device="cpu"), upscaler(PICTURE))
    assert not np.array_equal(tddsr.upscale(PICTURE, model=shipped, device="cpu"), upscaler(PICTURE))


def test_the_command_says_the_strength(pair, shipped, tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    for model in (
        ["--model", shipped],
        ["--model", pair / "sharp.safetensors", "--faithful", pair / "last.safetensors"],
    ):
        done = call(
            "upscale", tmp_path / "a.png", *model, "--strength", "0.4", "--device", "cpu", "--json", "--overwrite"
        )
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["strength"] == 0.4
    expected = 255 * Upscaler.load(
        pair / "sharp.safetensors", faithful=pair / "last.safetensors", strength=0.4, device="cpu"
    )(PICTURE / 255)
    with Image.open(tmp_path / "a_x4.png") as large:
        assert np.abs(np.asarray(large) - expected).max() <= 0.51


def test_strength_needs_no_pytorch(pair, shipped, tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    told = (
        "from pathlib import Path\nfrom tddsr.weights import names\n"
        f"names.SHIPPED['tiny'] = Path({str(pair / 'sharp.safetensors')!r})\n"
        f"names.FAITHFUL['tiny'] = Path({str(pair / 'faithful.safetensors')!r})\n"
    )
    options = ("upscale", "a.png", "--model", "tiny", "--strength", "0.5", "--device", "cpu")
    done = without_torch(told + command(*options), tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "a_x4.png") as large:
        assert np.abs(np.asarray(large) - pixels(shipped, strength=0.5, engine="torch")).max() <= 1


@pytest.mark.parametrize("strength", [-0.1, 1.01, float("nan")])
def test_strengths_out_of_range_are_refused(shipped, strength, tmp_path):
    with pytest.raises(UsageError, match=str(strength)):
        load_engine(shipped, strength=strength)
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    done = call("upscale", tmp_path / "a.png", "--model", shipped, f"--strength={strength}")
    assert done.exit_code == 2 or isinstance(done.exception, UsageError)


def test_what_has_no_partner_is_told_with_the_remedy(pair):
    with pytest.raises(UsageError, match=r"0\.5.*sharp\.safetensors.*--faithful"):
        load_engine(pair / "sharp.safetensors", strength=0.5)
    load_engine(pair / "sharp.safetensors", strength=1)


def test_a_partner_without_a_lower_strength_is_refused_by_the_command(pair, tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    done = call(
        "upscale", tmp_path / "a.png", "--model", pair / "sharp.safetensors", "--faithful", pair / "last.safetensors"
    )
    assert isinstance(done.exception, UsageError) or done.exit_code == 2
    assert not (tmp_path / "a_x4.png").exists()


def test_a_partner_of_another_network_is_refused(pair, tmp_path):
    save_model(small_model(), tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    for name in ("other", "damaged"):
        with pytest.raises(ModelError, match=f"{name}.safetensors"):
            load_engine(pair / "sharp.safetensors", strength=0.5, faithful=tmp_path / f"{name}.safetensors")
    with pytest.raises(ModelError, match="missing"):
        load_engine(pair / "sharp.safetensors", strength=0.5, faithful="missing")
    with pytest.raises(ModelError, match="graph"):
        load_engine(pair / "sharp.onnx", strength=0.5, faithful=pair / "faithful.safetensors")


def test_partners_share_a_learned_latent_space(tmp_path):
    model = small_paper_model("student")
    save_model(model, tmp_path / "sharp.safetensors")
    model.network.get_parameter("out.2.bias").data += 0.5
    save_model(model, tmp_path / "faithful.safetensors")
    assert list(between(tmp_path / "sharp.safetensors", tmp_path / "faithful.safetensors", 0.5)) == ["out.2.bias"]
    next(model.space.parameters()).data += 0.5
    save_model(model, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"other.*space\."):
        between(tmp_path / "sharp.safetensors", tmp_path / "other.safetensors", 0.5)
