"""How large pictures become, and what their files are called."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from pathlib import Path

from tddsr.errors import ImageError, UsageError
from tddsr.pictures.files import READABLE, output_suffix

LARGEST_SCALE = 8
"""The largest scale."""


@dataclass(frozen=True)
class Size:
    """How large a picture becomes: ``scale`` times, or with a width, height or longer side, in its proportions.

    Raises:
        UsageError: more than one of them, or one out of range.
    """

    scale: float = 4
    width: int | None = None
    height: int | None = None
    max_side: int | None = None

    def __post_init__(self) -> None:
        given = [f"{f.name} {getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} cannot both be; give one of scale, width, height, max_side")
        if not 1 <= self.scale <= LARGEST_SCALE:
            raise UsageError(f"scale is {self.scale}; it must be 1 to {LARGEST_SCALE}")
        for name in ("width", "height", "max_side"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise UsageError(f"{name} is {value}; it must be a whole number of pixels, 1 or more")

    @property
    def tag(self) -> str:
        """What tells a result in a name: x4, w1000, h1000, max1000."""
        sides = {"w": self.width, "h": self.height, "max": self.max_side}
        return next((f"{name}{side}" for name, side in sides.items() if side is not None), f"x{self.scale:g}")

    def of(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the result; halves are rounded up.

        Raises:
            UsageError: that is more than 8 times the picture.
        """
        for name, side in (("width", width), ("height", height), ("max_side", max(width, height))):
            wanted = getattr(self, name)
            if wanted is not None and wanted > LARGEST_SCALE * side:
                raise UsageError(f"{name} is {wanted}; of {width}x{height} it can be {LARGEST_SCALE * side} at most")
            if wanted is not None:
                return _scaled(width, wanted, side), _scaled(height, wanted, side)
        return _scaled(width, self.scale, 1), _scaled(height, self.scale, 1)


def _scaled(side: int, by: float, of: int) -> int:
    return max(math.floor(side * by / of + 0.5 + 1e-9), 1)


def output_path(path: Path, size: Size) -> Path:
    """Where the enlargement of ``path`` is written by default: beside it, ``photo_x4.jpg``, ``photo_w1000.jpg``."""
    if not path.name:
        raise ImageError(f"{path}: is a folder, not a picture")
    return path.with_name(f"{path.stem}_{size.tag}{output_suffix(path)}")


def made_from(path: Path) -> Path | None:
    """The picture beside ``path`` that it is an enlargement of, by its name; None if there is none."""
    name = re.fullmatch(r"(.+)_(?:x\d+(?:\.\d+)?|(?:w|h|max)\d+)", path.stem)
    beside = [path.with_name(name[1] + suffix) for suffix in ("", *sorted(READABLE))] if name else []
    try:
        return next((source for source in beside if source.is_file()), None)
    except OSError:  # a folder that may not be entered: told when the job is done
        return None
