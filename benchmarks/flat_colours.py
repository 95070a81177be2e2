"""What becomes of pictures of one colour, up to their borders.

    python benchmarks/flat_colours.py MODEL... [--side 32]

Prints a Markdown table, in levels of 255: how many of a hundred pixels are off by more than 8 in a channel; the largest
error in the middle half of the edges; the largest of all, which is at a corner.
"""

from __future__ import annotations

import argparse

import numpy as np

import tddsr

COLOURS = {
    "green": (0, 255, 0), "red": (255, 0, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0), "cyan": (0, 255, 255),
    "magenta": (255, 0, 255), "brick red": (150, 60, 40), "white": (255, 255, 255),
}  # fmt: skip
_VISIBLE = 8


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--side", type=int, default=32, help="of the lr picture")
    options = parser.parse_args()
    print("| model | colour | off by more than 8, % | edges | largest |\n| --- | --- | --- | --- | --- |")
    for model in options.models:
        upscaler = tddsr.load(model)
        for name, colour in COLOURS.items():
            flat = np.full((options.side, options.side, 3), colour, np.uint8)
            error = np.abs(upscaler(flat).astype(int) - colour).max(axis=2)
            quarter = len(error) // 4
            middle = error[quarter:-quarter], error[:, quarter:-quarter]
            off = 100 * (error > _VISIBLE).mean()
            print(f"| {model} | {name} | {off:.1f} | {max(part.max() for part in middle)} | {error.max()} |")


if __name__ == "__main__":
    main()
