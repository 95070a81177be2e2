import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tddsr.cli import app
from tddsr.evaluation import protocol
from tddsr.evaluation.metrics import luma_y, psnr_y, ssim_y, to_8_bit
from tddsr.evaluation.niqe import fit, halve, niqe
from tests.conftest import photo


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def test_psnr_of_a_known_error():
    truth = torch.full((1, 3, 16, 16), 0.5)
    # A grey step of 1/255 is 219/255 of a step in studio-range Y.
    expected = -20 * math.log10(219 / 255 / 255)
    assert psnr_y(truth + 1 / 255, truth).item() == pytest.approx(expected, abs=0.01)


def test_y_is_studio_range():
    colours = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0, 1, 0]]).T[None, :, None]
    assert (luma_y(colours) * 255).flatten().tolist() == pytest.approx([16, 235, 144.553], abs=1e-3)


def test_equal_pictures_are_perfect():
    a = tensor(photo(32, 32))
    assert psnr_y(a, a).item() == math.inf
    assert ssim_y(a, a).item() == pytest.approx(1)


def test_ssim_equals_its_definition():
    """Wang et al. 2004, written out in float64 over the windows inside the picture."""
    a, b = luma_y(tensor(photo(40, 36))).double(), luma_y(tensor(photo(40, 36, noise=30))).double()
    line = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    window = (line[:, None] * line / line.sum() ** 2)[None, None]

    def mean(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(x, window)

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    expected = ((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean()
    ours = ssim_y(tensor(photo(40, 36)), tensor(photo(40, 36, noise=30)))
    assert ours.item() == pytest.approx(expected.item(), abs=1e-4)
    assert ours < 0.9


def test_8_bit_rounds_and_clamps():
    assert to_8_bit(torch.tensor([-1.0, 0.5, 2.0])).tolist() == pytest.approx([0, 128 / 255, 1])


def test_published_scores_of_bicubic_are_met(data, features):
    """Real pairs and real weights against scores that other code measured."""
    folder = data / "test" / "Val_SR_ImageNet"
    pairs = list(protocol.load_pairs(folder / "gt", folder / "lq", "resshift", 0))
    scorers = protocol.metrics(features, torch.device("cpu"))
    scores = protocol.means(list(protocol.evaluate({"bicubic": protocol.bicubic}, pairs, scorers, 1)))["bicubic"]
    assert scores["PSNR-Y"] == pytest.approx(24.11, abs=0.005)
    assert scores["SSIM-Y"] == pytest.approx(0.6267, abs=0.0002)
    assert scores["LPIPS-Alex"] == pytest.approx(0.6086, abs=0.0001)
    assert scores["LPIPS-VGG"] == pytest.approx(0.4799, abs=0.0001)
    assert scores["NIQE"] == pytest.approx(8.31, abs=0.005)


def test_niqe_of_photos_is_what_other_code_measured(data):
    pairs = protocol.load_alone(data / "test" / "Val_SR_ImageNet" / "gt")
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
    ours = halve(halve(torch.from_numpy(grey)).T).T.numpy()
    assert ours[2:-2, 2:-2] == pytest.approx(theirs[2:-2, 2:-2], abs=1e-3)
    assert halve(torch.ones(8, 8)).numpy() == pytest.approx(1)


@pytest.fixture
def pair_folders(tmp_path):
    for seed in range(2):
        for name, side in (("hr", 80), ("lr", 20)):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(photo(side, side, seed)).save(tmp_path / name / f"{seed}.png")
    return tmp_path


def test_pairs_without_partner_or_of_another_size_are_refused(pair_folders):
    hr, lr = pair_folders / "hr", pair_folders / "lr"
    assert [pair.name for pair in protocol.load_pairs(hr, lr, "resshift", 0)] == ["0.png", "1.png"]
    Image.fromarray(photo(21, 20)).save(lr / "1.png")
    with pytest.raises(protocol.PairError, match=r"1\.png is not a quarter"):
        list(protocol.load_pairs(hr, lr, "resshift", 0))
    (lr / "1.png").unlink()
    with pytest.raises(protocol.PairError, match="partner"):
        list(protocol.load_pairs(hr, lr, "resshift", 0))


def test_what_degrade_writes_is_what_eval_makes_and_finds(tmp_path):
    for name, seed in (("a.png", 0), ("sub/a.png", 1), ("sub/b[1].c.png", 2)):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(48, 48, seed)).save(tmp_path / "in" / name)
    result = CliRunner().invoke(app, ["degrade", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--seed", "5"])
    assert result.exit_code == 0
    written = list(protocol.load_pairs(tmp_path / "out" / "hr", tmp_path / "out" / "lr", "resshift", 0))
    made = list(protocol.load_pairs(tmp_path / "in", None, "resshift", 5))
    assert [pair.name for pair in written] == ["a.png", "sub/a.png", "sub/b[1].c.png"]
    for a, b in zip(written, made, strict=True):
        assert a.hr is not None
        assert b.hr is not None
        assert np.array_equal(a.hr, b.hr)
        assert np.array_equal(a.lr, b.lr)


def test_degraded_pairs_depend_on_the_seed_alone(pair_folders):
    one, same, other = (list(protocol.load_pairs(pair_folders / "hr", None, "resshift", seed)) for seed in (1, 1, 2))
    assert np.array_equal(one[0].lr, same[0].lr)
    assert not np.array_equal(one[0].lr, other[0].lr)


@pytest.mark.parametrize("spec", ["x@a", "x@4:odd", "@", "no-such-model"])
def test_methods_that_are_none_are_refused(spec):
    with pytest.raises(ValueError, match=r"no model|not MODEL"):
        protocol.method(spec)


def test_the_command_prints_a_table_and_its_protocol(pair_folders, features, tmp_path):
    out = tmp_path / "scores.json"
    result = CliRunner().invoke(app, [
        "eval", "bicubic", "--hr", str(pair_folders / "hr"), "--lr", str(pair_folders / "lr"),
        "--features", str(features), "--seeds", "1", "-o", str(out),
    ])  # fmt: skip
    assert result.exit_code == 0
    assert "| bicubic | " in result.stdout
    assert "2 pairs" in result.stdout
    content = json.loads(out.read_text())
    assert [line["picture"] for line in content["pictures"]] == ["0.png", "1.png"]
    mean = sum(line["PSNR-Y"] for line in content["pictures"]) / 2
    assert content["means"]["bicubic"]["PSNR-Y"] == pytest.approx(mean)
    assert "NIQE" not in content["means"]["bicubic"]  # 80x80 is too small for it
    assert "not defined for 2 of 2 outputs" in result.stdout
    assert result.stdout.splitlines()[2].endswith(" - |")


def test_the_command_scores_without_truth(tmp_path):
    (tmp_path / "lr" / "sub").mkdir(parents=True)
    Image.fromarray(photo(48, 60)).convert("L").save(tmp_path / "lr" / "grey.png")
    Image.fromarray(photo(50, 60, 1)).convert("RGBA").save(tmp_path / "lr" / "sub" / "clear.png")
    Image.fromarray(photo(20, 60)).save(tmp_path / "lr" / "tiny.png")
    out = tmp_path / "scores.json"
    result = CliRunner().invoke(app, ["eval", "bicubic", "--lr", str(tmp_path / "lr"), "-o", str(out)])
    assert result.exit_code == 0
    assert result.stdout.startswith("| method | NIQE |\n")
    assert "3 lr pictures (lr)" in result.stdout
    assert "lower is better, not defined for 1 of 3 outputs" in result.stdout
    content = json.loads(out.read_text())
    scores = {line["picture"]: line.get("NIQE") for line in content["pictures"]}
    assert scores.pop("tiny.png") is None
    assert sorted(scores) == ["grey.png", "sub/clear.png"]
    assert content["means"]["bicubic"] == {"NIQE": pytest.approx(sum(scores.values()) / 2)}


def test_a_crop_is_the_centre_of_both_pictures(pair_folders):
    whole = list(protocol.load_pairs(pair_folders / "hr", pair_folders / "lr", "resshift", 0))
    parts = list(protocol.load_pairs(pair_folders / "hr", pair_folders / "lr", "resshift", 0, crop=32))
    for one, part in zip(whole, parts, strict=True):
        assert one.hr is not None
        assert part.hr is not None
        assert np.array_equal(part.lr, one.lr[6:14, 6:14])
        assert np.array_equal(part.hr, one.hr[24:56, 24:56])
    (degraded, *_) = protocol.load_pairs(pair_folders / "hr", None, "resshift", 0, crop=32)
    assert degraded.hr is not None
    assert parts[0].hr is not None
    assert np.array_equal(degraded.hr, parts[0].hr)
    assert degraded.lr.shape == (8, 8, 3)
    (alone, *_) = protocol.load_alone(pair_folders / "lr", crop=32)
    assert np.array_equal(alone.lr, parts[0].lr)
    (small, *_) = protocol.load_alone(pair_folders / "lr", crop=400)
    assert np.array_equal(small.lr, whole[0].lr)
