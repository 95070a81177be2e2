"""How far a model really sees: what margins of tiles change.

    python benchmarks/reach.py MODEL PHOTOS [--limit 10]

For each margin, the largest and the mean difference, in levels of 255, of the middle 32x32 lr pixels from those of the
whole picture (its central 224x224); over all pictures of the folder, one thread a core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tddsr.pictures.files import read_picture
from tddsr.pictures.folders import find_files
from tddsr.pictures.picture import centre
from tddsr.pictures.tensors import to_tensor
from tddsr.weights.names import load_model

SIDE, CORE = 224, 32
MARGINS = (8, 16, 24, 32, 40, 48, 64)


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--limit", type=int, default=10)
    options = parser.parse_args()
    model = load_model(options.model)
    middle, factor = SIDE // 2 - CORE // 2, model.scale
    largest, means = dict.fromkeys(MARGINS, 0.0), dict.fromkeys(MARGINS, 0.0)
    pictures = [centre(read_picture(path).rgb_8_bit, SIDE) for path in find_files(options.photos)]
    pictures = [picture for picture in pictures if min(picture.shape[:2]) == SIDE][: options.limit]
    for picture in pictures:
        lr = to_tensor(picture) * 2 - 1
        whole = model.sample(lr, torch.zeros(1, model.channels, SIDE, SIDE)).clamp(-1, 1)
        core = whole[..., factor * middle :, factor * middle :][..., : factor * CORE, : factor * CORE]
        for margin in MARGINS:
            start, side = middle - margin, CORE + 2 * margin
            part = lr[..., start : start + side, start : start + side]
            made = model.sample(part, torch.zeros(1, model.channels, side, side)).clamp(-1, 1)
            made = made[..., factor * margin :, factor * margin :][..., : factor * CORE, : factor * CORE]
            difference = (made - core).abs() * 127.5
            largest[margin] = max(largest[margin], float(difference.max()))
            means[margin] += float(difference.mean()) / len(pictures)
    print(f"{len(pictures)} pictures\n\n| margin, lr pixels | largest | mean |\n| --- | --- | --- |")
    for margin in MARGINS:
        print(f"| {margin} | {largest[margin]:.2f} | {means[margin]:.4f} |")


if __name__ == "__main__":
    main()
