from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tddsr.downloads import known as known_files
from tddsr.downloads.known import AUTOENCODER, PublishedFile
from tddsr.errors import ModelError
from tddsr.model import Model
from tddsr.networks.autoencoder import VQAutoencoder
from tddsr.networks.rrdb import OURS
from tddsr.weights import published as conversion
from tddsr.weights import registry
from tddsr.weights.names import list_models, load_model, read_notes
from tddsr.weights.published import convert_published
from tests.conftest import small_rrdb
from tests.derived import SMALL_VQ, small_paper_model
from tests.server import Server, serving
from tests.test_cli import call, picture


@pytest.fixture(scope="module")
def official() -> Model:
    return small_paper_model("student")


@pytest.fixture(scope="module")
def folder(official: Model, tmp_path_factory) -> Path:
    """The files as their authors publish them, but small."""
    place: Path = tmp_path_factory.mktemp("published")
    torch.save({"state_dict": official.network.state_dict()}, place / "SinSR_v1.pth")
    torch.save(official.network.state_dict(), place / "mine.pth")
    torch.save(official.space.state_dict(), place / "autoencoder_vq_f4.pth")
    return place


@pytest.fixture
def server(folder: Path, tmp_path: Path, monkeypatch) -> Iterator[Server]:
    """Serves them in place of their origins."""
    monkeypatch.setenv("TDDSR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("TDDSR_MIRROR", raising=False)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}

    with serving(files) as server:

        def moved(file: PublishedFile, known: bool) -> PublishedFile:
            content = files[file.name]
            size, digest = (len(content), sha256(content).hexdigest()) if known else (None, None)
            return replace(file, url=server.url(file.name), size=size, sha256=digest)

        sinsr = registry.MODELS["sinsr"]
        monkeypatch.setitem(registry.MODELS, "sinsr", replace(sinsr, file=moved(sinsr.file, known=False)))
        for module in (known_files, conversion):
            monkeypatch.setattr(module, "AUTOENCODER", moved(AUTOENCODER, known=True))
        yield server


def sample(model: Model) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    lr = torch.rand(1, 3, 32, 32, generator=generator) * 2 - 1
    return model.sample(lr, torch.randn(1, 3, 32, 32, generator=generator))


def test_a_published_network_becomes_a_whole_model(folder, official, tmp_path):
    out = tmp_path / "a.safetensors"
    convert_published(folder / "SinSR_v1.pth", out, autoencoder=folder / "autoencoder_vq_f4.pth")
    model = load_model(out)
    assert model.config == official.config
    assert torch.equal(sample(model), sample(official))
    for name in ("SinSR_v1.pth", "CC BY-NC-SA 4.0", "autoencoder_vq_f4.pth", "S-Lab License 1.0"):
        assert name in read_notes(out)


def test_convert_and_upscale(folder, tmp_path):
    space, out = folder / "autoencoder_vq_f4.pth", tmp_path / "half.safetensors"
    result = call("convert", folder / "mine.pth", "-o", out, "--autoencoder", space, "--as", "resshift", "--half")
    assert result.exit_code == 0, result.stderr
    model = load_model(out)
    assert (model.config.role, model.schedule.steps) == ("teacher", 4)
    with safe_open(out, framework="pt") as file:
        dtypes = {str(file.get_tensor(key).dtype) for key in file.keys()}  # noqa: SIM118
    assert dtypes == {"torch.float16", "torch.int64"}
    source = picture(tmp_path / "photo.png")
    assert call("upscale", source, "--model", out, "--steps", 2).exit_code == 0
    assert (tmp_path / "photo_x4.png").is_file()


def test_a_model_by_name_is_fetched_and_converted_once(server, official, tmp_path, capsys):
    source = picture(tmp_path / "photo.png")
    result = call("upscale", source, "--model", "sinsr")
    assert result.exit_code == 0, result.stderr
    assert "CC BY-NC-SA 4.0" in result.stderr
    assert len(server.requests) == 2
    assert torch.equal(sample(load_model("sinsr")), sample(official))
    assert capsys.readouterr().err == ""
    assert len(server.requests) == 2


def test_the_list_of_models_says_what_is_here_and_how_large_it_is(server, tmp_path):
    def listed() -> dict[str, tuple[str, int | None]]:
        return {model.name: (model.where, model.size) for model in list_models()}

    compact = Path(str(registry.__file__)).with_name("compact.safetensors")
    first = listed()
    assert first["compact"] == ("shipped", compact.stat().st_size)
    assert first["realesrgan-x4plus"] == ("download", registry.MODELS["realesrgan-x4plus"].file.size)
    assert first["sinsr"] == ("download", None)
    load_model("sinsr")
    converted = tmp_path / "cache" / "sinsr.safetensors"
    assert listed()["sinsr"] == ("cached", converted.stat().st_size)
    converted.unlink()
    assert listed()["sinsr"] == ("cached", sum(len(server.files[n]) for n in ("SinSR_v1.pth", "autoencoder_vq_f4.pth")))
    assert listed()["resshift"] == ("download", registry.MODELS["resshift"].file.size)  # the autoencoder is here
    assert all(model.purpose and "\n" not in model.purpose and model.licence for model in list_models())


def test_what_came_instead_of_an_unknown_file_is_not_kept(server):
    true = server.files["SinSR_v1.pth"]
    server.files["SinSR_v1.pth"] = b"<html>Welcome to our network</html>"
    with pytest.raises(ModelError, match="it was deleted"):
        load_model("sinsr")
    server.files["SinSR_v1.pth"] = true
    load_model("sinsr")
    assert len(server.requests) == 3  # the autoencoder stayed


def test_convert_fetches_the_autoencoder(server, folder, official, tmp_path):
    convert_published(folder / "mine.pth", tmp_path / "a.safetensors", known="sinsr-v2")
    assert load_model(tmp_path / "a.safetensors").config == official.config
    assert len(server.requests) == 1


def fails(match: str, *arguments: object) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert match in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_cannot_be_converted_is_one_line(folder, tmp_path):
    out, space = tmp_path / "a.safetensors", folder / "autoencoder_vq_f4.pth"
    to = ["-o", out, "--autoencoder"]
    fails("choose --as realesrgan-x4plus, resshift, ", "convert", folder / "mine.pth", *to, space)
    fails("'colour' is no registered model", "convert", folder / "mine.pth", *to, space, "--as", "colour")
    fails("not an autoencoder but a network", "convert", folder / "SinSR_v1.pth", *to, folder / "mine.pth")
    fails("convert the network that needs it", "convert", space, "-o", out)
    fails("does not exist", "convert", tmp_path / "none.pth", "-o", out)
    fails("--as and --autoencoder are for", "convert", "compact", "-o", out, "--as", "sinsr")
    other = VQAutoencoder(SMALL_VQ.model_copy(update={"channels": 5}))
    torch.save(other.state_dict(), tmp_path / "other.pth")
    fails("5 channels", "convert", folder / "SinSR_v1.pth", *to, tmp_path / "other.pth")
    assert not out.exists()


def test_real_esrgan_comes_by_name_with_its_notice(tmp_path, monkeypatch):
    """From a server in place of its origin: fetched, verified, converted, without an autoencoder."""
    network = small_rrdb("teacher").network
    weights = {key: value for key, value in network.state_dict().items() if key not in OURS}
    torch.save({"params_ema": weights}, tmp_path / "RealESRGAN_x4plus.pth")
    content = (tmp_path / "RealESRGAN_x4plus.pth").read_bytes()
    known = registry.MODELS["realesrgan-x4plus"]
    monkeypatch.setenv("TDDSR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("TDDSR_MIRROR", raising=False)
    with serving({"RealESRGAN_x4plus.pth": content}) as server:
        file = replace(
            known.file, url=server.url("RealESRGAN_x4plus.pth"), size=len(content), sha256=sha256(content).hexdigest()
        )
        monkeypatch.setitem(registry.MODELS, "realesrgan-x4plus", replace(known, file=file))
        model = load_model("realesrgan-x4plus")
        assert len(server.requests) == 1
    assert model.default_steps == 1
    assert "BSD 3-Clause" in read_notes("realesrgan-x4plus")
    assert all(torch.equal(value, weights[key]) for key, value in model.network.state_dict().items() if key in weights)
    out = tmp_path / "again.safetensors"
    convert_published(tmp_path / "RealESRGAN_x4plus.pth", out)
    assert load_model(out).config == model.config
    for known_as in ("sinsr", "resshift"):
        with pytest.raises(ModelError, match="no autoencoder"):
            convert_published(tmp_path / "RealESRGAN_x4plus.pth", out, known=known_as)


def test_a_network_is_not_taken_for_another_kind(folder, tmp_path):
    with pytest.raises(ModelError, match="not the network of realesrgan-x4plus"):
        convert_published(folder / "mine.pth", tmp_path / "a.safetensors", known="realesrgan-x4plus")


def test_names_and_files_that_cannot_be_loaded_say_what_to_do(folder):
    with pytest.raises(ModelError, match=r"tddsr convert .*mine\.pth -o .*mine\.safetensors"):
        load_model(folder / "mine.pth")
    with pytest.raises(ModelError, match=r"compact, compact-small, .*resshift, .*sinsr-v2"):
        load_model("no-such-model")
