import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tddsr.networks.autoencoder import VQAutoencoder, VQConfig
from tddsr.networks.layers import bicubic_x4
from tests.derived import SMALL_VQ, assert_near, decode_unquantised, derive, golden, official_shapes, shapes

GOLDEN = golden("small")


@pytest.fixture(scope="module")
def space() -> VQAutoencoder:
    space = VQAutoencoder(SMALL_VQ)
    derive(space, "vq")
    return space


def official_codes(space: VQAutoencoder, expected: dict[str, Tensor]) -> Tensor:
    """The latent that the official autoencoder decodes."""
    chosen = space.quantize.embedding.weight[expected["code_indices"].long()]
    return chosen.view(1, 64, 64, 3).permute(0, 3, 1, 2).contiguous()


def test_full_size_names_and_shapes_are_the_official_ones():
    with torch.device("meta"):
        space = VQAutoencoder()
    assert shapes(space) == official_shapes("autoencoder")
    assert sum(p.numel() for p in space.parameters()) == 55_322_782


def test_encode_equals_the_official_one(space):
    assert_near(space.encode(bicubic_x4(GOLDEN["lr"])), GOLDEN["y_latent"])


def test_decode_without_quantisation_equals_the_official_one(space):
    assert_near(decode_unquantised(space, GOLDEN["y_latent"]), GOLDEN["decoded_without_quantisation"])


def test_codes_and_decode_equal_the_official_ones(space):
    assert (space.codes(GOLDEN["y_latent"]).flatten() != GOLDEN["code_indices"]).sum() <= 2  # near ties
    assert_near(space.decode(official_codes(space, GOLDEN)), GOLDEN["decoded"])


def test_codes_are_the_nearest(space, monkeypatch):
    monkeypatch.setattr("tddsr.networks.autoencoder._ROWS", 7)  # parts, the last one smaller
    latent = torch.randn(2, 3, 5, 6)
    distances = torch.cdist(latent.permute(0, 2, 3, 1).reshape(-1, 3), space.quantize.embedding.weight)
    assert torch.equal(space.codes(latent), distances.argmin(dim=1).view(2, 5, 6))


def test_codes_are_compared_in_float32_under_autocast_too(space):
    latent = torch.randn(1, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        codes = space.codes(latent)
    assert torch.equal(codes, space.codes(latent))


def test_quantisation_gives_codes_exactly_and_lets_gradients_through(space):
    latent = torch.randn(1, 3, 4, 4, requires_grad=True)
    quantised = space.quantise(latent)
    assert torch.equal(quantised.permute(0, 2, 3, 1), space.quantize.embedding.weight[space.codes(latent)])
    weight = torch.randn_like(quantised)
    (quantised * weight).sum().backward()
    assert latent.grad is not None
    assert torch.equal(latent.grad, weight)


def test_quantising_twice_changes_nothing(space):
    once = space.quantise(torch.randn(1, 3, 8, 8))
    assert torch.equal(space.quantise(once), once)


def test_pictures_of_any_size_and_number(space):
    assert (space.factor, space.channels, space.halo) == (4, 3, None)
    images = torch.rand(2, 3, 24, 40) * 2 - 1
    latent = space.encode(images)
    assert latent.shape == (2, 3, 6, 10)
    assert_near(latent[1:], space.encode(images[1:]))
    assert space.decode(latent).shape == images.shape


def test_sizes_that_do_not_fit_are_refused(space):
    with pytest.raises(ValueError, match="24x30"):
        space.encode(torch.zeros(1, 3, 24, 30))


def test_channels_last_gives_the_same(space):
    image = torch.rand(1, 3, 32, 48) * 2 - 1
    latent, picture = space.encode(image), decode_unquantised(space, space.encode(image))
    image = image.contiguous(memory_format=torch.channels_last)
    try:
        space.to(memory_format=torch.channels_last)
        assert_near(space.encode(image), latent)
        assert_near(decode_unquantised(space, latent), picture)
    finally:
        space.to(memory_format=torch.contiguous_format)


def test_every_weight_takes_part():
    space = VQAutoencoder(SMALL_VQ)
    space.decode(space.encode(torch.rand(1, 3, 16, 16))).sum().backward()
    unused = {name for name, p in space.named_parameters() if p.grad is None or not p.grad.any()}
    # A bias before a softmax over keys shifts all logits of a query alike; codes are learnt by a loss of their own.
    assert unused - {"encoder.mid.attn_1.k.bias", "decoder.mid.attn_1.k.bias"} == {"quantize.embedding.weight"}


@pytest.mark.parametrize("settings", [{"width": 48}, {"multiples": ()}, {"blocks": 0}, {"depth": 1}])
def test_impossible_configurations_are_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        VQConfig(**settings)


@pytest.mark.slow
def test_full_size_equals_the_official_one():
    expected = golden("paper")
    space = VQAutoencoder()
    derive(space, "vq")
    with torch.inference_mode():
        assert_near(space.encode(bicubic_x4(expected["lr"])), expected["y_latent"], 1e-3)
        latent = expected["y_latent"]
        without = decode_unquantised(space, latent)[..., ::4, ::4]
        assert_near(without, expected["decoded_without_quantisation"], 1e-3)
        assert (space.codes(latent).flatten() != expected["code_indices"]).sum() <= 4
        assert_near(space.decode(official_codes(space, expected))[..., ::4, ::4], expected["decoded"], 1e-3)
