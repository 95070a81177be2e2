import weakref
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tddsr.networks import bands
from tddsr.networks.autoencoder import VQAutoencoder
from tddsr.networks.bands import Stored, Upsampled
from tddsr.networks.layers import conv3, norm
from tests.derived import SMALL_VQ, assert_near, decode_unquantised, derive

ROW = 4 * 32 * 40
"""Bytes of the finest map's row in a picture 40 wide."""


@pytest.fixture
def space() -> VQAutoencoder:
    space = VQAutoencoder(SMALL_VQ)
    derive(space, "vq")
    return space


def plain(space: VQAutoencoder, image: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
    return space.quant_conv(space.encoder(image)), space.decoder(space.post_quant_conv(latent))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("band_bytes", [1, 3 * ROW, 7 * ROW, bands.BYTES])
def test_bands_change_nothing(space, band_bytes, channels_last):
    """One row a band; three and seven, which do not divide the heights; one band."""
    torch.manual_seed(0)
    image, latent = torch.rand(2, 3, 52, 40) * 2 - 1, torch.randn(2, 3, 13, 10)
    expected = plain(space, image, latent)
    if channels_last:
        space.to(memory_format=torch.channels_last)
    space.band_bytes = band_bytes
    before = image.clone()
    with torch.no_grad():
        assert_near(space.encode(image), expected[0], 2e-5)
        assert_near(decode_unquantised(space, latent), expected[1], 2e-5)
    assert torch.equal(image, before)


def test_a_picture_of_a_batch_is_as_if_alone(space):
    latent = torch.randn(3, 3, 4, 5)
    with torch.no_grad():
        assert_near(space.decode(latent)[1:2], space.decode(latent[1:2]), 2e-5)


def test_half_precision_is_as_near_as_without_bands(space):
    torch.manual_seed(0)
    image, latent = torch.rand(1, 3, 32, 40) * 2 - 1, torch.randn(1, 3, 8, 10)
    exact = plain(space, image, latent)
    space.bfloat16().band_bytes = 3 * ROW
    with torch.no_grad():
        whole = plain(space, image.bfloat16(), latent.bfloat16())
        banded = space.encode(image.bfloat16()), decode_unquantised(space, latent.bfloat16())
    for a, b, c in zip(banded, whole, exact, strict=True):
        assert a.dtype == torch.bfloat16
        assert (a - c).square().mean() < 1.5 * (b - c).square().mean()


def test_gradients_flow_where_they_are_wanted(space):
    latent = torch.randn(1, 3, 4, 4, requires_grad=True)
    space.band_bytes = 1
    space.decode(latent).sum().backward()
    assert latent.grad is not None
    assert latent.grad.any()


@pytest.mark.parametrize("kept", [0, 1000])
def test_an_upsampled_map_is_the_convolution_of_the_enlargement(kept, monkeypatch):
    monkeypatch.setattr(bands, "KEPT", kept)
    small, conv = torch.randn(1, 32, 5, 6), conv3(32, 64)
    expected = conv(F.interpolate(small, scale_factor=2))
    with torch.no_grad():
        up = Upsampled(Stored(small, 3 * 4 * 64 * 12), conv).kept()
        assert isinstance(up, Stored) == bool(kept)
        for top in range(10):
            for bottom in range(top + 1, 11):
                assert_near(up.rows(top, bottom), expected[:, :, top:bottom], 1e-5)


def test_norms_keep_their_precision_far_from_zero():
    """E[x^2] - E[x]^2 in float32 would lose all of the variance here."""
    x = torch.randn(1, 64, 23, 17) + 3000
    group_norm = norm(64)
    stored = Stored(x.clone(), 0)
    for top in range(0, 23, 4):
        stored.gather(x[:, :, top : top + 4])
    with torch.no_grad():
        scale, shift = (part.double() for part in stored.affine(group_norm))
        expected = group_norm.double()(x.double())
        # The shift has float32's rounding of 3000 in units of x.
        assert_near(scale * x.double() + shift, expected, 3000 * 2**-22)


class _Live(TorchDispatchMode):
    """Counts the bytes of tensors that operations made and that are still alive; ``peak`` is the largest sum."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()  # addresses; of what operations were given, too, as weights and their views

    def _free(self, address: int, size: int) -> None:
        self.live -= size
        self._known.discard(address)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self._known.update(storage._cdata for storage in _storages((args, kwargs)))
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage._cdata not in self._known:
                size = storage.nbytes()
                self._known.add(storage._cdata)
                weakref.finalize(storage, self._free, storage._cdata, size)
                self.live += size
                self.peak = max(self.peak, self.live)
        return result


def _storages(values: object) -> Iterator[torch.UntypedStorage]:
    for value in tree_leaves(values):
        if isinstance(value, Tensor):
            yield value.untyped_storage()


def peak(space: VQAutoencoder, side: int, banded: bool) -> float:
    """In finest maps, beyond the weights."""
    latent = torch.randn(1, 3, side, side)
    with torch.no_grad(), _Live() as live:
        if banded:
            decode_unquantised(space, latent)
        else:
            space.decoder(latent)
    return float(live.peak / (4 * 32 * (4 * side) ** 2))


def test_memory_is_for_about_two_maps(space):
    """At the decoder's finest level: the map to be upsampled, half of a finest map, and two finest maps."""
    space.band_bytes = 4 * 32 * 128  # a row
    assert 2.5 < peak(space, 32, banded=True) < 3
    assert peak(space, 32, banded=False) > 6
