import pytest
import torch
import torch.nn.functional as F

from tddsr.networks.discriminator import (
    Discriminator,
    DiscriminatorConfig,
    GroupedBatchNorm,
    PixelDiscriminator,
    PixelDiscriminatorConfig,
)
from tddsr.networks.features import ConvFeatures
from tddsr.networks.layers import FeatureNetwork
from tddsr.training import losses


class TokenFeatures(FeatureNetwork):
    """Patches of 16x16 as tokens, as a transformer's: two levels of 8 channels."""

    channels = (8, 8)
    tokens = True

    def __init__(self):
        super().__init__()
        self.patch = torch.nn.Conv2d(3, 8, 16, stride=16)
        self.settle()

    def forward(self, image):
        level = self.patch(image).flatten(2)
        return [level, level.square()]


@pytest.fixture(scope="module", params=["maps", "tokens"])
def features(request):
    torch.manual_seed(0)
    return ConvFeatures("alexnet") if request.param == "maps" else TokenFeatures()


def make(features, **options):
    torch.manual_seed(1)
    return Discriminator(DiscriminatorConfig(size=64, **options), features)


def picture(batch=2, height=64, width=64, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def judge(network, image, seed=0):
    return network(image, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("batch", [1, 2, 7, 8, 9, 64])
def test_any_batch_size(features, batch):
    logits = judge(make(features), picture(batch))
    assert len(logits) == len(features.channels)
    assert all(head.shape[0] == batch and head.isfinite().all() for head in logits)


@pytest.mark.parametrize("size", [(16, 16), (24, 40), (64, 64), (100, 72)])
def test_any_picture_size(features, size):
    assert all(head.isfinite().all() for head in judge(make(features), picture(2, *size)))


def test_the_generator_alone_decides_the_view(features):
    network, image = make(features).eval(), picture()
    first, again, other = (judge(network, image, seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    plain = make(features, augment=()).eval()
    assert torch.equal(judge(plain, image, 3)[0], judge(plain, image, 4)[0])


@pytest.mark.parametrize("name", ["translation", "cutout"])
def test_augmentations_change_pictures_and_let_gradients_through(features, name):
    network = make(features, augment=(name,))
    image = picture().requires_grad_()
    view = network._view(image, torch.Generator().manual_seed(0))
    assert view.shape == image.shape
    assert not torch.equal(view, image)
    view.square().sum().backward()
    assert image.grad is not None
    assert (image.grad != 0).float().mean() > 0.5


def test_colour_is_seen_by_default(features):
    """A shift of colours survives the default augmentations: it must not be hidden from the discriminator."""
    network = make(features)
    flat = torch.full((2, 3, 64, 64), 0.5)
    view = network._view(flat, torch.Generator().manual_seed(0))
    assert set(view.unique().tolist()) <= {0.0, 0.5}


def test_frozen_features_are_shared_and_belong_to_nobody(features):
    one, two = make(features), make(features)
    assert one.features is two.features
    assert not any(name.startswith("features") for name in one.state_dict())
    assert all(name.startswith("heads") for name, _ in one.named_parameters())
    torch.stack([head.mean() for head in judge(one, picture())]).sum().backward()
    assert all(p.grad is None for p in features.parameters())
    assert all(p.grad is not None for p in one.parameters())


def test_features_may_be_trained_with_the_heads():
    network = make(TokenFeatures().settle(trainable=True), train_features=True)
    torch.stack([head.mean() for head in judge(network, picture())]).sum().backward()
    assert any(name.startswith("features") for name in network.state_dict())
    assert all(p.grad is not None for p in network.parameters())


def test_grouped_batch_norm_normalises_groups_of_at_most_eight():
    x = torch.randn(20, 5, 11, generator=torch.Generator().manual_seed(0)) * 3 + 2
    y = GroupedBatchNorm(5)(x)
    for group in y.split([7, 7, 6]):
        torch.testing.assert_close(group.mean(dim=(0, 2)), torch.zeros(5), atol=1e-5, rtol=0)
        torch.testing.assert_close(group.std(dim=(0, 2), correction=0), torch.ones(5), atol=1e-4, rtol=0)


def test_every_convolution_is_of_spectral_norm_one(features):
    network = make(features, augment=())
    for seed in range(20):  # the power iteration settles
        judge(network, picture(seed=seed))
    layers = [
        m
        for m in network.modules()
        if isinstance(m, torch.nn.Conv1d | torch.nn.Conv2d) and hasattr(m, "parametrizations")
    ]
    assert len(layers) == 3 * len(features.channels)
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


def test_it_learns_to_tell_two_kinds_apart(features):
    network = make(features)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2, betas=(0.0, 0.99))
    generator = torch.Generator().manual_seed(0)
    for seed in range(60 if features.tokens else 15):
        sharp = picture(4, seed=seed)
        smooth = torch.nn.functional.avg_pool2d(sharp, 5, 1, 2)
        real, fake = network(sharp, generator), network(smooth, generator)
        loss = torch.stack(
            [(1 - a).relu().mean() + (1 + b).relu().mean() for a, b in zip(real, fake, strict=True)]
        ).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    gap = torch.stack([a.mean() - b.mean() for a, b in zip(real, fake, strict=True)]).mean()
    assert gap > 0.3


@pytest.mark.parametrize(("block", "size"), [(1, (8, 8)), (1, (10, 14)), (1, (33, 64)), (2, (20, 28))])
def test_a_discriminator_of_pixels_judges_each(block, size):
    network = PixelDiscriminator(PixelDiscriminatorConfig(kind="pixels", channels=4, block=block))
    picture = torch.rand(2, 3, *size, requires_grad=True)
    (logits,) = network(picture, torch.Generator())
    assert logits.shape == (2, size[0] * size[1] / block**2)
    (slope,) = torch.autograd.grad(logits[0].sum(), picture)
    assert slope[0].abs().sum(dim=0).gt(0).all()  # every pixel counts
    assert not slope[1].any()  # and no other picture's


@pytest.mark.parametrize("block", [1, 2])
def test_a_discriminator_of_pixels_learns_to_tell_noise(block):
    torch.manual_seed(0)
    network = PixelDiscriminator(PixelDiscriminatorConfig(kind="pixels", channels=8, block=block))
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    smooth = torch.rand(4, 3, 4, 4, generator=generator)
    real = F.interpolate(smooth, (32, 32), mode="bilinear")
    made = real + 0.1 * torch.randn(real.shape, generator=generator)
    for _ in range(60):
        loss = losses.discriminator("bce", network(real, generator), network(made, generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (network(real, generator)[0] > 0).float().mean() > 0.9
    assert (network(made, generator)[0] < 0).float().mean() > 0.9
