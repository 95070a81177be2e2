"""How much tiles change a picture at paper scale, where GroupNorm and attention see all of a tile.

    python benchmarks/paper_tiles.py PICTURE [--tiles 64 128]

Random weights: no published ones can be had everywhere. What the table shows is the size of the effect beside that of
another noise seed, not what trained networks do.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from PIL import Image

from tddsr.engines.torch import TorchEngine
from tddsr.model import Model, ModelConfig, ScheduleConfig
from tddsr.networks.autoencoder import VQConfig
from tddsr.networks.swin_unet import SwinUNetConfig
from tddsr.upscaler import Upscaler


def random_student() -> Model:
    """The paper's networks, every layer of which matters."""
    schedule = ScheduleConfig(steps=15, min_noise=0.04)
    model = Model(ModelConfig(role="student", network=SwinUNetConfig(), space=VQConfig(), schedule=schedule))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, max(1, weight[0].numel()) ** -0.5, generator=generator)
    return model.place("cpu").frozen()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture")
    parser.add_argument("--tiles", type=int, nargs="+", default=[64, 128])
    options = parser.parse_args()
    model, picture = random_student(), np.array(Image.open(options.picture).convert("RGB"))
    whole = Upscaler(TorchEngine(model), tile=None)(picture).astype(float)
    others = {f"tiles of {tile}": Upscaler(TorchEngine(model), tile=tile)(picture) for tile in options.tiles}
    others["whole, another seed"] = Upscaler(TorchEngine(model), tile=None)(picture, seed=1)
    print(f"{picture.shape[1]}x{picture.shape[0]}, differences from the whole picture, of 255\n")
    print("| | mean | 99 % are below |\n| --- | --- | --- |")
    for name, result in others.items():
        difference = np.abs(result - whole)
        print(f"| {name} | {difference.mean():.2f} | {np.quantile(difference, 0.99):.0f} |", flush=True)


if __name__ == "__main__":
    main()
