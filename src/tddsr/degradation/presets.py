"""Settings of the degradation, and presets of them: what small pictures are like."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel

from tddsr.errors import UsageError

Range = tuple[float, float]
Preset = Literal["resshift", "realesrgan", "resshift-test", "clean", "blurred", "web", "film"]
PRESETS: tuple[Preset, ...] = get_args(Preset)


def choose_presets(names: str, most: int | None = None) -> list[Preset]:
    """Presets by name, with commas between; at most ``most``.

    Raises:
        UsageError: there is none of a name, or there are too many.
    """
    chosen = dict.fromkeys(name.strip() for name in names.split(","))
    if unknown := chosen.keys() - set(PRESETS):
        raise UsageError(f"no preset '{sorted(unknown)[0]}': choose of {', '.join(PRESETS)}")
    if most is not None and len(chosen) > most:
        raise UsageError(f"--preset {names} names {len(chosen)}; give {most}")
    return [name for name in PRESETS if name in chosen]


class Stage(BaseModel, extra="forbid", frozen=True):
    """One pass of blur, resize and noise; the defaults are those of the first stage."""

    probability: float = 1.0
    """of this stage as a whole"""
    blur_probability: float = 1.0
    kernel_sizes: tuple[int, int] = (3, 19)
    family_weights: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    """iso, aniso, generalised iso, generalised aniso, plateau iso, plateau aniso"""
    sinc_probability: float = 0.1
    sigma: Range = (0.2, 3.0)
    generalised_beta: Range = (0.5, 4.0)
    plateau_beta: Range = (1.0, 2.0)
    resize_weights: tuple[float, float, float] = (0.2, 0.7, 0.1)
    """up, down, keep"""
    resize_range: Range = (0.15, 1.5)
    gaussian_probability: float = 0.5
    """of the noise to be Gaussian, not Poisson's"""
    gaussian_sigma: Range = (1.0, 30.0)
    poisson_scale: Range = (0.05, 3.0)
    grey_probability: float = 0.4


_SECOND = {
    "blur_probability": 0.8,
    "sigma": (0.2, 1.5),
    "resize_weights": (0.3, 0.4, 0.3),
    "resize_range": (0.3, 1.2),
    "gaussian_sigma": (1.0, 25.0),
    "poisson_scale": (0.05, 2.5),
}


class Degradation(BaseModel, extra="forbid", frozen=True):
    """All settings of the pipeline; ``preset`` gives the published ones and some of our own."""

    factor: Literal[4] = 4  # nothing to set, but a part of the key of kept scenes
    first: Stage = Stage()
    first_jpeg_quality: Range = (30.0, 95.0)
    second: Stage = Stage(**_SECOND, probability=0.5, kernel_sizes=(3, 13))
    final_sinc_probability: float = 0.8
    final_sinc_sizes: tuple[int, int] = (3, 13)
    final_jpeg_quality: Range = (30.0, 95.0)
    resize_modes: tuple[float, ...] = (1.0, 1.0, 1.0)
    """weights of ``resize.MODES``"""
    first_jpeg_probability: float = 1.0
    jpeg_last_probability: float = 0.5
    """of the final JPEG to come after the final resize, not before it"""
    full_chroma_probability: float = 0.0
    """of a JPEG to be 4:4:4"""
    shifted: bool = False
    """whether the first JPEG's blocks lie anywhere, as where a picture was cut before it was written again"""
    grain_probability: float = 0.0
    grain_strength: Range = (2.0, 18.0)
    grain_grey_probability: float = 0.6
    grain_size: Range = (0.3, 1.2)
    """of the final picture's pixels"""
    sharpen: bool = False
    """start from the unsharp-masked picture, and train towards it, as Real-ESRGAN does"""

    @staticmethod
    def preset(name: Preset) -> Degradation:
        """``resshift``: ResShift's and SinSR's settings, the paper's; ``realesrgan``: the original ones.

        ``resshift-test``: those of ResShift's own test pictures, one stage with little blur: most photos from the web.
        ``clean``: one blur, hardly any noise and fine JPEG, as of a good camera or of a picture that was only reduced.
        ``blurred``: ResShift's resizes, more blur, hardly any noise and fine JPEG: out of focus, or enlarged before.
        ``web``: reduced cleanly and compressed hard (JPEG quality 10 to 60), once or twice, at other sizes between.
        ``film``: soft, under grain that spreads over pixels, scanned and compressed: film and old prints.
        """
        return _PRESETS[name]


_NO_SECOND = Stage(**_SECOND, probability=0)
_QUIET = {"gaussian_probability": 1, "gaussian_sigma": (0, 4)}

_PRESETS: dict[Preset, Degradation] = {
    "resshift": Degradation(),
    "realesrgan": Degradation(
        first=Stage(kernel_sizes=(7, 21)),
        second=Stage(**_SECOND, kernel_sizes=(7, 21)),
        final_sinc_sizes=(7, 21),
        sharpen=True,
    ),
    "resshift-test": Degradation(
        first=Stage(
            kernel_sizes=(3, 11), family_weights=(0.6, 0.4, 0, 0, 0, 0), sigma=(0.2, 0.8), resize_range=(0.5, 1.5),
            gaussian_sigma=(1, 15), poisson_scale=(0.05, 0.3),
        ),
        first_jpeg_quality=(70, 95),
        second=_NO_SECOND,
        final_sinc_probability=0.2,
        final_sinc_sizes=(3, 5),
        final_jpeg_quality=(80, 100),
    ),
    "clean": Degradation(
        first=Stage(resize_weights=(0, 0, 1), gaussian_probability=1, gaussian_sigma=(0, 8)),
        first_jpeg_quality=(90, 100),
        second=_NO_SECOND,
        final_sinc_probability=0.5,
        final_jpeg_quality=(80, 100),
    ),
    "blurred": Degradation(
        first=Stage(kernel_sizes=(7, 21), sigma=(0.2, 4.0), **_QUIET),
        first_jpeg_quality=(85, 100),
        second=Stage(**(_SECOND | _QUIET), probability=0.5, kernel_sizes=(3, 13)),
        final_jpeg_quality=(80, 100),
    ),
    "web": Degradation(
        first=Stage(
            blur_probability=0.2, sigma=(0.2, 2.0), resize_weights=(0, 1, 0), resize_range=(0.2, 0.6),
            gaussian_probability=1, gaussian_sigma=(0, 3),
        ),
        first_jpeg_quality=(10, 90),
        first_jpeg_probability=0.5,
        second=_NO_SECOND,
        resize_modes=(1, 0, 0, 3),
        final_sinc_probability=0,
        final_jpeg_quality=(10, 60),
        jpeg_last_probability=0.75,
        full_chroma_probability=0.3,
        shifted=True,
    ),
    "film": Degradation(
        first=Stage(
            sigma=(0.4, 5.0), kernel_sizes=(7, 21), resize_weights=(0, 1, 0), resize_range=(0.25, 0.8),
            gaussian_probability=1, gaussian_sigma=(0, 6),
        ),
        first_jpeg_quality=(60, 95),
        first_jpeg_probability=0.3,
        second=_NO_SECOND,
        resize_modes=(1, 0, 0, 1),
        final_sinc_probability=0.2,
        final_jpeg_quality=(50, 95),
        jpeg_last_probability=1,
        grain_probability=1,
    ),
}  # fmt: skip
