import io
import math
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import ValidationError

from tddsr import rng
from tddsr.degradation import pipeline
from tddsr.degradation.jpeg import jpeg
from tddsr.degradation.kernels import density_kernels, filter2d, sinc_kernels
from tddsr.degradation.noise import film_grain, gaussian_noise, poisson_noise
from tddsr.degradation.pipeline import degrade, degrade_mixed, degrade_pair, sharpen
from tddsr.degradation.presets import Degradation, Preset, Stage, choose_presets
from tddsr.degradation.resize import MODES, resize, resize_matrices
from tddsr.pictures.tensors import luma
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


@pytest.mark.parametrize("preset", get_args(Preset))
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
    idle = Stage(blur_probability=0, resize_weights=(0, 0, 1), gaussian_probability=1, gaussian_sigma=(0, 0))
    best = (100.0, 100.0)
    settings = Degradation(
        first=idle, second=idle, final_sinc_probability=0, first_jpeg_quality=best, final_jpeg_quality=best
    )
    hr = torch.from_numpy(photo(96, 96, noise=0)).permute(2, 0, 1)[None].float() / 255
    lr = degrade(hr, settings, rng.generator(0))
    errors = [(F.interpolate(hr, scale_factor=0.25, mode=m) - lr).abs().mean() for m in MODES[:3]]
    assert min(errors) < 0.01


IDLE = Stage(blur_probability=0.0, resize_weights=(0, 0, 1), gaussian_probability=1.0, gaussian_sigma=(0.0, 0.0))


@pytest.mark.parametrize("damage", [
    {"first": IDLE.model_copy(update={"blur_probability": 1.0, "sigma": (2.9, 3.0), "kernel_sizes": (19, 19)})},
    {"first": IDLE.model_copy(update={"gaussian_sigma": (30.0, 30.0)})},
    {"first": IDLE.model_copy(update={"resize_weights": (0.0, 1.0, 0.0), "resize_range": (0.15, 0.2)})},
    {"second": IDLE.model_copy(update={"gaussian_probability": 0.0, "poisson_scale": (3.0, 3.0)})},
    {"first_jpeg_quality": (10.0, 10.0)}, {"final_jpeg_quality": (10.0, 10.0)}, {"final_sinc_probability": 1.0},
])  # fmt: skip
def test_every_part_damages_the_picture(damage):
    hr = picture(96, 96)
    best = (100.0, 100.0)
    idle = Degradation(
        first=IDLE, second=IDLE, final_sinc_probability=0, first_jpeg_quality=best, final_jpeg_quality=best
    )
    plain, damaged = (degrade(hr, s, rng.generator(1)) for s in (idle, idle.model_copy(update=damage)))
    assert (damaged - plain).abs().mean() > 0.002


def test_the_presets_have_the_published_numbers():
    """Section 4 of the method: ResShift's and SinSR's configuration, and Real-ESRGAN's."""
    ours = Degradation.preset("resshift")
    assert ours.first.model_dump() == {
        "probability": 1.0, "blur_probability": 1.0, "kernel_sizes": (3, 19),
        "family_weights": (0.45, 0.25, 0.12, 0.03, 0.12, 0.03), "sinc_probability": 0.1, "sigma": (0.2, 3.0),
        "generalised_beta": (0.5, 4.0), "plateau_beta": (1.0, 2.0), "resize_weights": (0.2, 0.7, 0.1),
        "resize_range": (0.15, 1.5), "gaussian_probability": 0.5, "gaussian_sigma": (1.0, 30.0),
        "poisson_scale": (0.05, 3.0), "grey_probability": 0.4,
    }  # fmt: skip
    assert ours.second.model_dump() == ours.first.model_dump() | {
        "probability": 0.5, "blur_probability": 0.8, "kernel_sizes": (3, 13), "sigma": (0.2, 1.5),
        "resize_weights": (0.3, 0.4, 0.3), "resize_range": (0.3, 1.2), "gaussian_sigma": (1.0, 25.0),
        "poisson_scale": (0.05, 2.5),
    }  # fmt: skip
    assert ours.final_sinc_probability == 0.8
    assert ours.final_sinc_sizes == (3, 13)
    assert [*ours.first_jpeg_quality, *ours.final_jpeg_quality] == [30, 95, 30, 95]

    original = Degradation.preset("realesrgan")
    assert original.first.kernel_sizes == original.second.kernel_sizes == original.final_sinc_sizes == (7, 21)
    assert original.second.probability == 1.0
    assert (ours.sharpen, original.sharpen) == (False, True)
    assert original.first.sigma == ours.first.sigma
    assert original.second.resize_range == ours.second.resize_range


def test_the_resshift_test_preset_has_the_numbers_of_the_published_test_pictures():
    """ResShift's configs/degradation_testing_realesrgan.yaml, as its code reads it (sizes below blur_kernel_size)."""
    tests = Degradation.preset("resshift-test")
    assert tests.first.model_dump() == Stage().model_dump() | {
        "kernel_sizes": (3, 11), "family_weights": (0.6, 0.4, 0, 0, 0, 0), "sigma": (0.2, 0.8),
        "resize_range": (0.5, 1.5), "gaussian_sigma": (1, 15), "poisson_scale": (0.05, 0.3),
    }  # fmt: skip
    assert tests.second.probability == 0
    assert (tests.final_sinc_probability, tests.final_sinc_sizes) == (0.2, (3, 5))
    assert [*tests.first_jpeg_quality, *tests.final_jpeg_quality] == [70, 95, 80, 100]


def test_the_light_preset_keeps_what_the_others_lose():
    hr = torch.cat([picture(seed=i) for i in range(16)])

    def flat_noise(name: Preset) -> torch.Tensor:
        """What is left of a grey field: noise and JPEG, no blur."""
        lr = degrade(torch.full_like(hr, 0.5), Degradation.preset(name), rng.generator(0))
        return (lr - 0.5).abs().mean(dim=(1, 2, 3))

    def far(name: Preset) -> torch.Tensor:
        lr = degrade(hr, Degradation.preset(name), rng.generator(0))
        return (lr - F.interpolate(hr, scale_factor=0.25, mode="area")).abs().mean(dim=(1, 2, 3))

    assert flat_noise("clean").max() < flat_noise("resshift").median()
    assert far("clean").mean() < 0.7 * far("resshift").mean()
    assert far("resshift-test").mean() < 0.7 * far("resshift").mean()


def test_the_blurred_preset_blurs_more_than_resshift_and_is_quiet():
    flat = torch.full((32, 3, 128, 128), 0.5)

    def noise(name: Preset) -> torch.Tensor:
        return (degrade(flat, Degradation.preset(name), rng.generator(0)) - 0.5).abs().mean()

    def detail(name: Preset) -> torch.Tensor:
        """What is left of a fine stripe of period 16 (four lr pixels), at its own phase: noise is not part of it."""
        wave = torch.cos(torch.arange(128) * (2 * torch.pi / 16)).expand(32, 3, 128, 128)
        lr = degrade(0.5 + 0.25 * wave, Degradation.preset(name), rng.generator(0))
        return (lr * wave.unfold(3, 4, 4).mean(-1)[:, :, ::4]).mean()

    assert noise("blurred") < 0.5 * noise("resshift")
    assert detail("blurred") < detail("resshift") < 0.9 * detail("clean")


def test_a_mixed_batch_has_its_share_of_each_kind():
    hr = picture(96, 96).expand(8, -1, -1, -1)
    alone: dict[Preset, float] = {"resshift": 3}
    for found, expected in zip(
        degrade_mixed(hr, alone, rng.generator(3)), degrade_pair(hr, Degradation(), rng.generator(3)), strict=True
    ):
        assert torch.equal(found, expected)

    # Only realesrgan's truth is sharpened, so that it shows which samples are its own. Every other one is dark.
    mix: dict[Preset, float] = {"clean": 1, "realesrgan": 2, "web": 1}
    dark = torch.arange(8) % 2 == 0
    hr = hr * 0.3 + torch.where(dark, 0.0, 0.7)[:, None, None, None]
    seen = 0
    for seed in range(40):
        target, lr = degrade_mixed(hr, mix, rng.generator(seed))
        assert lr.shape == (8, 3, 24, 24)
        assert torch.equal(lr.mean(dim=(1, 2, 3)) < 0.5, dark)
        own = ~(target == hr).flatten(1).all(dim=1)
        assert torch.equal(target[own], sharpen(hr)[own])
        seen += int(own.sum())
    assert seen / 320 == pytest.approx(0.5, abs=0.08)
    again = degrade_mixed(hr, mix, rng.generator(39))
    assert torch.equal(again[0], target)
    assert torch.equal(again[1], lr)


def block_steps(lr, shift=0):
    """Mean step at the borders of 8x8 blocks over the mean step elsewhere."""
    steps = lr.diff(dim=3).abs().mean(dim=(0, 1, 2))
    border = torch.arange(1, lr.shape[3]) % 8 == shift
    return float(steps[border].mean() / steps[~border].mean())


def test_web_pictures_have_blocks_and_film_has_grain_between_neighbours():
    smooth = F.interpolate(torch.rand(1, 3, 5, 5, generator=rng.generator(1)), (256, 256), mode="bicubic")
    smooth = smooth.clamp(0.1, 0.9).expand(24, -1, -1, -1)

    def made(name: Preset):
        return degrade(smooth, Degradation.preset(name), rng.generator(2))

    assert block_steps(made("web")) > 1.25 * block_steps(made("clean"))

    def noise(name: Preset):
        fine = made(name) - F.avg_pool2d(made(name), 5, stride=1, padding=2, count_include_pad=False)
        return fine[..., 4:-4, 4:-4]

    film, grainless = noise("film"), noise("clean")
    assert film.std() > 1.5 * grainless.std()
    # White noise is independent from one pixel to the next; grain is not.
    assert (film[..., 1:] * film[..., :-1]).mean() / film.square().mean() > 0.15


def test_grain_is_as_strong_as_asked_and_black_and_white_have_none():
    ones = torch.ones(2)
    grey = torch.full((2, 3, 128, 128), 0.5)
    grained = film_grain(grey, 10 * ones, torch.tensor([0.3, 1.2]), ones > 0, rng.generator(0)) - grey
    torch.testing.assert_close(grained.std(dim=(1, 2, 3)) * 255, 10 * ones, atol=0.7, rtol=0)
    assert torch.equal(grained[:, 0], grained[:, 2])
    for level in (0.0, 1.0):
        flat = torch.full((2, 3, 16, 16), level)
        assert torch.equal(film_grain(flat, 10 * ones, ones, ones > 0, rng.generator(0)), flat)


def test_a_shifted_jpeg_is_that_of_a_larger_picture():
    large = picture(64, 64)
    file = jpeg(large, torch.tensor([20.0]))
    cut = jpeg(large[..., 5:, 9:], torch.tensor([20.0]), None, torch.tensor([[5, 9]]))
    # From where both have whole blocks of 16, away from the edges that chroma's smooth enlargement sees.
    assert torch.equal(cut[..., 12:40, 8:36], file[..., 17:45, 17:45])
    for shift in (3, 7, 12):
        found = jpeg(picture(64, 64), torch.tensor([10.0]), None, torch.tensor([[shift, shift]]))
        assert found.shape == (1, 3, 64, 64)
        strengths = [block_steps(found, place) for place in range(8)]
        assert max(range(8), key=strengths.__getitem__) == -shift % 8


def test_full_chroma_keeps_colours_apart():
    stripes = torch.zeros(1, 3, 32, 32)
    stripes[:, 0, :, ::2], stripes[:, 2, :, 1::2] = 1, 1
    quality = torch.tensor([95.0])
    halved, full = (jpeg(stripes, quality, torch.tensor([kind])) for kind in (False, True))
    assert torch.equal(halved, jpeg(stripes, quality))
    assert (full - stripes).abs().mean() < 0.1 * (halved - stripes).abs().mean()


@pytest.mark.parametrize("size", [(64, 17), (40, 64), (33, 8)])
def test_the_clean_mode_is_torchs_antialiased_bicubic(size):
    start, end = size
    image = torch.rand(1, 3, 12, start, generator=rng.generator(0))
    matrix = resize_matrices(torch.tensor([start]), torch.tensor([end]), torch.tensor([3]), start, end)
    expected = F.interpolate(image, (12, end), mode="bicubic", antialias=True)
    torch.testing.assert_close(image @ matrix.mT, expected, atol=1e-5, rtol=0)


def test_presets_are_chosen_by_name():
    assert choose_presets("web, clean") == ["clean", "web"]
    with pytest.raises(ValueError, match="no preset 'wbe'"):
        choose_presets("web,wbe")


def test_a_choice_has_its_weights_and_is_the_same_on_every_processor():
    weights = (0.2, 0.0, 0.7, 0.1, 0.0)
    chosen = pipeline._Dice(20000, torch.Generator().manual_seed(7)).choice(weights)
    shares = chosen.bincount(minlength=5) / len(chosen)
    torch.testing.assert_close(shares, torch.tensor(weights), atol=0.01, rtol=0)
    assert not shares[[1, 4]].any()
    # The reference is the Mersenne twister of another library.
    drawn = (np.random.RandomState(7).randint(2**32, size=len(chosen), dtype=np.uint32) % 2**24) / 2**24
    assert chosen.tolist() == np.digitize(drawn, np.cumsum(weights)).tolist()


def test_what_is_drawn_is_what_the_settings_say(monkeypatch):
    """Frequencies and ranges of the parameters themselves, seen where they are used, over two thousand samples."""
    seen: dict[str, list[list[torch.Tensor]]] = {}

    def spy(name, function):
        def wrapper(*arguments, **options):
            seen.setdefault(name, []).append([a for a in arguments if isinstance(a, torch.Tensor)])
            return function(*arguments, **options)

        monkeypatch.setattr(pipeline, name, wrapper)

    for name in ("density_kernels", "sinc_kernels", "jpeg", "gaussian_noise", "poisson_noise", "resize"):
        spy(name, getattr(pipeline, name))
    count = 2000
    degrade(torch.full((count, 3, 16, 16), 0.5), Degradation(), rng.generator(0))

    size, sigma_x, sigma_y, angle, beta, plateau = seen["density_kernels"][0]
    assert sorted(size.unique().tolist()) == list(range(3, 20, 2))
    assert sigma_x.min() >= 0.2
    assert 2.9 < sigma_x.max() <= 3
    assert angle.abs().max() <= math.pi
    isotropic = sigma_x == sigma_y
    plain = (beta == 1) & ~plateau
    for found, expected in (
        (plain & isotropic, 0.45), (plain & ~isotropic, 0.25), (~plain & ~plateau & isotropic, 0.12),
        (~plain & ~plateau & ~isotropic, 0.03), (plateau & isotropic, 0.12), (plateau & ~isotropic, 0.03),
    ):  # fmt: skip
        assert found.float().mean().item() == pytest.approx(expected, abs=0.03)
    generalised = beta[~plain & ~plateau]
    assert generalised.min() >= 0.5
    assert 3 < generalised.max() <= 4
    assert beta[plateau].min() >= 1
    assert beta[plateau].max() <= 2

    first, second, final = seen["sinc_kernels"]
    small = first[0] < 13
    assert first[1][small].min() >= math.pi / 3 - 1e-6
    assert math.pi / 5 <= first[1][~small].min() < math.pi / 4
    assert sorted(second[0].unique().tolist()) == sorted(final[0].unique().tolist()) == list(range(3, 14, 2))
    assert final[1].min() >= math.pi / 3 - 1e-6

    assert len(seen["jpeg"][0][0]) == count
    qualities = torch.cat([group[1] for group in seen["jpeg"]])
    assert 30 <= qualities.min() < 31
    assert 94 < qualities.max() <= 95
    before, after = (len(group[0]) for group in seen["jpeg"][1:])
    assert before + after == count
    assert before / count == pytest.approx(0.5, abs=0.05)

    (gaussian_1, gaussian_2), (poisson_1, poisson_2) = seen["gaussian_noise"], seen["poisson_noise"]
    assert len(gaussian_1[0]) / count == pytest.approx(0.5, abs=0.05)
    assert (len(gaussian_2[0]) + len(poisson_2[0])) / count == pytest.approx(0.5, abs=0.05)  # half have a second stage
    for strength, low, high in (
        (gaussian_1, 1, 30), (gaussian_2, 1, 25), (poisson_1, 0.05, 3), (poisson_2, 0.05, 2.5)
    ):  # fmt: skip
        assert strength[1].min() >= low
        assert 0.9 * high < strength[1].max() <= high
        assert strength[2].float().mean().item() == pytest.approx(0.4, abs=0.07)

    _, size_in, size_out, mode = seen["resize"][0]
    scale = size_out[:, 0] / size_in[:, 0]
    for found, expected in ((scale > 1, 0.2), (scale < 1, 0.7)):
        assert found.float().mean().item() == pytest.approx(expected, abs=0.05)
    assert scale.min() < 0.2
    assert 1.4 < scale.max() <= 1.5
    assert torch.bincount(mode).float().div(count).sub(1 / 3).abs().max() < 0.04


def test_sharpening_comes_before_the_damage():
    hr = picture(96, 96)
    target, lr = degrade_pair(hr, Degradation.preset("realesrgan"), rng.generator(0))
    assert torch.equal(target, sharpen(hr))
    assert torch.equal(lr, degrade(target, Degradation.preset("realesrgan"), rng.generator(0)))
    assert torch.equal(degrade_pair(hr, Degradation(), rng.generator(0))[0], hr)


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
