import pytest
import torch
import torch.nn.functional as F

from tddsr.networks.downsampler import AttentionDownsampler, DownsamplerConfig, build_downsampler

KINDS = ["attention", "conv"]


def make(kind, **options):
    torch.manual_seed(0)
    return build_downsampler(DownsamplerConfig(kind=kind, width=8, **options))


def disturbed(network):
    """As after some training: every weight moved."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return network


def picture(height=32, width=40, seed=0):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def run(network, hr, seed=0):
    return network(hr, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(16, 16), (32, 40), (20, 64)])
def test_a_quarter_of_any_size_divisible_by_four(kind, size):
    assert run(make(kind), picture(*size)).shape == (2, 3, size[0] // 4, size[1] // 4)
    with pytest.raises(ValueError, match="multiples of 4"):
        run(make(kind), picture(size[0] + 2, size[1]))


def test_attention_weighs_by_kernels_that_sum_to_one():
    network = disturbed(make("attention"))
    assert isinstance(network, AttentionDownsampler)
    kernel = network.kernel(picture())
    assert (kernel >= 0).all()
    torch.testing.assert_close(kernel.sum(dim=1), torch.ones(2, 8, 10))
    assert kernel.std(dim=(2, 3)).max() > 1e-3  # it differs from place to place
    hr = picture()
    assert run(network, hr).min() >= hr.min()
    assert run(network, hr).max() <= hr.max()
    flat = torch.full((1, 3, 32, 32), 0.3)
    torch.testing.assert_close(run(network, flat), torch.full((1, 3, 8, 8), 0.3))


@pytest.mark.parametrize("window", [4, 8, 12])
def test_attention_starts_as_an_area_filter(window):
    hr = picture()
    expected = F.interpolate(hr, scale_factor=0.25, mode="area")
    torch.testing.assert_close(run(make("attention", window=window), hr), expected, atol=5e-3, rtol=0)


def test_conv_starts_as_bicubic_and_its_noise_is_the_generators():
    hr = picture()
    bicubic = F.interpolate(hr, scale_factor=0.25, mode="bicubic", antialias=True)
    torch.testing.assert_close(run(make("conv"), hr), bicubic)
    trained = disturbed(make("conv"))
    assert torch.equal(run(trained, hr, seed=3), run(trained, hr, seed=3))
    assert not torch.equal(run(trained, hr, seed=3), run(trained, hr, seed=4))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_student_and_every_weight(kind):
    network, hr = disturbed(make(kind)), picture().requires_grad_()
    run(network, hr).square().sum().backward()
    assert hr.grad is not None
    assert (hr.grad.abs().sum(dim=1) > 0).float().mean() > 0.9
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_a_blur(kind):
    """From pairs whose lr is a wider mean than 4x4, a few steps bring it closer."""
    network = make(kind)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    errors = []
    for seed in range(40):
        hr = picture(seed=seed)
        lr = F.interpolate(F.avg_pool2d(hr, 7, 1, 3, count_include_pad=False), scale_factor=0.25, mode="area")
        loss = F.mse_loss(run(network, hr), lr)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert errors[-1] < 0.7 * errors[0]
