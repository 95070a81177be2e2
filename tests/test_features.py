import pytest
import torch
from safetensors.torch import save_file

from tddsr.networks.features import LPIPS, FeatureNetwork, WeightsError


@pytest.mark.parametrize(("name", "channels"), [
    ("alexnet", (64, 192, 384, 256, 256)), ("vgg16", (64, 128, 256, 512, 512)),
])  # fmt: skip
def test_taps_have_their_channels_and_halve(name, channels):
    levels = FeatureNetwork(name)(torch.rand(1, 3, 64, 64))
    assert tuple(level.shape[1] for level in levels) == channels
    sides = [level.shape[-1] for level in levels]
    assert sides == sorted(sides, reverse=True)


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


def test_flat_pictures_have_finite_gradients(features):
    """All features of a level may be 0 somewhere, where a square root has no gradient."""
    black = torch.full((1, 3, 48, 48), -1.0, requires_grad=True)
    LPIPS("alexnet", features)(black, torch.zeros(1, 3, 48, 48)).sum().backward()
    assert black.grad is not None
    assert black.grad.isfinite().all()


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_a_cached_download_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.delenv("TDDSR_FEATURES", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    cached.parent.mkdir(parents=True)
    torch.save({"features.0.weight": Evil()}, cached)
    with pytest.raises(WeightsError, match="cannot load"):
        LPIPS("alexnet")


def test_damaged_and_foreign_weights_are_refused(tmp_path):
    file = tmp_path / "alexnet_lpips.safetensors"
    file.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="not a readable"):
        LPIPS("alexnet", tmp_path)
    save_file(FeatureNetwork("vgg16").state_dict(), file)
    with pytest.raises(WeightsError, match="not alexnet's"):
        LPIPS("alexnet", tmp_path)


def test_missing_weights_say_where_they_belong(tmp_path):
    with pytest.raises(WeightsError, match=r"alexnet_lpips\.safetensors"):
        LPIPS("alexnet", tmp_path)
