from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tddsr.cli import app
from tddsr.errors import ImageError, UsageError
from tddsr.evaluation.methods import Method, bicubic
from tddsr.evaluation.pictures import find_pictures
from tddsr.evaluation.results import Protocol
from tddsr.evaluation.run import evaluate
from tddsr.metrics.dists import DISTS
from tddsr.metrics.fidelity import as_saved, luma_y, ms_ssim, psnr, ssim
from tddsr.metrics.frechet import frechet_distance
from tddsr.metrics.niqe import fit, halve, niqe
from tddsr.metrics.table import METRICS, Setting, choose, load_scores
from tests.conftest import photo


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def test_psnr_of_a_known_error():
    truth = torch.full((1, 3, 16, 16), 0.5)
    # A grey step of 1/255 is 219/255 of a step in studio-range Y.
    expected = -20 * math.log10(219 / 255 / 255)
    assert psnr(truth + 1 / 255, truth).item() == pytest.approx(expected, abs=0.01)


def test_y_is_studio_range():
    colours = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0, 1, 0]]).T[None, :, None]
    assert (luma_y(colours) * 255).flatten().tolist() == pytest.approx([16, 235, 144.553], abs=1e-3)


def test_equal_pictures_are_perfect():
    a = tensor(photo(180, 180))
    for colour in ("y", "rgb"):
        assert psnr(a, a, colour).item() == math.inf
        assert ssim(a, a, colour).item() == pytest.approx(1, abs=1e-12)
        assert ms_ssim(a, a, colour).item() == pytest.approx(1, abs=1e-12)


def test_ssim_equals_its_definition():
    """Wang et al. 2004, written out in float64 over the windows inside the picture."""
    a, b = (luma_y(tensor(photo(40, 36, noise=noise)).double()) for noise in (5, 30))
    line = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    window = (line[:, None] * line / line.sum() ** 2)[None, None]

    def mean(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(x, window)

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    expected = ((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean()
    ours = ssim(tensor(photo(40, 36)), tensor(photo(40, 36, noise=30)))
    assert ours.item() == pytest.approx(expected.item(), abs=1e-9)
    assert ours < 0.9


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("border", [0, 4])
def test_psnr_and_ssim_are_what_scikit_image_measures(seed, border):
    measure = pytest.importorskip("skimage.metrics")
    a, b = tensor(photo(60, 75, seed)), tensor(photo(60, 75, seed, noise=8 + 10 * seed))
    inside = slice(border, 60 - border), slice(border, 75 - border)
    for colour in ("y", "rgb"):
        theirs = [(luma_y(x) if colour == "y" else x)[0].permute(1, 2, 0).double().numpy()[inside] for x in (a, b)]
        expected = measure.peak_signal_noise_ratio(*theirs, data_range=1)
        assert psnr(a, b, colour, border).item() == pytest.approx(expected, abs=1e-3)
        expected = measure.structural_similarity(
            *theirs, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert ssim(a, b, colour, border).item() == pytest.approx(expected, abs=1e-5)


def test_ms_ssim_is_what_other_code_measured():
    """pytorch-msssim 1.0.0."""
    a, b = tensor(photo(192, 256)), tensor(photo(192, 256, noise=30))
    assert ms_ssim(a, b).item() == pytest.approx(0.927411, abs=2e-6)
    assert ms_ssim(a, b, "rgb").item() == pytest.approx(0.874378, abs=2e-6)


def test_similarity_is_not_defined_for_pictures_below_its_window():
    low, narrow, small = tensor(photo(10, 40)), tensor(photo(400, 175)), tensor(photo(40, 52))
    assert ssim(low, low).isnan().all()
    assert ms_ssim(narrow, narrow).isnan().all()
    with pytest.raises(ValueError, match="a border of 20 leaves nothing of 52x40"):
        psnr(small, small, border=20)


def test_dists_of_equal_pictures_is_0_and_its_levels_count(features):
    """On real pairs: test_published_scores_of_bicubic_are_met."""
    network = DISTS(features)
    a, b = (tensor(photo(48, 64, noise=noise)) * 2 - 1 for noise in (5, 40))
    near, far = network(torch.cat([a, a]), torch.cat([a, b]))
    assert near.item() == pytest.approx(0, abs=1e-6)
    assert 0.1 < far.item() < 1
    assert (network.alpha.sum() + network.beta.sum()).item() == pytest.approx(1)


@pytest.mark.slow
def test_dists_of_bicubic_is_what_other_code_measured(data, features):
    folder = data / "test" / "Val_SR_ImageNet"
    scores = load_scores([METRICS["DISTS"]], Setting(features=features))
    pictures = find_pictures(folder / "gt", folder / "lq")
    found = evaluate({"bicubic": Method("bicubic", bicubic)}, pictures, scores, Protocol())
    assert found.means()["bicubic"]["DISTS"] == pytest.approx(0.3097, abs=0.0001)


def test_frechet_distance_equals_its_definition():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (40, 30))
    b = b @ torch.randn(5, 5, generator=generator, dtype=torch.float64) + 1
    covariances = torch.cov(a.T), torch.cov(b.T)
    root = torch.linalg.eigvals(covariances[0] @ covariances[1]).sqrt().real.sum()
    means = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    expected = means + covariances[0].trace() + covariances[1].trace() - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected.item())
    assert frechet_distance(a[:3], b[:4]) == pytest.approx(frechet_distance(b[:4], a[:3]))  # fewer than numbers
    assert frechet_distance(a, a.flip(0)) == pytest.approx(0, abs=1e-9)
    assert math.isnan(frechet_distance(a[:1], b))


def test_8_bit_rounds_and_clamps():
    assert as_saved(torch.tensor([-1.0, 0.5, 2.0])).tolist() == pytest.approx([0, 128 / 255, 1])


def test_published_scores_of_bicubic_are_met(data, features):
    """Real pairs and real weights against scores that other code measured."""
    folder = data / "test" / "Val_SR_ImageNet"
    pictures = find_pictures(folder / "gt", folder / "lq")
    scores = load_scores(choose(["PSNR", "SSIM", "LPIPS-Alex", "NIQE"], truth=True), Setting(features=features))
    table = evaluate({"bicubic": Method("bicubic", bicubic)}, pictures, scores, Protocol())
    means = table.means()["bicubic"]
    assert len(table.scores) == 32
    assert means["PSNR"] == pytest.approx(24.11, abs=0.005)
    assert means["SSIM"] == pytest.approx(0.6267, abs=0.0002)
    assert means["LPIPS-Alex"] == pytest.approx(0.6086, abs=0.0001)
    assert means["NIQE"] == pytest.approx(8.31, abs=0.005)


@pytest.mark.parametrize(("count", "expected"), [
    (3, 0.4772), pytest.param(32, 0.4799, marks=pytest.mark.slow),
])  # fmt: skip
def test_lpips_vgg_of_bicubic_is_what_other_code_measured(data, features, count, expected):
    """Of all 32; the mean of the first three is ours, of when that of all was met."""
    folder = data / "test" / "Val_SR_ImageNet"
    scores = load_scores([METRICS["LPIPS-VGG"]], Setting(features=features))
    pictures = find_pictures(folder / "gt", folder / "lq", limit=count)
    means = evaluate({"bicubic": Method("bicubic", bicubic)}, pictures, scores, Protocol(seeds=1)).means()["bicubic"]
    assert means["LPIPS-VGG"] == pytest.approx(expected, abs=0.0001)


def test_niqe_of_photos_is_what_other_code_measured(data):
    pairs = find_pictures(None, data / "test" / "Val_SR_ImageNet" / "gt")
    assert np.mean([niqe(tensor(pair.lr)).item() for pair in pairs]) == pytest.approx(6.26, abs=0.005)


def test_niqe_of_a_made_picture_is_what_other_code_measured():
    """BasicSR 1.4.2, which agrees with the authors' own program."""
    assert niqe(tensor(photo(200, 300))).item() == pytest.approx(14.4729, abs=0.001)
    assert niqe(tensor(photo(200, 300, noise=20))).item() == pytest.approx(17.408, abs=0.002)
    half_flat = photo(192, 192)
    half_flat[96:] = 255
    assert niqe(tensor(half_flat)).item() == pytest.approx(24.365, abs=0.002)


def test_niqe_looks_at_whole_patches_and_at_each_picture_alone():
    a, b = tensor(photo(192, 192, 1)), tensor(photo(192, 192, 2))
    both = niqe(torch.cat([a, b]))
    assert both.tolist() == [niqe(a).item(), niqe(b).item()]
    assert niqe(torch.nn.functional.pad(a, (0, 95, 0, 95))).item() == both[0].item()


def test_niqe_is_not_defined_for_small_or_flat_pictures():
    assert niqe(tensor(photo(96, 192))).item() > 0
    for small in (photo(95, 400), photo(191, 191)):
        assert niqe(tensor(small)).isnan().all()
    assert niqe(torch.full((1, 3, 192, 192), 0.5)).isnan().all()


@pytest.mark.parametrize("shape", [1, 2])
def test_moments_find_laplace_and_normal_distributions(shape):
    """Both halves of |x|^shape exponentials, the right one stretched."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([3.0, 5.0], dtype=torch.float64)
    size = torch.distributions.Gamma(1 / shape, 1).sample  # |x / scale|^shape
    torch.manual_seed(0)
    right = torch.rand(400_000, generator=generator, dtype=torch.float64) < scale[1] / scale.sum()
    x = size(torch.Size([400_000])).double() ** (1 / shape) * torch.where(right, scale[1], -scale[0])
    found = torch.stack(fit(x.view(1, 400, 1000)))[:, 0]
    assert found.tolist() == pytest.approx([shape, 3, 5], rel=0.03)


def test_halving_is_antialiased_bicubic():
    """Pillow's, apart from the edges, where it leaves out what lies beyond and this mirrors."""
    grey = photo(64, 48)[..., 0].astype(np.float32)
    theirs = np.asarray(Image.fromarray(grey).resize((24, 32), Image.Resampling.BICUBIC))
    ours = halve(torch.from_numpy(grey)).numpy()
    assert ours[2:-2, 2:-2] == pytest.approx(theirs[2:-2, 2:-2], abs=1e-3)
    assert halve(torch.ones(8, 8)).numpy() == pytest.approx(1)


def test_pairs_without_partner_or_of_another_size_are_refused(pair_folders):
    hr, lr = pair_folders / "hr", pair_folders / "lr"
    assert [pair.name for pair in find_pictures(hr, lr)] == ["0", "1"]
    Image.fromarray(photo(21, 20)).save(lr / "1.png")
    with pytest.raises(ImageError, match=r"1\.png is not a quarter of the size of .*: 20x21 and 80x80"):
        list(find_pictures(hr, lr))
    (lr / "1.png").rename(lr / "2.png")
    Image.fromarray(photo(20, 20)).save(lr / "0.bmp")
    found = find_pictures(hr, lr)
    assert list(found.files) == ["0"]
    assert "has the same name as 0.bmp" in found.problems["0"]
    assert "has no picture 1, the partner of" in found.problems["1"]
    assert "has no picture 2, the partner of" in found.problems["2"]


def test_the_order_of_files_changes_nothing(pair_folders):
    pictures = find_pictures(pair_folders / "hr", pair_folders / "lr")
    scores = load_scores([METRICS["PSNR"], METRICS["SSIM"]])
    methods = {"bicubic": Method("bicubic", bicubic)}
    results = [
        evaluate(methods, replace(pictures, files=dict(files)), scores, Protocol(), workers=workers)
        for files, workers in itertools.product(itertools.permutations(pictures.files.items()), (1, 2))
    ]
    assert all(result == results[0] for result in results)
    assert all(result.means() == results[0].means() for result in results)


def test_what_degrade_writes_is_what_eval_makes_and_finds(tmp_path):
    for name, seed in (("a.png", 0), ("sub/a.png", 1), ("sub/b[1].c.png", 2)):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(48, 48, seed)).save(tmp_path / "in" / name)
    result = CliRunner().invoke(app, ["degrade", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--seed", "5"])
    assert result.exit_code == 0
    written = list(find_pictures(tmp_path / "out" / "hr", tmp_path / "out" / "lr"))
    made = list(find_pictures(tmp_path / "in", seed=5))
    assert [pair.name for pair in written] == ["a", "sub/a", "sub/b[1].c"]
    for a, b in zip(written, made, strict=True):
        assert a.hr is not None
        assert b.hr is not None
        assert np.array_equal(a.hr, b.hr)
        assert np.array_equal(a.lr, b.lr)


def test_degraded_pairs_depend_on_the_seed_alone(pair_folders):
    one, same, other = (list(find_pictures(pair_folders / "hr", seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(one[0].lr, same[0].lr)
    assert not np.array_equal(one[0].lr, other[0].lr)


def test_pictures_to_degrade_may_be_a_part_of_a_folder_and_reduced(tmp_path):
    for number in range(10):
        Image.fromarray(photo(80, 120, number)).save(tmp_path / f"{number}.png")
    held_out, others = (find_pictures(tmp_path, part=part, side=48) for part in ((0.8, 1.0), (0.0, 0.8)))
    assert [len(held_out), len(others), len(held_out.files.keys() | others.files.keys())] == [2, 8, 10]
    pair = next(iter(held_out))
    assert pair.hr is not None
    assert (pair.hr.shape, pair.lr.shape) == ((48, 72, 3), (12, 18, 3))
    whole = find_pictures(tmp_path, part=(0.8, 1.0))
    assert held_out.files == whole.files
    assert len({held_out.degradation, others.degradation, whole.degradation}) == 3  # so they are not put together
    for changed in ({"side": 48}, {"part": (0.8, 1.0)}):
        with pytest.raises(UsageError, match="leave them out"):
            find_pictures(tmp_path, tmp_path, **changed)


def test_a_crop_is_the_centre_of_both_pictures(pair_folders):
    whole = list(find_pictures(pair_folders / "hr", pair_folders / "lr"))
    parts = list(find_pictures(pair_folders / "hr", pair_folders / "lr", crop=32))
    for one, part in zip(whole, parts, strict=True):
        assert one.hr is not None
        assert part.hr is not None
        assert np.array_equal(part.lr, one.lr[6:14, 6:14])
        assert np.array_equal(part.hr, one.hr[24:56, 24:56])
    (degraded, *_) = find_pictures(pair_folders / "hr", crop=32)
    assert degraded.hr is not None
    assert parts[0].hr is not None
    assert np.array_equal(degraded.hr, parts[0].hr)
    assert degraded.lr.shape == (8, 8, 3)
    (alone, *_) = find_pictures(None, pair_folders / "lr", crop=32)
    assert np.array_equal(alone.lr, parts[0].lr)
    (small, *_) = find_pictures(None, pair_folders / "lr", crop=400)
    assert np.array_equal(small.lr, whole[0].lr)
