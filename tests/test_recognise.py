import pickle
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tddsr.errors import ModelError
from tddsr.networks.autoencoder import VQAutoencoder, VQConfig
from tddsr.networks.swin_unet import SwinUNet, SwinUNetConfig, relative_position_index, shift_mask
from tddsr.weights.recognise import published, read_published
from tests.derived import SMALL_UNET, SMALL_VQ, derive
from tests.test_model_files import Evil


def changed(config, **values):
    return type(config)(**{**config.model_dump(), **values})


def cheap(network: nn.Module) -> dict[str, Tensor]:
    """The state dict of a network built on the meta device; its weights take no memory, its buffers are true."""
    buffers = {key for key, _ in network.named_buffers()}

    def real(key: str, value: Tensor) -> Tensor:
        if key not in buffers:
            return torch.zeros(()).expand(value.shape)
        window = int(value.shape[-1] ** 0.5)
        if key.endswith("attn_mask"):
            return shift_mask(int(len(value) ** 0.5) * window, window)
        return relative_position_index(window)

    return {key: real(key, value) for key, value in network.state_dict().items()}


@pytest.fixture(scope="module")
def unet() -> dict[str, Tensor]:
    network = SwinUNet(SMALL_UNET)
    derive(network, "unet")
    return network.state_dict()


@pytest.fixture(scope="module")
def autoencoder() -> dict[str, Tensor]:
    space = VQAutoencoder(SMALL_VQ)
    derive(space, "vq")
    return space.state_dict()


@pytest.mark.parametrize(
    "config",
    [
        SwinUNetConfig(),
        SMALL_UNET,
        changed(SMALL_UNET, size=32),  # only the finest levels shift
        changed(SMALL_UNET, size=8),  # no level shifts, each is one window
        changed(SMALL_UNET, swin_depth=1, size=32),  # no block shifts
        changed(SMALL_UNET, swin_depth=1, size=16),
        changed(SMALL_UNET, swin_depth=3, blocks=3, window=4, mlp_ratio=3, head_width=8),
        changed(SMALL_UNET, multiples=(1,), size=16, swin_width=64),
        changed(SMALL_UNET, multiples=(2, 1, 3, 2)),
    ],
)
@pytest.mark.parametrize("channels", [3, 5])
def test_configurations_of_networks_are_read_from_shapes(config, channels):
    with torch.device("meta"):
        network = SwinUNet(config, channels)
    read = published(cheap(network), "file")
    assert read.config == config
    assert len(read.weights["out.2.weight"]) == channels
    assert list(read.weights) == list(network.state_dict())


@pytest.mark.parametrize(
    "config",
    [
        VQConfig(),
        SMALL_VQ,
        changed(SMALL_VQ, blocks=3, channels=4, codes=7),
        changed(SMALL_VQ, multiples=(2, 1, 1, 3), width=64),
        changed(SMALL_VQ, multiples=(1,)),
    ],
)
def test_configurations_of_autoencoders_are_read_from_shapes(config):
    with torch.device("meta"):
        space = VQAutoencoder(config)
    read = published(cheap(space), "file")
    assert read.config == config
    assert list(read.weights) == list(space.state_dict())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda w: {"params": {}, "params_ema": w},
        lambda w: {"model": OrderedDict({"state_dict": w})},
        lambda w: {"ema": w, "model": {key: value + 1 for key, value in w.items()}},
        lambda w: {f"module.{key}": value for key, value in w.items()},
        lambda w: {f"module._orig_mod.{key}": value for key, value in w.items()},
        lambda w: {key: value.half() if value.is_floating_point() else value for key, value in w.items()},
    ],
)
def test_files_are_read_however_they_were_saved(unet, tmp_path, wrap):
    torch.save(wrap(unet), tmp_path / "a.pth")
    read = read_published(tmp_path / "a.pth")
    assert read.config == SMALL_UNET
    assert {value.dtype for value in read.weights.values()} == {torch.float32, torch.int64}
    for key, value in read.weights.items():
        torch.testing.assert_close(value, unet[key], atol=1e-2, rtol=1e-2)


def test_safetensors_are_read_too(autoencoder, tmp_path):
    save_file(autoencoder, tmp_path / "a.safetensors")
    assert read_published(tmp_path / "a.safetensors").config == SMALL_VQ


def test_an_autoencoders_training_losses_are_left_behind(autoencoder):
    read = published({**autoencoder, "loss.perceptual_loss.lin0.weight": torch.zeros(1)}, "file")
    assert set(read.weights) == set(autoencoder)


def one_line(content: object) -> str:
    with pytest.raises(ModelError) as caught:
        published(content, "x.pth")
    message = str(caught.value)
    assert message.startswith("x.pth")
    assert "\n" not in message
    return message


def test_files_that_do_not_fit_say_what_does_not(unet, autoencoder):
    assert "both" in one_line({**unet, **autoencoder})
    assert "body.0.rdb1.conv1.weight" in one_line({"conv_first.weight": torch.zeros(64, 3, 3, 3)})
    assert "first_conv.weight" in one_line({"first_conv.weight": torch.zeros(64, 3, 3, 3)})
    assert "no weights" in one_line({})
    assert "no weights" in one_line([1, 2])
    assert "epoch" in one_line({**unet, "epoch": 3})
    assert "should not have loss.logvar" in one_line({**unet, "loss.logvar": torch.zeros(())})
    assert "lacks input_blocks.0.0.weight" in one_line(
        {k: v for k, v in unet.items() if k != "input_blocks.0.0.weight"}
    )
    assert "quant_conv" in one_line({k: v for k, v in autoencoder.items() if "quant_conv" not in k})
    bad = {**unet, "out.2.bias": torch.zeros(7)}
    assert "out.2.bias (7,), not (3,)" in one_line(bad)


@pytest.mark.parametrize(
    "gone",
    ["input_blocks.5.", "input_blocks.2.", "output_blocks.1.", "middle_block.", "encoder.down.1.", "decoder.up.2."],
)
def test_a_missing_part_is_told(unet, autoencoder, gone):
    weights = autoencoder if "coder" in gone else unet
    message = one_line({key: value for key, value in weights.items() if not key.startswith(gone)})
    assert "more" in message or "lacks" in message
    assert len(message) < 1000


def test_odd_widths_are_refused(unet):
    weights = {**unet, "input_blocks.0.0.weight": torch.zeros(20, 6, 3, 3)}
    assert "width" in one_line(weights)
    assert "sense" in one_line({**unet, "input_blocks.0.0.weight": torch.zeros(())})


def test_masks_and_indices_must_be_those_that_the_forward_counts_on(unet):
    mask, index = "input_blocks.1.1.blocks.1.attn_mask", "input_blocks.1.1.blocks.0.attn.relative_position_index"
    averaged = published({**unet, mask: unet[mask] * 0.9999}, "file")
    assert torch.equal(averaged.weights[mask], unet[mask])
    assert mask in one_line({**unet, mask: unet[mask].transpose(0, 1)})
    assert mask in one_line({**unet, mask: unet[mask] + 0.01})
    assert index in one_line({**unet, index: unet[index].T})


def test_unreadable_files_are_refused_and_never_run(tmp_path, unet):
    path = tmp_path / "a.pth"
    torch.save(unet, path)
    whole = path.read_bytes()
    for content in (b"", b"text", pickle.dumps(Evil(), protocol=2), whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"a\.pth") as caught:
            read_published(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="does not exist"):
        read_published(tmp_path / "none.pth")
