import pytest
import torch
import torch.nn.functional as F

from tddsr.errors import ModelError
from tddsr.model import Model, ModelConfig, ScheduleConfig, begin, multiply_adds_per_lr_pixel
from tddsr.networks import rrdb
from tddsr.networks.rrdb import OURS, RRDBConfig, RRDBNet, shrink
from tddsr.weights.recognise import published, read_published
from tests.conftest import small_rrdb


def lr_of(height, width, seed=0):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def changed(config, **values):
    return config.model_copy(update=values)


def size_of(model) -> RRDBConfig:
    assert isinstance(model.config.network, RRDBConfig)
    return model.config.network


def noise(lr):
    return torch.randn(1, 48, *lr.shape[-2:], generator=torch.Generator().manual_seed(1))


def plain(weights, lr, blocks):
    """The published network, step by step from its description."""

    def conv(name, x):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    first = x = conv("conv_first", lr / 2 + 0.5)
    for block in range(blocks):
        inner = x
        for dense in (1, 2, 3):
            maps = [inner]
            for i in (1, 2, 3, 4):
                maps.append(F.leaky_relu(conv(f"body.{block}.rdb{dense}.conv{i}", torch.cat(maps, 1)), 0.2))
            inner = inner + 0.2 * conv(f"body.{block}.rdb{dense}.conv5", torch.cat(maps, 1))
        x = x + 0.2 * inner
    x = first + conv("conv_body", x)
    for name in ("conv_up1", "conv_up2"):
        x = F.leaky_relu(conv(name, F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
    return conv("conv_last", F.leaky_relu(conv("conv_hr", x), 0.2)) * 2 - 1


def test_it_computes_what_is_published():
    model, lr = small_rrdb(), lr_of(9, 14)
    expected = plain(model.network.state_dict(), lr, size_of(model).blocks)
    torch.testing.assert_close(model.sample(lr, noise(lr)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tail", [1, 2, 4])
@pytest.mark.parametrize("side", [1, 3, 5, 40])
def test_parts_of_the_tail_are_the_whole(tail, side, monkeypatch):
    model, lr = small_rrdb(blocks=1, tail_scale=tail), lr_of(13, 7)
    whole = model.sample(lr, noise(lr))
    monkeypatch.setattr(rrdb, "PART_BYTES", side**2 * tail**2 * 12 * 4)
    with torch.no_grad():
        torch.testing.assert_close(model.sample(lr, noise(lr)), whole, atol=1e-6, rtol=1e-5)


def test_its_own_size_is_that_of_real_esrgan():
    model = Model(ModelConfig(role="teacher", network=RRDBConfig(kind="rrdb"), schedule=ScheduleConfig(steps=1)))
    added = sum(model.network.state_dict()[key].numel() for key in OURS)
    assert model.parameter_count() - added == 16_697_987  # of RealESRGAN_x4plus.pth
    assert multiply_adds_per_lr_pixel(model) / 1e6 == pytest.approx(17.93, abs=0.01)


@pytest.mark.parametrize("tail", [1, 2, 4])
def test_the_halo_is_as_far_as_it_sees(tail):
    model = small_rrdb(blocks=1, tail_scale=tail)
    halo, lr = model.halo(1), lr_of(61, 61).requires_grad_()
    assert halo is not None
    picture = model.sample(lr, noise(lr))
    seen = 0
    for corner in (slice(120, 121), slice(123, 124)):  # of the block in the middle
        (slope,) = torch.autograd.grad(picture[..., corner, corner].sum(), lr, retain_graph=True)
        rows = slope.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
        seen = max(seen, 30 - int(rows.min()), int(rows.max()) - 30)
    assert seen <= halo <= seen + 2


def test_a_measured_reach_is_the_margin_of_tiles():
    def halo(reach: int | None) -> int | None:
        return Model(ModelConfig(role="student", network=RRDBConfig(kind="rrdb", blocks=6, reach=reach))).halo(1)

    assert halo(48) == 48 + 2  # of the bicubic enlargement
    assert halo(1000) == halo(None) == 96


def test_noise_and_time_change_nothing_until_they_are_trained():
    model, lr = small_rrdb(), lr_of(8, 8)
    assert torch.equal(model.sample(lr, noise(lr)), model.sample(lr, 5 * noise(lr)))
    with torch.no_grad():
        model.network.state_dict()[OURS[0]].normal_()
    assert not torch.equal(model.sample(lr, noise(lr)), model.sample(lr, 5 * noise(lr)))


def test_a_network_that_ignores_its_noise_needs_none():
    model, lr = small_rrdb(), lr_of(9, 12)
    torch.testing.assert_close(model.sample(lr, None), model.sample(lr, noise(lr)))


def test_taking_nothing_out_changes_nothing():
    model, lr = small_rrdb(), lr_of(8, 8)
    same = begin(model, model.config.model_copy(update={"role": "student"}))
    assert torch.equal(same.place("cpu").frozen().sample(lr, noise(lr)), model.sample(lr, noise(lr)))


def test_what_is_taken_out_is_what_does_least():
    """Channels without weights, and blocks between the first and the last, go first."""
    model, lr = small_rrdb(), lr_of(8, 8)
    weights, whole = model.network.state_dict(), size_of(model)
    for key, weight in weights.items():
        if key.startswith("body.") and key.endswith("weight"):
            weight[:, 3] = 0  # of the features
            weight[:, 12 + 2 :: 6] = 0  # of what each convolution adds
        if key.startswith("body.") and "conv5" in key:
            weight[3] = 0
        if key in ("conv_body.weight", "conv_up1.weight"):
            weight[:, 3] = 0
        for name, place in (("conv_up2", 5), ("conv_hr", 2), ("conv_last", 9)):  # of what the one before gives
            if key == f"{name}.weight":
                weight[:, place] = 0
    part = changed(whole, features=11, growth=5, tail_features=11)
    small = begin(model, changed(model.config, network=part)).place("cpu").frozen()
    torch.testing.assert_close(small.sample(lr, noise(lr)), model.sample(lr, noise(lr)), atol=1e-5, rtol=1e-5)
    fewer = shrink(weights, whole, changed(whole, blocks=2))
    assert torch.equal(fewer["body.1.rdb2.conv3.weight"], weights["body.2.rdb2.conv3.weight"])


def test_blocks_can_be_named_and_do_what_the_whole_does_without_the_others():
    model, lr = small_rrdb(), lr_of(8, 8)
    fewer = changed(model.config, network=changed(size_of(model), blocks=2))
    kept = begin(model, fewer, keep_blocks=[1, 2]).place("cpu").frozen()
    assert isinstance(model.network, RRDBNet)
    model.network.body[0].register_forward_hook(lambda _block, _given, made: torch.zeros_like(made))
    torch.testing.assert_close(kept.sample(lr, noise(lr)), model.sample(lr, noise(lr)))


@pytest.mark.parametrize("keep", [[0], [0, 3], [2, 1], [1, 1], [-1, 0]])
def test_blocks_that_are_not_there_cannot_be_kept(keep):
    model = small_rrdb()
    with pytest.raises(ValueError, match="it must be 2 of the numbers 0 to 2, in order"):
        begin(model, changed(model.config, network=changed(size_of(model), blocks=2)), keep_blocks=keep)


def test_a_tail_made_smaller_twice_repeats_its_pixels():
    half, lr = small_rrdb(tail_scale=2), lr_of(8, 8)
    small = begin(half, changed(half.config, network=changed(size_of(half), tail_scale=1)))
    last, twice = (model.network.state_dict()["conv_last.bias"] for model in (half, small))
    repeated = last.reshape(3, 2, 2).repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(twice, repeated.flatten())
    assert small.place("cpu").frozen().sample(lr, noise(lr)).shape == (1, 3, 32, 32)


def test_weights_that_look_at_time_keep_their_schedule():
    model = small_rrdb()
    longer = changed(model.config, schedule=ScheduleConfig(steps=4))
    begin(model, longer)
    model.network.state_dict()[OURS[0]][0, 0] = 1
    with pytest.raises(ValueError, match="its schedule is"):
        begin(model, longer)


@pytest.mark.parametrize("tail", [1, 2])
def test_a_smaller_tail_begins_with_equal_pixels_in_each_block(tail):
    model, lr = small_rrdb(), lr_of(8, 8)
    small = begin(model, changed(model.config, network=changed(size_of(model), tail_scale=tail)))
    side = 4 // tail
    blocks = F.pixel_unshuffle(small.place("cpu").frozen().sample(lr, noise(lr)), side).unflatten(1, (3, side**2))
    assert torch.equal(blocks, blocks[:, :, :1].expand_as(blocks))


def test_a_student_is_no_larger_than_what_it_starts_from():
    model = small_rrdb()
    with pytest.raises(ValueError, match="growth is 9, more than the 6"):
        begin(model, changed(model.config, network=changed(size_of(model), growth=9)))


def test_the_official_checkpoint_and_ncnns_are_read(tmp_path):
    model = Model(
        ModelConfig(role="teacher", network=RRDBConfig(kind="rrdb", blocks=1), schedule=ScheduleConfig(steps=1))
    )
    theirs = {key: value.half().float() for key, value in model.network.state_dict().items() if key not in OURS}
    read = published({"params_ema": theirs}, "theirs.pth")
    assert read.config == model.config.network
    assert set(read.weights) == set(theirs) | set(OURS)

    content = b""
    for key in (key.removesuffix(".weight") for key in theirs if key.endswith("weight")):
        content += b"\x47\x6b\x30\x01" + theirs[f"{key}.weight"].half().numpy().tobytes()
        content += theirs[f"{key}.bias"].numpy().tobytes()
    file = tmp_path / "x4.bin"
    file.write_bytes(content)
    again = read_published(file)
    assert again.config == read.config
    assert all(torch.equal(again.weights[key], value) for key, value in read.weights.items())
    second = 4 + 2 * 64 * 27 + 4 * 64  # where the next convolution begins
    for broken, reason in ((content[:-8], "fit none"), (content[:second] + bytes(4) + content[second + 4 :], "conv1")):
        file.write_bytes(broken)
        with pytest.raises(ModelError, match=reason):
            read_published(file)
    with pytest.raises(ModelError, match="conv_up2"):
        published({key: value for key, value in theirs.items() if "conv_up2" not in key}, "x2.pth")
