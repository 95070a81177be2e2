"""Pictures for a page: the same place of several pictures, embedded with one setting and shown one over the other."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tddsr.errors import ImageError
from tddsr.pictures.files import read_picture
from tddsr.pictures.folders import find_files
from tddsr.pictures.metadata import Metadata
from tddsr.pictures.picture import LUMA, to_8_bit
from tddsr.pictures.pil import to_pil

QUALITIES: tuple[int | None, ...] = (None, 95, 90, 80, 65)
"""WebP settings, best first; None is lossless."""

_LARGEST = 16383
"""Side that a WebP file can hold."""

_OVERVIEW = 280
"""Longer side of a whole picture that only shows where a crop is from."""

_BASE64 = 4 / 3


@dataclass(frozen=True)
class Layer:
    """One of the pictures; a smaller one is enlarged by the browser, its pixels visible."""

    label: str
    image: Image.Image
    enlarged: bool = False


@dataclass(frozen=True)
class EmbeddedLayer:
    """A layer as a data URL."""

    label: str
    url: str
    enlarged: bool


@dataclass(frozen=True)
class View:
    """Pictures of one place, to be looked at in pairs. ``size`` is that of the largest, (width, height).

    ``overview`` is the whole picture and ``box`` the place in it: left, top, width, height as shares of its sides.
    """

    title: str
    size: tuple[int, int]
    layers: tuple[EmbeddedLayer, ...]
    encoding: str
    start: tuple[int, int] = (0, 1)
    """Which layers are shown at first, left and right."""
    overview: str | None = None
    box: tuple[float, float, float, float] = (0, 0, 1, 1)


def _webp(image: Image.Image, quality: int | None) -> bytes:
    buffer = io.BytesIO()
    profile = {"icc_profile": image.info["icc_profile"]} if image.info.get("icc_profile") else {}
    setting = {"lossless": True, "quality": 50} if quality is None else {"quality": quality}
    image.save(buffer, "WEBP", method=4, **setting, **profile)
    return buffer.getvalue()


def _url(content: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(content).decode()


def embed(title: str, layers: Sequence[Layer], allowance: float) -> View:
    """Encode ``layers`` with the best setting whose data URLs together take at most ``allowance`` bytes.

    The setting is the same for all, since another one would be a difference between them. Where the worst quality is
    too large, all are halved until they fit.
    """
    size = max((layer.image.size for layer in layers), key=lambda size: size[0] * size[1])
    factor = 1
    while True:
        shrunk = [_reduced(layer.image, factor) for layer in layers]
        pixels = sum(image.width * image.height for image in shrunk)
        fits = max(side for image in shrunk for side in image.size) <= _LARGEST
        for quality in QUALITIES if fits else ():
            if pixels * _BASE64 * (0.5 if quality is None else 0.01) > allowance:
                continue  # photographs never get that small
            contents = [_webp(image, quality) for image in shrunk]
            if sum(map(len, contents)) * _BASE64 <= allowance:
                kind = "lossless" if quality is None else f"quality {quality}"
                how = f"WebP, {kind}" + (f", reduced to 1/{factor}" if factor > 1 else "")
                embedded = (
                    EmbeddedLayer(layer.label, _url(content), layer.enlarged)
                    for layer, content in zip(layers, contents, strict=True)
                )
                return View(title, size, tuple(embedded), how)
        factor *= 2
        if factor > max(size):
            raise ImageError(f"{title}: its pictures do not fit into {allowance / 1e6:.2g} MB; raise --budget")


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    if factor == 1 or min(image.size) < factor:
        return image
    return image.resize((image.width // factor, image.height // factor), Image.Resampling.BOX)


def embed_place(
    title: str, layers: Sequence[Layer], whole: Image.Image, box: tuple[int, int, int, int], allowance: float
) -> View:
    """As ``embed``, with the whole picture, small, and where in it (left, top, right, bottom) the layers are from."""
    small = whole.copy()
    small.thumbnail((_OVERVIEW, _OVERVIEW), Image.Resampling.BOX)
    overview = _url(_webp(small, 80))
    left, top, right, bottom = box
    width, height = whole.size
    shares = (left / width, top / height, (right - left) / width, (bottom - top) / height)
    return replace(embed(title, layers, allowance - len(overview)), overview=overview, box=shares)


# Where methods differ most


BLOCK = 4
"""Windows lie on this grid of hr pixels, so that the same place of the lr picture is whole pixels."""


def differing_window(stack: Sequence[NDArray[np.uint8]], side: int) -> tuple[float, tuple[int, int, int, int]]:
    """The square of ``side`` pixels (a multiple of ``BLOCK``) in which pictures (H,W,3) of one size differ most.

    The difference is the mean over the window of the brightest less the darkest of the pictures at each pixel (BT.601
    luma, 0 to 255).

    Returns:
        The difference and (left, top, right, bottom); the whole picture where it is smaller than the window.
    """
    luma = [picture.astype(np.float32) @ np.array(LUMA, np.float32) for picture in stack]
    difference = np.maximum.reduce(luma) - np.minimum.reduce(luma)
    rows, columns = difference.shape[0] // BLOCK, difference.shape[1] // BLOCK
    blocks = difference[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK).mean(axis=(1, 3))
    height, width = min(rows, side // BLOCK), min(columns, side // BLOCK)
    if height == 0 or width == 0:
        return float(difference.mean()), (0, 0, difference.shape[1], difference.shape[0])
    # Sums over every window at once, from the sums over every rectangle that starts at the corner.
    total = np.pad(blocks.astype(np.float64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = (int(i) for i in np.unravel_index(int(sums.argmax()), sums.shape))
    box = (left * BLOCK, top * BLOCK, (left + width) * BLOCK, (top + height) * BLOCK)
    return float(sums.max() / (height * width)), box


# A user's own pictures


def layers_of_files(paths: Sequence[Path], names: Sequence[str]) -> list[Layer]:
    """Read pictures of one scene; smaller ones have to be a whole fraction of the largest.

    Raises:
        ImageError: a picture cannot be read, or the sizes do not fit.
    """
    pictures = [read_picture(path) for path in paths]
    width, height = max((picture.size for picture in pictures), key=lambda size: size[0] * size[1])
    layers = []
    for path, name, picture in zip(paths, names, pictures, strict=True):
        w, h = picture.size
        if width % w or height % h or width // w != height // h:
            raise ImageError(
                f"{path} is {w}x{h}, no whole fraction of {width}x{height}, the largest one: crop or resize it"
            )
        alpha = None if picture.alpha is None else to_8_bit(picture.alpha)
        profile = Metadata(icc=picture.metadata.icc).fitting(grey=False)
        shown = replace(picture, rgb=picture.rgb_8_bit, alpha=alpha, grey=False, metadata=profile)
        layers.append(Layer(name, to_pil(shown), w < width))
    return layers


def scenes(inputs: Sequence[Path]) -> dict[str, list[Path]]:
    """The scenes of ``inputs``: one if these are files; if they are folders, every name that all of them have.

    Raises:
        ImageError: files and folders mixed, or no name is in all folders.
    """
    if not any(path.is_dir() for path in inputs):
        return {inputs[-1].stem: list(inputs)}
    for path in inputs:
        if not path.is_dir():
            raise ImageError(f"{path} is no folder, but {next(p for p in inputs if p.is_dir())} is: give one kind")
    found = [{p.relative_to(folder).with_suffix("").as_posix(): p for p in find_files(folder)} for folder in inputs]
    common = [name for name in found[0] if all(name in others for others in found[1:])]
    if not common:
        first = ", ".join(next(iter(names)) for names in found)
        raise ImageError(f"no picture has the same name in all of {', '.join(map(str, inputs))} (first ones: {first})")
    return {name: [names[name] for names in found] for name in common}


def labels(inputs: Sequence[Path]) -> list[str]:
    """Short labels that tell ``inputs`` apart: their names, or more of their paths where these are equal."""
    parts = [(*path.absolute().parts[:-1], path.name if path.is_dir() else path.stem) for path in inputs]
    for depth in range(1, max(map(len, parts)) + 1):
        short = ["/".join(part[-depth:]) for part in parts]
        if len(set(short)) == len(short):
            return short
    return [f"{'/'.join(part[-1:])} ({number})" for number, part in enumerate(parts, 1)]


def compare(inputs: Sequence[Path], names: Sequence[str], limit: int, budget: int) -> tuple[list[View], int]:
    """Views of the scenes of ``inputs``, at most ``limit``, in ``budget`` bytes; and how many scenes there are.

    Raises:
        ImageError: see ``scenes`` and ``layers_of_files``.
    """
    everything = scenes(inputs)
    chosen = list(everything.items())[:limit]
    views = [embed(title, layers_of_files(paths, names), budget / len(chosen)) for title, paths in chosen]
    return views, len(everything)
