"""The protocol of an evaluation in words, and the versions of all that computes."""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Collection, Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import PIL
import torch

from tddsr import __version__
from tddsr.evaluation.pictures import PictureSet
from tddsr.evaluation.results import Protocol
from tddsr.metrics.niqe import PATCH
from tddsr.metrics.table import Scores


def statement(protocol: Protocol, pictures: PictureSet, scores: Scores, rows: Sequence[Collection[str]]) -> str:
    """The protocol, in one line; ``rows`` name the metrics of each output that are defined for it."""
    paired = pictures.hr is not None
    folders = " with ".join(folder.name for folder in (pictures.hr, pictures.lr) if folder)
    parts = [
        f"{len(pictures)} {'pairs' if paired else 'lr pictures'} "
        f"({f'{folders} degraded by {pictures.degradation}' if pictures.degradation else folders})",
        f"x{protocol.scale}",
        "whole pictures" if protocol.crop is None else f"central {protocol.crop}x{protocol.crop} hr pixels",
        "8-bit outputs",
    ]
    if pixels := [name for name in ("PSNR", "SSIM", "MS-SSIM") if name in scores.loaded]:
        border = f"{protocol.border} pixels of border" if protocol.border else "no border"
        colour = "Y of BT.601 studio range" if protocol.colour == "y" else "RGB"
        parts.append(f"{border} cropped and {colour} for {' and '.join(pixels)}")
    if any(name.startswith("LPIPS") for name in scores.loaded):
        parts.append("LPIPS v0.1 (lower is better)")
    if "NIQE" in scores.loaded:
        parts.append(f"NIQE of Y in {PATCH}x{PATCH} patches (lower is better)")
    parts += [
        f"{name} not defined for {gaps} of {len(rows)} outputs (too small or too flat)"
        for name in (scores.of("reference") if paired else {}) | scores.of("none")
        if (gaps := sum(name not in row for row in rows))
    ]
    if sets := scores.of("set"):
        parts.append(f"{' and '.join(sets)} over all pictures of a seed (biased upwards where they are few)")
    tile = str(protocol.tile)
    parts += [
        f"mean over {protocol.seeds} noise seed{'s where noise changes pictures' * (protocol.seeds > 1)}",
        {"None": "no tiles", "auto": "tiles fitted to memory"}.get(tile, f"tiles of {tile} lr pixels"),
        f"{protocol.dtype} on {protocol.device}",
    ]
    return f"{', '.join(parts)}; {', '.join(f'{name} {number}' for name, number in protocol.versions.items())}"


def versions() -> dict[str, str]:
    """Of this package, and of what computes beneath it; other packages' metrics where they are in use."""
    used = {}
    for module, package in (("pyiqa", "pyiqa"), ("torch_fidelity", "torch-fidelity")):
        if module in sys.modules:
            with contextlib.suppress(PackageNotFoundError):
                used[package] = version(package)
    return {
        "tddsr": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
        **used,
    }
