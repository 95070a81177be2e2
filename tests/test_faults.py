"""Each fault is measured on pictures made to have it, and to lack it."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tddsr import rng
from tddsr.metrics.faults import blocks, grain, pattern, ringing, specks, tint
from tests.conftest import photo


def scene(side=256, seed=0):
    return torch.from_numpy(photo(side, side, seed, noise=0)).permute(2, 0, 1)[None].float() / 255


def enlarged(small):
    return F.interpolate(small, scale_factor=4, mode="bicubic").clamp(0, 1)


def compressed(image, quality):
    pixels = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None].float() / 255


def test_jpegs_blocks_show_where_the_small_picture_was_compressed():
    small = F.avg_pool2d(scene(512), 4)
    clean, bad, worse = (float(blocks(enlarged(s))) for s in (small, compressed(small, 30), compressed(small, 8)))
    assert abs(clean) < 0.05
    assert worse > bad > clean + 0.1
    assert float(blocks(enlarged(F.pad(compressed(small, 8), (3, 0, 3, 0), mode="replicate")))) < 0.05  # another grid
    assert torch.isnan(blocks(torch.rand(1, 3, 24, 24)))
    assert torch.isnan(blocks(torch.full((1, 3, 128, 128), 0.5)))
    assert torch.isnan(pattern(torch.rand(1, 3, 40, 40), 16))
    both = torch.cat([enlarged(small), enlarged(compressed(small, 8))])
    torch.testing.assert_close(blocks(both), torch.tensor([clean, worse]))


@pytest.mark.parametrize("period", [2, 4, 8, 16])
def test_a_pattern_is_measured_at_its_strength(period):
    repeated = torch.randn(1, 3, period, period, generator=rng.generator(period))
    repeated -= repeated.mean(dim=(2, 3), keepdim=True)
    woven = 0.5 + 2 / 255 * repeated.repeat(1, 1, 128 // period, 128 // period)
    strength = float((2 * repeated.std(dim=(2, 3), correction=0)).mean())
    assert float(pattern(woven, period)) == pytest.approx(strength, rel=0.02)
    assert float(pattern(torch.full((1, 3, 128, 128), 0.5), period)) == pytest.approx(0, abs=1e-3)
    other = {2: 3, 4: 7, 8: 7, 16: 7}[period]  # a pattern of another period averages out
    stripes = (torch.arange(126) % other == 0).float().expand(1, 3, 126, -1) * 4 / 255 + 0.5
    assert float(pattern(stripes, period)) < 0.3


def test_grain_is_that_of_flat_places():
    ramp = torch.linspace(0.2, 0.8, 256).expand(1, 3, 256, -1)
    assert float(grain(ramp)) < 0.01
    half = ramp.clone()
    half[..., :128, :] = torch.rand(1, 3, 128, 256, generator=rng.generator(0))  # texture elsewhere does not count
    assert float(grain(half)) < 0.01
    noise = torch.randn(1, 1, 256, 256, generator=rng.generator(1)).expand(-1, 3, -1, -1)
    assert float(grain(ramp + 3 / 255 * noise)) == pytest.approx(3, rel=0.1)
    assert torch.isnan(grain(torch.ones(1, 3, 64, 64)))
    torch.testing.assert_close(grain(torch.cat([ramp, half])), torch.cat([grain(ramp), grain(half)]))


def test_ringing_is_what_overshoots_beside_hard_edges():
    truth = torch.zeros(1, 3, 64, 64)
    truth[..., 32:] = 0.8
    soft = F.avg_pool2d(F.pad(truth, (4, 4, 4, 4), mode="replicate"), 9, stride=1)
    ringed = truth.clone()
    ringed[..., 33] += 0.1
    assert float(ringing(truth, truth)) == float(ringing(soft, truth)) == 0
    assert float(ringing(ringed, truth)) == pytest.approx(0.1 * 255 / 12, rel=0.01)  # one of the twelve beside the edge
    assert torch.isnan(ringing(soft, torch.full((1, 3, 64, 64), 0.5)))


def test_specks_are_dots_and_neither_lines_nor_edges():
    lined = torch.full((1, 3, 100, 100), 0.3)
    lined[..., 50:, :] = 0.9
    lined[..., 20] = 0.8
    lined[..., torch.arange(100), torch.arange(100)] = 1.0
    lined[..., 30:32, 60:70] = 0.0
    assert float(specks(lined)) == 0
    dotted = torch.full((1, 3, 100, 100), 0.3)
    dotted[..., 10:90:20, 10:90:20] = 0.7
    dotted[..., 20, 20:22] = 0.7  # of two pixels
    dotted[..., 0, 5] = 0.4  # not by enough
    assert float(specks(dotted)) == 18
    torch.testing.assert_close(specks(torch.cat([lined, dotted])), torch.tensor([0.0, 18.0]).double())


def test_a_tint_is_how_far_the_colours_went():
    truth = scene()
    shifted = truth.clone()
    shifted[:, 0] += 6 / 255
    assert float(tint(shifted, truth)) == pytest.approx(2, rel=0.01)  # of one colour in three
    fine = truth + (torch.arange(256) % 2 * 2 - 1) * 6 / 255
    assert float(tint(fine, truth)) < 0.01
