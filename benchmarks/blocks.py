"""Which of an RRDBNet's blocks matter: how far pictures move without each.

    python benchmarks/blocks.py MODEL --hr PHOTOS [--preset realesrgan,web,clean] [--limit 2] [--keep 12]

For each block left out: the mean difference of the pictures, in levels of 255, and their LPIPS-VGG to the truth. Then
the numbers of the ``--keep`` blocks that move them most, as the recipe key ``keep_blocks`` takes them. Photos are
degraded, their central 192x192.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from tddsr.degradation.presets import choose_presets
from tddsr.evaluation.pictures import find_pictures
from tddsr.metrics.lpips import LPIPS
from tddsr.networks.rrdb import RRDBNet
from tddsr.pictures.tensors import to_tensor
from tddsr.weights.names import load_model

CROP = 192


class Nothing(nn.Module):
    """In place of a block: no change."""

    def forward(self, x: Tensor, *_: object) -> Tensor:
        return torch.zeros_like(x)


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--hr", type=Path, required=True)
    parser.add_argument("--preset", default="realesrgan,web,clean")
    parser.add_argument("--limit", type=int, default=2)
    parser.add_argument("--keep", type=int, default=12)
    options = parser.parse_args()
    model, lpips = load_model(options.model), LPIPS("vgg16")
    network = model.network
    if not isinstance(network, RRDBNet):
        raise SystemExit(f"{options.model} has no blocks of an RRDBNet")
    pairs = [
        (to_tensor(pair.lr) * 2 - 1, to_tensor(pair.hr) * 2 - 1)
        for preset in choose_presets(options.preset)
        for pair in find_pictures(options.hr, preset=preset, limit=options.limit, crop=CROP)
        if pair.hr is not None  # as all of a folder of hr pictures
    ]

    def pictures() -> list[Tensor]:
        no_noise = (torch.zeros(1, model.channels, *lr.shape[-2:]) for lr, _ in pairs)
        return [model.sample(lr, eps).clamp(-1, 1) for (lr, _), eps in zip(pairs, no_noise, strict=True)]

    def score(made: list[Tensor]) -> float:
        return sum(float(lpips(picture, hr)) for picture, (_, hr) in zip(made, pairs, strict=True)) / len(pairs)

    whole = pictures()
    print(f"{len(pairs)} pictures\n\n| without | moved | LPIPS-VGG |\n| --- | --- | --- |\n| | | {score(whole):.4f} |")
    moved: dict[int, float] = {}
    for number, block in enumerate(list(network.body)):
        network.body[number] = Nothing()
        made = pictures()
        network.body[number] = block
        moved[number] = 127.5 * sum(float((a - b).abs().mean()) for a, b in zip(made, whole, strict=True)) / len(pairs)
        print(f"| {number} | {moved[number]:.2f} | {score(made):.4f} |", flush=True)
    print("\nkeep_blocks:", sorted(sorted(moved, key=moved.__getitem__)[-options.keep :]))


if __name__ == "__main__":
    main()
