"""Two engines, the same pixels; graphs, what they are made of and what they are told of themselves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from tddsr import rng
from tddsr.engines import load as loading
from tddsr.engines.export import export
from tddsr.engines.load import load_engine
from tddsr.engines.onnx import OnnxEngine, devices
from tddsr.engines.torch import TorchEngine
from tddsr.errors import ModelError, UsageError
from tddsr.files import file_hash
from tddsr.model import Model
from tddsr.upscaler import Upscaler
from tddsr.weights.file import save_model
from tddsr.weights.names import SHIPPED
from tests.conftest import photo, small_model, small_rrdb
from tests.test_cli import call

ROOT = Path(__file__).parents[1]


def noise_of(engine):
    """For a tile at the picture's corner."""
    return lambda lr: lambda t: rng.noise_at((0, t), engine.channels, 0, 0, *lr.shape[2:])[None]


def make_noisy() -> Model:
    return small_model()


def make_blind() -> Model:
    """A network that sees neither x_t nor t."""
    return small_rrdb(role="student", blocks=1, tail_scale=4)


@pytest.fixture(scope="module", params=[make_noisy, make_blind])
def exported(request, tmp_path_factory) -> tuple[Path, Path]:
    """A small student's model file, and its graph."""
    folder = tmp_path_factory.mktemp("graph")
    file, graph = folder / "small.safetensors", folder / "small.onnx"
    save_model(request.param(), file, torch.float16, notes="by somebody, MIT")
    export(file, graph)
    return file, graph


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).max())


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (7, 61), (37, 22), (90, 47)])
def test_both_engines_give_the_same_pixels_at_odd_sizes(exported, size):
    file, graph = exported
    picture = photo(*size)
    by_torch, by_onnx = (Upscaler(engine) for engine in (TorchEngine.load(file), OnnxEngine(graph)))
    assert largest_difference(by_torch(picture, seed=3), by_onnx(picture, seed=3)) <= 1
    # Not just after rounding.
    assert largest_difference(by_torch(picture / 255, seed=3), by_onnx(picture / 255, seed=3)) < 1e-4


@pytest.mark.parametrize("tile", [16, 33, None])
def test_a_graph_gives_the_pixels_of_the_whole_in_tiles(exported, tile):
    file, graph = exported
    picture = photo(75, 58)
    whole = Upscaler(TorchEngine.load(file), tile=None)(picture)
    assert largest_difference(Upscaler(OnnxEngine(graph), tile=tile)(picture), whole) <= 1


@pytest.mark.parametrize("margins", [(0, 0, 0, 0), (8, 0, 0, 0), (0, 20, 8, 12), (24, 24, 24, 24)])
def test_both_engines_leave_margins_out(exported, margins):
    file, graph = exported
    picture = (photo(56, 72) / 255).astype(np.float32).transpose(2, 0, 1)[None]
    engines = TorchEngine.load(file), OnnxEngine(graph)
    noise = noise_of(engines[0])(picture)
    top, left, bottom, right = (4 * margin for margin in margins)
    expected = engines[0].run(picture, noise)[..., top : 4 * 56 - bottom, left : 4 * 72 - right]
    for engine in engines:
        made = engine.run(picture, noise, margins)
        assert made.shape == expected.shape
        assert largest_difference(made.clip(0, 1), expected.clip(0, 1)) < 1e-4


@pytest.mark.parametrize("name", list(SHIPPED))
def test_the_shipped_graphs_give_the_pixels_of_the_shipped_weights(name):
    picture = np.asarray(Image.open(ROOT / "examples" / "cat.jpg"))[:61, :83]
    by_onnx, by_torch = (
        Upscaler.load(name, engine=engine, device="cpu", tile=tile)(picture)
        for engine, tile in (("onnx", 48), ("torch", None))
    )
    assert largest_difference(by_onnx, by_torch) <= 1


@pytest.mark.parametrize(
    ("name", "engine"), [("compact", "onnx"), ("compact-small", "onnx"), ("compact-small", "torch")]
)
def test_tiles_of_shipped_models_have_the_pixels_of_the_whole(name, engine):
    picture = np.asarray(Image.open(ROOT / "examples" / "cat.jpg"))[:131, :99]
    whole, *tiled = (
        Upscaler.load(name, engine=engine, device="cpu", tile=tile)(picture / 255) for tile in (None, 44, 72)
    )
    assert all(largest_difference(whole, large) < 1 / 255 for large in tiled)


@pytest.mark.parametrize("name", list(SHIPPED))
def test_the_shipped_graphs_are_made_from_the_shipped_weights(name):
    """Else: ./dev graphs."""
    weights = SHIPPED[name]
    engine = load_engine(name, engine="onnx", device="cpu")
    assert isinstance(engine, OnnxEngine)
    assert engine.graph.weights == file_hash(weights)
    # Nothing of their size lies in the graph itself: it reads them from the model file.
    graph = weights.with_suffix(".onnx")
    assert graph.stat().st_size < 0.02 * weights.stat().st_size
    linked = {
        t.external_data[0].value
        for t in onnx.load(graph, load_external_data=False).graph.initializer
        if t.external_data
    }
    assert linked == {weights.name}


DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")),
    pytest.param("mps", marks=pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS here")),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("precision", "most"), [("float32", 1), ("bfloat16", 8)])
def test_every_device_and_precision_gives_the_pixels_of_the_cpu(device, precision, most):
    picture = photo(45, 61)
    engine = TorchEngine.load("compact-small", device, precision)
    assert (engine.device.partition(":")[0], engine.precision) == (device, precision)
    expected = Upscaler(TorchEngine.load("compact-small", "cpu"), tile=None)(picture)
    for tile in ("auto", 24):
        assert largest_difference(Upscaler(engine, tile=tile)(picture), expected) <= most


@pytest.mark.parametrize("device", DEVICES)
def test_pytorch_computes_in_channels_last_order(exported, device):
    engine, seen = TorchEngine.load(exported[0], device), []
    for module in engine.model.network.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            module.register_forward_hook(
                lambda _, __, y: seen.append(y.is_contiguous(memory_format=torch.channels_last))
            )
    Upscaler(engine)(photo(20, 24))
    assert len(seen) > 5
    assert all(seen)


def test_a_graph_is_told_what_an_engine_needs(exported):
    file, graph = exported
    told, model = OnnxEngine(graph).graph, TorchEngine.load(file).model
    assert (told.scale, told.multiple, told.halo) == (model.scale, model.multiple, model.halo(1))
    assert told.noise == (model.channels if isinstance(model.network, type(make_noisy().network)) else 0)
    assert told.notice == "by somebody, MIT"
    assert told.weights == file_hash(file)
    assert 0 < told.bytes_per_lr_pixel < 100_000


def test_a_graph_is_no_larger_than_the_weights_by_much_and_says_nothing_of_this_machine(exported):
    _, graph = exported
    content = graph.read_bytes()
    assert str(Path.home()).encode() not in content
    assert b".py" not in content
    proto = onnx.load(graph)
    onnx.checker.check_model(proto, full_check=True)
    kinds = {t.data_type for t in proto.graph.initializer if len(t.dims) == 4 and np.prod(t.dims) > 1000}
    assert kinds == {onnx.TensorProto.FLOAT16}


def test_eight_bit_graphs_take_and_give_arrays_of_pixels(tmp_path):
    save_model(make_blind(), tmp_path / "a.safetensors")
    result = call("export", str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "a.onnx"), "--uint8")
    assert result.exit_code == 0
    assert "without noise" in result.stdout
    picture = photo(21, 34)
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    (large,) = session.run(None, {"lr": picture})
    lr = (picture / 255).astype(np.float32).transpose(2, 0, 1)[None]
    expected = TorchEngine.load(tmp_path / "a.safetensors").run(lr, lambda _: np.zeros((1, 48, 21, 34), np.float32))
    assert large.dtype == np.uint8
    assert largest_difference(large, 255 * expected[0].transpose(1, 2, 0).clip(0, 1)) <= 1
    with pytest.raises(ModelError, match="8 bit"):
        OnnxEngine(tmp_path / "a.onnx")


def test_what_cannot_be_a_graph_is_refused(tmp_path):
    save_model(small_model("teacher"), tmp_path / "teacher.safetensors")
    with pytest.raises(ModelError, match="4 steps"):
        export(tmp_path / "teacher.safetensors", tmp_path / "a.onnx")
    save_model(make_blind(), tmp_path / "student.safetensors")
    (tmp_path / "other").mkdir()
    with pytest.raises(ModelError, match="beside"):
        export(tmp_path / "student.safetensors", tmp_path / "other" / "a.onnx", linked=True)
    assert not list(tmp_path.rglob("*.onnx"))


def test_a_graph_that_gives_other_pixels_is_not_written(tmp_path, monkeypatch):
    save_model(make_noisy(), tmp_path / "a.safetensors")
    monkeypatch.setattr("tddsr.engines.export._ignores_noise", lambda _: True)  # which is wrong
    with pytest.raises(ModelError, match="from PyTorch"):
        export(tmp_path / "a.safetensors", tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


# -- which engine ------------------------------------------------------------------------------------------------------


def test_by_itself_onnx_runs_what_it_can(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_accelerator_likely", lambda: False)
    file, graph = exported
    assert load_engine("compact").name == "onnx"
    assert load_engine(graph).name == "onnx"
    assert load_engine(file).name == "torch"
    assert load_engine("compact", dtype="bfloat16").precision == "bfloat16"


def test_an_accelerator_that_only_pytorch_reaches_is_taken(monkeypatch):
    monkeypatch.setattr(loading, "_accelerator_likely", lambda: True)
    monkeypatch.setattr("tddsr.device.pick_device", lambda *_: torch.device("meta"))
    monkeypatch.setattr(loading, "devices", lambda: ["cpu"])
    asked = []

    def load(*arguments, **_):
        asked.append(arguments)
        raise UsageError("enough")

    monkeypatch.setattr(TorchEngine, "load", load)
    with pytest.raises(UsageError, match="enough"):
        load_engine("compact-small")
    assert len(asked) == 1
    monkeypatch.setattr(loading, "devices", lambda: ["cpu", "directml"])
    assert load_engine("compact-small", device="cpu").name == "onnx"


def test_fast_is_what_the_machine_has(monkeypatch):
    def take(precision):
        monkeypatch.setattr(TorchEngine, "fast_precision", staticmethod(lambda _: precision))
        engine = load_engine("compact-small", device="cpu", fast=True)
        return engine.name, engine.precision

    assert take("bfloat16") == ("torch", "bfloat16")
    assert take("float32") == ("onnx", "float32")


@pytest.mark.parametrize(("options", "told"), [
    ({"engine": "tensorrt"}, "onnx"), ({"dtype": "int8"}, "float16"), ({"fast": True, "dtype": "float32"}, "fast"),
    ({"engine": "onnx", "dtype": "bfloat16"}, "torch"), ({"engine": "onnx", "compiled": True}, "torch"),
    ({"engine": "onnx", "device": "tpu"}, "cpu"), ({"engine": "onnx", "device": "cpu:1"}, "cpu"),
])  # fmt: skip
def test_impossible_options_are_refused_with_what_there_is(options, told):
    with pytest.raises(UsageError, match=told):
        load_engine("compact", **options)


def test_a_device_that_the_build_lacks_is_told_with_those_it_has_and_the_build_that_has_it():
    (missing, *_) = {"cuda", "directml", "openvino"} - set(devices())
    with pytest.raises(UsageError, match=r"which has cpu.*onnxruntime-"):
        OnnxEngine(SHIPPED["compact"].with_suffix(".onnx"), missing)


def test_a_graph_takes_one_step(exported):
    with pytest.raises(UsageError, match="1 step"):
        Upscaler(OnnxEngine(exported[1]))(photo(), steps=2)


def test_files_that_are_no_graphs_of_ours_are_refused(exported, tmp_path):
    garbage, foreign, newer = (tmp_path / f"{name}.onnx" for name in ("garbage", "foreign", "newer"))
    garbage.write_bytes(b"no graph")
    proto = onnx.load(exported[1])
    told = json.loads(proto.metadata_props[0].value)
    proto.metadata_props[0].value = json.dumps({**told, "format": "tddsr-graph-9"})
    onnx.save(proto, newer)
    proto.metadata_props[0].key = "other"
    onnx.save(proto, foreign)
    for path, message in ((garbage, "cannot be used"), (foreign, "tddsr export"), (newer, "export it again")):
        with pytest.raises(ModelError, match=message):
            load_engine(path)
    with pytest.raises(ModelError, match="no such file"):
        load_engine(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match="is a graph"):
        load_engine(exported[1], engine="torch")


def test_running_out_of_memory_is_told_as_such(exported, monkeypatch):
    engine = OnnxEngine(exported[1])

    class Session:
        def run(self, *_):
            raise RuntimeError("Failed to allocate memory for requested buffer of size 12345")

    engine.session = Session()
    with pytest.raises(MemoryError):
        engine.run(np.zeros((1, 3, 8, 8), np.float32), lambda _: np.zeros((1, 48, 8, 8), np.float32))


# -- without PyTorch ---------------------------------------------------------------------------------------------------


def without_torch(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process in which importing torch fails as if it were not installed."""
    blocked = "import sys; sys.modules['torch'] = None\n"
    return subprocess.run(
        [sys.executable, "-c", blocked + code], cwd=folder, capture_output=True, text=True, check=False
    )


def command(*arguments: object) -> str:
    return f"sys.argv = {['tddsr', *map(str, arguments)]}\nfrom tddsr.cli import main\nmain()\n"


@pytest.mark.parametrize("name", list(SHIPPED))
def test_pictures_are_enlarged_without_pytorch(name, tmp_path):
    picture = photo(20, 24)
    Image.fromarray(picture).save(tmp_path / "small.png")
    done = without_torch(command("upscale", "small.png", "--model", name, "--fast", "--json"), tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["engine"], told["device"], told["precision"]) == ("onnx", "cpu", "float32")
    expected = Upscaler.load(name, engine="torch", device="cpu")(picture)
    with Image.open(tmp_path / "small_x4.png") as large:
        assert largest_difference(np.asarray(large), expected) <= 1


def test_the_library_is_there_without_pytorch(tmp_path):
    code = (
        "import numpy as np, tddsr\n"
        "assert tddsr.upscale(np.zeros((8, 9, 3), np.uint8), device='cpu').shape == (32, 36, 3)\n"
    )
    done = without_torch(code, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("models",), ("info",), ("--help",), ("compare", "a.png", "a.png", "-o", "a.html")],
    ids=lambda arguments: arguments[0],
)
def test_what_needs_no_network_needs_no_pytorch(arguments, tmp_path):
    Image.fromarray(photo(20, 24)).save(tmp_path / "a.png")
    done = without_torch(command(*arguments), tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("upscale", "a.png", "--engine", "torch"), "torch"),
        (("upscale", "a.png", "--model", "realesrgan-x4plus"), "torch"),
        (("upscale", "a.png", "--dtype", "bfloat16"), "torch"),
        (("eval", "bicubic", "--hr", "."), "torch"),
        (("degrade", "a.png", "-o", "pairs"), "torch"),
        (("convert", "compact", "-o", "b.safetensors"), "torch"),
        (("train", "compact-follow"), "train"),
        (("export", "compact", "-o", "b.onnx"), "export"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else value,
)
def test_what_needs_pytorch_names_the_extra_in_one_line(arguments, extra, tmp_path):
    Image.fromarray(photo(20, 24)).save(tmp_path / "a.png")
    done = without_torch(command(*arguments), tmp_path)
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1
    assert f"tddsr[{extra}]" in done.stderr


def test_a_wrong_name_is_told_before_what_is_not_installed(tmp_path):
    done = without_torch(command("upscale", "a.png", "--model", "compcat"), tmp_path)
    assert done.returncode == 2
    assert "compcat" in done.stderr
    assert "tddsr[" not in done.stderr


@pytest.mark.parametrize("name", list(SHIPPED))
def test_the_example_enlarges_with_onnx_runtime_and_numpy_alone(name, tmp_path):
    picture = photo(21, 34)
    Image.fromarray(picture).save(tmp_path / "a.png")
    example = ROOT / "examples" / "onnx_numpy.py"
    graph = SHIPPED[name].with_suffix(".onnx")
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([sys.executable, example, graph, tmp_path / "a.png", tmp_path / "b.png"], env=alone, check=True)
    ours = Upscaler.load(name, device="cpu")(picture)
    with Image.open(tmp_path / "b.png") as large:
        # It pads and draws noise otherwise.
        assert np.abs(np.asarray(large).astype(float) - ours)[16:-16, 16:-16].mean() < 4
