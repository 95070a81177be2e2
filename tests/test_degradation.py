import io
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import ValidationError

from tddsr import rng
from tddsr.degradation import Degradation, degrade
from tddsr.degradation.jpeg import jpeg
from tddsr.degradation.kernels import density_kernels, filter2d, sinc_kernels
from tddsr.degradation.noise import gaussian_noise, luma, poisson_noise
from tddsr.degradation.pipeline import Stage, sharpen
from tddsr.degradation.resize import MODES, resize
from tests.conftest import photo

B = 6
SIZES = torch.tensor([3, 7, 11, 15, 19, 21])


def picture(height: int = 96, width: int = 128, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(photo(height, width, seed)).permute(2, 0, 1)[None].float() / 255


def spread(kernels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Standard deviation along y and x."""
    line = torch.arange(kernels.shape[-1]) - kernels.shape[-1] // 2
    return tuple((kernels.sum(dim=d) * line**2).sum(dim=1).sqrt() for d in (2, 1))  # type: ignore[return-value]


@pytest.mark.parametrize("plateau", [False, True])
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_density_kernels_sum_to_1_are_symmetric_and_keep_their_size(beta, plateau):
    sigma_x, sigma_y = torch.linspace(0.2, 3, B), torch.linspace(3, 0.2, B)
    flags = torch.full((B,), plateau)
    kernels = density_kernels(21, SIZES, sigma_x, sigma_y, torch.linspace(-3, 3, B), torch.full((B,), beta), flags)
    torch.testing.assert_close(kernels.sum(dim=(1, 2)), torch.ones(B))
    torch.testing.assert_close(kernels, kernels.flip(1, 2))
    assert (kernels >= 0).all()
    for kernel, size in zip(kernels, SIZES, strict=True):
        margin = (21 - int(size)) // 2
        outside = kernel.clone()
        outside[margin : 21 - margin, margin : 21 - margin] = 0
        assert outside.sum() == 0
    nine = torch.full((B,), 9.0)
    wide = density_kernels(21, SIZES, nine, nine, sigma_x, torch.full((B,), beta), flags)
    reach = [int((kernel[:, 10] > 0).sum()) for kernel in wide]
    assert reach == SIZES.tolist()


def test_gaussian_kernels_have_their_sigma_and_direction():
    one = torch.ones(1)
    round_, flat, turned = (
        density_kernels(31, 31 * one, 2 * one, s * one, a * one, one, one < 0)
        for s, a in ((2.0, 0.7), (1.0, 0.0), (1.0, math.pi / 2))
    )
    for kernel, expected in ((round_, (2, 2)), (flat, (1, 2)), (turned, (2, 1))):
        assert [s.item() for s in spread(kernel)] == pytest.approx(expected, rel=0.01)
    torch.testing.assert_close(turned, flat.transpose(1, 2))


def test_beta_and_plateau_shape_the_kernel():
    one = torch.ones(1)

    def tail(beta: float, plateau: bool) -> float:
        """At three sigma, of the peak."""
        kernel = density_kernels(21, 21 * one, 2 * one, 2 * one, 0 * one, beta * one, torch.tensor([plateau]))[0]
        return (kernel[10, 16] / kernel[10, 10]).item()

    for beta in (0.5, 1.0, 2.0):
        assert tail(beta, False) == pytest.approx(math.exp(-0.5 * 9**beta), rel=1e-3)
        assert tail(beta, True) == pytest.approx(1 / (1 + 9**beta), rel=1e-3)


def test_sinc_kernels_are_low_pass_filters():
    cutoff = torch.tensor([math.pi / 3, math.pi / 2])
    kernels = sinc_kernels(101, torch.tensor([101, 101]), cutoff)
    torch.testing.assert_close(kernels.sum(dim=(1, 2)), torch.ones(2))
    assert (kernels < 0).any()  # it rings
    response = torch.fft.fft2(torch.roll(kernels, (-50, -50), dims=(1, 2))).real[:, 0]
    frequency = 2 * math.pi * torch.arange(51) / 101
    for row, w in zip(response[:, :51], cutoff, strict=True):
        assert (row[frequency < 0.8 * w] - 1).abs().max() < 0.15
        assert row[frequency > 1.2 * w].abs().max() < 0.15


def test_filter2d_equals_a_padded_correlation():
    image, kernels = torch.rand(B, 3, 30, 41), torch.rand(B, 9, 9)
    padded = F.pad(image, (4,) * 4, mode="replicate")
    for i in range(B):
        expected = F.conv2d(padded[i : i + 1].transpose(0, 1), kernels[i][None, None]).transpose(0, 1)
        torch.testing.assert_close(filter2d(image, kernels)[i : i + 1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", range(3))
@pytest.mark.parametrize("size", [(13, 17), (40, 52), (61, 77), (40, 30)])
def test_resize_equals_interpolate(mode, size):
    image = torch.rand(2, 3, 40, 52)
    size_in, size_out = torch.tensor([[40, 52]] * 2), torch.tensor([size] * 2)
    options = {} if MODES[mode] == "area" else {"align_corners": False}
    expected = F.interpolate(image, size, mode=MODES[mode], **options)
    result = resize(image, size_in, size_out, torch.full((2,), mode), size)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


def test_samples_of_different_size_share_a_canvas():
    sizes_in, sizes_out = torch.tensor([[20, 24], [40, 52]]), torch.tensor([[50, 11], [10, 30]])
    small = torch.rand(1, 3, 20, 24)
    canvas = torch.cat([F.pad(small, (0, 28, 0, 20), value=9.0), torch.rand(1, 3, 40, 52)])
    result = resize(canvas, sizes_in, sizes_out, torch.tensor([2, 1]), (50, 30))
    expected = F.interpolate(small, (50, 11), mode="bicubic", align_corners=False)
    torch.testing.assert_close(result[:1, :, :, :11], expected, rtol=1e-4, atol=1e-5)
    # Beyond its size, a picture's last column goes on.
    assert torch.equal(result[0, :, :, 11:], result[0, :, :, 10:11].expand(-1, -1, 19))


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 95])
def test_jpeg_does_what_a_jpeg_file_does(quality):
    pixels = photo(90, 123, noise=1)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    expected = np.asarray(Image.open(file)).astype(float)
    ours = (jpeg(image, torch.tensor([float(quality)]))[0].permute(1, 2, 0) * 255).numpy()
    damage = np.abs(expected - pixels).mean()
    difference = np.abs(ours - expected).mean()
    assert difference < 1
    assert difference < 0.4 * damage


def test_jpeg_takes_a_quality_for_each_sample():
    image = picture().expand(2, -1, -1, -1)
    both = jpeg(image, torch.tensor([20.0, 90.0]))
    assert torch.equal(both[1:], jpeg(image[1:], torch.tensor([90.0])))
    error = (both - image).square().mean(dim=(1, 2, 3))
    assert error[0] > 1.5 * error[1]


def test_gaussian_noise_has_its_strength_and_colour():
    image = torch.full((2, 3, 200, 200), 0.5)
    noise = gaussian_noise(image, torch.tensor([10.0, 30.0]), torch.tensor([False, True]), rng.generator(0)) - image
    assert noise[0].std().item() * 255 == pytest.approx(10, rel=0.02)
    assert noise[1].std().item() * 255 == pytest.approx(30, rel=0.02)
    assert torch.equal(noise[1, 0], noise[1, 2])
    assert not torch.equal(noise[0, 0], noise[0, 2])


def test_poisson_noise_grows_with_light_and_scale():
    ramp = torch.linspace(0, 1, 256).repeat(256, 1).expand(2, 3, 256, 256)
    noise = poisson_noise(ramp, torch.tensor([1.0, 2.0]), torch.tensor([False, True]), rng.generator(0)) - ramp
    variance = noise.square().mean(dim=2)
    # All 256 values occur: the variance of counts / 256 is the brightness / 256.
    expected = ramp[0, 0, 0] / 256
    assert variance[0].mean(0)[128:].mean().item() == pytest.approx(expected[128:].mean().item(), rel=0.05)
    assert variance[0].mean(0)[:32].mean() < 0.2 * variance[0].mean(0)[-32:].mean()
    assert variance[1].mean().item() == pytest.approx(4 * expected.mean().item(), rel=0.1)
    torch.testing.assert_close(noise[1, 0], noise[1, 2], rtol=0, atol=1e-6)


def test_luma_of_grey_is_grey():
    grey = torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(luma(grey.expand(-1, 3, -1, -1)), grey)


@pytest.mark.parametrize("preset", ["resshift", "realesrgan"])
def test_degraded_pictures_are_8_bit_small_and_like_their_originals(preset):
    hr = torch.cat([picture(seed=i) for i in range(8)])
    lr = degrade(hr, Degradation.preset(preset), rng.generator(3))
    assert lr.shape == (8, 3, 24, 32)
    assert torch.equal((lr * 255).round() / 255, lr)
    assert lr.min() >= 0
    assert lr.max() <= 1
    plain = F.interpolate(hr, scale_factor=0.25, mode="area")
    errors = (lr - plain).abs().mean(dim=(1, 2, 3))
    assert errors.max() < 0.25
    assert errors.min() > 0.003


def test_the_seed_decides_and_nothing_else():
    hr = picture().expand(4, -1, -1, -1)
    first, again = (degrade(hr, Degradation(), rng.generator(5)) for _ in range(2))
    other = degrade(hr, Degradation(), rng.generator(6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(not torch.equal(first[0], first[i]) for i in range(1, 4))  # every sample has its own camera


def test_without_its_parts_the_pipeline_is_a_resize():
    idle = Stage(blur_probability=0, resize_weights=(0, 0, 1), gaussian_probability=1, gaussian_sigma=(0, 0),
                 jpeg_quality=(100, 100))  # fmt: skip
    settings = Degradation(first=idle, second=idle, final_sinc_probability=0)
    hr = torch.from_numpy(photo(96, 96, noise=0)).permute(2, 0, 1)[None].float() / 255
    lr = degrade(hr, settings, rng.generator(0))
    errors = [(F.interpolate(hr, scale_factor=0.25, mode=m) - lr).abs().mean() for m in MODES]
    assert min(errors) < 0.01


@pytest.mark.parametrize(("field", "setting"), [
    ("blur", {"sigma": (2.9, 3.0), "kernel_sizes": (19, 19)}),
    ("noise", {"gaussian_probability": 1.0, "gaussian_sigma": (30.0, 30.0)}),
    ("jpeg", {"jpeg_quality": (10.0, 10.0)}),
])  # fmt: skip
def test_every_part_damages_the_picture(field, setting):
    idle = {"blur_probability": 0.0, "resize_weights": (0, 0, 1), "gaussian_probability": 1.0,
            "gaussian_sigma": (0.0, 0.0), "jpeg_quality": (100.0, 100.0)}  # fmt: skip
    if field == "blur":
        setting = {**setting, "blur_probability": 1.0}
    hr = picture(96, 96)
    second = Stage(**idle)

    def make(stage):
        return degrade(hr, Degradation(first=stage, second=second, final_sinc_probability=0), rng.generator(1))

    assert (make(Stage(**{**idle, **setting})) - make(Stage(**idle))).abs().mean() > 0.002


def test_sizes_must_be_multiples_of_the_factor():
    with pytest.raises(ValueError, match="97x96"):
        degrade(torch.rand(1, 3, 97, 96), Degradation(), rng.generator(0))


def test_unknown_settings_are_refused():
    with pytest.raises(ValidationError, match="blurr"):
        Stage(blurr=1)  # type: ignore[call-arg]


def test_sharpening_raises_contrast_at_edges_and_leaves_flat_places():
    edge = torch.full((1, 3, 96, 96), 0.3)
    edge[..., 48:] = 0.7
    sharp = sharpen(edge)
    assert sharp[0, 0, 48, 50] > 0.72
    assert sharp[0, 0, 48, 45] < 0.28
    torch.testing.assert_close(sharp[..., :4], edge[..., :4], rtol=0, atol=0.01)
