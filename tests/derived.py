"""The official networks' outputs for weights that follow from their names: how weights, noise and inputs are made."""

import math
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tddsr.diffusion import Schedule
from tddsr.model import Model, ModelConfig, Role, ScheduleConfig
from tddsr.networks.autoencoder import VQAutoencoder, VQConfig
from tddsr.networks.swin_unet import SwinUNetConfig

SMALL_VQ = VQConfig(width=32, blocks=1, codes=64)
SMALL_UNET = SwinUNetConfig(width=32, multiples=(1, 2, 2), blocks=1, swin_width=32, head_width=16, mlp_ratio=2)
TINY_UNET = SMALL_UNET.model_copy(update={"multiples": (1,), "size": 16})

fifteen_steps = partial(Schedule.geometric, steps=15, kappa=2.0, power=0.3, min_noise=0.04, end=0.99)
"""The paper's schedule, but for what is said."""

GOLDEN = Path(__file__).parent / "golden"


def golden(scale: str) -> dict[str, Tensor]:
    """Reference numbers of scale ``small`` or ``paper``, and ``lr`` in [-1,1] from its ``lr_uint8``."""
    with np.load(GOLDEN / f"derived_{scale}.npz") as file:
        numbers = {key: torch.from_numpy(file[key]) for key in file}
    numbers["lr"] = numbers["lr_uint8"].permute(2, 0, 1)[None] / 127.5 - 1
    return numbers


def official_shapes(network: str) -> dict[str, str]:
    """Name -> shape and type of the full-size official state dict of ``unet`` or ``autoencoder``."""
    lines = (GOLDEN / f"paper_{network}_keys.txt").read_text().splitlines()
    return {name: f"{shape} {dtype}" for name, shape, dtype in (line.split("\t") for line in lines)}


def shapes(network: nn.Module) -> dict[str, str]:
    return {name: f"{tuple(value.shape)} {value.dtype}" for name, value in network.state_dict().items()}


def _weight(key: str, shape: tuple[int, ...]) -> Tensor:
    w = torch.from_numpy(np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32))
    if key.endswith("relative_position_bias_table"):
        return w
    if key.endswith("embedding.weight"):
        return 1.5 * w
    if len(shape) >= 2:
        return w / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.2 * w if key.endswith(".weight") else 0.1 * w


def derive(network: nn.Module, prefix: str) -> None:
    """Give ``network`` the weights that follow from its names under ``prefix``, ``unet`` or ``vq``, and freeze it."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(_weight(f"{prefix}.{name}", tuple(parameter.shape)))
    network.eval().requires_grad_(False)


def decode_unquantised(space: VQAutoencoder, latent: Tensor) -> Tensor:
    return space._run(space.decoder, space.post_quant_conv(latent))


def noise(seed: int, width: int = 64) -> Tensor:
    field = np.random.default_rng(seed).standard_normal((1, 3, 64, width)).astype(np.float32)
    return torch.from_numpy(field)


def assert_near(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def small_paper_model(role: Role = "teacher", network: SwinUNetConfig = SMALL_UNET) -> Model:
    """The paper scale in small, with the derived weights; lr sides are multiples of 32, or 8 for ``TINY_UNET``."""
    config = ModelConfig(
        role=role, network=network, space=SMALL_VQ, schedule=ScheduleConfig(steps=15, kappa=2.0, min_noise=0.04)
    )
    model = Model(config)
    derive(model.network, "unet")
    derive(model.space, "vq")
    return model.place("cpu").frozen()
