"""What both engines have in common: all that an upscaler knows of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, Protocol

from tddsr.pictures.rows import Floats
from tddsr.tiling import Margins

EngineName = Literal["onnx", "torch"]
Sampler = Literal["deterministic", "stochastic"]
Precision = Literal["float32", "bfloat16", "float16"]

Noise = Callable[[int], Floats]
"""Unit noise (1,channels,h,w) for a tile: of 0, that which makes x_T; of t, that of the step from t to t - 1."""

Work = tuple[Floats, Noise, Margins]
"""A tile, (1,3,h,w) in [0,1], its noise, and its margins, multiples of the engine's ``multiple``."""

NO_MARGINS: Margins = (0, 0, 0, 0)

PASS_PIXELS = 1 << 20
"""Of lr, that an accelerator takes at once: enough to keep all of it busy."""


class Engine(Protocol):
    """A model on a device."""

    name: EngineName
    scale: int
    multiple: int
    """Height and width of a tile are multiples of this."""
    channels: int
    """Of the noise."""
    default_steps: int
    """1 for a student."""
    bytes_per_lr_pixel: int | None
    """Memory that a tile takes, at most; None: not measured."""

    @property
    def device(self) -> str:
        """Such as ``cpu`` or ``cuda:1``."""

    @property
    def precision(self) -> Precision:
        """In which it computes."""

    def halo(self, steps: int) -> int | None:
        """How many lr pixels around a pixel its result depends on, at most; None: on all."""

    def check_steps(self, steps: int) -> None:
        """Raise UsageError if the model cannot take ``steps`` steps."""

    def free_memory(self) -> int | None:
        """Bytes that an accelerator has for a tile; None where that is main memory."""

    def run(
        self,
        lr: Floats,
        noise: Noise,
        margins: Margins = NO_MARGINS,
        steps: int = 1,
        sampler: Sampler = "deterministic",
    ) -> Floats:
        """(1,3,h,w) in [0,1] -> (1,3,4h,4w), about [0,1], with h and w less the margins.

        Raises:
            MemoryError: there is not enough for a tile of this size.
        """

    def run_each(self, tiles: Iterable[Work], steps: int = 1, sampler: Sampler = "deterministic") -> Iterator[Floats]:
        """``run`` for one after the other; an accelerator takes some together, and some before they are asked for."""


def describe(engine: Engine) -> dict[str, str]:
    """What a report says of it."""
    return {"engine": engine.name, "device": engine.device, "precision": engine.precision}


def out_of_memory(error: Exception) -> bool:
    """Whether a library says so, each in its own words."""
    words = ("out of memory", "can't allocate memory", "Failed to allocate memory", "bad_alloc", "bad allocation")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
