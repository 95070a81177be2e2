"""Pictures made by code: letters, lines, flat fields and gradients, as in screenshots, signs, comics and diagrams.

Photographs hold few hard edges, and a network that sees only them rings beside letters.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tddsr.errors import DataError

_FINER = 2
"""Drawings are made so many times as large and reduced, so that their edges are smooth."""

_LETTERS = "etaoinsrhldcumfpgwybvkxjqzETAOINSRHLDCUMFPGWYBVKXJQZ0123456789.,:;!?-+()/&%#@äöüßéèçñåøœŁőž"

Colour = tuple[int, int, int]


@cache
def fonts() -> list[Path]:
    """Files of the installed font packages (open licences; the extra 'train' has some), by name.

    Raises:
        DataError: there is none.
    """
    packages = (point.load() for point in entry_points(group="fonts_ttf"))
    found = sorted((Path(file) for files in packages for file in files.values()), key=lambda file: file.name)
    if not found:
        raise DataError("drawings need fonts: pip install 'tddsr[train]', or set data.drawings=0")
    return found


class _Pencil:
    """Draws with a generator's chance."""

    def __init__(self, side: int, generator: torch.Generator) -> None:
        self.side, self.generator = side, generator
        self.paper = self.colour()
        self.image = Image.new("RGB", (side, side), self.paper)
        self.pen = ImageDraw.Draw(self.image)

    def below(self, count: int) -> int:
        return int(torch.randint(count, (1,), generator=self.generator))

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=self.generator))

    def colour(self) -> Colour:
        """Any colour, a grey (often black or white), or one of which red, green and blue are each 0 or 255."""
        kind = self.below(4)
        if kind == 0:
            return 255 * self.below(2), 255 * self.below(2), 255 * self.below(2)
        if kind < 3:
            return self.below(256), self.below(256), self.below(256)
        grey = (0, 255, self.below(256))[self.below(3)]
        return grey, grey, grey

    def ink(self) -> Colour:
        """A colour that stands out from the paper."""
        for _ in range(8):
            colour = self.colour()
            if sum(abs(a - b) for a, b in zip(colour, self.paper, strict=True)) > 150:
                break
        return colour

    def place(self) -> tuple[int, int]:
        return self.below(self.side), self.below(self.side)

    def box(self) -> tuple[int, int, int, int]:
        (x, y), w, h = self.place(), self.between(0.03, 0.6), self.between(0.03, 0.6)
        return x, y, x + int(w * self.side), y + int(h * self.side)

    def gradient(self) -> None:
        ramp = torch.linspace(0, 1, self.side)[:, None, None]
        first, last = torch.tensor(self.paper).float(), torch.tensor(self.colour()).float()
        rows = (first + ramp * (last - first)).round().to(torch.uint8).expand(-1, self.side, -1)
        self.image.paste(Image.fromarray(torch.rot90(rows, self.below(4)).contiguous().numpy()))

    def shape(self) -> None:
        width, fill = 1 + self.below(max(2, self.side // 60)), self.ink()
        outline = self.ink() if self.below(2) else None
        kind = self.below(5)
        if kind == 0:
            self.pen.line([self.place(), self.place()], fill, width)
        elif kind == 1:
            self.pen.ellipse(self.box(), fill if self.below(2) else None, outline or fill, width)
        elif kind == 2:
            inside = fill if self.below(2) else None
            self.pen.rounded_rectangle(self.box(), self.below(30), inside, outline or fill, width)
        elif kind == 3:
            self.pen.polygon([self.place() for _ in range(3 + self.below(4))], fill, outline)
        else:  # a grid or stripes
            x0, y0, x1, y1 = self.box()
            step = 4 + self.below(self.side // 12)
            for x in range(x0, x1, step):
                self.pen.line([(x, y0), (x, y1)], fill, width)
            for y in range(y0, y1, step) if self.below(2) else ():
                self.pen.line([(x0, y), (x1, y)], fill, width)

    def text(self) -> None:
        """Some lines, upright or turned."""
        size = int(self.side * self.between(0.02, 0.035) * 2 ** self.between(0, 3))
        font = ImageFont.truetype(fonts()[self.below(len(fonts()))], size)
        lines = []
        for _ in range(1 + self.below(6)):
            words = ("".join(self.letter() for _ in range(1 + self.below(9))) for _ in range(1 + self.below(7)))
            lines.append(" ".join(words))
        ink, text = self.ink(), "\n".join(lines)
        x, y = self.between(-0.2, 0.7) * self.side, self.between(-0.05, 0.9) * self.side
        if self.below(4):
            self.pen.multiline_text((x, y), text, ink, font, spacing=size // 3)
            return
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).multiline_text((x, y), text, 255, font, spacing=size // 3)
        self.image.paste(ink, mask=mask.rotate(self.between(-40, 40), Image.Resampling.BICUBIC))

    def letter(self) -> str:
        # Those that come first are common: about as in a language.
        return _LETTERS[int(len(_LETTERS) * self.between(0, 1) ** 2)]


def draw(side: int, generator: torch.Generator) -> Tensor:
    """A random (3,side,side) uint8 drawing; the same for the same state of the generator and the same fonts."""
    pencil = _Pencil(side * _FINER, generator)
    if pencil.below(3) == 0:
        pencil.gradient()
    for _ in range(pencil.below(10)):
        pencil.shape()
    for _ in range(pencil.below(8)):
        pencil.text()
    small = pencil.image.resize((side, side), Image.Resampling.BOX)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)
