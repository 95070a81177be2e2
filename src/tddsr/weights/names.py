"""Models by name or file: what the package carries, what is fetched the first time, or a file of the user's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tddsr.downloads.cache import cache_folder
from tddsr.errors import ModelError, UsageError
from tddsr.weights.registry import MODELS, SUFFIXES, files_here
from tddsr.weights.strength import Weights, between

if TYPE_CHECKING:
    import torch

    from tddsr.model import Model

_SHIPPED = {
    "compact": ("the default: real photos in one pass, on a CPU too", "Apache-2.0, BSD 3-Clause"),
    "compact-small": ("much faster, softer, keeps JPEG blocks", "Apache-2.0"),
}
SHIPPED = {name: Path(__file__).with_name(f"{name}.safetensors") for name in _SHIPPED}
"""Models that the package carries, by name."""

FAITHFUL = {"compact": Path(__file__).with_name("compact-faithful.safetensors")}
"""Of shipped models, weights of the same line before its discriminator, for a strength of less than 1; by name."""

GRAPH = ".onnx"
"""What graphs are called; those of shipped models lie beside their weights, which they read from there."""


@dataclass(frozen=True)
class ListedModel:
    """A model that can be asked for by name, and where its weights are.

    ``size`` in bytes: of what is here or, where that is nothing, of what would be downloaded; None where unknown.
    """

    name: str
    where: Literal["shipped", "cached", "download"]
    size: int | None
    licence: str
    purpose: str


def list_models() -> list[ListedModel]:
    """All models with a name, those that the package carries first."""
    listed = [
        ListedModel(name, "shipped", SHIPPED[name].stat().st_size, licence, purpose)
        for name, (purpose, licence) in _SHIPPED.items()
    ]
    for name, model in MODELS.items():
        here = files_here(name)
        missing = [file.size for file in model.files if not (cache_folder() / file.name).is_file()]
        sizes = [file.stat().st_size for file in here] or missing
        size = None if None in sizes else sum(filter(None, sizes))
        licences = dict.fromkeys(file.licence.name for file in model.files)
        listed.append(ListedModel(name, "cached" if here else "download", size, ", ".join(licences), model.purpose))
    return listed


def find_model(name_or_path: str | Path) -> Path:
    """The file of a model; a published one is fetched and converted the first time.

    Raises:
        ModelError: no such model, or it cannot be had.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if name in SHIPPED:
        return SHIPPED[name]
    if name in MODELS:
        from tddsr.weights.published import have_model  # with PyTorch, like all that reads weights

        return have_model(name)
    if not path.is_file():
        known = ", ".join([*SHIPPED, *MODELS])
        raise ModelError(f"no model '{name_or_path}': neither a file nor one of the named models ({known})")
    if path.suffix == GRAPH:
        raise ModelError(f"{path} is a graph, for upscaling with the engine onnx; this needs a model file")
    if path.suffix in SUFFIXES:
        to = path.with_suffix(".safetensors")
        raise ModelError(f"{path} is not a model file of tddsr; make one of it: tddsr convert {path} -o {to}")
    return path


def find_graph(name_or_path: str | Path) -> Path | None:
    """The ONNX graph of a shipped model, or a file with one; None: a model that has none, or none at all.

    Raises:
        ModelError: no such file.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if name in SHIPPED:
        graph = SHIPPED[name].with_suffix(GRAPH)
        return graph if graph.is_file() else None  # a checkout whose weights are being changed
    if path.suffix != GRAPH:
        return None
    if not path.is_file():
        raise ModelError(f"no graph '{path}': there is no such file")
    return path


def find_weights(name_or_path: str | Path, strength: float, faithful: str | Path | None = None) -> Weights | None:
    """A model's weights, less sharp: ``between`` those of its faithful partner and its own; None at a strength of 1.

    ``faithful``: the partner, by name or file; None: the one that comes with the model.

    Raises:
        ModelError: no such models, or not of one network.
        UsageError: there is nothing of this strength.
    """
    if not 0 <= strength <= 1:
        raise UsageError(f"strength is {strength}; it must be from 0, faithful, to 1, as sharp as the model is")
    if strength == 1:
        return None
    partner = FAITHFUL.get(str(name_or_path)) if faithful is None else find_model(faithful)
    if partner is None:
        raise UsageError(
            f"strength is {strength}, but '{name_or_path}' comes with no faithful partner: "
            "name one of the same network (--faithful FILE), or leave the strength at 1"
        )
    return between(find_model(name_or_path), partner, strength)


def load_model(
    name_or_path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    weights: Weights | None = None,
) -> Model:
    """Read a model by name or from a file, ready to run; in float32, unless ``dtype`` says otherwise.

    ``weights`` are in place of its own of these names.

    Raises:
        ModelError: no such model, not one of our files, or its weights do not fit its configuration.
    """
    import torch

    from tddsr.weights.file import build

    return build(find_model(name_or_path), weights).place(device, dtype or torch.float32).frozen()


def fingerprint(name_or_path: str | Path) -> str:
    """sha256 of a model's configuration and weights, in hexadecimal; unlike its file's, the same at every saving."""
    from tddsr.weights.file import digest, read_file

    return digest(*read_file(find_model(name_or_path)))


def read_notes(name_or_path: str | Path) -> str:
    """What ``save_model`` was given as ``notes``: for a trained model, its step and scores."""
    from tddsr.weights.file import read_file

    return read_file(find_model(name_or_path))[0].get("notes", "")
