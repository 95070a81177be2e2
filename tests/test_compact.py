import pytest
import torch
from pydantic import ValidationError

from tddsr.model import Model, ModelConfig, NetworkConfig
from tddsr.networks import compact
from tddsr.networks.compact import CompactConfig
from tddsr.networks.layers import bicubic_x4
from tddsr.networks.space import SpaceToDepth
from tddsr.training.load import load_recipe
from tests.conftest import SMALL, small_model, small_rrdb


def test_space_to_depth_is_inverted_exactly_and_keeps_blocks_together():
    image = torch.rand(2, 3, 16, 24)
    space = SpaceToDepth()
    latent = space.encode(image)
    assert latent.shape == (2, 48, 4, 6)
    assert torch.equal(space.decode(latent), image)
    assert set(latent[0, :, 1, 2].tolist()) == set(image[0, :, 4:8, 8:12].flatten().tolist())


@pytest.mark.parametrize("tail", [0, 4])
def test_an_untrained_network_is_the_bicubic_enlargement(tail):
    model = Model(ModelConfig(role="student", network=CompactConfig(tail=tail)))
    lr = torch.rand(1, 3, 16, 20) * 2 - 1
    hr = model.sample(lr, torch.randn(1, 48, 16, 20))
    torch.testing.assert_close(hr, bicubic_x4(lr))


def reaching_less() -> Model:
    """Its halo is less than what its layers see."""
    model = Model(ModelConfig(role="student", network=SMALL.model_copy(update={"reach": 7})))
    model.load_state_dict(small_model().state_dict())
    return model


def recipe_network(name: str) -> NetworkConfig:
    recipe = load_recipe(name)
    network = recipe.network if recipe.model is None else recipe.model.network
    assert network is not None
    return network


@pytest.mark.parametrize("name", ["compact-teacher", None])
def test_nothing_beyond_the_halo_matters(name):
    """The receptive field, by gradients: at every offset to the grid of the coarsest level, it ends within the halo."""
    if name is not None:
        model = Model(ModelConfig(role="student", network=recipe_network(name)))
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(torch.full_like(weight, 0.5 / weight[0].numel()))  # no path is zero, none cancels another
    else:
        model = small_model()
    halo, multiple = model.halo(1), model.multiple
    assert halo is not None
    side = 2 * (halo + multiple) + multiple
    side += -side % multiple
    centre = side // 2 // multiple * multiple
    for offset in range(multiple):
        lr = torch.zeros(1, 3, side, side, requires_grad=True)
        eps = torch.zeros(1, 48, side, side, requires_grad=True)
        hr = model.sample(lr, eps)
        at = 4 * (centre + offset)
        hr[..., at : at + 4, at : at + 4].sum().backward()
        for source in (lr, eps):
            assert source.grad is not None
            rows = source.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten() - (centre + offset)
            assert rows.min() >= -halo
            assert rows.max() <= halo


@pytest.mark.parametrize("margins", [(0, 0, 0, 0), (4, 0, 20, 0), (0, 12, 0, 40), (44, 36, 8, 4)])
@pytest.mark.parametrize("make", [
    small_model, lambda: small_model("teacher"), small_rrdb, lambda: small_rrdb(blocks=1, tail_scale=1), reaching_less,
], ids=["compact", "many steps", "rrdb", "small tail", "measured"])  # fmt: skip
def test_margins_are_seen_and_left_out(make, margins):
    model = make()
    steps = model.default_steps
    lr, eps = torch.rand(2, 3, 64, 72) * 2 - 1, torch.randn(2, 48, 64, 72)
    whole = model.sample(lr, eps, steps)
    top, left, bottom, right = (4 * margin for margin in margins)
    expected = whole[..., top : whole.shape[2] - bottom, left : whole.shape[3] - right]
    torch.testing.assert_close(model.sample(lr, eps, steps, margins=margins), expected, atol=1e-5, rtol=1e-5)


def test_late_layers_are_spared_what_they_do_not_see():
    network, sizes = small_model().network, []
    network.get_submodule("head").register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[2:]))
    network(torch.zeros(1, 48, 64, 64), torch.tensor([3]), torch.zeros(1, 3, 64, 64), (20, 0, 0, 4))
    assert sizes == [(64 - 20 + 2, 64 - 4 + 2)]


def test_more_steps_need_a_wider_halo(teacher):
    assert teacher.halo(4) - teacher.halo(3) == teacher.halo(2) - teacher.halo(1) == teacher.network.halo


def test_without_features_the_tail_treats_all_pixels_of_a_block_alike():
    tail = small_model().network.get_submodule("tail")
    for weight in tail.get_submodule("spread").parameters():
        torch.nn.init.zeros_(weight)
    picture = torch.rand(1, 3, 24, 24)
    space = SpaceToDepth()

    def change(picture):
        return space.decode(tail(torch.zeros(1, 8, 6, 6), space.encode(picture))) - picture

    moved = change(picture.roll((1, 2), dims=(2, 3)))
    inner = slice(4, 20)
    torch.testing.assert_close(moved[..., inner, inner], change(picture).roll((1, 2), dims=(2, 3))[..., inner, inner])
    assert moved.abs().max() > 0.01


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_the_tail_in_bands_is_the_tail_of_the_whole(monkeypatch, rows):
    tail = small_model().network.get_submodule("tail")
    mix = tail.get_submodule("mix")
    assert isinstance(mix, torch.nn.Conv2d)
    features, x_0 = torch.randn(2, 8, 13, 5), torch.randn(2, 48, 13, 5)
    whole = tail(features, x_0)
    assert (whole - x_0).abs().amax(dim=(0, 1, 3)).min() > 0.01  # it changes every row
    monkeypatch.setattr(compact, "BAND_BYTES", rows * features.shape[0] * mix.in_channels * 16 * 5 * 4)
    heights: list[int] = []
    mix.register_forward_pre_hook(lambda _, inputs: heights.append(inputs[0].shape[2]))
    with torch.no_grad():
        torch.testing.assert_close(tail(features, x_0), whole)
    assert max(heights) <= 4 * (rows + 2)


def test_sizes_that_do_not_fit_are_refused(student):
    with pytest.raises(ValueError, match="15x16"):
        student.sample(torch.zeros(1, 3, 15, 16), torch.zeros(1, 48, 15, 16))


def test_block_counts_must_match_the_levels():
    with pytest.raises(ValidationError, match="decoder_blocks"):
        CompactConfig(widths=(8, 8), encoder_blocks=(1,), decoder_blocks=(1, 1))


def test_a_student_takes_one_step_only(student, teacher):
    with pytest.raises(ValueError, match="teacher"):
        student.check_steps(2)
    with pytest.raises(ValueError, match="1 to 4"):
        teacher.check_steps(5)


def test_the_noise_and_the_step_matter(teacher):
    lr = torch.rand(1, 3, 8, 8)
    a, b = (torch.randn(1, 48, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2))
    one = teacher.sample(lr, a)
    assert not torch.allclose(one, teacher.sample(lr, b))
    assert not torch.allclose(one, teacher.sample(lr, a, steps=2))
    assert torch.equal(one, teacher.sample(lr, a))
