"""All that is compared, behind one interface: plain enlargements, our models, other people's, finished pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tddsr.device import pick_device
from tddsr.engines.torch import TorchEngine
from tddsr.enlarge import Tile
from tddsr.errors import ImageError, MethodUnavailableError, ModelError, UsageError
from tddsr.evaluation.pictures import Pair, by_name, centre_by_blocks
from tddsr.files import file_hash, files_hash
from tddsr.networks.layers import bicubic_x4
from tddsr.pictures.files import read_picture
from tddsr.pictures.picture import Pixels
from tddsr.pictures.tensors import to_pixels, to_tensor
from tddsr.upscaler import Upscaler
from tddsr.weights.names import SHIPPED, find_model
from tddsr.weights.recognise import read_weights
from tddsr.weights.registry import MODELS

Enlarge = Callable[[Pair, int], Pixels]
"""(picture, noise seed) -> hr (4h,4w,3) uint8. Only ``finished`` looks at more of the picture than its lr."""

RESERVED = ("hr", "lr")
"""Names that no method may have: the pictures of the set are saved under them."""

_NAME = re.compile(r"\w[\w.@+() -]*")  # a folder is called so


def check_name(name: str) -> None:
    """Raise UsageError if no method can be called so."""
    if not _NAME.fullmatch(name) or name.lower() in RESERVED:
        raise UsageError(
            f"'{name}' cannot be a method's name, which begins with a letter or digit, may also have .@+()- and is "
            f"not {' or '.join(RESERVED)}"
        )


@dataclass(frozen=True)
class Method:
    """A way to enlarge; ``steps`` of the network, where it takes any.

    ``noisy``: noise changes its pictures, so it is scored with several seeds. ``digest``: of its weights or finished
    pictures, where it has any.
    """

    spec: str
    enlarge: Enlarge
    steps: int | None = None
    noisy: bool = False
    digest: str | None = None


def bicubic(pair: Pair, _seed: int = 0) -> Pixels:
    """PyTorch's bicubic enlargement (a = -0.75), which the networks start from."""
    return to_pixels(bicubic_x4(to_tensor(pair.lr)))


def _pillow(filter: Image.Resampling) -> Enlarge:
    def enlarge(pair: Pair, _seed: int) -> Pixels:
        height, width = pair.lr.shape[:2]
        return np.asarray(Image.fromarray(pair.lr).resize((4 * width, 4 * height), filter))

    return enlarge


PLAIN: dict[str, Enlarge] = {
    "nearest": _pillow(Image.Resampling.NEAREST),
    "bilinear": _pillow(Image.Resampling.BILINEAR),
    "bicubic": bicubic,
    "lanczos": _pillow(Image.Resampling.LANCZOS),
}
"""Enlargements without a network."""


def find_method(spec: str, device: torch.device | str = "auto", tile: Tile = "auto") -> tuple[str, Method]:
    """What ``spec`` names, and what to call it: NAME where ``spec`` is NAME=..., else a name made of the rest.

    Args:
        spec: ``nearest``, ``bilinear``, ``bicubic``, ``lanczos``; MODEL, MODEL@STEPS or MODEL@STEPS:stochastic, where
            MODEL is a name or a file; ``spandrel:FILE``, anything that the package spandrel reads, such as
            Real-ESRGAN and ESRGAN; NAME=FOLDER, finished pictures; NAME= any of these.
        device: where networks run.
        tile: of our models, as ``Upscaler``.

    Raises:
        UsageError: it names nothing.
        MethodUnavailableError: it lacks weights, a package, or pictures.
    """
    name, found, rest = spec.partition("=")
    if not found or Path(spec).exists():
        name, rest = "", spec
    if rest in PLAIN:
        return name or rest, Method(rest, PLAIN[rest])
    if Path(rest).is_dir() and rest not in (*SHIPPED, *MODELS):
        if not name:
            raise UsageError(f"{rest} is a folder; say how the table shall call its pictures: NAME={rest}")
        return name, finished(rest)
    if rest.startswith("spandrel:"):
        file, where = Path(rest.removeprefix("spandrel:")), pick_device(str(device))
        if not file.is_file():
            raise MethodUnavailableError(f"{rest}: there is no file {file}; put the weights there")
        return name or file.stem, Method(rest, _spandrel(file, where), digest=file_hash(file)[:16])
    return _model(rest, name, device, tile)


def find_methods(
    specs: Sequence[str], device: torch.device | str = "auto", tile: Tile = "auto"
) -> tuple[dict[str, Method], dict[str, str]]:
    """Methods by name, and those that lack something, with the reason.

    Raises:
        UsageError: a spec names nothing, or two have the same name.
    """
    found: dict[str, Method] = {}
    unavailable: dict[str, str] = {}
    for spec in specs:
        try:
            name, method = find_method(spec, device, tile)
        except MethodUnavailableError as error:
            unavailable[spec.partition("=")[0]] = str(error)
            continue
        try:
            check_name(name)
        except UsageError as error:
            raise UsageError(f"{error}; give another: NAME={method.spec}") from error
        if name in found:
            raise UsageError(
                f"two methods are called {name}; give one another name: NAME={spec.partition('=')[2] or spec}"
            )
        found[name] = method
    return found, unavailable


def _model(spec: str, name: str, device: torch.device | str, tile: Tile) -> tuple[str, Method]:
    model, _, how = spec.partition("@")
    digits, _, sampler = how.partition(":")
    if not model or (digits and not digits.isdecimal()) or sampler not in ("", "deterministic", "stochastic"):
        raise UsageError(f"'{spec}' is not MODEL, MODEL@STEPS or MODEL@STEPS:stochastic")
    try:
        engine = TorchEngine.load(model, str(device))
    except ModelError as error:
        if model in MODELS:  # known, but its files cannot be had
            raise MethodUnavailableError(str(error)) from error
        raise UsageError(f"{error}; a method may also be {', '.join(PLAIN)} or NAME=FOLDER") from error
    steps = int(digits) if digits else engine.default_steps
    engine.check_steps(steps)
    upscaler = Upscaler(engine, tile)

    def enlarge(pair: Pair, seed: int) -> Pixels:
        return upscaler(
            pair.lr, seed=seed, steps=steps, sampler="stochastic" if sampler == "stochastic" else "deterministic"
        )

    label = Path(model).stem if Path(model).is_file() else model
    return name or "-".join(filter(None, [f"{label}@{digits}" if digits else label, sampler])), Method(
        spec, enlarge, steps, noisy=engine.noisy, digest=file_hash(find_model(model))[:16]
    )


def finished(spec: str) -> Method:
    """A folder of pictures that somebody else's program made, found by the name of the set's picture.

    They are those of the whole pictures, from which the crop is taken; or already of the crop's size.

    Raises:
        MethodUnavailableError: the folder is empty.
    """
    folder = Path(spec)
    try:
        found, _ = by_name(folder)
    except ImageError as error:
        raise MethodUnavailableError(str(error)) from error

    def enlarge(pair: Pair, _seed: int) -> Pixels:
        if pair.name not in found:
            raise ImageError(f"{folder} has no picture {pair.name}")
        picture = read_picture(found[pair.name]).rgb_8_bit
        height, width = pair.lr.shape[:2]
        if picture.shape[:2] == (4 * height, 4 * width):
            return picture
        if picture.shape[:2] == (4 * pair.whole[0], 4 * pair.whole[1]):
            return centre_by_blocks(picture, 4 * max(height, width))
        raise ImageError(
            f"{found[pair.name]} is {picture.shape[1]}x{picture.shape[0]}, not four times the size of the lr picture "
            f"({4 * pair.whole[1]}x{4 * pair.whole[0]})"
        )

    return Method(spec, enlarge, digest=files_hash(found)[:16])


def _spandrel(path: Path, device: torch.device) -> Enlarge:
    try:
        spandrel: Any = import_module("spandrel")
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit this torch is a RuntimeError
        raise MethodUnavailableError(
            f"spandrel:{path} needs the package spandrel, which needs torchvision: pip install spandrel ({error})"
        ) from error
    try:
        model = spandrel.ModelLoader(device=device).load_from_state_dict(read_weights(path))
    except Exception as error:  # it raises whatever it happened upon in a file
        raise MethodUnavailableError(f"{path}: spandrel cannot read it ({' '.join(str(error).split())})") from error
    if getattr(model, "scale", None) != 4 or not isinstance(model, spandrel.ImageModelDescriptor):
        raise MethodUnavailableError(f"{path} does not enlarge four times (scale {getattr(model, 'scale', None)})")
    network = model.to(device).eval()

    @torch.inference_mode()
    def enlarge(pair: Pair, _seed: int) -> Pixels:
        return to_pixels(network(to_tensor(pair.lr).to(device)))

    return enlarge
