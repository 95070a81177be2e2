"""How strong a pattern of period 4 and of period 16, the sides of the finest and coarsest map's pixels, is in pictures.

    python benchmarks/weave.py LR_FOLDER MODEL... [--count 8]

Of each picture's central 128x128 lr pixels: the pattern in levels of 255, that is what differs from the neighbourhood,
averaged over all blocks, its root mean square over the places in a block, mean of the three colours; the median and the
largest of all pictures. The first row is bicubic's: what other texture leaves in the averages.
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


def levels(picture: Pixels, period: int) -> float:
    """Root mean square of the pattern that all blocks of ``period`` by ``period`` have in common."""
    planes = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[:, None]
    blurred = F.avg_pool2d(F.avg_pool2d(planes, period, stride=1), 2, stride=1)  # nothing of that period is left in it
    edge = period // 2
    fine = planes[..., edge:-edge, edge:-edge] - blurred
    height, width = (side - side % period for side in fine.shape[-2:])
    blocks = F.pixel_unshuffle(fine[..., :height, :width], period)
    return float(blocks.mean(dim=(2, 3)).std(dim=1, correction=0).mean())


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--count", type=int, default=8, help="pictures, evenly from the folder")
    options = parser.parse_args()
    files = images.find(options.folder)
    chosen = [centre(images.read(file).rgb_8_bit, 128) for file in files[:: max(1, len(files) // options.count)]]
    print("| model | period 4: median | largest | period 16: median | largest |\n| --- | --- | --- | --- | --- |")
    for model in ("bicubic", *options.models):
        enlarge = (lambda lr: bicubic(Pair("", lr, None, lr.shape[:2]))) if model == "bicubic" else Upscaler.load(model)
        pictures = [enlarge(lr) for lr in chosen[: options.count]]
        found = [[levels(picture, period) for picture in pictures] for period in (4, 16)]
        print(f"| {model} |", *(f"{np.median(each):.2f} | {max(each):.2f} |" for each in found), flush=True)


if __name__ == "__main__":
    main()
