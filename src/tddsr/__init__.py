"""tddsr: real-world image super-resolution in one network pass.

>>> from tddsr import Upscaler
>>> upscaler = Upscaler.load()
>>> upscaler("photo.jpg")  # doctest: +SKIP
PosixPath('photo_x4.jpg')
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tddsr.upscaler import Upscaler

    load = Upscaler.load

__all__ = ["Upscaler", "__version__", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # PyTorch takes seconds to import; `tddsr --help` and `--version` do without.
    if name in ("Upscaler", "load"):
        from tddsr.upscaler import Upscaler

        return Upscaler if name == "Upscaler" else Upscaler.load
    raise AttributeError(f"module 'tddsr' has no attribute {name!r}")
