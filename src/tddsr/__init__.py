"""tddsr: real-world image super-resolution in one network pass.

>>> import tddsr
>>> tddsr.upscale("photo.jpg")  # doctest: +SKIP
'photo_x4.jpg'
>>> upscaler = tddsr.load("compact-small", device="cpu")  # doctest: +SKIP
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tddsr.errors import DownloadError, ImageError, ImageWarning, ModelError, TddsrError, UsageError

if TYPE_CHECKING:
    from tddsr.upscaler import T, Upscaler

    load = Upscaler.load

__all__ = [
    "DownloadError",
    "ImageError",
    "ImageWarning",
    "ModelError",
    "TddsrError",
    "Upscaler",
    "UsageError",
    "__version__",
    "load",
    "upscale",
]
__version__ = "0.1.0"


def upscale(
    picture: T, *, model: str | Path = "compact", strength: float = 1, device: str = "auto", **options: Any
) -> T:
    """Enlarge a picture with a model that is loaded the first time and kept, as the last eight are.

    Args:
        picture: a path, bytes, PIL image, array or tensor, as ``Upscaler`` takes it; the same kind comes back.
        model: a name or a file, as ``Upscaler.load`` takes it.
        strength: 0 (faithful) to 1 (as sharp as the model is), of a model that comes with a faithful partner.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, and others that ``Upscaler.load`` names.
        options: ``scale``, ``width``, ``height``, ``max_side``, ``seed``, ``steps``, ``sampler``, ``output``,
            ``strip_metadata``, ``largest_input`` and ``progress``, as ``Upscaler`` takes them.

    Raises:
        ModelError: no such model, or the file cannot be used.
        DownloadError: it is not on this machine, and cannot be downloaded.
        ImageError: the file cannot be read or written.
        UsageError: no such device or strength, or an option out of range.
    """
    return _kept(model, strength, device)(picture, **options)


@functools.lru_cache(maxsize=8)  # of strengths there is no end
def _kept(model: str | Path, strength: float, device: str) -> Upscaler:
    from tddsr.upscaler import Upscaler

    return Upscaler.load(model, strength=strength, device=device)


def __getattr__(name: str) -> object:
    # What enlarges takes its time to import; `tddsr --help`, `--version` and `dir(tddsr)` do without.
    if name in ("Upscaler", "load"):
        from tddsr.upscaler import Upscaler

        return Upscaler if name == "Upscaler" else Upscaler.load
    raise AttributeError(f"module 'tddsr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
