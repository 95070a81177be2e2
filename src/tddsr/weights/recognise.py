"""Published checkpoints of ResShift, SinSR and Real-ESRGAN: their shapes tell what they hold, which is then checked.

Pickles are read as data alone (``weights_only``): a file from anywhere cannot run code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from tddsr.errors import ModelError
from tddsr.networks.autoencoder import VQAutoencoder, VQConfig
from tddsr.networks.rrdb import OURS, RRDBConfig, RRDBNet
from tddsr.networks.space import SpaceToDepth
from tddsr.networks.swin_unet import SwinUNet, SwinUNetConfig, relative_position_index, shift_mask

_WRAPPERS = ("params_ema", "ema", "state_dict", "model", "params")
"""Under which names training scripts put the weights; averaged weights are preferred."""

_PREFIXES = re.compile(r"^(?:module\.|_orig_mod\.)+")
"""What DistributedDataParallel and torch.compile put before each name."""

_TRAINING = ("loss.",)
"""Beside an autoencoder's weights: its perceptual loss and discriminator."""

_NCNN_HALF = b"\x47\x6b\x30\x01"
"""What precedes weights in 16 bit in ncnn's files."""

_SHOWN = 3
"""Names that an error lists of each kind."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Published:
    """A network's configuration and its weights in float32, under our names; integer buffers as they are."""

    config: SwinUNetConfig | VQConfig | RRDBConfig
    weights: dict[str, Tensor]


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of any network by name, from a PyTorch checkpoint, bare or wrapped, or a safetensors file.

    Raises:
        ModelError: no such file, not readable without running code, or no weights.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist")
    return _unwrap(_read(path), str(path))


def read_published(path: str | Path) -> Published:
    """Read a published Swin U-Net, VQ autoencoder or RRDBNet, as ``read_weights``; of the last also ncnn's file.

    Raises:
        ModelError: no such file, not readable without running code, or another network's weights.
    """
    return published(read_weights(Path(path)), str(path))


def published(content: object, source: str) -> Published:
    """As ``read_published``, from what the file named ``source`` holds."""
    weights = _unwrap(content, source)
    kinds = [kind for kind, (prefixes, _) in _KINDS.items() if any(key.startswith(prefixes) for key in weights)]
    if len(kinds) != 1:
        found = f"both a {kinds[0]}'s and a {kinds[1]}'s" if kinds else f"not those of a {', a '.join(_KINDS)}"
        raise ModelError(f"{source}: the names of its weights are {found} (the first: {_some(list(weights))})")
    (kind,) = kinds
    if kind == "VQ autoencoder":
        weights = {key: value for key, value in weights.items() if not key.startswith(_TRAINING)}
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    try:
        config = _KINDS[kind][1](shapes)
        expected = _expected(config, shapes)
    except KeyError as error:
        raise ModelError(f"{source} is not a whole {kind}: it lacks {error.args[0]}") from error
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))} is {first['input']}: {first['msg']}"
        raise ModelError(f"{source} is not a {kind} that can be built: {reason}") from error
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise ModelError(f"{source} is not a {kind} that can be built: its shapes make no sense") from error
    if kind == "RRDBNet":  # what is published sees neither x_t nor t
        new = {key: expected[key] for key in OURS if key not in shapes}
        shapes |= new
        weights |= {key: torch.zeros(shape) for key, shape in new.items()}
    _compare(shapes, expected, source, kind)
    return Published(config, _canonical(weights, source))


def _read(path: Path) -> object:
    try:
        if path.suffix == ".bin":
            content = path.read_bytes()
            if content[:4] == _NCNN_HALF:
                return _from_ncnn(content, str(path))
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except UnpicklingError as error:
        raise ModelError(
            f"{path} holds more than weights, which could run code, or is damaged: save its state_dict alone"
        ) from error
    except Exception as error:  # damaged bytes lead the readers to errors of any kind
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{path} is not a readable checkpoint ({reason})") from error


def _unwrap(content: object, source: str) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{source} holds no weights by name")
    others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise ModelError(f"{source} is not a state dict: no tensors are {_some(others)}")
    return {_PREFIXES.sub("", str(key)): value for key, value in content.items()}


def _some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _count(shapes: Mapping[str, Shape], prefix: str) -> int:
    """One more than the highest number that follows ``prefix``; a gap shows later as what is lacking."""
    numbers = [int(key[len(prefix) :].partition(".")[0]) for key in shapes if key.startswith(prefix)]
    return max(numbers, default=-1) + 1


def _unet_config(shapes: Mapping[str, Shape]) -> SwinUNetConfig:
    width = shapes["input_blocks.0.0.weight"][0]
    levels: list[list[int]] = [[]]  # the width of every residual block, by level
    for i in range(1, _count(shapes, "input_blocks.")):
        if f"input_blocks.{i}.0.op.weight" in shapes:
            levels.append([])
        else:
            levels[-1].append(shapes[f"input_blocks.{i}.0.in_layers.2.weight"][0])
    blocks = len(levels[0])
    # A level is its blocks and a halving; the Swin layer follows the first block.
    swins = [f"input_blocks.{1 + level * (blocks + 1)}.1." for level in range(len(levels))]
    tables = [shapes[f"{swin}blocks.0.attn.relative_position_bias_table"] for swin in swins]
    windows = [(math.isqrt(rows) + 1) // 2 for rows, _ in tables]
    swin_width = shapes[f"{swins[0]}patch_embed.proj.weight"][0]
    mask = shapes.get(f"{swins[0]}blocks.1.attn_mask")
    return SwinUNetConfig(
        width=width,
        multiples=tuple(widths[0] // width for widths in levels),
        blocks=blocks,
        swin_depth=_count(shapes, f"{swins[0]}blocks."),
        swin_width=swin_width,
        head_width=swin_width // tables[0][1],
        window=windows[0],
        mlp_ratio=shapes[f"{swins[0]}blocks.0.mlp.fc1.weight"][0] // swin_width,
        # Where nothing is shifted, the size matters only in that a level's window is no larger than the level.
        size=math.isqrt(mask[0]) * windows[0] if mask else max(w << level for level, w in enumerate(windows)),
    )


def _vq_config(shapes: Mapping[str, Shape]) -> VQConfig:
    width = shapes["encoder.conv_in.weight"][0]
    levels = _count(shapes, "encoder.down.")
    widths = [shapes[f"encoder.down.{level}.block.0.conv1.weight"][0] for level in range(levels)]
    return VQConfig(
        width=width,
        multiples=tuple(each // width for each in widths),
        blocks=_count(shapes, "encoder.down.0.block."),
        channels=shapes["quant_conv.weight"][0],
        codes=shapes["quantize.embedding.weight"][0],
    )


def _rrdb_config(shapes: Mapping[str, Shape]) -> RRDBConfig:
    return RRDBConfig(
        kind="rrdb",
        features=shapes["conv_first.weight"][0],
        growth=shapes["body.0.rdb1.conv1.weight"][0],
        blocks=_count(shapes, "body."),
        tail_features=shapes["conv_hr.weight"][0],
    )


_KINDS: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, Shape]], SwinUNetConfig | VQConfig | RRDBConfig]]] = {
    "Swin U-Net": (("input_blocks.",), _unet_config),
    "VQ autoencoder": (("encoder.", "decoder."), _vq_config),
    "RRDBNet": (("conv_first.", "body."), _rrdb_config),
}
"""What some of a network's names begin with, and no other's; and how its configuration follows from shapes."""


def _ncnn_convs(blocks: int) -> tuple[dict[str, nn.Conv2d], int]:
    """The convolutions of an RRDBNet in ncnn's order, and how many bytes they take there."""
    with torch.device("meta"):
        network = RRDBNet(RRDBConfig(kind="rrdb", blocks=blocks), SpaceToDepth())
    convs = {key: m for key, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.bias is not None}
    return convs, sum(4 + 2 * m.weight.numel() + 4 * m.out_channels for m in convs.values())


def _from_ncnn(content: bytes, source: str) -> dict[str, Tensor]:
    """The weights of an RRDBNet of 64 features and growth 32 from ncnn's file, which has neither names nor shapes.

    Each convolution, in the order of computing: a mark, its weights in 16 bit, its biases in 32.
    """
    (_, least), (_, two) = _ncnn_convs(1), _ncnn_convs(2)
    more, rest = divmod(len(content) - least, two - least)
    if rest or not 0 <= more < 64:
        raise ModelError(f"{source} is no RRDBNet of 64 features and growth 32: {len(content)} bytes fit none")
    convs, _ = _ncnn_convs(1 + more)
    weights, place = {}, 0
    for key, conv in convs.items():
        if content[place : place + 4] != _NCNN_HALF:
            raise ModelError(f"{source}: the weights of {key} are not in 16 bit")
        values = np.frombuffer(content, "<f2", conv.weight.numel(), place + 4)
        place += 4 + values.nbytes
        biases = np.frombuffer(content, "<f4", conv.out_channels, place)
        place += biases.nbytes
        weights[f"{key}.weight"] = torch.from_numpy(values.astype(np.float32)).reshape(conv.weight.shape)
        weights[f"{key}.bias"] = torch.from_numpy(biases.copy())
    return weights


def _expected(config: SwinUNetConfig | VQConfig | RRDBConfig, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Names and shapes of our network; on the meta device, which costs nothing."""
    with torch.device("meta"):
        network: nn.Module
        if isinstance(config, VQConfig):
            network = VQAutoencoder(config)
        elif isinstance(config, RRDBConfig):
            network = RRDBNet(config, SpaceToDepth())
        else:
            network = SwinUNet(config, channels=shapes["out.2.weight"][0])
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def _compare(shapes: Mapping[str, Shape], expected: Mapping[str, Shape], source: str, kind: str) -> None:
    faults = {
        "it lacks": [key for key in expected if key not in shapes],
        "it should not have": [key for key in shapes if key not in expected],
        "of another shape are": [
            f"{key} {shapes[key]}, not {shape}" for key, shape in expected.items() if shapes.get(key, shape) != shape
        ],
    }
    found = [f"{what} {_some(names)}" for what, names in faults.items() if names]
    if found:
        raise ModelError(f"{source} is not a {kind} that can be built: {'; '.join(found)}")


def _canonical(weights: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Floating point in float32, and the buffers that our forward counts on replaced by ours, after a comparison."""
    result = {}
    for key, value in weights.items():
        value = value.float() if value.is_floating_point() else value
        if key.endswith(("attn_mask", "relative_position_index")):
            window = math.isqrt(value.shape[-1])
            if key.endswith("attn_mask"):
                ours = shift_mask(math.isqrt(len(value)) * window, window)
                # Averaging over training leaves a mask at -100 but for rounding. Any such number hides a pair wholly.
                same = torch.equal(value == 0, ours == 0) and torch.allclose(value, ours, rtol=0, atol=1)
            else:
                ours = relative_position_index(window)
                same = torch.equal(value.long(), ours)
            if not same:
                raise ModelError(f"{source}: {key} is not the official network's, so its results would be wrong")
            value = ours
        result[key] = value
    return result
