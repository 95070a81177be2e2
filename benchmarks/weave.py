"""How strong a pattern of period 4, the side of a latent pixel's block, is in enlarged pictures.

    python benchmarks/weave.py LR_FOLDER MODEL... [--count 8]

Of each picture's central 128x128 lr pixels: the pattern in levels of 255, that is what differs from the neighbourhood,
averaged over all blocks, its root mean square over the 16 places in a block, mean of the three colours. The first row
is bicubic's: what other texture leaves in the averages.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from tddsr import Upscaler, images
from tddsr.evaluation.baselines import bicubic
from tddsr.evaluation.pairs import Pair
from tddsr.images import Pixels
from tddsr.pixels import centre


def levels(picture: Pixels) -> float:
    """Root mean square of the pattern that all 4x4 blocks have in common."""
    planes = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[:, None]
    blurred = F.avg_pool2d(F.avg_pool2d(planes, 4, stride=1), 2, stride=1)  # nothing of period 4 is left in it
    fine = planes[..., 2:-2, 2:-2] - blurred
    return float(F.pixel_unshuffle(fine, 4).mean(dim=(2, 3)).std(dim=1, correction=0).mean())


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--count", type=int, default=8, help="pictures, evenly from the folder")
    options = parser.parse_args()
    files = images.find(options.folder)
    chosen = [centre(images.read(file).rgb_8_bit, 128) for file in files[:: max(1, len(files) // options.count)]]
    print("| model | median | largest |\n| --- | --- | --- |")
    for model in ("bicubic", *options.models):
        enlarge = (lambda lr: bicubic(Pair("", lr, None, lr.shape[:2]))) if model == "bicubic" else Upscaler.load(model)
        found = [levels(enlarge(lr)) for lr in chosen[: options.count]]
        print(f"| {model} | {np.median(found):.2f} | {max(found):.2f} |", flush=True)


if __name__ == "__main__":
    main()
